"""Tables at several widths of a terminal."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from made_up_runs import metrics_of, per_class_table, row

from ltr.report.blocks import table_blocks, terminal_width, wrap_lines
from ltr.report.sweep import Job, sweep_table
from ltr.report.table import plain_table

WIDTHS = [60, 80, 100, 120, 200]
HEADINGS = ["", "name", "first", "second", "third"]
ROWS = [["*", "erm", "1.0", "2.0", "3.0"], ["", "balanced_softmax", "4.0", "5.0", "6.0"]]
METRICS = {
    "closed_set": metrics_of(per_class_table(10)),
    "open_set": {
        **dict.fromkeys(("closed_set_accuracy", "auroc", "oscr", "aupr_in", "aupr_out", "fpr95_id_pos"), 0.5),
        **dict.fromkeys(("open_macro_f1_best", "open_macro_f1_validation", "threshold_validation"), 0.25),
    },
    "background": {"map": 0.5, "macro_f1": 0.25, "false_alarms_per_thousand": 12.5, "map_few": 0.1},
    "retrieval": {"recall_at_1": 0.5, "recall_at_2": 0.6, "recall_at_4": 0.7, "recall_at_8": 0.8, "nmi": 0.3},
    "few_shot": {"accuracy_5_way": 0.5, "interval_5_way": 0.01},
}


def texts(blocks) -> list[list[str]]:
    return [[line.text for line in block] for block in blocks]


def table(width: int | None) -> list[list[str]]:
    return texts(table_blocks([HEADINGS, *ROWS], [False, False, True, True, True], 2, width))


def test_without_a_width_a_table_is_one_block():
    assert table(None) == [
        [
            "   name              first  second  third",
            "*  erm                 1.0     2.0    3.0",
            "   balanced_softmax    4.0     5.0    6.0",
        ]
    ]


def test_columns_that_do_not_fit_are_moved_to_further_blocks_with_the_labels():
    assert table(35) == [
        [
            "   name              first  second",
            "*  erm                 1.0     2.0",
            "   balanced_softmax    4.0     5.0",
        ],
        ["   name              third", "*  erm                 3.0", "   balanced_softmax    6.0"],
    ]


def test_if_no_number_fits_next_to_the_labels_each_row_is_a_block():
    assert table(24) == [
        ["*, name erm", "  first   1.0", "  second  2.0", "  third   3.0"],
        ["name balanced_softmax", "  first   4.0", "  second  5.0", "  third   6.0"],
    ]


@pytest.mark.parametrize(("is_terminal", "width"), [(True, 93), (False, None)])
def test_only_a_terminal_has_a_width(monkeypatch, is_terminal, width):
    monkeypatch.setenv("COLUMNS", "93")
    monkeypatch.setattr("sys.stdout", SimpleNamespace(isatty=lambda: is_terminal))
    assert terminal_width() == width


def test_lines_have_the_index_of_their_row():
    (block,) = table_blocks([HEADINGS, *ROWS], [False, False, True, True, True], 2, None)
    assert [line.row for line in block] == [None, 0, 1]
    assert [
        [line.row for line in block] for block in table_blocks([HEADINGS, *ROWS], [False] * 2 + [True] * 3, 2, 24)
    ] == [
        [0] * 4,
        [1] * 4,
    ]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("protocol", METRICS)
def test_a_result_shows_every_number_at_every_width(protocol, width):
    rows = [
        row(METRICS[protocol], protocol=protocol, scorer=scorer, headline=scorer == "msp", selection="best_val")
        for scorer in ("msp", "pytorch_ood.EnergyBased")
    ]
    config = {"method.name": "erm", "dataset.name": "made_up", "seed": 3}
    whole = plain_table({"config": config, "rows": rows})
    narrow = plain_table({"config": config, "rows": rows}, width)
    assert max(map(len, narrow.splitlines())) <= width
    words = {word.strip(",*") for word in narrow.split()}
    assert {word.strip(",*") for word in whole.split()} <= words
    for scorer in ("msp", "pytorch_ood.EnergyBased"):
        assert scorer in narrow


@pytest.mark.parametrize("width", WIDTHS)
def test_a_sweep_fits_every_width(width):
    jobs = []
    for number, method in enumerate(("erm", "background_splitting")):
        rows = [row(METRICS["closed_set"], protocol="closed_set", headline=True)]
        result = {
            "config": {"method.name": method},
            "rows": rows,
            "group_hash": method,
            "run_hash": method,
            "stages": [],
        }
        jobs.append(Job(number, (f"method={method}", "dataset=digits_lt"), result))
    jobs.append(replace(jobs[0], number=2))
    jobs.append(Job(3, ("method=x",), None, error="one two " * 20))
    text = sweep_table(jobs, width)
    assert "count once" in " ".join(text.split())
    assert "failed: job 3" in text
    assert max(map(len, text.splitlines())) <= width


def test_notes_break_between_words():
    assert wrap_lines("one two three four five six", 20) == ["one two three four", "five six"]
    assert wrap_lines("one two", None) == ["one two"]
