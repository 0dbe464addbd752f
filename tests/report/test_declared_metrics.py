"""Metrics of protocols that are not ltr's own: every table shows them as their result declares them."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from made_up_outputs import write
from made_up_runs import row

from ltr import results
from ltr.errors import DataError
from ltr.evaluation.metrics import Better, Metric, Unit
from ltr.report.compose import Options, as_text, compose_report
from ltr.report.published import markdown
from ltr.report.published_lines import Entry
from ltr.report.read_run import read_run
from ltr.report.read_runs import finished_runs
from ltr.report.sweep import Job, sweep_table
from ltr.report.table import plain_table

DECLARED = [
    Metric("depth", "deep", "depth (m)", unit="number", better="lower", shown=("console", "report", "published")),
    Metric("share", "deep", "found", shown=("report",)),
    Metric("hidden", "deep"),
]
VALUES = {"share": 0.5, "hidden": 0.25, "depth": 12.5}


def written(outputs, method="erm", depth=12.5, declared=DECLARED):
    folder = write(outputs, method, rows=[row({**VALUES, "depth": depth}, protocol="deep")])
    result = json.loads((folder / "result.json").read_text())
    result |= {"metric": "share", "declared_metrics": [metric.to_dict() for metric in declared]}
    (folder / "provenance.json").write_text("{}")
    (folder / "result.json").write_text(json.dumps(result))
    return read_run(folder)


def test_a_report_has_their_headings_units_and_directions(tmp_path):
    written(tmp_path, "erm", 12.5)
    written(tmp_path, "crt", 7.25)
    (part,) = compose_report(finished_runs([tmp_path]), Options()).parts
    assert part.sheet.headings[2:4] == ("depth (m) ↓", "found")
    cells = {cells[0].text: cells[2:4] for cells in part.sheet.rows}
    assert [cell.text for cell in cells["crt"]] == ["7.25", "50.0"]
    assert (cells["crt"][0].mark, cells["erm"][0].mark) == ("best", "")


def test_every_table_has_the_same_heading(tmp_path):
    run = written(tmp_path)
    report = as_text(compose_report(finished_runs([tmp_path]), Options()), "table")
    texts = [plain_table(run.result), report, sweep_table([Job(0, ("seed=0",), run.result)])]
    texts.append(markdown([Entry("config", (run,))], "command"))
    for text in texts:
        assert "depth (m) ↓" in text
        assert "12.5" in text
        assert "hidden" not in text


def test_without_declarations_all_metrics_are_shown_unscaled(tmp_path):
    written(tmp_path, declared=())
    (part,) = compose_report(finished_runs([tmp_path]), Options()).parts
    assert part.sheet.headings[2:5] == ("share", "hidden", "depth")  # the run's own metric first
    assert [cell.text for cell in part.sheet.rows[0][2:5]] == ["0.5", "0.25", "12.5"]


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        ({}, "declared_metrics is not a list"),
        ([7], r"declared_metrics\[0\] is not a mapping"),
        ([{"name": "depth"}], "lacks protocol"),
        ([{**DECLARED[0].to_dict(), "unit": "m"}], "not fraction or number"),
        ([{**DECLARED[0].to_dict(), "better": "up"}], "not higher, lower or neither"),
        ([{**DECLARED[0].to_dict(), "name": "../x"}], "not a name"),
        ([{**DECLARED[0].to_dict(), "shown": "report"}], "not a list of texts"),
    ],
)
def test_damaged_declarations_are_refused(tmp_path, declared, reason):
    path = written(tmp_path).path
    result = json.loads((path / "result.json").read_text()) | {"declared_metrics": declared}
    (path / "result.json").write_text(json.dumps(result))
    with pytest.raises(DataError, match=reason):
        read_run(path)


def test_control_characters_of_headings_are_escaped(tmp_path):
    odd = [Metric("depth", "deep", "\x1b[31mred", unit="number", shown=("console", "report"))]
    run = written(tmp_path, declared=odd)
    assert "\x1b" not in plain_table(run.result)
    assert "\x1b" not in as_text(compose_report(finished_runs([tmp_path]), Options()), "table")


@pytest.mark.parametrize(("check", "values"), [(results._is_unit, Unit), (results._is_direction, Better)])
def test_a_result_may_declare_what_a_metric_may_be(check, values):
    assert all(check(value) for value in get_args(values))
    assert all(f"{value}" in results._WORDS[check] for value in get_args(values))
    assert not check("percent")
