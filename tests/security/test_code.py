"""What no line of the package does: unpickle, unpack, evaluate, or hand a text to a shell."""

import ast
from pathlib import Path

import pytest

import instructgpt

PACKAGE = Path(instructgpt.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
NEVER = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads",
    "dill.load", "dill.loads", "joblib.load", "marshal.loads", "shelve.open", "pd.read_pickle",
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.unsafe_load",
    "yaml.full_load", "shutil.unpack_archive", "tarfile.open", "dcp.FileSystemReader",
    "torch.jit.load", "torch.hub.load", "np.loadtxt", "jinja2.Template", "jinja2.Environment",
}  # fmt: skip
"""Functions that run what they read, or write where what they read says."""

ONLY_WITH = {
    "torch.load": {"weights_only": "True"},
    "np.load": {"allow_pickle": "False"},
    "yaml.load": {"Loader": "_Loader"},
    "yaml.compose": {"Loader": "yaml.SafeLoader"},
}
"""Functions that are asked not to."""


def faults(source):
    """The calls that must not be."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {one.arg: ast.unparse(one.value) for one in node.keywords}
        if name in NEVER or name.endswith((".extractall", ".extract")):
            yield name
        elif any(given.get(key) != value for key, value in ONLY_WITH.get(name, {}).items()):
            yield f"{name} without {ONLY_WITH[name]}"
        elif given.get("shell") not in (None, "False"):
            yield f"{name} by a shell"
        elif given.get("trust_remote_code") == "True":
            yield f"{name} with code of others"
        elif given.get("use_safetensors") not in (None, "True"):
            yield f"{name} without safetensors"


def test_no_line_does():
    found = {str(path): list(faults(path.read_text(encoding="utf-8"))) for path in FILES}
    assert {path: bad for path, bad in found.items() if bad} == {}


@pytest.mark.parametrize(
    "source",
    [
        "pickle.loads(x)",
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "np.load(x)",
        "yaml.load(x, Loader=yaml.Loader)",
        "zipped.extractall('.')",
        "subprocess.run(x, shell=True)",
        "eval(x)",
        "f(trust_remote_code=True)",
        "f(use_safetensors=False)",
    ],
)
def test_it_would_be_found(source):
    assert len(list(faults(source))) == 1


def test_weights_of_others_are_asked_for_as_safetensors():
    """Every model that transformers loads by itself."""
    found = 0
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            known = ("AutoConfig", "AutoTokenizer", "PreTrainedTokenizerFast", "GenerationConfig")
            if text.endswith(".from_pretrained") and not text.startswith(known):
                given = {one.arg: ast.unparse(one.value) for one in node.keywords}
                assert given.get("use_safetensors") == "True", f"{path}:{node.lineno}"
                found += 1
    assert found
