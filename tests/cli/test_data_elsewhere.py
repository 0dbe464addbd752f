"""Evaluation of a run whose data have moved."""

from __future__ import annotations

import pytest

from ltr.configuration.reuse import with_overrides
from ltr.errors import ConfigError


@pytest.fixture
def config() -> dict:
    """A CIFAR run's configuration, as far as evaluation reads it, trained where /gone held the data."""
    return {
        "seed": 0,
        "dataset": {
            "name": "cifar10_lt",
            "imbalance_factor": 100,
            "source": {"_target_": "ltr.data.sources.cifar.cifar10", "root": "/gone", "download": False},
            "split": {"_target_": "ltr.data.splitting.closed_set.long_tail", "imbalance_factor": 100},
        },
        "paths": {"data": "/gone", "outputs": "outputs", "stages": "outputs/stages"},
    }


def test_paths_data_sets_the_root_of_a_source(config, monkeypatch):
    monkeypatch.delenv("LTR_DATA", raising=False)
    assert with_overrides(config, ["paths.data=/here"])["dataset"]["source"]["root"] == "/here"
    assert config["dataset"]["source"]["root"] == "/gone"


def test_the_environment_locates_data_that_have_moved(config, tmp_path, monkeypatch):
    monkeypatch.setenv("LTR_DATA", "/here")
    assert with_overrides(config, [])["dataset"]["source"]["root"] == "/here"
    config["dataset"]["source"]["root"] = str(tmp_path)
    assert with_overrides(config, [])["dataset"]["source"]["root"] == str(tmp_path)


def test_a_value_of_the_data_set_is_passed_on_to_its_split(config):
    dataset = with_overrides(config, ["dataset.imbalance_factor=50"])["dataset"]
    assert dataset["imbalance_factor"] == dataset["split"]["imbalance_factor"] == 50


def test_overrides_of_a_user_data_set_reach_its_code(config):
    config["dataset"] |= {"name": "mine"}
    for key in ("dataset.imbalance_factor", "dataset.split.imbalance_factor"):
        assert with_overrides(config, [f"{key}=50"])["dataset"]["split"]["imbalance_factor"] == 50
    config["dataset"]["imbalance_factor"] = 10  # no longer that of the split, which does not take it from there
    with pytest.raises(ConfigError, match=r"evaluation does not depend on 'dataset.imbalance_factor'"):
        with_overrides(config, ["dataset.imbalance_factor=50"])
