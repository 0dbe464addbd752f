"""Keys that experiments and recipes set for configs which a command replaces."""

from __future__ import annotations

import pytest

from ltr.configuration.configs import config_names
from ltr.configuration.overrides import compose_config, explain, load_config
from ltr.configuration.targets import check_arguments
from ltr.errors import ConfigError

# another config of each group, which lacks what the usual ones have
OTHER = {
    "backbone": "digits_net",
    "head": "cosine",
    "loss": "focal_softmax",
    "optimizer": "timm",
    "sampler": "progressive",
    "scheduler": "constant",
}


def test_keys_that_an_experiment_sets_of_its_choice_are_left_out_with_another_one():
    experiment = "experiment=cifar10_lt_cb_focal"  # chooses backbone and loss, and sets keys of both
    assert compose_config([experiment]).backbone.shortcut_reduction == "average"
    assert compose_config([experiment, "backbone=resnet20"]).backbone.shortcut_reduction == "average"  # it has the key
    timm = compose_config([experiment, "backbone=timm", "backbone.name=test_resnet"])
    assert "shortcut_reduction" not in timm.backbone
    assert timm.backbone.name == "test_resnet"
    assert (timm.loss.base, timm.head.initial) == ("focal", "glorot")
    assert "base" not in compose_config([experiment, "loss=ldam"]).loss


RECIPES = ("dataset=imagenet_lt", "dataset=places_lt", "dataset=cub method=herbs", "dataset=cub_retrieval method=rkd")


@pytest.mark.parametrize("published", [*(f"experiment={name}" for name in config_names("experiment")[::4]), *RECIPES])
def test_every_choice_can_be_replaced(published):
    config = load_config([*published.split(), *(f"{group}={config}" for group, config in OTHER.items())])
    assert check_arguments(config) == []


@pytest.mark.parametrize(
    ("overrides", "kept", "lost"),
    [
        (
            ["dataset=cub_retrieval", "method=rkd", "sampler=instance"],
            "method.teacher.sampler.batches",
            "sampler.batches",
        ),
        (
            ["dataset=cub_retrieval", "method=rkd", "method.teacher.sampler=instance"],
            "sampler.batches",
            "method.teacher.sampler.batches",
        ),
        (
            ["dataset=imagenet_lt", "method=crt", "method.classifier.sampler=instance"],
            "method.classifier.epochs",
            "method.classifier.sampler.images_per_visit",
        ),
        (["experiment=cifar10_lt_mislas", "method=crt"], "method.classifier.epochs", "method.classifier.loss.head"),
    ],
)
def test_nested_choices_follow_the_same_rule(overrides, kept, lost):
    config = load_config(overrides)

    def exists(dotted: str) -> bool:
        node = config
        for part in dotted.split("."):
            if part not in node:
                return False
            node = node[part]
        return True

    assert exists(kept)
    assert not exists(lost)
    assert check_arguments(config) == []


@pytest.mark.parametrize(("student", "teacher"), [("resnet20", "timm"), ("timm", "resnet20")])
def test_a_teacher_takes_no_keys_of_the_students_network(student, teacher):
    chosen = [f"backbone={student}", f"method.teacher.backbone={teacher}"]
    config = load_config(["method=rkd_classification", *chosen])
    assert check_arguments(config) == []
    assert config["method"]["teacher"]["backbone"] == load_config([f"backbone={teacher}"])["backbone"]
    same = load_config(["method=rkd_classification", f"backbone={student}"])
    assert same["method"]["teacher"]["backbone"] == same["backbone"]
    null = load_config(["method=rkd_classification", f"backbone={student}", "method.teacher.backbone=null"])
    assert null == same


def test_a_recipe_that_an_experiment_chooses_is_meant_for_its_configs():
    config = load_config(["experiment=cifar100_lt_linear_probe", "head=features", "features=images"])
    assert check_arguments(config) == []


def test_the_name_of_a_network_belongs_to_its_library():
    own = compose_config(["backbone=torchvision"]).backbone.name
    assert compose_config(["experiment=cub_herbs_swin_l", "backbone=torchvision"]).backbone.name == own
    pretrained = compose_config(["experiment=cub_herbs_swin_l", "backbone=torchvision"]).backbone.pretrained
    assert pretrained  # both libraries have it


