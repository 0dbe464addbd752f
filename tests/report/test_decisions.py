"""Decisions in reports: the metrics of decisions.json with those of their run."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import pytest
from made_up_outputs import write

from ltr.report.compose import Options, as_text, compose_report
from ltr.report.html import html_report
from ltr.report.read_runs import finished_runs

METRICS = {"coverage": 0.8125, "accuracy": 0.9, "precision": 0.91, "recall": 0.75, "false_alarms_per_thousand": 12.3456}


def write_decisions(run: Path, digest: str = "ab", **changes) -> Path:
    entry = {
        "checkpoint": "final.ckpt",
        "rules": {"precision": 0.9, "coverage": 0.8},
        "class_levels": {"precision": {"<b>lynx</b>": 0.99}},
        "measured": {"test": {"decisions": METRICS, "sets": {"coverage": 0.95, "size": 1.376}}},
    }
    content = {"format": "ltr-decisions", "version": 1, "weights": {digest: {**entry, **changes}}}
    path = run / "decisions.json"
    path.write_text(json.dumps(content))
    return path


def report(outputs: Path):
    return compose_report(finished_runs([outputs]), Options())


def cells(outputs: Path) -> list[dict[str, str]]:
    (part,) = report(outputs).parts
    assert part.decisions is not None
    return [dict(zip(part.decisions.headings, (cell.text for cell in row))) for row in part.decisions.rows]


def test_each_run_with_decisions_has_a_row(tmp_path):
    for seed in (0, 1, 2):
        run = write(tmp_path, seed=seed)
        if seed:
            write_decisions(run)
    rows = cells(tmp_path)
    assert [row["seed"] for row in rows] == ["1", "2"]
    assert rows[0] == {
        "row": "erm",
        "seed": "1",
        "level": "precision 0.9 (<b>lynx</b> 0.99), coverage 0.8",
        "images": "test",
        "coverage": "81.2",
        "precision": "91.0",
        "recall": "75.0",
        "accuracy": "90.0",
        "false alarms / 1000 ↓": "12.3",
        "set coverage": "95.0",
        "set size": "1.38",
    }


def test_without_decisions_there_is_no_table(tmp_path):
    write(tmp_path)
    assert report(tmp_path).parts[0].decisions is None
    assert "ecision" not in as_text(report(tmp_path), "table")
    assert "decisions_n" not in as_text(report(tmp_path), "csv")


def test_csv_has_the_means_over_seeds(tmp_path):
    for seed, coverage in enumerate((0.5, 0.75, None)):
        run = write(tmp_path, seed=seed)
        if coverage is not None:
            write_decisions(run, measured={"test": {"decisions": {**METRICS, "coverage": coverage}}})
    (row,) = csv.DictReader(as_text(report(tmp_path), "csv").splitlines())
    assert (row["n"], row["decisions_n"], row["decisions_images"]) == ("3", "2", "test")
    assert row["decisions_level"] == "precision 0.9 (<b>lynx</b> 0.99), coverage 0.8"
    assert float(row["decisions_coverage"]) == 0.625
    assert float(row["decisions_false_alarms_per_thousand"]) == 12.3456
    assert row["sets_size"] == ""


def test_csv_does_not_average_decisions_of_different_levels(tmp_path):
    write_decisions(write(tmp_path, seed=0))
    write_decisions(write(tmp_path, seed=1), rules={"precision": 0.8}, class_levels={})
    (row,) = csv.DictReader(as_text(report(tmp_path), "csv").splitlines())
    assert row["decisions_level"].endswith(" | precision 0.8")
    assert row["decisions_coverage"] == ""


def test_columns_that_no_run_has_are_left_out(tmp_path):
    write_decisions(write(tmp_path), measured={"val": {"sets": {"coverage": 0.9, "size": 2.0}}})
    (row,) = cells(tmp_path)
    assert row["images"] == "val"
    assert "precision" not in row
    assert "false alarms / 1000 ↓" not in row


@pytest.mark.parametrize("form", ["table", "markdown", "latex"])
def test_every_text_format_has_the_table(tmp_path, form):
    write_decisions(write(tmp_path))
    text = as_text(report(tmp_path), form)
    assert "81.2" in text
    assert "12.3" in text


def test_the_html_has_the_table_and_escapes_names(tmp_path):
    write_decisions(write(tmp_path))
    html = html_report(report(tmp_path))
    assert "Decisions</h3>" in html
    assert "81.2" in html
    assert "<b>lynx" not in html


def test_decisions_of_other_weights_are_skipped_and_named(tmp_path):
    run = write(tmp_path)
    weights = run / "checkpoints" / "final.ckpt"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    write_decisions(run, hashlib.sha256(b"weights").hexdigest())
    assert len(cells(tmp_path)) == 1
    weights.write_bytes(b"other weights")
    made = report(tmp_path)
    assert made.parts[0].decisions is None
    assert any("was made for other weights" in warning for warning in made.warnings)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"format": "ltr-decisions", "version": 9, "weights": {}}',
        '{"format": "ltr-decisions", "version": 1, "weights": {"a": 1}}',
        '{"format": "ltr-decisions", "version": 1, "weights": {"a": {"measured": 3}}}',
    ],
)
def test_a_damaged_file_is_named_and_the_report_is_made(tmp_path, content):
    (write(tmp_path) / "decisions.json").write_text(content)
    made = report(tmp_path)
    assert made.parts[0].decisions is None
    assert any("decisions.json" in warning for warning in made.warnings)
    assert not made.uncompared
