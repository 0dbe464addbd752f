"""Rows of the CIFAR-LT tables against the recipes of the code that their published numbers are from."""

from __future__ import annotations

import numpy as np
import pytest

from ltr.configuration.check import check_config
from ltr.configuration.overrides import compose_config
from ltr.configuration.targets import instantiate

STEPS = 85  # of an epoch of CIFAR-100-LT
LDAM_ROWS = ("erm", "crt", "ncm", "ldam", "ldam_drw", "ce_drw", "cb_rw", "balanced_softmax", "m2m", "ldam_drw_sla_sd")
rows = pytest.mark.parametrize("row", LDAM_ROWS)
data_sets = pytest.mark.parametrize("data", ["cifar10_lt", "cifar100_lt"])


def recipe(experiment: str) -> dict:
    return check_config(compose_config([f"experiment={experiment}", "trainer.accelerator=cpu"]))


def rates(config: dict) -> np.ndarray:
    """The learning rates of all steps, [epochs, STEPS]."""
    epochs = config["trainer"]["max_epochs"]
    schedule = instantiate(config["scheduler"], epochs, STEPS)
    steps = [config["optimizer"]["lr"] * schedule(step) for step in range(epochs * STEPS)]
    return np.array(steps).reshape(epochs, STEPS)


def ldam_rate(epoch: int) -> float:
    """LDAM-DRW's learning rate of an epoch, counted from 1."""
    if epoch <= 5:
        return 0.1 * epoch / 5
    return 0.1 if epoch <= 160 else 0.001 if epoch <= 180 else 0.00001


def class_balanced_rate(step: int) -> float:
    """The class-balanced loss's learning rate of a step, counted from 0."""
    epoch = step / STEPS
    if epoch < 5:
        return 0.1 * epoch / 5
    return 0.1 if epoch < 160 else 0.001 if epoch < 180 else 0.00001


@data_sets
@rows
def test_rows_have_the_schedule_optimiser_and_data_of_ldam_drw(data, row):
    config = recipe(f"{data}_{row}")
    expected = np.repeat([[ldam_rate(epoch)] for epoch in range(1, 201)], STEPS, axis=1)
    np.testing.assert_allclose(rates(config), expected, rtol=1e-12)
    optimizer, dataset = config["optimizer"], config["dataset"]
    assert (optimizer["momentum"], optimizer["nesterov"], optimizer["weight_decay"]) == (0.9, False, 2e-4)
    assert optimizer["decay_norm_and_bias"]
    assert config["batch_size"] == 128
    augment = {key: value for key, value in config["augment"].items() if key != "_target_"}
    assert augment == {"pad": 4, "flip": True}  # options at their defaults are left out
    assert (dataset["mean"], dataset["std"]) == ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])
    assert (dataset["imbalance_factor"], dataset["subset"], dataset["val"]) == (100, "cao", "none")
    assert config["trainer"]["selection"] == "last"


@data_sets
@pytest.mark.parametrize(("row", "first"), [("ldam_drw", 160), ("ce_drw", 160), ("cb_rw", 0), ("ldam_drw_sla_sd", 160)])
def test_weights_are_those_of_ldam_drw_from_its_epoch_on(data, row, first):
    counts = [500, 60, 5]
    loss = instantiate(recipe(f"{data}_{row}")["loss"], counts)
    active = []
    for epoch in range(200):
        loss.start_epoch(epoch, 200)
        active.append(loss.active)
    assert active == [epoch >= first for epoch in range(200)]
    inverse = (1 - 0.9999) / (1 - 0.9999 ** np.array(counts))
    np.testing.assert_allclose(loss.weights, inverse / inverse.sum() * 3, rtol=1e-5)
    assert loss.reduction == "weight_sum"


@data_sets
def test_class_balanced_focal_has_the_recipe_of_its_papers_code(data):
    config = recipe(f"{data}_cb_focal")
    expected = np.array([class_balanced_rate(step) for step in range(200 * STEPS)])
    np.testing.assert_allclose(rates(config).ravel(), expected, rtol=1e-12)
    pixels = np.arange(256)[:, None]
    normalised = (pixels / 255 - config["dataset"]["mean"]) / config["dataset"]["std"]
    np.testing.assert_allclose(normalised, np.repeat(pixels / 128 - 1, 3, axis=1), atol=1e-12)
    loss = config["loss"]
    beta = {"cifar10_lt": 0.9999, "cifar100_lt": 0.9}[data]
    assert (loss["base"], loss["beta"], loss["gamma"], loss["reduction"]) == ("focal", beta, 1.0, "batch")
    assert (config["backbone"]["shortcut_reduction"], config["backbone"]["initial"]) == ("average", "glorot")
    assert config["head"]["initial"] == "glorot"


@data_sets
@pytest.mark.parametrize("row", ["m2m", "m2m_ldam"])
def test_m2m_has_the_options_of_its_released_script(data, row):
    config = recipe(f"{data}_{row}")
    method = {key: config["method"][key] for key in ("beta", "lam", "gamma", "steps", "step_size", "noise")}
    assert method == {"beta": 0.999, "lam": 0.5, "gamma": 0.9, "steps": 10, "step_size": 0.1, "noise": "official"}
    assert (config["sampler"]["draw"], config["sampler"]["defer_from"]) == ("iid", 0.8)
