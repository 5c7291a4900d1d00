"""What stands around the code: files for GitHub, citation, hooks; and that they fit the project."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_ci_does_what_a_contributor_does_on_every_python_we_name():
    job = read(".github/workflows/ci.yml")["jobs"]["everything"]
    assert job["steps"][-1] == {"run": ".ci/run"}
    named = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c]
    assert job["strategy"]["matrix"]["python"] == named


def test_hooks_run_what_ci_runs():
    hooks = [
        hook["entry"] for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]
    ]
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    for command in ("ruff check", "ruff format --check", "mypy"):
        assert any(entry.startswith(command) for entry in hooks)
        assert any(line.startswith(command) for line in ci)


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_issue_forms_are_whole(name):
    form = read(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert form["name"]
    assert form["description"]
    for field in form["body"]:
        assert field["type"] == "textarea"
        assert field["attributes"]["label"]


def test_the_citation_is_of_this_version_and_names_the_paper():
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    for key in ("message", "title", "authors"):
        assert citation[key]
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert citation["references"][0]["url"] == "https://arxiv.org/abs/2203.02155"


def test_the_tests_that_hold_our_promises_are_there():
    rows = [
        line.strip("|").split("|")
        for line in (ROOT / "docs" / "promises.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith(("| promise |", "| ---"))
    ]
    assert len(rows) > 80
    for promise, held in rows:
        tests = re.findall(r"`([\w/.]+)::(\w+)`", held)
        measured = re.findall(r"\*measured\*: `([\w/.]+)`", held)
        assert tests or measured, promise
        assert all((ROOT / file).is_file() for file in measured), promise
        for file, name in tests:
            text = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert f"def {name}(" in text, f"{promise}: {file}::{name}"


def test_the_tests_that_hold_our_decisions_are_there():
    text = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/.]+)::(\w+)`", text)
    assert named
    for file, name in named:
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{name}"
