"""The declarations of metrics: each once, for every table, figure and dashboard; and nowhere else."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ltr
from ltr.configuration.tables import PUBLISHED
from ltr.evaluation.background import Background
from ltr.evaluation.closed_set import ClosedSet
from ltr.evaluation.few_shot import FewShot
from ltr.evaluation.metrics import EVERYWHERE, METRICS, Metric, MetricTable
from ltr.evaluation.open_set import OpenSet
from ltr.evaluation.retrieval import Retrieval
from ltr.evaluation.scores import Scores

ROOT = Path(ltr.__file__).parent
DECLARATIONS = ROOT / "evaluation" / "metrics.py"
COUNTS = np.array([200, 50, 5])
PROTOCOLS = {
    "closed_set": lambda: ClosedSet(COUNTS),
    "background": lambda: Background(COUNTS),
    "open_set": lambda: OpenSet(COUNTS, scorer="msp"),
    "retrieval": lambda: Retrieval(recall_at=(1, 2, 1000)),
    "few_shot": lambda: FewShot(way=2, episodes=3, queries=3),
}


def measured(protocol: str) -> dict[str, float]:
    """The metrics that a protocol computes of a few random images."""
    random = torch.Generator().manual_seed(0)
    evaluate = PROTOCOLS[protocol]()
    labels = torch.arange(30) % 3 - int(protocol == "open_set")
    evaluate.update(Scores(torch.randn(30, 3, generator=random), torch.randn(30, 4, generator=random)), labels)
    return evaluate.compute().metrics


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_metric_of_a_protocol_is_declared_for_it(protocol):
    for name in measured(protocol):
        assert any(one.protocol == protocol and one.named(name) for one in METRICS.metrics), name


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_fractions_lie_between_0_and_1(protocol):
    for name, value in measured(protocol).items():
        if METRICS.find(name, protocol).is_fraction and value == value:
            assert 0 <= value <= 1, name


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_metric_that_selects_is_shown_first_or_in_every_table_and_is_better_when_higher(protocol):
    headline = METRICS.find(PROTOCOLS[protocol]().headline, protocol)
    assert set(EVERYWHERE) <= set(headline.shown)
    assert headline.better == "higher"


def test_published_metrics_are_those_of_a_protocol_and_have_a_column():
    protocols = {name: METRICS.find(name).protocol for name in PUBLISHED}
    assert protocols == {"accuracy": "closed_set", "auroc": "open_set", "map": "background", "recall_at_1": "retrieval"}
    assert all("published" in METRICS.find(name).shown for name in PUBLISHED)


def test_a_name_has_one_heading_one_unit_and_one_direction():
    declared: dict[str, tuple[str, str, str]] = {}
    for metric in METRICS.metrics:
        shown = (metric.heading, metric.unit, metric.better)
        assert declared.setdefault(metric.name, shown) == shown, metric.name


def test_two_metrics_of_a_protocol_never_share_a_heading():
    headings = [(metric.protocol, metric.heading) for metric in METRICS.metrics]
    same = {pair for pair in headings if headings.count(pair) > 1}
    assert not same


def test_what_varies_in_a_name_is_part_of_the_heading():
    assert METRICS.find("recall_at_1000", "retrieval").heading == "R@1000"
    assert METRICS.find("threshold_oracle", "open_set").heading == "threshold oracle"
    assert METRICS.find("top5", "closed_set").heading == "top-5"


def test_the_most_specific_declaration_applies():
    assert METRICS.find("recall_at_precision_90").heading == "R@P90"
    assert METRICS.find("map_at_r", "retrieval").heading == "MAP@R"


def test_columns_are_in_the_order_of_the_declarations():
    names = ["geometric_mean", "few", "nll", "accuracy"]
    assert [one.name for one in METRICS.columns("console", "closed_set", names)] == [
        "accuracy",
        "few",
        "geometric_mean",
    ]


@pytest.mark.parametrize(
    ("name", "better"), [("novelty", "higher"), ("hinge_loss", "lower"), ("error", "lower"), ("lossless", "higher")]
)
def test_a_metric_without_a_declaration_is_shown_under_its_name(name, better):
    metric = METRICS.find(name, "of_tomorrow")
    assert (metric.heading, metric.unit, metric.better) == (name.replace("_", " "), "number", better)
    assert METRICS.columns("report", "of_tomorrow", [name]) == [metric]
    assert METRICS.columns("report", "closed_set", [name, "accuracy"])[1].heading == metric.heading


def test_metrics_of_user_protocols_do_not_match_patterns_of_ltr():
    assert METRICS.find("map_km2", "of_tomorrow").heading == "map km2"
    assert METRICS.find("topology", "").heading == "topology"


def test_further_declarations_join_the_table_and_survive_a_round_trip():
    metric = Metric("cost", "of_tomorrow", "€", unit="number", better="lower", shown=("report",))
    table = METRICS.extended([metric.to_dict()])
    assert table.find("cost", "of_tomorrow") == metric
    assert table.columns("console", "of_tomorrow", ["cost"]) == []
    assert METRICS.extended([]) is METRICS
    assert not METRICS.has_protocol("of_tomorrow")
    assert table.has_protocol("of_tomorrow")


def test_declarations_need_no_torch():
    code = "import sys, ltr.evaluation.metrics; assert not {'torch', 'numpy'} & set(sys.modules), sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- nowhere else ---------------------------------------------------------------------------------------------------


def own_words(path: Path) -> list[ast.AST]:
    """The tree of a module without its docstrings."""
    tree = ast.parse(path.read_text())
    docstrings = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return [node for node in ast.walk(tree) if id(node) not in docstrings]


def test_no_other_module_writes_a_heading():
    # headings that are no plain words, and so cannot stand for anything else
    headings = {one.heading for one in METRICS.metrics if not one.varies and not one.heading.islower()}
    assert {"bACC", "AUROC", "FPR95 id+", "mAP", "R@1"} <= headings
    for path in ROOT.rglob("*.py"):
        if path != DECLARATIONS:
            written = {text for node in own_words(path) if isinstance(node, ast.Constant) for text in [node.value]}
            assert not headings & {text for text in written if isinstance(text, str)}, path


@pytest.mark.parametrize("room", ["report", "apply"])
def test_no_other_module_lists_metrics(room):
    names = {one.name for one in METRICS.metrics}
    groups = {"many", "medium", "few"}
    for path in (ROOT / room).rglob("*.py"):
        for node in own_words(path):
            if isinstance(node, ast.Dict):
                listed = {key.value for key in node.keys if isinstance(key, ast.Constant)}
            elif isinstance(node, (ast.Tuple, ast.List, ast.Set)):
                listed = {one.value for one in node.elts if isinstance(one, ast.Constant)}
            else:
                continue
            assert len((names - groups) & listed) < 3, (path, listed)


def test_no_other_module_decides_by_a_name_whether_smaller_is_better():
    for path in ROOT.rglob("*.py"):
        functions = [node.name for node in own_words(path) if isinstance(node, ast.FunctionDef)]
        actual = {"is_fraction", "is_lower_better", "is_ranked"} if path == DECLARATIONS else set()
        message = {name for name in functions if "better" in name or "fraction" in name or "percentage" in name}
        assert message <= actual | {"train_fraction", "test_fraction", "_train_fraction", "_test_fraction"}, path


def test_an_empty_table_has_default_headings():
    assert MetricTable([]).find("accuracy").heading == "accuracy"
