"""The constraints: every pinned version can be installed with the oldest Python that ltr supports."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
LINES = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PINS = [Requirement(line) for line in LINES if line and not line.startswith("#")]


def oldest_python() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (bound,) = [one for one in SpecifierSet(project["requires-python"]) if one.operator == ">="]
    return f"{bound.version}.0"


def test_every_pinned_version_supports_the_oldest_python():
    too_new, checked = [], 0
    for pin in PINS:
        try:
            installed = distribution(pin.name)
        except PackageNotFoundError:  # a constraint is no requirement
            continue
        requires = installed.metadata["Requires-Python"]
        if installed.version not in pin.specifier or not requires:
            continue
        checked += 1
        if not SpecifierSet(requires).contains(oldest_python()):
            too_new.append(f"{pin}: Python {requires}")
    if not checked:
        pytest.skip("no package is installed in its pinned version")
    assert too_new == []
