"""A metrics package of which only a part is loaded at first."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec

import pytest

from ltr.quick_torchmetrics import install

FILES = {
    "__init__": "from PACKAGE.metric import Metric\nfrom PACKAGE.collections import MetricCollection\nHEAVY = 7",
    "__about__": "__version__ = '9.9'",
    "utilities": "from PACKAGE import _logger",
    "metric": "class Metric: pass",
    "collections": "class MetricCollection: pass",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that makes a package, whole or without some modules, and imports it after `install`."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    made = []

    def make(name: str, **changes: str):
        made.append(name)
        (tmp_path / name).mkdir()
        for module, text in {**FILES, **changes}.items():
            (tmp_path / name / f"{module}.py").write_text(text.replace("PACKAGE", name))
        install(name)
        return importlib.import_module(name)

    yield make
    for name in [name for name in sys.modules if name.partition(".")[0] in made]:
        del sys.modules[name]


def test_the_package_is_imported_when_more_than_lightnings_part_is_used(package):
    metrics = package("part_of_metrics")
    assert metrics.Metric is sys.modules["part_of_metrics.metric"].Metric
    assert (metrics.__version__, metrics.MetricCollection.__name__) == ("9.9", "MetricCollection")
    assert find_spec("part_of_metrics.metric") is not None
    assert not hasattr(metrics, "__wrapped__")
    assert "HEAVY" not in vars(metrics)
    before = metrics.Metric
    assert metrics.HEAVY == 7
    assert metrics.Metric is before
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = metrics.nothing_like_it


@pytest.mark.parametrize("metric", ["import no_such_module_of_metrics", "class Renamed: pass"])
def test_another_version_of_the_package_is_imported_normally(package, metric):
    whole = {"__init__": "HEAVY = 8\nMetric = 1", "metric": metric}
    metrics = package("other_metrics", **whole)
    assert (vars(metrics)["HEAVY"], metrics.Metric) == (8, 1)
    assert "other_metrics.utilities" not in sys.modules


def test_an_imported_package_is_unchanged(package):
    metrics = package("early_metrics")
    _ = metrics.HEAVY
    finders = list(sys.meta_path)
    install("early_metrics")
    assert sys.meta_path == finders
