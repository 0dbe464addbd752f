"""Selection of an epoch: by validation images only, and under a key that holds what decides it."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import numpy as np
import pytest

from ltr.configuration.configs import read_config
from ltr.data.source import Source
from ltr.data.split import Split
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Stage
from ltr.runs.keys import stage_key, stage_spec
from ltr.runs.stages import Stages

SETTINGS = Settings(
    **{name: {} for name in ("sampler", "loss", "augment", "head", "backbone", "optimizer", "scheduler")},
    epochs=4,
    batch_size=2,
    precision="fp32",
    selection="last",
)
EVALUATION = {**read_config("evaluation/default"), "scorers": ["msp", "max_logit"]}
SELECTING = ("dataset.val=train_fraction", "dataset.val_fraction=0.3", "trainer.selection=best_val")
SHORT = ("debug=fast", "trainer.max_epochs=3", "optimizer.lr=0.5")


def split(protocol: str) -> Split:
    labels = np.arange(2)
    fields = {"train": np.arange(4), "val": np.arange(4, 6), "test": np.arange(6, 8), "unknown": np.empty(0, np.int64)}
    counts = np.array([2, 2])
    return Split(
        **fields, label_map=labels, class_names=("a", "b"), class_counts=counts, name="s", protocols=(protocol,)
    )


def key(selection: str, protocol: str = "closed_set", **options) -> str:
    source = Source("tiny", np.zeros((8, 2, 2, 1), np.uint8), np.arange(8) % 2, ("a", "b"), {"train": range(8)})
    stage = Stage("main", "main", SETTINGS.replaced(selection=selection), ImageClassifier)
    info = DatasetInfo((1, 2, 2), (0.5,), (0.25,), ("a", "b"), (2, 2))
    execution = {"selecting": {**EVALUATION, **options}}
    return stage_key(stage_spec(stage, 0, source, split(protocol), info, {}, execution))


@pytest.mark.parametrize("selection", ["best_val", "best_test"])
@pytest.mark.parametrize(
    ("protocol", "options"),
    [
        ("closed_set", {"every_n_epochs": 2}),
        ("few_shot", {"episodes": 10}),
        ("few_shot", {"way": 2}),
        ("few_shot", {"shot": 5}),
        ("few_shot", {"queries": 5}),
    ],
)
def test_options_that_decide_the_selected_epoch_are_part_of_the_key(selection, protocol, options):
    assert key(selection, protocol, **options) != key(selection, protocol)
    assert key("last", protocol, **options) == key("last", protocol)


@pytest.mark.parametrize(
    ("protocol", "options"),
    [
        ("closed_set", {"many_above": 5, "few_below": 2, "top_k": 1, "calibration_bins": 3, "episodes": 10}),
        ("closed_set", {"scorers": ["energy"], "batch_size": 3, "views": "flip", "monitor_split": "test"}),
        ("retrieval", {"recall_at": [1, 10]}),
    ],
)
def test_options_that_do_not_enter_the_selecting_metric_leave_the_key(protocol, options):
    assert key("best_val", protocol, **options) == key("best_val", protocol)


@pytest.mark.parametrize("monitored", [None, "test"])
@pytest.mark.parametrize(
    ("selection", "has_val", "expected"),
    [
        ("best_val", True, {None: "val", "test": "val"}),
        ("best_test", True, {None: "test", "test": "test"}),
        ("last", True, {None: "val", "test": "test"}),
        ("last", False, {None: None, "test": "test"}),
    ],
)
def test_best_val_selects_by_validation_images_only(monitored, selection, has_val, expected):
    lines: list[str] = []
    one = split("closed_set")
    stages = SimpleNamespace(
        config={"evaluation": {**EVALUATION, "monitor_split": monitored}},
        plan=SimpleNamespace(split=one if has_val else SimpleNamespace(val=(), protocols=one.protocols)),
        _print_line=lines.append,
    )
    stage = SimpleNamespace(name="main", settings=SimpleNamespace(selection=selection))
    spec = Stages._validation_spec(stages, stage)
    assert (None if spec is None else spec.split) == expected[monitored]
    assert bool(lines) == (selection == "best_val" and monitored == "test")


def test_monitoring_the_test_split_leaves_the_selected_epoch(ltr_train, tmp_path):
    monitored = ltr_train(*SHORT, *SELECTING, "evaluation.monitor_split=test", outputs=tmp_path / "a")
    plain = ltr_train(*SHORT, *SELECTING, outputs=tmp_path / "b")
    assert monitored.code == plain.code == 0, monitored.err + plain.err
    assert "evaluation.monitor_split=test does not apply" in monitored.out
    assert monitored.headline == plain.headline
    with open(monitored.directory / "metrics.csv", newline="", encoding="utf-8") as file:
        columns = next(csv.reader(file))
    assert any(name.startswith("val/") for name in columns)
    assert not any(name.startswith("test/") for name in columns)
