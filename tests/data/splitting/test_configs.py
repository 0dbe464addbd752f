"""The configs over published class lists make the splits that they promise, on sources with all the classes."""

from __future__ import annotations

import numpy as np
import pytest
from omegaconf import OmegaConf
from toy_source import balanced, toy_source

from ltr.configuration.overrides import compose_config
from ltr.configuration.targets import instantiate
from ltr.data.split import Split
from ltr.data.splitting.published import background_list

CUB = balanced(200, class_ids=np.arange(1, 201))
INAT17 = balanced(5089, class_ids=np.arange(5089) + 1)
TINY = balanced(200)


def split_of(node: str, source, *overrides: str) -> Split:
    config = compose_config([f"dataset={node}", *(f"dataset.{override}" for override in overrides)])
    return instantiate(OmegaConf.to_container(config.dataset.split, resolve=True), source)


def foreground_ids(split: Split) -> list[int]:
    return [int(name[1:]) + 1 for name in split.class_names[1:]]


def test_inat_bg_has_the_hundred_published_categories():
    assert foreground_ids(split_of("inat_bg", INAT17)) == background_list("inat17_100", 0)


def test_inat_bg_samples_as_many_categories_as_requested():
    assert len(foreground_ids(split_of("inat_bg", INAT17, "foreground=uniform", "n_foreground=7"))) == 7


@pytest.mark.parametrize("trial", range(10))
def test_each_trial_of_one_category_is_the_published_one(trial):
    split = split_of("inat_bg_1", INAT17, f"trial={trial}")
    assert foreground_ids(split) == background_list("inat17_1", trial)
    assert f"-inat17_1-trial{trial}-" in split.name


@pytest.mark.parametrize(
    ("config", "overrides", "num_unknown"),
    [
        ("cub_open_easy", (), 32),
        ("cub_open_hard", (), 68),
        ("cub_open_hard", ("classes=cub_hard",), 34),
        ("cub_open_hard", ("classes=cub_medium",), 34),
    ],
)
def test_the_open_configs_of_cub_have_the_published_sizes(config, overrides, num_unknown):
    split = split_of(config, CUB, *overrides)
    assert split.num_classes == 100
    assert len(set(CUB.labels[split.unknown])) == num_unknown


@pytest.mark.parametrize("config", ["mnist_open", "svhn_open", "cifar10_open"])
def test_six_of_ten_classes_are_known(config):
    source = balanced(10)
    split = split_of(config, source, "trial=4")
    assert (split.num_classes, len(set(source.labels[split.unknown]))) == (6, 4)


def test_tiny_imagenet_knows_20_classes_of_200():
    split = split_of("tiny_imagenet_open", TINY, "trial=4")
    assert (split.num_classes, len(set(TINY.labels[split.unknown]))) == (20, 180)


@pytest.mark.parametrize(("config", "source"), [("cub_retrieval", CUB), ("cars_retrieval", balanced(196))])
def test_retrieval_configs_train_on_the_first_half_of_the_classes(config, source):
    split = split_of(config, source)
    half = source.num_classes // 2
    assert split.class_names == source.class_names[:half]
    assert len(split.train) == len(split.test) == half * 7


@pytest.mark.parametrize(("config", "classes"), [("tiny_imagenet_retrieval", 200), ("cifar100_retrieval", 100)])
def test_random_retrieval_configs_train_on_half_of_the_classes(config, classes):
    split = split_of(config, balanced(classes))
    assert split.num_classes == classes // 2
    assert split.class_names != balanced(classes).class_names[: classes // 2]


def test_online_products_train_on_the_classes_of_their_training_images():
    source = toy_source(train=[2, 3, 2, 0, 0], test=[0, 0, 0, 4, 2])
    split = split_of("sop_retrieval", source)
    assert split.class_counts.tolist() == [2, 3, 2]
    assert split.test.tolist() == list(source.parts["test"])
