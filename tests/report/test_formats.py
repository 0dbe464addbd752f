"""The same table as text, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re

import pytest
from made_up_outputs import write

from ltr.report.compose import Options, as_text, compose_report
from ltr.report.read_runs import finished_runs
from ltr.report.style import SELECTED_ON_TEST


@pytest.fixture
def report(tmp_path):
    for seed, few in enumerate((0.20, 0.24)):
        write(tmp_path, "erm", seed, metrics={"few": few, "medium": None})
    write(tmp_path, "a_b|c&<d>", metrics={"few": 0.21, "medium": None, "many": 0.9})
    return compose_report(finished_runs([tmp_path]), Options(metrics=("few", "medium", "many")))


def test_text_is_aligned_and_marks_best_and_ties(report):
    lines = as_text(report, "table").splitlines()
    assert lines[1].split() == ["name", "n", "few", "medium", "many", "epochs", "cost", "images/s"]
    erm, other = lines[2], lines[3]
    assert "22.0 ± 2.8 *" in erm
    assert "21.0 =" in other
    assert "90.0 *" in other
    assert len({len(line) for line in lines[1:4]}) == 1
    assert all(line == line.rstrip() for line in lines)


def test_markdown_has_the_best_bold_and_escapes_names(report):
    text = as_text(report, "markdown")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[1].startswith("| --- | ---: |")
    assert "**22.0 ± 2.8**" in rows[2]
    assert "21.0 =" in rows[3]
    assert r"a\_b\|c\&\<d\>" in rows[3]
    assert len({line.replace(r"\|", "").count("|") for line in rows}) == 1


def test_latex_escapes_names(report):
    text = as_text(report, "latex")
    assert r"\begin{tabular}{lrrrrrrr}" in text
    assert r"a\_b\textbar{}c\&\textless{}d\textgreater{}" in text
    assert r"\textbf{22.0 $\pm$ 2.8}" in text
    assert r"\underline{21.0}" in text


@pytest.mark.parametrize("form", ["table", "markdown", "latex", "csv"])
def test_a_row_is_called_a_row(tmp_path, form):
    write(tmp_path, "erm")
    write(tmp_path, "lws", selection="best_test")
    text = as_text(compose_report(finished_runs([tmp_path]), Options()), form)
    assert SELECTED_ON_TEST in text or "best_test" in text
    assert not re.search(r"\blines?\b", text, re.IGNORECASE)


def test_csv_has_every_metric_as_fractions_and_blanks_where_there_is_nothing(report):
    rows = list(csv.DictReader(io.StringIO(as_text(report, "csv"))))
    erm = next(row for row in rows if row["row"] == "erm")
    assert float(erm["few"]) == pytest.approx(0.22)
    assert float(erm["few_sd"]) == pytest.approx(0.0282842712)
    assert (erm["medium"], erm["medium_sd"], erm["n"], erm["seeds"]) == ("", "", "2", "0 1")
    assert float(erm["nll"]) == 1.5


def test_metrics_that_are_not_fractions_are_not_shown_in_percent(tmp_path):
    write(tmp_path)
    report = compose_report(finished_runs([tmp_path]), Options(metrics=("nll", "ece")))
    heads, line = as_text(report, "table").splitlines()[1:3]
    assert heads.split()[2:6] == ["NLL", "↓", "ECE", "↓"]
    assert line.split()[2:4] == ["1.5", "10.0"]
