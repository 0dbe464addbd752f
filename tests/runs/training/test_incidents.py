"""Incidents of trainings: counted from the rows of the epochs, and held against a command's limits."""

from __future__ import annotations

import pytest

from ltr.report.limits import incidents_note
from ltr.runs.training.incidents import REPLACED, Incidents, excess_of

LIMITS = {"on_error": "skip", "max_skipped": 0.1, "max_nonfinite": 2}
ROWS = [{REPLACED: 3}, {REPLACED: "5"}, {REPLACED: "5.0"}, {"epoch": 4}, {REPLACED: ""}]


def test_rows_are_summed_and_the_worst_epoch_gives_the_share():
    incidents = Incidents.of(ROWS, 50, 1)
    assert incidents == Incidents(13, 5 / 50, 1)
    assert Incidents.read(incidents.to_dict()) == incidents


def test_a_training_without_incidents_stores_nothing_and_is_always_allowed():
    assert Incidents.of([{"epoch": 1}], 50, 0).to_dict() == {}
    assert Incidents().excess({"on_error": "raise", "max_skipped": 0, "max_nonfinite": 0}) is None


@pytest.mark.parametrize(
    ("incidents", "changes", "words"),
    [
        (Incidents(1, 0.02), {}, None),
        (Incidents(1, 0.02), {"on_error": "raise"}, "unreadable images replaced 1 time"),
        (Incidents(1, 0.02), {"max_skipped": 0.01}, "up to 2.00% of an epoch's images"),
        (Incidents(0, 0.0, 2), {}, None),
        (Incidents(0, 0.0, 3), {}, "3 optimiser steps skipped"),
    ],
)
def test_excess_says_which_limit_is_exceeded(incidents, changes, words):
    excess = incidents.excess({**LIMITS, **changes})
    assert (excess is None) if words is None else (words in excess)


def test_a_stage_answers_for_the_stages_that_it_builds_on():
    stored = {"main": Incidents(1, 0.02).to_dict(), "classifier": None}
    assert excess_of(stored, LIMITS) is None
    assert "stage 'main' was trained with" in excess_of(stored, {**LIMITS, "on_error": "raise"})


@pytest.mark.parametrize("damaged", [None, 3, [], {"main": 3}, {"main": {"replaced_images": "many"}}])
def test_unreadable_entries_count_as_none(damaged):
    assert excess_of(damaged, {**LIMITS, "on_error": "raise"}) is None


def test_a_table_names_the_incidents_of_all_stages():
    stages = [{"incidents": Incidents(4, 0.25).to_dict()}, {"incidents": Incidents(1, 0.5, 1).to_dict()}, {}]
    note = incidents_note(stages)
    assert "unreadable images replaced 5 times in training, up to 50.00% of an epoch" in note
    assert "1 optimiser step skipped" in note
    assert incidents_note([{}]) == ""
