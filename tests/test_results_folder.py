"""Results that the repository keeps: whole, of finished full schedules, and without paths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ltr.report.limits import limits
from ltr.results import read_result_file

RESULTS = Path(__file__).parents[1] / "results"
FILES = sorted(RESULTS.rglob("result.json"))


def test_there_are_results():
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_a_result_is_whole_and_says_how_it_was_made(file):
    result = read_result_file(file)
    assert limits(result["config"]) == ""
    provenance = json.loads((file.parent / "provenance.json").read_text())
    assert provenance["code"]["commit"]
    assert provenance["split_digest"] == result["data"]["split_digest"]
    assert file.parent.name.endswith(result["run_hash"][:8])


def test_nothing_else_lies_there_and_no_absolute_path():
    for path in RESULTS.rglob("*"):
        assert path.is_dir() or path.name in ("result.json", "provenance.json"), path
        assert path.is_dir() or '"/' not in path.read_text(), path
