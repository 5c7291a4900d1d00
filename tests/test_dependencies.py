"""The ranges of dependencies: what the tests ran with lies inside, the first untested one does not.

To widen a range, install the new version, run ``python -m pytest`` (tests/test_private_members.py
first: it names what an upgrade has removed), then write the version into constraints.txt and the
next that is not tested into pyproject.toml. Private members of Lightning, jsonargparse, peft and
transformers are used, so their ranges end at the next minor version; so do those of torch and of
libraries before 1.0. Of the others a major version may break things.
"""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LISTS = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
REQUIREMENTS = [Requirement(text) for one in LISTS for text in one]
LINES = [line.partition("==") for line in (ROOT / "constraints.txt").read_text().splitlines()]
TESTED = {canonicalize_name(name): Version(pin) for name, sign, pin in LINES if sign}
BREAK_AT_MINOR = {"jsonargparse", "lightning", "peft", "torch", "transformers"}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda r: r.name)
def test_the_range_ends_after_the_version_that_is_tested(requirement):
    tested = TESTED[canonicalize_name(requirement.name)]
    lower = [s.version for s in requirement.specifier if s.operator == ">="]
    upper = [s.version for s in requirement.specifier if s.operator == "<"]
    minor = requirement.name in BREAK_AT_MINOR or tested.major == 0
    ends = f"{tested.major}.{tested.minor + 1}" if minor else f"{tested.major + 1}"
    assert upper == [ends]
    assert len(lower) == 1
    assert requirement.specifier.contains(tested)


@pytest.mark.parametrize("name", PROJECT["optional-dependencies"])
def test_an_extra_installs_something(name):
    assert PROJECT["optional-dependencies"][name]
