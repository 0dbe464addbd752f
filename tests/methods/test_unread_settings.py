"""Settings of the top level and of a stage's node change a stage of the plan, or are refused or named."""

from __future__ import annotations

import functools
import warnings

import pytest

from ltr.configuration.check import check_config
from ltr.configuration.configs import config_names
from ltr.configuration.overrides import compose_config
from ltr.configuration.targets import instantiate
from ltr.errors import ConfigError
from ltr.runs.plan import describe_dataset, main_settings, plan_keys
from ltr.runs.unread_settings import warn_of_unread_settings

BASES = {
    "background_splitting": ["dataset=digits_bg"],
    **{method: ["dataset=digits_retrieval"] for method in ("rkd", "triplet", "prototypical")},
}
CHANGES = ("loss=balanced_softmax", "sampler=square_root", "head=cosine")


@functools.cache
def data(dataset: str):
    config = check_config(compose_config([f"dataset={dataset}"]))
    source = instantiate(config["dataset"]["source"])
    return source, instantiate(config["dataset"]["split"], source)


def keys(*overrides: str) -> tuple[list[str] | None, list[str]]:
    """The keys of a command's stages, None if it is refused, and the warnings of unread settings."""
    config = check_config(compose_config(list(overrides)))
    source, split = data(config["dataset"]["name"])
    info = describe_dataset(config, source, split)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            method = instantiate(config["method"])
            main = main_settings(config, "fp32", method)
            stages = method.stages(main, info)
            planned = [key for key, _ in plan_keys(stages, 0, source, split, info).values()]
        except ConfigError:
            return None, []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_unread_settings(config, method, stages, main, info)
    return planned, [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    "command",
    [
        *(f"method={name}" for name in config_names("method")),
        "method=smote method.space=feature",
        "method=rkd_classification method.generations=0",
    ],
)
def test_a_choice_of_the_top_level_changes_a_stage_or_is_reported(command):
    name = command.split()[0].removeprefix("method=")
    base = [*command.split(), *BASES.get(name, ["dataset=digits_lt"])]
    plain, messages = keys(*base)
    assert plain is not None
    assert messages == []
    for change in CHANGES:
        changed, messages = keys(*base, change)
        if changed == plain and not change.startswith("head"):
            assert [change.partition("=")[0] in message for message in messages] == [True], change
        elif changed is not None and not change.startswith("head"):
            assert messages == [], change
        if name == "smote":
            assert changed != plain


FEATURE = ("method=smote", "method.space=feature")


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ((*FEATURE, "loss=balanced_softmax", "sampler=square_root"), ("loss=balanced_softmax", "sampler=square_root")),
        ((*FEATURE, "loss=ldam"), ("loss=ldam",)),
        ((*FEATURE, "sampler.num_samples=100"), ("sampler.num_samples=100",)),
        (("method=smote", "method.classifier.loss=ldam"), ("method.classifier.loss=ldam",)),
        (("method=smote", "method.classifier.epochs=5"), ("method.classifier.epochs=5",)),
        (("method=smote", "method.classifier.optimizer.lr=0.05"), ("method.classifier.optimizer.lr=0.05",)),
        (("method=smote", "method.classifier.scheduler=constant"), ("method.classifier.scheduler=constant",)),
    ],
)
def test_settings_of_a_network_that_smote_does_not_train_are_refused(overrides, named):
    config = check_config(compose_config([*overrides, "dataset=digits_lt"]))
    source, split = data("digits_lt")
    method = instantiate(config["method"])
    with pytest.raises(ConfigError) as refused:
        method.stages(main_settings(config, "fp32", method), describe_dataset(config, source, split))
    for text in named:
        assert text in str(refused.value)


@pytest.mark.parametrize(
    "overrides",
    [
        FEATURE,
        (*FEATURE, "sampler=instance"),
        (*FEATURE, "head.bias=false"),
        (*FEATURE, "head=cosine"),
        (*FEATURE, "method.classifier.loss=ldam", "method.classifier.epochs=3"),
        ("method=smote", "loss=ldam", "optimizer.lr=0.3", "optimizer.weight_decay=0.01"),
        ("method=smote", "optimizer=adamw"),
    ],
)
def test_other_settings_of_smote_are_accepted(overrides):
    planned, messages = keys(*overrides, "dataset=digits_lt")
    assert planned is not None
    assert messages == []
