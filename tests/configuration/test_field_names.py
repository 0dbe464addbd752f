"""Names of papers and other projects: every suggestion exists and is part of the message."""

from __future__ import annotations

import pytest

from ltr.configuration.command_line import read
from ltr.configuration.configs import config_names, leaves, read_config
from ltr.configuration.field_names import CONFIGS, KEYS, OVERRIDES
from ltr.configuration.overrides import explain
from ltr.configuration.unknown_configs import nearest_configs

CHOICES = sorted(
    {choice for names in CONFIGS.values() for choices in names.values() for choice in choices} | set(OVERRIDES.values())
)


@pytest.mark.parametrize("choice", CHOICES)
def test_every_suggested_override_is_valid(choice):
    words = [word for word in choice.split() if not word.startswith("augment.mix")]  # a key of some configs alone
    assert not explain(read(words).overrides, None, "train", False)


@pytest.mark.parametrize("group", sorted(CONFIGS))
def test_no_field_name_is_a_config_of_ltr(group):
    assert not set(CONFIGS[group]) & set(config_names(group))


def test_every_suggested_key_exists():
    groups = ("backbone", "method", "dataset", "optimizer", "scheduler", "logger", "strategy", "debug")
    known = {"batch_size", *groups}
    for group in (*groups[:-1], "trainer", "paths", "augment", "evaluation", "loss"):
        for config in config_names(group):
            known |= {key for key, _ in leaves(read_config(f"{group}/{config}"), group)}
    assert {key for keys in KEYS.values() for key in keys} <= known
    assert not set(KEYS) & known


@pytest.mark.parametrize("key", OVERRIDES)
def test_a_key_without_an_equal_gets_the_overrides_of_the_same_effect(key):
    (mistake,) = explain([f"{key}=0.1"], None, "train", False)
    assert mistake.endswith(f". Did you mean '{OVERRIDES[key]}'?")


@pytest.mark.parametrize(
    ("override", "instead"),
    [
        ("dataset=cifar100_lt dataset.image_size=224", "dataset.resize_to"),
        ("dataset=cub dataset.resize_to=224", "dataset.image_size"),
        ("dataset=table dataset.csv=x.csv", "dataset.file"),
        ("dataset=folder dataset.path=x", "dataset.root"),
    ],
)
def test_a_key_gets_the_one_of_this_data_set_with_the_same_purpose(override, instead):
    (mistake,) = explain(override.split(), None, "train", False)
    assert mistake.endswith(f"Did you mean '{instead}'?")


@pytest.mark.parametrize(
    ("group", "name", "first"),
    [
        ("loss", "CE", "loss=cross_entropy"),
        ("method", "logit_adjustment", "method=posthoc_la"),
        ("dataset", "iNaturalist-2018", "dataset=inat18_lists"),
        ("optimizer", "Adam", "optimizer=torch optimizer.name=Adam"),
    ],
)
def test_the_suggested_config_is_the_first_of_the_nearest(group, name, first):
    assert nearest_configs(group, name, config_names(group))[0] == first


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--method", "crt"], "--method: keys are written without dashes and with '=': method=crt"),
        (["--optimizer.lr", "0.1"], "with '=': optimizer.lr=0.1"),
        (["--seed"], "with '=': seed=VALUE"),
        (["crt"], "an override is written key=value, such as method=crt"),
        (["help"], "write ltr-train --help"),
        (["debug"], "an override is written key=value, such as debug=fast"),
        (["nonsense"], "an override is written key=value"),
    ],
)
def test_words_of_other_programs_get_the_override(words, hint):
    line = read(words)
    mistakes = line.mistakes + explain(line.overrides, None, "train", False)
    assert len(mistakes) == 1
    assert hint in mistakes[0]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("model=resnet50", "Did you mean 'backbone' or 'method'?"),
        ("trainer.gpus=2", "Did you mean 'trainer.devices'?"),
        ("backbone=vit_base_patch16_224", "'backbone=timm backbone.name=vit_base_patch16_224'"),
        ("optimizer=adam", "Did you mean 'optimizer=torch optimizer.name=Adam'? There are: adamw"),
        ("debug=true", "there is no debug 'true'. Did you mean 'fast'?"),
        ("lr=0.1", "Did you mean 'optimizer.lr'?"),
        ("epochs=3", "Did you mean 'trainer.max_epochs'?"),
    ],
)
def test_errors_contain_the_suggestion(word, hint):
    (mistake,) = explain(read([word]).overrides, None, "train", False)
    assert hint in mistake
