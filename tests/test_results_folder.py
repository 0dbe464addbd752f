"""Results that the repository keeps pass the checks of a leaderboard and say how they were made."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltr.report.results_folder import read_results_folder

RESULTS = Path(__file__).parents[1] / "results"
FOLDER = read_results_folder(RESULTS)


def test_every_result_is_accepted():
    assert FOLDER.refused == ()
    assert FOLDER.accepted


@pytest.mark.parametrize("run", FOLDER.accepted, ids=lambda run: run.path.name)
def test_a_result_records_how_it_was_made(run):
    assert run.provenance["code"]["commit"]
    assert run.provenance["split_digest"] == run.result["data"]["split_digest"]


def test_no_file_holds_an_absolute_path():
    for path in RESULTS.rglob("*.json"):
        assert '"/' not in path.read_text(), path
