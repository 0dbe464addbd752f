"""Lengths that are written as a fraction of a run."""

from __future__ import annotations

import copy

import pytest

from ltr.configuration.run_lengths import resolve_run_lengths, shortened_lengths
from ltr.optim.schedules import MultiStep


def plain(warmup: object, epochs: object, **nested: object) -> dict:
    return {"trainer": {"max_epochs": epochs}, "scheduler": {"warmup_epochs": warmup}, **nested}


@pytest.mark.parametrize(
    ("written", "epochs", "resolved"),
    [
        ("5/200", 200, 5),
        ("5/200", 400, 5),
        ("5/200", 100, 5),
        ("5/200", 30, 3),
        ("5/200", 25, 2.5),
        ("5/200", 1, 0.1),
        ("2.1333/50", 50, 2.1333),
        (" 1 / 90 ", 45, 1),
        ("1/90", 5, 0.5),
        ("30/100", 50, 15),
        (5, 3, 5),
        (0.5, 3, 0.5),
    ],
)
def test_a_fraction_follows_shorter_runs_and_a_number_stays(written, epochs, resolved):
    config = plain(written, epochs)
    resolve_run_lengths(config)
    value = config["scheduler"]["warmup_epochs"]
    assert value == resolved
    assert type(value) is type(resolved)


def test_fractions_of_a_later_stage_refer_to_its_epochs():
    node = {"epochs": 10, "scheduler": {"warmup_epochs": "5/200"}}
    config = plain("5/200", 200, method={"classifier": node, "teacher": {**copy.deepcopy(node), "epochs": None}})
    resolve_run_lengths(config)
    assert config["method"]["classifier"]["scheduler"]["warmup_epochs"] == 1
    assert config["method"]["teacher"]["scheduler"]["warmup_epochs"] == 5


@pytest.mark.parametrize("written", ["5/0", "a/b", "1/2/3", "-5/200", "5/200 epochs"])
def test_other_text_is_left_to_the_value_check(written):
    config = plain(written, 10)
    resolve_run_lengths(config)
    assert config["scheduler"]["warmup_epochs"] == written


@pytest.mark.parametrize("epochs", ["many", None, 0, True])
def test_without_a_run_length_the_published_epochs_are_used(epochs):
    config = plain("5/200", epochs)
    resolve_run_lengths(config)
    assert config["scheduler"]["warmup_epochs"] == 5


def test_only_shortened_lengths_are_reported():
    for epochs, lines in ((200, 0), (300, 0), (10, 1)):
        raw = plain("5/200", epochs)
        resolved = copy.deepcopy(raw)
        resolve_run_lengths(resolved)
        assert len(shortened_lengths(raw, resolved)) == lines
    assert shortened_lengths(raw, resolved) == [
        "scheduler.warmup_epochs=1: of this run's 10 epochs; 5 of 200 are published. "
        "scheduler.warmup_epochs=5 keeps the length"
    ]


@pytest.mark.parametrize(
    ("epochs", "warmup"), [(200, "epoch"), (30, "epoch"), (20, "epoch"), (19, "step"), (5, "step")]
)
def test_a_short_warmup_by_whole_epochs_still_begins_below_the_full_rate(epochs, warmup):
    raw = plain("5/200", epochs)
    raw["scheduler"]["warmup"] = "epoch"
    config = copy.deepcopy(raw)
    resolve_run_lengths(config)
    assert config["scheduler"]["warmup"] == warmup
    schedule = MultiStep(epochs, 100, **config["scheduler"], milestones=[0.8])
    assert schedule(0) < 1
    assert all(schedule(step) <= schedule(step + 1) for step in range(epochs * 50))
    assert ("(at every step)" in "".join(shortened_lengths(raw, config))) == (warmup == "step")


def test_an_explicit_length_keeps_its_form():
    config = plain(1, 5)
    config["scheduler"]["warmup"] = "epoch"
    resolve_run_lengths(config)
    assert config["scheduler"] == {"warmup_epochs": 1, "warmup": "epoch"}
