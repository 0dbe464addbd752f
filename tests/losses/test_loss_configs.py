"""The configs of conf/loss: each builds its loss from counts, and names every argument that its class takes."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ltr.configuration.configs import read_config
from ltr.configuration.declarations import rules_of_target

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "loss").glob("*.yaml"))
LONG_TAIL_LOSSES = {
    "cross_entropy",
    "focal_softmax",
    "focal_sigmoid",
    "class_balanced",
    "ldam",
    "balanced_softmax",
    "logit_adjusted",
    "vs",
    "label_aware_smoothing",
    "seesaw",
    "equalization",
    "equalization_v2",
    "class_balanced_bce",
}


def load_config(config: Path, **nodes: dict) -> tuple[type, dict]:
    """Return the class of a config and its arguments, resolved with other config nodes."""
    loss = read_config(f"loss/{config.stem}")
    values = OmegaConf.to_container(OmegaConf.create({"loss": loss, **nodes}), resolve=True)["loss"]
    module, _, name = values.pop("_target_").rpartition(".")
    return getattr(importlib.import_module(module), name), {
        key: value for key, value in values.items() if key not in ("_allowed_", "defaults")
    }


def test_every_long_tail_loss_has_a_config():
    assert {config.stem for config in CONFIGS} >= LONG_TAIL_LOSSES


CLASSIFICATION_CONFIGS = pytest.mark.parametrize(
    "config", [config for config in CONFIGS if config.stem in LONG_TAIL_LOSSES], ids=lambda config: config.stem
)


@CLASSIFICATION_CONFIGS
def test_a_config_builds_its_loss_from_class_counts(config):
    kind, arguments = load_config(config)
    assert kind([60, 17, 5, 1], **arguments).class_counts.tolist() == [60, 17, 5, 1]


@CLASSIFICATION_CONFIGS
def test_a_config_names_every_keyword_of_its_class(config):
    kind, arguments = load_config(config)
    keywords = {
        name
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert set(arguments) == keywords


@CLASSIFICATION_CONFIGS
def test_a_config_has_a_rule_for_every_value(config):
    target = read_config(f"loss/{config.stem}")["_target_"]
    assert set(rules_of_target(target)) == set(load_config(config)[1])


def test_class_balanced_uses_the_beta_of_the_data_set():
    config = next(config for config in CONFIGS if config.stem == "class_balanced")
    assert load_config(config, dataset={"beta": 0.9999})[1]["beta"] == 0.9999
    assert load_config(config, dataset={})[1]["beta"] == 0.999


def test_ldam_uses_the_scale_of_the_head():
    config = next(config for config in CONFIGS if config.stem == "ldam")
    assert load_config(config, head={"scale": 30.0})[1]["scale"] == 30.0
    assert load_config(config, head={"bias": True})[1]["scale"] == 1.0
