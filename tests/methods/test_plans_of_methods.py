"""Stages of a method, the contents of their keys, and errors before anything is trained."""

from __future__ import annotations

import warnings

import pytest
from method_plans import planned

from ltr.errors import ConfigError
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.stage import Stage
from ltr.methods.decoupling.posthoc import grid_values
from ltr.runs.plan import NeedsValidation

METHODS = ["crt", "lws", "tau_norm", "ncm", "posthoc_la"]
VAL = "dataset.val=train_fraction"


@pytest.mark.parametrize("method", METHODS)
def test_the_representation_has_the_key_of_erm(method):
    for more in ((), ("loss=ldam", "head=linear", "loss.scale=1", "trainer.max_epochs=7", "seed=3")):
        assert planned(f"method={method}", *more).keys["representation"] == planned(*more).keys["representation"]


@pytest.mark.parametrize(
    ("method", "stage", "option"),
    [
        ("crt", "classifier", "method.trainable=all"),
        ("crt", "classifier", "method.freeze_bn_stats=true"),
        ("crt", "classifier", "method.classifier.epochs=3"),
        ("crt", "classifier", "method.classifier.selection=best_val"),
        ("crt", "classifier", "method.classifier.optimizer.lr=0.05"),
        ("crt", "classifier", "method.classifier.sampler.images_per_visit=4"),
        ("crt", "classifier", "sampler@method.classifier.sampler=instance"),
        ("crt", "classifier", "loss@method.classifier.loss=class_balanced"),
        ("crt", "classifier", "scheduler@method.classifier.scheduler=constant"),
        ("crt", "classifier", "optimizer@method.classifier.optimizer=adamw"),
        ("lws", "classifier", "method.freeze_bn_stats=true"),
        ("lws", "classifier", "method.classifier.epochs=5"),
        ("tau_norm", "tau", "method.tau=0.5"),
        ("tau_norm", "tau", "method.tau=auto"),
        ("posthoc_la", "tau", "method.tau=0.5"),
        ("posthoc_la", "tau", "method.tau=auto"),
        ("ncm", "means", "method.features_norm=l2"),
    ],
)
def test_an_option_changes_the_key_of_its_stage_and_not_of_the_representation(method, stage, option):
    plain, changed = planned(f"method={method}", VAL), planned(f"method={method}", VAL, option)
    assert changed.keys[stage] != plain.keys[stage]
    assert changed.keys["representation"] == plain.keys["representation"]


def test_cached_features_change_the_key():
    frozen = planned("method=crt", "method.freeze_bn_stats=true")
    cached = planned("method=crt", "method.freeze_bn_stats=true", "method.features=cached")
    assert frozen.keys["classifier"] != cached.keys["classifier"]


def test_only_the_key_of_a_search_depends_on_the_grid():
    for tau, same in (("auto", False), ("0.5", True)):
        narrow, wide = (planned("method=tau_norm", VAL, f"method.tau={tau}", f"method.grid.stop={s}") for s in (1, 2))
        assert (narrow.keys["tau"] == wide.keys["tau"]) is same


def test_ncm_distances_share_the_stage_of_class_means():
    euclidean, cosine = (planned("method=ncm", f"method.distance={d}") for d in ("euclidean", "cosine"))
    assert euclidean.keys["means"] == cosine.keys["means"]


def test_tau_norm_and_posthoc_la_have_separate_searches():
    first, second = (planned(f"method={m}", VAL, "method.tau=auto") for m in ("tau_norm", "posthoc_la"))
    assert first.keys["tau"] != second.keys["tau"]


@pytest.mark.parametrize("method", ["tau_norm", "posthoc_la"])
def test_a_search_needs_validation_images(method):
    with pytest.raises(NeedsValidation, match=r"stage 'tau' is computed on the val images, and .* has none") as error:
        planned(f"method={method}", "method.tau=auto")
    assert error.value.otherwise == "set method.tau to a number"


def test_the_classifiers_best_epoch_needs_validation_images():
    with pytest.raises(ConfigError, match=r"'classifier'.*best_val.*has no validation images"):
        planned("method=crt", "method.classifier.selection=best_val")


@pytest.mark.parametrize("tau", ["-0.1", "-1"])
def test_a_negative_tau_is_refused(tau):
    with pytest.raises(ConfigError, match=r"method.tau=.*\[0, inf\) or auto"):
        planned("method=tau_norm", f"method.tau={tau}")