def test_a_recipe_sets_no_other_optimiser(capsys):
    own = compose_config(["optimizer=adamw"]).optimizer
    instead = compose_config(["dataset=places_lt", "optimizer=adamw"]).optimizer
    assert instead == own
    assert "recipe/shared/places_lt sets lr=0.1" in capsys.readouterr().err
    chosen = compose_config(["dataset=places_lt", "optimizer=adamw", "optimizer.lr=0.003"]).optimizer
    assert (chosen.lr, chosen.weight_decay) == (0.003, own.weight_decay)
    assert "note" not in capsys.readouterr().err
    assert compose_config(["dataset=places_lt", "backbone=resnet32"]).optimizer.lr == 0.1


def test_the_optimiser_of_a_data_set_has_its_recipe():
    assert compose_config(["dataset=tiny_imagenet_open"]).optimizer.weight_decay == 0.0
    assert compose_config(["dataset=tiny_imagenet_open", "optimizer=adamw"]).optimizer.weight_decay == 0.0
    # a recipe that the command chooses is for the optimiser that it chooses
    assert compose_config(["recipe/shared=linear_probe", "optimizer=adamw"]).optimizer.weight_decay == 1.0


def test_an_experiments_learning_rate_stays_and_is_named(capsys):
    config = compose_config(["experiment=cifar100_lt_proco", "optimizer=adamw"])
    assert config.optimizer.lr == 0.3
    assert "experiment/cifar100_lt_proco sets lr=0.3 for sgd, kept here" in capsys.readouterr().err


@pytest.mark.parametrize("none", ["sharpness=null", "~sharpness"])
def test_null_resets_a_choice_at_the_top_level(none):
    with_sam, without = (compose_config(["experiment=cifar10_lt_ce_drw_sam", *more]) for more in ([], [none]))
    assert with_sam.sharpness.rho == 0.5
    assert "sharpness" not in without
    assert without.loss == with_sam.loss


def test_null_is_allowed_where_nothing_is_chosen():
    assert compose_config(["sharpness=null", "experiment=null", "sweep=null"]) == compose_config([])


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("optimizer=null", "there is no optimizer 'null'; there are: adamw, sgd, timm, torch"),
        ("sharpness=none", "there is no sharpness 'none'; there are: imbsam, sam, null"),
        ("recipe/shared=null", "there is no recipe/shared 'null'"),
    ],
)
def test_null_is_refused_where_a_config_is_needed(override, reason):
    (mistake,) = explain([override], None, "train")
    assert mistake.startswith(f"{override}: {reason}")


@pytest.mark.parametrize("experiment", ["cifar100_lt_cc_sam", "cifar10_lt_mislas", "cifar100_fitnet"])
def test_what_an_experiment_says_of_its_method_is_left_out_with_another_one(experiment):
    config = load_config([f"experiment={experiment}", "method=erm"])
    assert check_arguments(config) == []
    assert config["method"] == {**load_config(["method=erm"])["method"], "name": config["method"]["name"]}
    own = load_config([f"experiment={experiment}"])
    for group in ("dataset", "backbone", "optimizer", "trainer"):
        assert config[group] == own[group]


def test_a_mistaken_choice_of_an_experiment_is_refused(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults:\n  - override /augment@method.clasifier.augment: none\n  - _self_\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match="no config of this group is chosen at augment@method"):
        load_config(["experiment=mine"], str(tmp_path))


def test_an_experiment_may_need_a_choice_of_the_command(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults:\n  - override /sampler@method.classifier.sampler: instance\n  - _self_\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(f"{text}optimizer: {{lr: 0.3}}\n")
    config = load_config(["experiment=mine", "method=crt", "loss=ldam"], str(tmp_path))
    assert config["optimizer"]["lr"] == 0.3
    assert config["method"]["classifier"]["sampler"] == load_config([])["sampler"]


def test_typing_mistakes_of_an_experiment_are_not_left_out(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults:\n  - override /backbone: resnet32\n  - _self_\nbackbone: {dept: 20}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    (mistake,) = check_arguments(load_config(["experiment=mine", "optimizer=adamw"], str(tmp_path)))
    assert mistake.startswith("backbone.dept=20")


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("sharpness.rho=0.1", "; it is a key of sharpness=imbsam, sharpness=sam"),
        ("sharpness.roh=0.1", ". Did you mean 'sharpness.rho' (of sharpness=imbsam, sharpness=sam)?"),
        ("sharpnes=sam", ". Did you mean 'sharpness'?"),
    ],
)
def test_keys_of_an_optional_group_are_known_where_none_is_chosen(override, reason):
    (mistake,) = explain([override], None, "train")
    assert mistake == f"{override}: there is no key '{override.partition('=')[0]}'{reason}"
