"""Configs read without Hydra are what Hydra composes of them: over their bases, with the recipes that they choose."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from ltr.configuration.configs import conf_directory, config_names, mappings, node_at, read_config, recipes_of
from ltr.configuration.overrides import compose_config


def test_a_node_is_found_by_the_path_that_walking_yields():
    config = {"a": {"b": [{"c": 1}, {"d": {"e": 2}}]}, "f": None}
    assert all(node_at(config, path) is node for path, node in mappings(config))
    assert node_at(config, "a.b.1.d.e") == 2
    assert [node_at(config, path) for path in ("a.x", "a.b.2", "a.b.c", "f.g", "a.b.0.c.1")] == [None] * 5


@pytest.mark.parametrize("name", ["cifar100_lt", "tiny_imagenet_open", "cub_retrieval", "inat_bg_1", "places_lt_open"])
def test_a_data_set_is_read_over_its_bases_as_hydra_composes_it(name):
    with_hydra = OmegaConf.to_container(compose_config([f"dataset={name}"]).dataset, resolve=False)
    assert {key: value for key, value in read_config(f"dataset/{name}").items() if key != "defaults"} == with_hydra


def test_the_choices_of_bases_precede_those_of_a_config():
    choices = read_config("experiment/cifar100_lt_m2m_ldam")["defaults"]
    assert [entry["override /dataset"] for entry in choices if "override /dataset" in entry] == [
        "cifar10_lt",
        "cifar100_lt",
    ]


def test_bases_are_not_listed_as_configs():
    assert "long_tail" not in config_names("dataset")
    assert (conf_directory() / "dataset" / "base" / "long_tail.yaml").is_file()


@pytest.mark.parametrize(
    ("dataset", "method", "recipes"),
    [
        ("digits_lt", "herbs", ["shared/digits", "digits_lt_herbs"]),
        ("cifar_plus_10", "erm", ["shared/open_set"]),
        ("inat18_lists", "tau_norm", ["shared/inat18", "shared/inat18_tau_norm"]),
        ("cub", "pim", ["cub_pim"]),
        ("of_a_user", "erm", []),
    ],
)
def test_recipes_belong_to_a_data_set_and_a_method(dataset, method, recipes):
    assert recipes_of(dataset, method) == tuple(f"recipe/{name}" for name in recipes)


@pytest.mark.parametrize(("dataset", "method"), [("digits_lt", "herbs"), ("cub", "pim"), ("cars_retrieval", "rkd")])
def test_recipes_give_the_epochs_that_hydra_composes(dataset, method):
    epochs = [read_config(name).get("trainer", {}).get("max_epochs") for name in recipes_of(dataset, method)]
    assert [number for number in epochs if number][-1] == compose_config(
        [f"dataset={dataset}", f"method={method}"]
    ).trainer.max_epochs


@pytest.mark.parametrize("name", ["x" * 5000, "../method/crt", "shared/../cub_herbs", "", "\0"])
def test_only_shipped_names_have_recipes(name):
    assert recipes_of(name, name) == ()
    assert recipes_of("digits_lt", name) == recipes_of("digits_lt", "erm")
