"""Warnings before training about settings that are allowed and hardly meant."""

from __future__ import annotations

import math
import re
import warnings

import pytest

from ltr.configuration.check import check_config
from ltr.configuration.overrides import compose_config
from ltr.runs.keys import group_hash, run_hash
from ltr.runs.plan import RunPlan, plan_of
from ltr.runs.training.doubts import warn_of_doubts, warn_of_endless_deferrals

QUICK = ("trainer.max_epochs=1", "trainer.precision=fp32", "trainer.accelerator=cpu", "trainer.limit_train_batches=1")
DOUBTS = {
    "rate": (("optimizer.lr=1e-13",), "optimizer.lr=1e-13 is below 1e-12"),
    "rate of the head": (("optimizer.head_lr=1e-20",), "optimizer.head_lr=1e-20 is below"),
    "batch": (("batch_size=1000",), "batch_size=1000 is more than the 500 training images"),
    "frozen": (("backbone.trainable=none",), "the backbone stays at random values"),
    "stored": (("features=stored",), "features=stored without weights: the features are those of a random backbone"),
}


@pytest.mark.parametrize(("overrides", "message"), DOUBTS.values(), ids=DOUBTS)
def test_doubtful_settings_are_reported(ltr_train, overrides, message):
    done = ltr_train(*QUICK, *overrides)
    assert done.code == 0, done.err
    assert message in done.out + done.err


def test_an_ordinary_run_has_no_warning(ltr_train):
    done = ltr_train(*QUICK)
    assert done.code == 0
    assert "warning" not in done.out + done.err


ALWAYS = ("trainer.precision=fp32", "trainer.accelerator=cpu", "dataset=digits_lt")
CONSTANT = ("trainer.ema_decay=0.999", "trainer.ema_warmup=false")


def planned(*overrides: str) -> tuple[RunPlan, list[str]]:
    """The plan of a command, and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = plan_of(check_config(compose_config([*ALWAYS, *overrides])))
        for stage in plan.stages:
            if stage.module is not None:
                warn_of_doubts(stage, plan.dataset_info)
    return plan, [str(warning.message) for warning in caught]


def keys(*overrides: str) -> list[str]:
    return [key for key, _ in planned(*overrides)[0].keys.values()]


@pytest.mark.parametrize(
    ("overrides", "shares"),
    [
        (("trainer.max_epochs=30",), {"representation": 0.999**240}),
        (("trainer.max_epochs=30", "trainer.accumulate=3"), {"representation": 0.999**90}),
        (("trainer.max_epochs=30", "trainer.limit_train_batches=2"), {"representation": 0.999**60}),
        (("trainer.max_epochs=30", "sampler.num_samples=200"), {"representation": 0.999**120}),
        (("method=crt", "trainer.max_epochs=40"), {"representation": 0.999**320, "classifier": 0.999**80}),
        (("method=crt", "trainer.max_epochs=600"), {"classifier": 0.999**80}),
        (("trainer.max_epochs=600",), {}),
        (("trainer.max_epochs=30", "trainer.ema_warmup=true"), {}),
        (("trainer.max_epochs=30", "trainer.ema_decay=0.98"), {}),
        (("trainer.max_epochs=30", "trainer.ema_warmup=true", "trainer.ema_decay=null"), {}),
    ],
)
def test_a_constant_decay_that_keeps_the_first_weights_is_reported_by_stage(overrides, shares):
    _, messages = planned(*CONSTANT, *overrides)
    messages = [message for message in messages if "ema_" in message]
    assert len(messages) == len(shares)
    for message, (stage, share) in zip(messages, shares.items(), strict=True):
        assert message.startswith(f"stage '{stage}'")
        assert f"{100 * share:.3g} %" in message
        steps = round(math.log(share) / math.log(0.999))
        fitting = float(re.search(r"ema_decay=([\d.]+) at most", message)[1])
        assert 0.003 < fitting**steps <= 0.01


def test_the_warm_up_is_in_the_keys_of_averaged_stages_only():
    short = ("method=crt", "trainer.max_epochs=2")
    plain, average = keys(*short), keys(*short, "trainer.ema_decay=0.9")
    assert keys(*short, "trainer.ema_warmup=false") == plain
    constant = keys(*short, "trainer.ema_decay=0.9", "trainer.ema_warmup=false")
    assert len({*plain, *average, *constant}) == 6


def test_runs_without_an_average_are_the_same_run_with_any_warm_up():
    def hashes(*overrides):
        config = check_config(compose_config([*ALWAYS, *overrides]))
        return run_hash(config), group_hash(config)

    assert hashes() == hashes("trainer.ema_warmup=false")
    assert not set(hashes("trainer.ema_decay=0.9")) & set(hashes("trainer.ema_decay=0.9", "trainer.ema_warmup=false"))


def test_a_warm_up_of_no_average_is_reported():
    assert any("ema_warmup=false has no effect" in message for message in planned("trainer.ema_warmup=false")[1])
    assert not any("ema_warmup" in message for message in planned()[1])


def deferred(*overrides: str) -> list[str]:
    """The warnings of deferrals without an end."""
    plan, _ = planned(*overrides)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_endless_deferrals(plan.stages, plan.dataset_info)
    return [str(warning.message) for warning in caught]


LDAM_DRW = ("loss=ldam", "loss.beta=0.9999")
NEVER = {
    "weights of a loss": (LDAM_DRW, "loss.defer_from", "representation"),
    "a prior": (("loss=balanced_softmax", "loss.defer_from=0.8"), "loss.defer_from", "representation"),
    "a sampler": (("sampler=class_balanced_deferred",), "sampler.defer_from", "representation"),
    "generated images": (("method=m2m",), "sampler.defer_from", "classifier"),
    "temperatures": (("method=ride", "loss=cross_entropy"), "method.temperature_from", "representation"),
}


@pytest.mark.parametrize(("overrides", "key", "stage"), NEVER.values(), ids=NEVER)
@pytest.mark.parametrize(("epochs", "fraction"), [(1, 0.8), (2, 0.8), (40, 0.99), (3, 0.8), (60, 0.99), (4, 1.0)])
def test_a_deferral_that_never_ends_is_reported_once(overrides, key, stage, epochs, fraction):
    messages = deferred(*overrides, f"trainer.max_epochs={epochs}", f"{key}={fraction}")
    if round(fraction * epochs) < epochs:
        assert messages == []
        return
    (message,) = messages
    assert f"{key}={fraction:g} of {epochs} epoch" in message
    assert f"'{stage}'" in message
    if fraction < 1:
        least = int(re.search(r"at least (\d+) epochs", message)[1])
        assert round(fraction * least) < least
        assert round(fraction * (least - 1)) >= least - 1


@pytest.mark.parametrize(
    "overrides",
    [("loss=ldam",), ("sampler=instance", "sampler.defer_from=0.8"), ("loss=cross_entropy",), ("method=crt",)],
)
def test_nothing_is_deferred_without_weights_and_samplers(overrides):
    assert deferred(*overrides, "trainer.max_epochs=1") == []


def test_all_deferrals_of_a_short_run_are_in_one_warning(ltr_train):
    (message,) = deferred("method=ride", *LDAM_DRW, "trainer.max_epochs=2")
    assert message.count("never begins") == 2
    assert all(key in message for key in ("loss.defer_from", "method.temperature_from"))
    done = ltr_train("debug=fast", *LDAM_DRW)
    assert done.code == 0, done.err
    assert (done.out + done.err).count("never begins") == 1
