"""The faster Hydra of the tests composes what the released one composes."""

from __future__ import annotations

import omegaconf._utils
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal import defaults_list
from omegaconf import OmegaConf

import quick_hydra
from ltr.configuration.configs import conf_directory


@pytest.fixture(autouse=True)
def quick():
    """Refuse to compare the released functions with themselves."""
    assert defaults_list._create_interpolation_map is quick_hydra.map_if_needed
    if hasattr(yaml, "CSafeLoader"):
        assert omegaconf._utils.get_yaml_loader is not quick_hydra.RELEASED_LOADER


def composed_text(*overrides: str) -> str:
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_directory())):
        return OmegaConf.to_yaml(compose("train", overrides=list(overrides), return_hydra_config=True))


@pytest.mark.parametrize(
    "overrides", [(), ("experiment=cub_herbs", "seed=1e1"), ("dataset=cifar10_lt", "method=crt", "~callbacks")]
)
def test_the_same_configuration_is_composed(overrides, monkeypatch):
    quick = composed_text(*overrides)
    quick_hydra.slow_down(monkeypatch)
    assert composed_text(*overrides) == quick


@pytest.mark.parametrize("text", ["a: 1e3\nb: 2020-01-01\nc: [1., .5, on, 0o7, 1_000]\nd: {e: ~, f: '1'}", "{}", ""])
def test_values_are_parsed_as_released(text, monkeypatch):
    quick = OmegaConf.create(text)
    quick_hydra.slow_down(monkeypatch)
    assert OmegaConf.create(text) == quick


def test_a_key_that_is_written_twice_is_refused():
    with pytest.raises(yaml.constructor.ConstructorError, match="found duplicate key a"):
        OmegaConf.create("a: 1\na: 2")
