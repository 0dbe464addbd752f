"""Axes of the plots of an HTML report: the unit of the metric, and every value inside."""

from __future__ import annotations

import math
import re

import pytest

from ltr.evaluation.metrics import Metric
from ltr.report.html_plots import curve_drawing
from ltr.report.series import Curve, Point

NUMBER, FRACTION = Metric("experts", unit="number"), Metric("few", unit="fraction")


def drawing(means, deviation=math.nan, metrics=(NUMBER,)) -> str:
    names = [metric.name for metric in metrics]
    points = [
        Point(str(index), dict.fromkeys(names, mean), dict.fromkeys(names, deviation), 1)
        for index, mean in enumerate(means)
    ]
    return curve_drawing(Curve("loss.tau", "erm", tuple(metrics), tuple(points)))


def grid(svg: str) -> list[float]:
    return [float(label.replace(",", "")) for label in re.findall(r'text-anchor="end">([^<]+)<', svg)]


def heights(svg: str) -> list[float]:
    bars = re.findall(r'<line x1="[^"]+" x2="[^"]+" y1="([^"]+)" y2="([^"]+)"', svg)
    return [float(y) for y in (*re.findall(r'cy="([^"]+)"', svg), *(y for bar in bars for y in bar))]


@pytest.mark.parametrize(
    "means", [(1.2, 2.0), (3.0, 2000.0), (-5.0, 5.0), (-0.3, -0.1), (0.0, 0.0), (7.0,), (1e-7, 3e-7), (math.nan, 2.0)]
)
@pytest.mark.parametrize("deviation", [math.nan, 0.5])
@pytest.mark.parametrize(("metric", "factor"), [(NUMBER, 1), (FRACTION, 100)])
def test_the_axis_has_the_unit_of_the_metric_and_holds_every_value(means, deviation, metric, factor):
    svg = drawing(means, deviation, [metric])
    levels, finite = grid(svg), [factor * mean for mean in means if mean == mean]
    assert 2 <= len(levels) <= 14
    assert levels[0] <= min(finite) + 1e-9
    assert max(finite) <= levels[-1]
    assert heights(svg)
    assert all(14 - 1e-6 <= y <= 300 + 1e-6 for y in heights(svg))
    assert "-0<" not in svg


def test_fractions_and_other_numbers_have_separate_axes():
    svg = drawing((0.2, 0.4), metrics=(FRACTION, NUMBER))
    fractions, numbers = (f"<svg{part}" for part in svg.split("<svg")[1:])
    assert max(grid(fractions)) >= 40
    assert max(grid(numbers)) < 1
    assert "experts" in numbers
    assert "experts" not in fractions


def test_a_sweep_without_values_has_an_empty_axis():
    assert grid(drawing((math.nan, math.nan)))
