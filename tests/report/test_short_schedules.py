"""The table of short schedules: cost in epochs of ERM, and differences from the baselines of nearest cost."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_outputs import composed_config, write

from ltr.report.leaderboard import leaderboard_rows, summary_markdown
from ltr.report.results_checks import COST_COLUMNS
from ltr.report.results_folder import add_run, read_results_folder
from ltr.report.short_schedules import cost_in_epochs, nearest_baseline, short_markdown

# name, epochs, accuracy, cost in epochs of ERM
RUNS = (
    ("erm", 30, 0.30, 30),
    ("erm", 60, 0.33, 60),
    ("balanced_softmax", 30, 0.34, 30),
    ("ce_drw_sam", 30, 0.36, 60),
    ("erm", 200, 0.38, 200),
)


@pytest.fixture
def rows(tmp_path: Path) -> dict:
    lines = []
    for number, (name, epochs, accuracy, cost) in enumerate(RUNS):
        config = composed_config(f"experiment=cifar100_lt_{name}", f"trainer.max_epochs={epochs}")
        metrics = {"accuracy": accuracy, "balanced_accuracy": accuracy}
        run = write(tmp_path / f"outputs{number}", "erm", metrics=metrics, config=config)
        add_run(tmp_path / "results", run)
        group = json.loads((run / "result.json").read_text())["group_hash"]
        lines.append(dict(zip(COST_COLUMNS, (group, name, epochs, cost * 2e12))))
    with (tmp_path / "results" / "costs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COST_COLUMNS)
        writer.writeheader()
        writer.writerows(lines)
    results = read_results_folder(tmp_path / "results")
    assert results.refused == ()
    return {(row.name, row.epochs): row for row in leaderboard_rows(results)}


def test_short_and_full_schedules_have_separate_tables(rows):
    every = list(rows.values())
    assert [row.is_short for row in every] == [False, True, True, True, True]
    assert "38.00" in summary_markdown(every)
    assert "38.00" not in short_markdown(every)
    assert "36.00" not in summary_markdown(every)


def test_rows_of_equal_name_and_epochs_have_their_settings_in_the_label(rows):
    row = rows["ce_drw_sam", 30]
    other = replace(row, label="ce_drw_sam sharpness.rho=0.1", value=0.35)
    alone = short_markdown(list(rows.values()))
    assert "| ce\\_drw\\_sam | 30 |" in alone
    both = short_markdown([*rows.values(), other])
    assert "| ce\\_drw\\_sam sharpness.rho=0.1 | 30 |" in both
    assert "| erm | 60 |" in both


def test_short_schedules_have_no_published_number(rows):
    assert rows["erm", 200].published is not None
    assert rows["erm", 30].published is None


def test_costs_are_in_epochs_of_erm(rows):
    short = [row for row in rows.values() if row.is_short]
    assert cost_in_epochs(rows["ce_drw_sam", 30], short) == pytest.approx(60)


def test_a_method_is_compared_with_the_baseline_of_the_nearest_cost(rows):
    short = [row for row in rows.values() if row.is_short]
    assert nearest_baseline(rows["ce_drw_sam", 30], "erm", short) is rows["erm", 60]
    assert nearest_baseline(rows["erm", 60], "erm", short) is None
    line = next(line for line in short_markdown(short).splitlines() if "sam" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:4] == ["ce\\_drw\\_sam", "30", "60.0", "36.00"]
    assert cells[7:9] == ["+3.00 (60)", "+2.00 (30)"]
