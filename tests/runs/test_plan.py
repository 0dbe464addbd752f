"""From configuration to plan: facts, parents, and the warnings of double balancing and short schedules."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from ltr.data.source import Source
from ltr.data.split import Split
from ltr.errors import ConfigError
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Stage
from ltr.runs.plan import LastSource, describe_dataset, plan_keys
from ltr.runs.training.doubts import warn_of_double_balancing, warn_of_short_schedule

NONE = np.empty(0, np.int64)
SOURCE = Source("t", np.zeros((6, 2, 2, 1), np.uint8), np.array([0, 0, 0, 1, 0, 1]), ("a", "b"), {"train": range(6)})
SPLIT = Split("s", np.arange(4), NONE, np.arange(4, 6), NONE, np.arange(2), ("a", "b"), np.array([3, 1]))
DATASET_INFO = DatasetInfo((1, 2, 2), (0.5,), (0.5,), ("a", "b"), (3, 1))


def settings(sampler: dict, loss: dict) -> Settings:
    configs: dict = {"augment": {}, "head": {}, "backbone": {}, "optimizer": {}, "scheduler": {}}
    sampler = {"_target_": f"ltr.data.sampling.samplers.{sampler.pop('_')}", **sampler}
    loss = {"_target_": f"ltr.losses.classification.{loss.pop('_')}", **loss}
    numbers = {"epochs": 10, "batch_size": 2, "precision": "fp32", "selection": "last"}
    return Settings(sampler=sampler, loss=loss, **configs, **numbers)


@pytest.mark.parametrize(
    "loss", [{"_": "BalancedSoftmax"}, {"_": "LDAM", "beta": 0.99, "scale": 30.0}, {"_": "LogitAdjusted", "tau": 1.0}]
)
@pytest.mark.parametrize(
    "sampler", [{"_": "ClassBalanced"}, {"_": "SquareRoot"}, {"_": "ClassBalanced", "defer_from": 0.8}]
)
def test_a_prior_adjusting_loss_on_a_balancing_sampler_warns(loss, sampler):
    with pytest.warns(UserWarning, match="over-correct"):
        warn_of_double_balancing(settings(dict(sampler), dict(loss)), DATASET_INFO)


@pytest.mark.parametrize(
    ("sampler", "loss"),
    [
        ({"_": "Instance"}, {"_": "BalancedSoftmax"}),
        ({"_": "ClassBalanced"}, {"_": "CrossEntropy"}),
        ({"_": "ClassBalanced"}, {"_": "LDAM", "scale": 30.0}),
        ({"_": "Power", "q": 1.0}, {"_": "BalancedSoftmax"}),
    ],
)
def test_a_prior_adjusting_loss_or_a_balancing_sampler_alone_does_not_warn(sampler, loss):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        warn_of_double_balancing(settings(sampler, loss), DATASET_INFO)
    assert warned == []


@pytest.mark.parametrize(("epochs", "short"), [(5, True), (6, False), (200, False)])
def test_a_run_too_short_for_its_warm_up_is_reported(epochs, short):
    config = {"_target_": "ltr.optim.schedules.MultiStep", "milestones": [0.8, 0.9], "warmup_epochs": 5}
    one = settings({"_": "Instance"}, {"_": "CrossEntropy"}).replaced(scheduler=config, epochs=epochs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_short_schedule(one)
    assert ["fall after epoch 4 of 5" in str(warning.message) for warning in caught] == [True] * short


def test_a_parent_stage_after_its_child_is_refused():
    one = settings({"_": "Instance"}, {"_": "CrossEntropy"})
    child = Stage("classifier", "classifier", one, ImageClassifier, parents=("representation",))
    parent = Stage("representation", "representation", one, ImageClassifier)
    with pytest.raises(ConfigError, match="'classifier' starts from 'representation'"):
        plan_keys([child, parent], 0, SOURCE, SPLIT, DATASET_INFO)
    planned = plan_keys([parent, child], 0, SOURCE, SPLIT, DATASET_INFO)
    assert planned["classifier"][1]["parents"] == {"representation": planned["representation"][0]}


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [([0.5, 0.5], [1.0], "need 1 numbers each"), ([0.5], [0.0], "above 0"), ([0.5], [-1.0], "above 0")],
)
def test_normalisation_that_does_not_fit_the_images_is_refused(mean, std, message):
    with pytest.raises(ConfigError, match=message):
        describe_dataset({"dataset": {"mean": mean, "std": std}}, SOURCE, SPLIT)


def test_dataset_info_is_restored_from_a_dictionary():
    assert DatasetInfo.from_dict(DATASET_INFO.to_dict()) == DATASET_INFO


def test_the_last_source_is_read_once_until_another_one_is_requested(monkeypatch):
    asked = []
    monkeypatch.setattr("ltr.runs.plan.instantiate", lambda config: asked.append(dict(config)) or object())
    read = LastSource()
    first = read({"_target_": "x", "root": "a"})
    assert read({"root": "a", "_target_": "x"}) is first
    assert read({"_target_": "x", "root": "b"}) is not first
    assert read({"_target_": "x", "root": "a"}) is not first
    assert [config["root"] for config in asked] == ["a", "b", "a"]
