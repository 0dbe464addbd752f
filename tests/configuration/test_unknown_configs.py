"""The nearest configs to a name that no config has."""

from __future__ import annotations

import pytest

from ltr.configuration.configs import config_names
from ltr.configuration.unknown_configs import nearest_configs, unknown_config


@pytest.mark.parametrize(
    ("group", "name", "first"),
    [
        ("method", "cRT", "method=crt"),
        ("method", "tau-norm", "method=tau_norm"),
        ("method", "LDAM", "loss=ldam"),
        ("method", "balanced_softmax", "loss=balanced_softmax"),
        ("method", "BalancedSoftmax", "loss=balanced_softmax"),
        ("loss", "CRT", "method=crt"),
        ("sampler", "class-balanced", "sampler=class_balanced"),
        ("dataset", "CIFAR100-LT", "dataset=cifar100_lt"),
        ("experiment", "cifar10_ldam_drw", "experiment=cifar10_lt_ldam_drw"),
        ("optimizer", "adamq", "optimizer=adamw"),
        ("experiment", "cub_herb_plain", "experiment=cub_herbs_plain"),
        ("method", "splitting", "method=background_splitting"),
    ],
)
def test_the_intended_config_is_suggested_first(group, name, first):
    assert nearest_configs(group, name, config_names(group))[0] == first


def test_a_method_that_is_a_loss_and_an_experiment_names_both():
    near = nearest_configs("method", "ldam_drw", config_names("method"))
    assert "loss=ldam" in near
    assert any(choice.startswith("experiment=") and choice.endswith("ldam_drw") for choice in near)


def test_the_suggestion_precedes_the_list():
    message = unknown_config("method", "cRT", ["crt", "lws"])
    assert message == "there is no method 'cRT'. Did you mean 'crt'? There are: crt, lws"


@pytest.mark.parametrize(
    ("group", "name", "first"),
    [
        (
            "backbone",
            "resnet18",
            "'backbone=timm backbone.name=resnet18' or 'backbone=torchvision backbone.name=resnet18'",
        ),
        ("backbone", "ResNet18", "'backbone=timm backbone.name=resnet18'"),
        ("backbone", "vit_b_16", "'backbone=torchvision backbone.name=vit_b_16'"),
        ("optimizer", "rmsprop", "'optimizer=torch optimizer.name=RMSprop'"),
        ("optimizer", "lamb", "'optimizer=timm optimizer.name=lamb'"),
        ("scheduler", "tanh", "'scheduler=timm scheduler.name=tanh'"),
        ("scorer", "vim", "'evaluation.scorers=[pytorch_ood.ViM]'"),
    ],
)
def test_a_name_of_another_package_is_answered_by_the_command_that_chooses_it(group, name, first):
    assert f". Did you mean {first}" in unknown_config(group, name, config_names(group))


def test_a_name_that_no_package_knows_gets_the_nearest_config():
    assert "Did you mean 'resnet32'?" in unknown_config("backbone", "resnet_32_", config_names("backbone"))


@pytest.mark.parametrize(("name", "written"), [(None, "null"), ("", ""), ("zzzz", "zzzz"), (3, "3")])
def test_a_name_unlike_any_config_gets_only_the_list(name, written):
    assert unknown_config("method", name, ["crt"]) == f"there is no method '{written}'; there are: crt"


def test_longer_names_of_the_group_come_before_the_same_name_in_another_group():
    message = unknown_config("dataset", "imagenet", config_names("dataset"))
    assert "Did you mean 'imagenet_lt' or 'tiny_imagenet' or " in message
    assert "augment" not in message.partition("There are")[0]
