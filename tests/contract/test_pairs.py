"""Refusals of a plan and of the start of a training, of pairs of configs that are planned and then run on the digits.

The quick test runs a few pairs of every kind; the long one all of them.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from rich.console import Console

from ltr.configuration.configs import config_names
from ltr.configuration.overrides import load_config
from ltr.configuration.targets import check_arguments
from ltr.errors import ConfigError, LtrError
from ltr.runs.plan import LastSource, plan_of
from ltr.runs.processes.job_state import restored_state
from ltr.runs.runner import run

DATASETS = {
    **dict.fromkeys(("triplet", "prototypical", "rkd"), "digits_retrieval"),
    **dict.fromkeys(
        ("arpl", "arpl_cs", "rpl", "rpl_pp", "rpl_official", "rpl_confirmed", "gcpl"), "digits_open"
    ),
    "background_splitting": "digits_bg",
}  # fmt: skip
OPTIONS = [
    *("trainer.ema_decay=0.9", "trainer.selection=best_val", "trainer.accumulate=2", "trainer.auto_accumulate=true"),
    *("trainer.gradient_clip=1", "sharpness=sam", "sharpness=imbsam", "features=stored", "batch_size=1"),
    *("batch_size=5000", "dataset.resize_to=16", "evaluation.prior=uniform"),
]
NETWORKS = ["backbone=classifier32", "backbone=resnet20", "backbone=torchvision backbone.name=squeezenet1_1"]
SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "batch_size=32", "trainer.accelerator=cpu",
         "figures=none", "scheduler=constant"]  # fmt: skip
read = LastSource()


def pairs() -> Iterator[tuple[str, ...]]:
    for method in config_names("method"):
        chosen = (f"method={method}", f"dataset={DATASETS.get(method, 'digits_lt')}")
        for group in ("loss", "sampler", "scheduler", "head", "augment", "tune"):
            yield from ((*chosen, f"{group}={name}") for name in config_names(group))
        yield from ((*chosen, *network.split()) for network in NETWORKS)
        yield from ((*chosen, option) for option in OPTIONS)
    digits = [name for name in config_names("dataset") if name.startswith("digits")]
    for loss, dataset in itertools.product(config_names("loss"), digits):
        yield f"loss={loss}", f"dataset={dataset}"
    for loss, other in itertools.product(config_names("loss"), ("head", "augment", "sampler")):
        yield from ((f"loss={loss}", f"{other}={name}") for name in config_names(other))


def shortened(node: Any) -> Any:
    """Return a configuration whose stages train for one epoch."""
    if not isinstance(node, Mapping):
        return node
    short = {"epochs": 1, "max_epochs": 1, "steps": 2}
    return {key: short[key] if key in short and type(value) is int else shortened(value) for key, value in node.items()}


def planned_and_refused(overrides: tuple[str, ...], tmp_path) -> tuple[bool, str]:
    """Return whether the plan accepts a configuration, and what the run then refuses."""
    folders = [f"paths.outputs={tmp_path / 'runs'}", f"paths.stages={tmp_path / 'stages'}"]
    try:
        config = shortened(load_config([*SHORT, *overrides, *folders]))
        if check_arguments(config):
            return False, ""
        plan_of(config, read=read)
    except LtrError:
        return False, ""
    try:
        with restored_state():
            run(config, [], Console(quiet=True), read=read)
    except ConfigError as error:
        return True, str(error)
    return True, ""


ALL = sorted(pairs())
SOME = random.Random(0).sample(ALL, 12)


REST = [pytest.param(one, marks=pytest.mark.long) for one in ALL if one not in SOME]


@pytest.mark.parametrize("overrides", [*SOME, *REST], ids=" ".join)
def test_what_the_plan_accepts_the_run_does_not_refuse(overrides, tmp_path):
    assert planned_and_refused(overrides, tmp_path)[1] == ""


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (("loss=triplet",), "loss=Triplet"),
        (("head=unit_embedding",), "head=EmbeddingHead"),
        (("method=crt", "loss=prototypical"), "loss=Prototypical"),
        (("method=background_splitting", "dataset=digits_bg", "loss=triplet"), "loss=Triplet"),
        (("augment=cifar_cutout",), "augment.cutout=16"),
        (("method=triplet", "dataset=digits_retrieval", "augment=cifar_mixup"), "augment.mix=mixup"),
        (("tune=vpt",), "tune=vpt"),
        (("method=ride", "loss=focal_sigmoid"), "loss=FocalSigmoid"),
        (("method=ride", "tune=bias"), "tune"),
        (("trainer.auto_accumulate=true",), "trainer.auto_accumulate=true"),
        (("method=triplet", "dataset=digits_retrieval", "tune=none", "head=features"), "tune=all"),
        (("loss=equalization_v2", "head=cosine"), "loss=EqualizationV2 with head=CosineHead"),
    ],
)
def test_the_plan_refuses_what_a_training_would_and_names_the_key(overrides, key):
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        plan_of(load_config(["trainer.accelerator=cpu", "scheduler=constant", *overrides]), read=read)
