"""The nearest configs to a name that no config has."""

from __future__ import annotations

import pytest

from ltr.configuration.configs import config_names
from ltr.configuration.overrides import explain
from ltr.configuration.unknown_configs import choice_of_path, nearest_configs, unknown_config


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
        ("backbone", "swin_large", "'backbone=timm backbone.name=swin_large_patch4_window7_224'?"),
        ("backbone", "resnext50", "'backbone=timm backbone.name=resnext50_32x4d' or 'backbone=torchvision "),
        ("backbone", "SqueezeNet", "'backbone=torchvision backbone.name=squeezenet1_0'?"),
        ("backbone", "siglip", "'backbone=timm backbone.name=vit_base_patch"),
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


def test_a_field_name_comes_before_the_same_name_in_another_group():
    assert "Did you mean 'constant'?" in unknown_config("scheduler", "none", config_names("scheduler"))


@pytest.mark.parametrize(
    ("group", "path", "instead"),
    [
        ("dataset", "data/photos", "a folder of images is given by dataset=folder dataset.root=data/photos"),
        ("dataset", "./photos", "dataset=folder dataset.root=./photos"),
        ("dataset", "../my photos", """dataset=folder "dataset.root='../my photos'\""""),
        ("dataset", "list.CSV", "a table of images is given by dataset=table dataset.file=list.CSV"),
        ("dataset", "/x/list.parquet", "dataset=table dataset.file=/x/list.parquet"),
        ("backbone", "weights.pth", "a file of weights is given by the key 'weights' of a backbone, e.g. backbone"),
        ("backbone", "/x/last.ckpt", "e.g. backbone.weights=/x/last.ckpt"),
    ],
)
def test_a_path_gets_the_key_that_takes_it(group, path, instead):
    override = f"{group}='{path}'" if " " in path else f"{group}={path}"
    (mistake,) = explain([override], None, "train")
    assert instead.lower() in mistake.lower()
    assert instead.lower() in (choice_of_path(group, path) or "").lower()


def test_the_name_of_a_folder_of_images_gets_the_key_that_takes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "birds").mkdir()
    assert choice_of_path("dataset", "birds") == "a folder of images is given by dataset=folder dataset.root=birds"
    assert choice_of_path("dataset", "beasts") is None
    assert choice_of_path("backbone", "birds") is None


@pytest.mark.parametrize(("group", "path"), [("dataset", "x/cub.yaml"), ("loss", "x/ldam"), ("backbone", "x/weights")])
def test_other_paths_get_no_key(group, path):
    assert choice_of_path(group, path) is None


@pytest.mark.parametrize(
    ("overrides", "first"),
    [
        (["dataset=folder", "dataset.imbalance_factor=8"], "dataset=folder_lt, "),
        (["dataset=table", "dataset.profile=step"], "dataset=table_lt, "),
        (["dataset=cifar10", "dataset.imbalance_factor=8"], "dataset=cifar10_lt, "),
        (["dataset=mnist", "dataset.imbalance_factor=8"], "dataset=mnist_lt, "),
    ],
)
def test_configs_of_the_same_data_come_first_among_those_with_a_key(overrides, first):
    (mistake,) = explain(overrides, None, "train")
    assert f"it is a key of {first}" in mistake