def test_a_grid_has_its_numbers_without_rounding_errors():
    assert grid_values({"start": 0, "stop": 1, "step": 0.05}) == [i / 20 for i in range(21)]
    assert grid_values({"start": 0, "stop": 2, "step": 0.1})[-1] == 2.0
    assert grid_values({"start": 0.3, "stop": 0.3, "step": 1}) == [0.3]
    assert grid_values({"start": 0, "stop": 1, "step": 0.3}) == [0.0, 0.3, 0.6, 0.9]


@pytest.mark.parametrize(
    "grid", [{"start": 1, "stop": 0, "step": 0.1}, {"start": 0, "stop": 1, "step": 0}, {"start": 0, "stop": 1}]
)
def test_a_grid_without_values_is_refused(grid):
    with pytest.raises(ConfigError, match=r"method\.grid"):
        grid_values(grid)


def test_tau_normalisation_of_a_cosine_head_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"tau_norm needs head=linear, not CosineHead.*normalised already"):
        planned("method=tau_norm", "head=cosine")


@pytest.mark.parametrize("method", ["crt", "lws"])
def test_cached_features_need_frozen_statistics(method):
    with pytest.raises(ConfigError, match=r"method\.freeze_bn_stats=true"):
        planned(f"method={method}", "method.features=cached")


def test_cached_features_need_a_frozen_backbone():
    more = ["method.freeze_bn_stats=true", "method.features=cached", "method.trainable=last_block"]
    with pytest.raises(ConfigError, match=r"method\.trainable=classifier, not last_block"):
        planned("method=crt", *more)


def test_a_key_that_nothing_reads_is_refused_in_a_stages_config():
    with pytest.raises(ConfigError, match=r"method\.classifier\.epoch: nothing reads it.*Did you mean 'epochs'"):
        planned("method=crt", "+method.classifier.epoch=3")


@pytest.mark.parametrize(
    ("method", "sampler", "warns"),
    [
        *((method, "class_balanced", True) for method in METHODS),
        ("crt", "power sampler.q=0", True),
        ("crt", "effective_number", True),
        ("crt", "instance", False),
        ("crt", "square_root", False),
        ("crt", "progressive", False),
        ("crt", "class_balanced sampler.defer_from=0.8", False),
    ],
)
def test_a_class_balanced_representation_warns(method, sampler, warns):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        planned(f"method={method}", *f"sampler={sampler}".split(), "seed=9")
    assert any("costs decoupled methods" in str(one.message) for one in caught) is warns


def test_adjusting_for_the_prior_twice_warns():
    with pytest.warns(UserWarning, match="BalancedSoftmax corrects.*posthoc_la does it again"):
        planned("method=posthoc_la", "loss=balanced_softmax", "seed=8")


def test_the_second_stage_starts_from_the_learning_rate_and_decay_of_the_first():
    plan = planned("method=crt", "optimizer.lr=0.3", "optimizer.weight_decay=0.001", "optimizer.momentum=0.5")
    optimizer = plan.stages["classifier"].settings.optimizer
    assert (optimizer["lr"], optimizer["weight_decay"], optimizer["momentum"]) == (0.3, 0.001, 0.9)


def test_the_second_stage_has_another_sampler_and_length_and_other_settings_of_the_first():
    plan = planned("method=crt", "trainer.max_epochs=7", "trainer.gradient_clip=1.0", "batch_size=50")
    first, second = plan.stages["representation"].settings, plan.stages["classifier"].settings
    assert (first.epochs, second.epochs) == (7, 10)
    assert first.sampler["_target_"].endswith("Instance")
    assert second.sampler["_target_"].endswith("ClassBalanced")
    assert (second.batch_size, second.gradient_clip, second.augment) == (50, 1.0, first.augment)


class FiveArguments(ImageClassifier):
    """A network whose constructor takes what earlier versions passed."""

    def __init__(self, settings, facts, seed, role, parents=None, *, weight):
        super().__init__(settings)


def test_a_constructor_of_another_signature_is_refused_with_the_required_one():
    plan = planned()
    settings = plan.stages["representation"].settings
    stage = Stage("penalised", "representation", settings, module=FiveArguments, options={"weight": 1.0})
    with pytest.raises(ConfigError, match=r"FiveArguments: .*\(spec, weight\).*one NetworkSpec by position"):
        stage.network(plan.dataset_info, 0)
