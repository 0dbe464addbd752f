"""Names of lines: settings that differ, and paths by their distinguishing parts."""

from __future__ import annotations

import pytest

from ltr.api import config
from ltr.configuration.configs import leaves, read_config
from ltr.report.naming import differences, shortened_paths, with_later_options


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([None, "/data/weights/resnet.pth"], [None, "resnet.pth"]),
        (["/data/a/one.pth", "weights/two.pth", "/data/a/one.pth"], ["one.pth", "two.pth", "one.pth"]),
        (
            ["/o/erm/s0/checkpoints/final.ckpt", None, "/o/erm/s1/checkpoints/final.ckpt"],
            ["s0", None, "s1"],
        ),
        (["a/final.ckpt", "final.ckpt"], ["a/final.ckpt", "final.ckpt"]),
        (["/o/erm/1/final.ckpt", "/o/crt/2/final.ckpt"], ["erm/1", "crt/2"]),
        (["/a/final.ckpt", "b/final.ckpt"], ["a/final.ckpt", "b/final.ckpt"]),
        (["resnet50.pth", "/data/weights/swin.pth"], ["resnet50.pth", "swin.pth"]),
        (["hf-hub:owner/one", "hf-hub:owner/two"], ["one", "two"]),
        (["1/2", 3], ["1/2", 3]),
        ([0.1, None], [0.1, None]),
        (["CrossEntropy", "LDAM"], ["CrossEntropy", "LDAM"]),
    ],
)
def test_paths_are_shortened_to_their_differing_parts(values, shown):
    assert shortened_paths(values) == shown


def test_lines_that_differ_by_a_file_are_named_by_its_name():
    configs = [{"backbone.weights": path, "seed": 0} for path in ("/data/weights/resnet.pth", None)]
    assert differences(configs) == ["backbone.weights=resnet.pth", "backbone.weights=null"]


def test_epochs_have_a_separate_column():
    configs = [{"loss.beta": beta, "trainer.max_epochs": epochs} for beta, epochs in ((0.9, 100), (0.99, 200))]
    assert differences(configs) == ["loss.beta=0.9", "loss.beta=0.99"]
    only_epochs = [{"loss.beta": 0.9, "trainer.max_epochs": epochs} for epochs in (100, 200)]
    assert differences(only_epochs) == ["trainer.max_epochs=100", "trainer.max_epochs=200"]


def test_beta_of_the_data_set_is_shown_only_if_the_loss_has_none():
    of_data = [{"dataset.beta": beta, "loss._target_": "ltr.losses.LDAM"} for beta in (0.9, 0.99)]
    assert differences(of_data) == ["dataset.beta=0.9", "dataset.beta=0.99"]
    of_both = [{"dataset.beta": beta, "loss.beta": beta} for beta in (0.9, 0.99)]
    assert differences(of_both) == ["loss.beta=0.9", "loss.beta=0.99"]


def test_models_of_a_library_are_labelled_by_their_name():
    optimizers = ({"optimizer._target_": "ltr.optim.libraries.timm_optimizer", "optimizer.name": "lamb"},
                  {"optimizer._target_": "ltr.optim.optimizers.sgd"})  # fmt: skip
    assert differences(optimizers) == ["optimizer=lamb", "optimizer=sgd"]


def test_tunings_and_stored_features_are_labelled_by_their_override():
    configs = [
        {"tune._target_": "ltr.models.tuning_lora.TuneLoRA", "tune.rank": 8, "features.name": "images"},
        {"tune._target_": "ltr.models.tuning.TuneAll", "features.name": "stored"},
    ]
    assert differences(configs) == ["tune=lora features=images", "tune=all features=stored"]


def test_optional_configs_are_labelled_as_null_where_none_is_chosen():
    configs = [
        {"loss.beta": 0.9},
        {"loss.beta": 0.9, "sharpness._target_": "ltr.optim.sharpness.SAM", "sharpness.rho": 0.05},
        {"loss.beta": 0.9, "sharpness._target_": "ltr.optim.sharpness.ImbSAM", "sharpness.rho": 0.05},
    ]
    assert differences(configs) == ["sharpness=null", "sharpness=sam", "sharpness=imbsam"]
    assert differences(configs[1:]) == ["sharpness=sam", "sharpness=imbsam"]


def test_an_option_that_an_earlier_version_lacked_has_its_default_there():
    tau_norm = {"method._target_": "method/tau_norm", "method.tau": 1.0}
    keeping, dropping = (tau_norm | {"method.keep_bias": kept} for kept in (True, False))
    labels = differences(with_later_options([tau_norm, keeping]))
    assert labels == ["method.keep_bias=false", "method.keep_bias=true"]
    assert differences(with_later_options([tau_norm, dropping])) == ["", ""]
    erm = {"method._target_": "method/erm"}
    assert differences(with_later_options([erm, keeping])) == ["method=erm", "method=tau_norm"]


@pytest.mark.parametrize("pool", ["average", "max", "average_max", "gem", "attentive"])
def test_pools_are_labelled_by_their_override(pool):
    target = read_config(f"pool/{pool}")["_target_"]
    configs = [{"features.pool._target_": target}, {"features.pool._target_": "another.Pool"}]
    assert differences(configs)[0] == f"features.pool={pool}"


@pytest.mark.parametrize(
    ("shared", "choices"),
    [
        ((), (["loss=balanced_softmax"], ["loss=ldam"])),
        ((), (["sampler=square_root", "backbone=resnet32"], ["sampler=class_balanced", "backbone=classifier32"])),
        (("loss=class_balanced",), (["loss.beta=0.99"], ["loss.beta=0.9999"])),
        (("method=crt",), (["method.classifier.sampler=square_root"], ["method.classifier.epochs=5"])),
        (("method=crt",), (["method.classifier.optimizer=adamw"], ["method.classifier.scheduler=multistep"])),
    ],
)
def test_a_label_given_as_overrides_composes_the_same_configuration(shared, choices):
    configs = [dict(leaves(config([*shared, *overrides]))) for overrides in choices]
    labels = differences(configs)
    assert labels[0] != labels[1]
    for composed, label in zip(configs, labels, strict=True):
        assert dict(leaves(config([*shared, *label.split()]))) == composed
