"""The floors of the house: imports go down, files and functions stay short."""

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "instructgpt"
FLOORS = {
    "types": 0,
    "terminal": 0,
    "seeds": 0,
    "row_shares": 0,
    "verbs": 0,
    "deferred_private": 0,
    "functional": 0,
    "algorithms": 1,
    "models": 1,
    "rewards": 2,
    "rollout": 2,
    "feedback": 2,
    "jsonargparse_private": 3,
    "yaml_files": 3,
    "data": 3,
    "modules": 3,
    "callbacks": 3,
    "evaluation": 4,
    "hygiene": 4,
    "pipeline": 4,
    "errors": 4,
    "settings": 4,
    "miniature": 5,
    "commands": 5,
    "cli": 5,
    "__main__": 5,
}
# Besides itself, what a package may import on its own floor.
BESIDE = {
    "types": {"functional"},  # a layout is part of what travels
    "callbacks": {"data", "modules"},
    "hygiene": {"evaluation"},  # judges score rows; the page is made of the parts of its report
    "pipeline": {"errors", "settings"},
    "errors": {"settings"},
    "commands": {"cli", "miniature"},
    "cli": {"commands"},
    "__main__": {"cli", "commands"},
}
TORCH_ONLY = {"types", "seeds", "functional", "algorithms"}
MAX_LINES, MAX_FUNCTION = 400, 60

FILES = sorted(PACKAGE.rglob("*.py"))
MEASURED = FILES + sorted((ROOT / "benchmarks").rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(module: str) -> str:
    """The part of the house: ``instructgpt.models.load`` is in ``models``."""
    return module.split(".")[1] if "." in module else ""


def imports(tree: ast.AST) -> Iterator[str]:
    """Every name a file imports: inside functions, for type checkers only, and by a string too.

    A string that begins with the name of the package is a module or a class of it, whatever is done
    with it: imported, started as a process, or looked up. A string that goes on with something
    computed may name all that begin like it, and ends in a dot here.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant):
            text = str(node.value)
            yield from [text] if re.fullmatch(r"instructgpt(\.\w+)+", text) else []
        elif isinstance(node, ast.JoinedStr):
            first = node.values[0]
            text = str(first.value) if isinstance(first, ast.Constant) else ""
            match = re.match(r"(instructgpt\.(\w+\.)*)\w*$", text)
            yield from [match[1]] if match else imports(node)
        else:
            yield from imports(node)


def modules_of(imported: str, known: Iterable[str]) -> set[str]:
    """The known modules that an imported name may stand for: a class stands for its module."""
    if imported.endswith("."):
        return {name for name in known if name.startswith(imported)}
    parts = imported.split(".")
    begins = [imported] + [".".join(parts[:count]) for count in range(len(parts) - 1, 1, -1)]
    return set([name for name in begins if name in known][:1])


@cache
def graph() -> dict[str, set[str]]:
    """Modules of the package and the modules of the package they import."""
    found = {module_name(path): imports(tree_of(path)) for path in FILES}
    return {
        module: {other for name in names for other in modules_of(name, found)} - {module}
        for module, names in found.items()
    }


def test_every_package_has_a_floor():
    assert {package_of(name) for name in graph()} - {""} <= set(FLOORS)


def test_what_is_imported_is_there():
    """The type checker is silent about modules that are missing: it is about those of others."""
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names]
                for name in names if isinstance(node, ast.Import) else [node.module or ""]:
                    there = name.split(".")[0] != "instructgpt" or name in graph()
                    assert there, f"{path}:{node.lineno}: there is no {name}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_go_down(path):
    own = package_of(module_name(path))
    for name in graph()[module_name(path)]:
        other = package_of(name)
        if not other or not own or other == own:
            continue
        allowed = FLOORS[other] < FLOORS[own] or other in BESIDE.get(own, set())
        assert allowed, f"{module_name(path)} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_lightning_stays_on_the_upper_floors(path):
    own = package_of(module_name(path))
    roots = {name.split(".")[0] for name in imports(tree_of(path))}
    if own and FLOORS[own] < 3:
        assert roots.isdisjoint({"lightning", "pytorch_lightning", "jsonargparse"})
    if own in TORCH_ONLY:
        assert roots <= {"torch", "instructgpt", *sys.stdlib_module_names}


def test_there_are_no_cycles():
    waiting = graph()
    while waiting:
        free = [name for name, needs in waiting.items() if not needs & set(waiting)]
        assert free, f"cycle among {sorted(waiting)}"
        for name in free:
            del waiting[name]


@pytest.mark.parametrize("path", MEASURED, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= MAX_FUNCTION, f"{node.name} has {length} lines"


def test_a_class_has_a_name_of_its_own():
    """A reader, and ``--model.help NAME``, find one thing under a name."""
    places: dict[str, list[str]] = {}
    for path in FILES:
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(module_name(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_init_files_hold_no_code():
    faces = {PACKAGE / "__init__.py", PACKAGE / "functional" / "__init__.py"}
    for path in FILES:
        if path.name == "__init__.py" and path not in faces:
            body = tree_of(path).body
            docstring = body[:1] if ast.get_docstring(ast.Module(body, [])) else []
            assert body == docstring, path


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import a.b", ["a.b"]),
        ("from a import b", ["a", "a.b"]),
        ("def f():\n    from a import b", ["a", "a.b"]),
        ("if TYPE_CHECKING:\n    import a", ["a"]),
        ("f('instructgpt.models.load')", ["instructgpt.models.load"]),
        ("A = {'x': ('instructgpt.models.load.Network', 1)}", ["instructgpt.models.load.Network"]),
        ("f(f'instructgpt.models.{name}')", ["instructgpt.models."]),
        ("f(f'instructgpt.models.{name}.py', x)", ["instructgpt.models."]),
        ("f(f'{verb} of instructgpt.models')", []),
        ("f('see instructgpt.models for more')", []),
        ("'instructgpt.models'", []),
    ],
)
def test_the_reader_of_imports(source, found):
    assert list(imports(ast.parse(source))) == found


@pytest.mark.parametrize(
    ("imported", "found"),
    [
        ("a.b.c", {"a.b.c"}),
        ("a.b.c.Class", {"a.b.c"}),
        ("a.b.", {"a.b.c", "a.b.d"}),
        ("a", {"a"}),
        ("a.json", set()),
        ("other.b", set()),
    ],
)
def test_what_an_imported_name_stands_for(imported, found):
    assert modules_of(imported, ["a", "a.b", "a.b.c", "a.b.d"]) == found
