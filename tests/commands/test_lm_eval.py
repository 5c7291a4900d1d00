"""Our engine as a model of lm-eval: the same as lm-eval's own ``hf`` on the same model."""

import sys

import pytest
import yaml
from rows import write_rows
from small_chat_model import TEXTS, make_chat_model

pytest.importorskip("lm_eval")

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager

from instructgpt.commands import lm_eval as verb
from instructgpt.commands.lm_eval_model import InstructGPTModel
from instructgpt.types import UserError

QUESTIONS = [
    {
        "question": f"Is the {one} of the north, {n}?",
        "choices": ["no", f"the {one}", "yes"],
        "gold": n,
    }
    for n, one in enumerate(["fox", "river", "dog"])
]
TEXT = " ".join(TEXTS) * 6  # longer than the model's context
TASKS = {
    "toy_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}\nAnswer:",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "metric_list": [{"metric": name} for name in ("acc", "acc_norm", "acc_bytes")],
    },
    "toy_word": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{question}}",
        "doc_to_target": " {{choices[0]}}",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    },
    "toy_text": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}" + TEXT,
        "metric_list": [{"metric": "byte_perplexity"}],
    },
    "toy_write": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}\nAnswer:",
        "doc_to_target": "{{choices[0]}}",
        "generation_kwargs": {"until": ["the", "\n\n"], "max_gen_toks": 12, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_chat_model(tmp_path_factory.mktemp("model") / "chat")


@pytest.fixture(scope="module")
def evaluated(folder, tmp_path_factory):
    """What lm-eval finds: (model, whether in the chat template) -> results."""
    place = tmp_path_factory.mktemp("tasks")
    data = write_rows(place / "rows.jsonl", QUESTIONS)
    files = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": data}}}
    for name, task in TASKS.items():
        text = yaml.safe_dump({"task": name, "test_split": "test", **files, **task})
        (place / f"{name}.yaml").write_text(text)
    manager = TaskManager(include_path=str(place), include_defaults=False)
    models = {
        "ours": InstructGPTModel(folder, device="cpu", max_tokens=100),
        "hf": get_model("hf")(folder, device="cpu", dtype="float32", batch_size=1),
    }
    found = {}
    for chat in (False, True):
        tasks = [name for name in TASKS if name != "toy_text" or not chat]
        for name, model in models.items():
            found[name, chat] = simple_evaluate(
                model,
                tasks=tasks,
                task_manager=manager,
                bootstrap_iters=0,
                apply_chat_template=chat,
            )
    return found


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_every_kind_of_request_is_answered_as_by_hf(task, chat, evaluated):
    if chat and task == "toy_text":
        pytest.skip("a text is no conversation")
    ours, theirs = (evaluated[name, chat] for name in ("ours", "hf"))
    assert len(ours["samples"][task]) == len(QUESTIONS)
    for mine, other in zip(ours["samples"][task], theirs["samples"][task], strict=True):
        assert mine["arguments"] == other["arguments"]
        for (one,), (two,) in zip(mine["resps"], other["resps"], strict=True):
            if isinstance(one, tuple):
                assert one == (pytest.approx(two[0], abs=1e-3), two[1])
            else:
                assert one == (two if isinstance(one, str) else pytest.approx(two, rel=1e-5))
    numbers = [
        {name: value for name, value in some["results"][task].items() if isinstance(value, float)}
        for some in (ours, theirs)
    ]
    assert len(numbers[0]) >= len(TASKS[task]["metric_list"])
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-3)


def test_continuations_share_contexts_whatever_their_order(folder):
    """Also where one forward pass does not hold them all, and where there is no context."""
    pairs = [("The fox", " is"), ("", "dog"), ("The fox", " and the dog"), ("", "a river of 97")]
    requests = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    found = InstructGPTModel(folder, device="cpu").loglikelihood(requests)
    model = InstructGPTModel(folder, device="cpu", max_tokens=1)
    alone = [model.loglikelihood([request])[0] for request in requests]
    for one, other in zip(found, alone, strict=True):
        assert one == (pytest.approx(other[0], abs=1e-4), other[1])


def test_what_is_not_known_is_refused(folder):
    model = InstructGPTModel(folder, device="cpu")
    request = Instance("generate_until", {}, ("The fox", {"num_beams": 4, "max_gen_toks": 2}), 0)
    with pytest.raises(UserError, match="gen_kwargs must be of temperature, top_p"):
        model.generate_until([request])
    request = Instance("generate_until", {}, ("The fox", {"max_gen_toks": 256}), 0)
    with pytest.raises(UserError, match="max_gen_toks must be less than the 256 of the context"):
        model.generate_until([request])
    for name, value in (("dtype", "int8"), ("max_tokens", 0), ("slots", 0)):
        with pytest.raises(UserError, match=f"^{name} must be"):
            InstructGPTModel(folder, device="cpu", **{name: value})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--tasks", "x"], ["--tasks", "x", "--model", "instructgpt"]),
        (["run", "--model=hf"], ["run", "--model=hf"]),
        (["ls", "tasks"], ["ls", "tasks"]),
    ],
)
def test_its_own_command_line_knows_the_model(given, expected, monkeypatch):
    seen = []

    def cli():
        seen.append((sys.argv[1:], get_model("instructgpt")))

    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", cli)
    before = list(sys.argv)
    assert verb.main(given) == 0
    assert seen == [(expected, InstructGPTModel)]
    assert sys.argv == before


def test_without_the_package_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(verb, "find_spec", lambda name: None)
    assert verb.main(["--tasks", "x"]) == 2
    assert "pip install 'instructgpt[lm-eval]'" in capsys.readouterr().err
