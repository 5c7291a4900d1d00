"""What ``from instructgpt import …`` gives: all that is public, and nothing not asked for."""

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import instructgpt
import instructgpt.functional

PACKAGE = Path(instructgpt.__file__).parent
HEAVY = ("torch", "lightning", "transformers", "datasets", "matplotlib", "peft")


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after some code."""
    script = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def of_algorithms() -> dict[str, type]:
    """Concrete algorithms that the package ships, by name."""
    from instructgpt.algorithms import base, preference

    contracts = {**vars(base), **vars(preference)}
    bases = [value for name, value in contracts.items() if name.endswith("Algorithm")]
    found = {}
    for file in (PACKAGE / "algorithms").glob("*.py"):
        for name, value in vars(import_module(f"instructgpt.algorithms.{file.stem}")).items():
            ours = inspect.isclass(value) and issubclass(value, tuple(bases))
            if ours and not inspect.isabstract(value):
                found[name] = value
    return found


def test_the_package_loads_nothing_by_itself():
    before, after = loaded_after(""), loaded_after("import instructgpt")
    ours = {name for name in after - before if name.startswith("instructgpt")}
    assert ours == {"instructgpt"}
    assert after.isdisjoint(HEAVY)


def test_listing_the_names_loads_nothing():
    after = loaded_after("import instructgpt; dir(instructgpt); instructgpt.__all__")
    assert after.isdisjoint(HEAVY)


def test_a_name_loads_what_it_needs_and_no_more():
    after = loaded_after("from instructgpt import PPO; import instructgpt; instructgpt.functional")
    assert {"instructgpt.algorithms.ppo", "torch"} <= after
    assert after.isdisjoint({"lightning", "transformers", "instructgpt.modules.ppo"})


@pytest.mark.parametrize("name", instructgpt.__all__)
def test_a_public_name_is_there_and_says_what_it_is(name):
    value = getattr(instructgpt, name)
    assert inspect.getdoc(value)
    assert name in dir(instructgpt)
    if inspect.isclass(value):
        assert value.__name__ == name


def test_type_checkers_see_the_same_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    typed = {
        alias.asname: f"{line.module}.{alias.name}" for line in block.body for alias in line.names
    }
    places = {name: f"instructgpt.{home}.{name}" for name, home in instructgpt._HOMES.items()}
    listed = {name: place for name, place in places.items() if name not in of_algorithms()}
    assert typed == listed | {"functional": "instructgpt.functional"}
    assert set(instructgpt.__all__) == set(typed) | set(of_algorithms())


def test_a_public_class_is_of_the_module_that_the_table_names():
    for name, home in instructgpt._HOMES.items():
        assert getattr(instructgpt, name).__module__ == f"instructgpt.{home}", name


def test_every_shipped_algorithm_is_found_without_a_line_here():
    algorithms = of_algorithms()
    assert {"PPO", "KWise", "DPO"} <= set(algorithms)
    for name, value in algorithms.items():
        assert getattr(instructgpt, name) is value
        assert name in instructgpt.__all__
        assert name not in " ".join(instructgpt._NAMES.values()).split()


@pytest.mark.parametrize("name", ["PPOModul", "ppo", "base", "_hidden"])
def test_an_unknown_name_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match=f"'instructgpt' has no attribute '{name}'"):
        getattr(instructgpt, name)


def test_functional_lists_documented_functions_of_its_own():
    functional = instructgpt.functional
    assert {"policy_loss", "gae", "kwise_loss", "shaped_rewards"} <= set(functional.__all__)
    for name in functional.__all__:
        value = getattr(functional, name)
        if inspect.isfunction(value):
            assert inspect.getdoc(value), name
            assert value.__module__.startswith("instructgpt.functional.")
    imported = {name for name, value in vars(functional).items() if inspect.isfunction(value)}
    assert imported <= set(functional.__all__)
