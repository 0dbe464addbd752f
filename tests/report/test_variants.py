"""The curve over a number whose values one run has evaluated."""

import math

import numpy as np
import pytest
from made_up_runs import metrics_of, per_class_table, row, write_run
from matplotlib.image import imread

from ltr.report.figures import draw
from ltr.report.read_run import read_run
from ltr.report.table import plain_table
from ltr.report.variants import curves_of, number_of, variant_curve

METRICS = metrics_of(per_class_table(10))


def rows(values, splits=("val", "test"), chosen=0.5):
    return [
        row(
            METRICS | {"balanced_accuracy": 0.5 + 0.1 * value, "few": value / 2},
            split=split,
            variant=f"tau={value:g}",
            headline=split == "test" and value == chosen,
        )
        for split in splits
        for value in values
    ]


@pytest.fixture
def run_of(tmp_path):
    def make(result_rows):
        table = per_class_table(10)
        run_dir = write_run(tmp_path, table, [], variant=result_rows[0]["variant"])
        run = read_run(run_dir)
        run.result["rows"] = result_rows
        return run

    return make


def test_values_are_sorted_with_their_metrics():
    name, curves = curves_of({"rows": rows([1, 0, 0.5])})
    assert name == "tau"
    assert list(curves) == ["val", "test"]
    np.testing.assert_allclose(curves["test"]["value"], [0, 0.5, 1])
    np.testing.assert_allclose(curves["test"]["balanced_accuracy"], [0.5, 0.55, 0.6])
    np.testing.assert_allclose(curves["test"]["few"], [0, 0.25, 0.5])


@pytest.mark.parametrize("variant", ["default", "aggregated", "tau=high"])
def test_variants_without_a_number_are_not_a_curve(variant):
    assert curves_of({"rows": [row(METRICS, variant=variant)]}) == ("", {})
    assert math.isnan(number_of(variant))


def test_the_figure_has_a_panel_for_each_split(run_of, tmp_path):
    path = tmp_path / "curve.png"
    assert variant_curve(run_of(rows([0, 0.5, 1])), path)
    wide = imread(path).shape[1]
    assert variant_curve(run_of(rows([0, 0.5, 1], splits=["test"])), path)
    assert imread(path).shape[1] < wide


@pytest.mark.parametrize("result_rows", [rows([0.5]), [row(METRICS)]])
def test_without_several_values_there_is_no_figure(run_of, tmp_path, result_rows):
    path = tmp_path / "curve.png"
    assert not variant_curve(run_of(result_rows), path)
    assert not path.exists()


def test_an_ordinary_run_gets_no_such_figure(tmp_path):
    run_dir = write_run(tmp_path, per_class_table(10), [])
    assert [path.stem for path in draw(run_dir)] == ["accuracy_by_frequency"]


def test_a_table_of_many_variants_shows_only_the_headlines():
    result_rows = rows([i / 20 for i in range(21)])
    text = plain_table({"config": {}, "rows": result_rows}).splitlines()
    assert len(text) == 5  # title, headings, val, test, caption
    assert "tau=0.5" in text[2]
    assert text[-1].endswith("20 more variants in curve.csv")
