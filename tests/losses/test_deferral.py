"""The epoch at which deferred weights switch on."""

from __future__ import annotations

import warnings

import pytest

from ltr.errors import ConfigError
from ltr.losses.base import first_epoch
from ltr.losses.classification import LDAM, BalancedSoftmax, FocalSoftmax


@pytest.mark.parametrize(
    ("defer_from", "epochs", "first"),
    [(0.8, 200, 160), (2 / 3, 90, 60), (0.75, 120, 90), (0.8, 1, 1), (0.0, 50, 0), (1.0, 50, 50), (None, 50, 0)],
)
def test_the_first_epoch_is_the_fraction_of_the_stage(defer_from, epochs, first):
    assert first_epoch(defer_from, epochs) == first


def test_deferral_switches_on_at_its_first_epoch():
    loss = BalancedSoftmax([3, 1], defer_from=0.8)
    states = []
    for epoch in range(10):
        loss.start_epoch(epoch, 10)
        states.append(loss.active)
    assert states == [False] * 8 + [True] * 2


def test_a_resumed_run_needs_only_its_epoch():
    loss = BalancedSoftmax([3, 1], defer_from=0.8)
    loss.start_epoch(170, 200)
    assert loss.active is True


@pytest.mark.parametrize(("defer_from", "active"), [(None, True), (0.0, True), (0.5, False), (1.0, False)])
def test_without_deferral_a_loss_is_on_before_the_first_epoch(defer_from, active):
    assert BalancedSoftmax([3, 1], defer_from=defer_from).active is active


@pytest.mark.parametrize("defer_from", [-0.1, 1.1, 160, float("nan")])
def test_a_value_that_is_not_a_fraction_is_an_error(defer_from):
    with pytest.raises(ConfigError, match=r"loss.defer_from=.*allowed is \[0, 1\] or null"):
        BalancedSoftmax([3, 1], defer_from=defer_from)


UNWEIGHTED = [
    (FocalSoftmax, {"defer_from": 0.5}, "loss.defer_from=0.5"),
    (FocalSoftmax, {"weight_inside": True}, "loss.weight_inside=true"),
    (FocalSoftmax, {"reduction": "weight_sum"}, "loss.reduction=weight_sum"),
    (LDAM, {"scale": 30.0, "defer_from": 0.5}, "loss.defer_from=0.5"),
    (LDAM, {"scale": 30.0, "reduction": "batch"}, "loss.reduction=batch"),
]


@pytest.mark.parametrize(("loss", "options", "named"), UNWEIGHTED)
def test_options_of_class_weights_are_reported_without_weights(loss, options, named):
    with pytest.warns(UserWarning, match=f"{named}.*without loss.beta") as caught:
        loss([5, 2], **options)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss([5, 2], **options, beta=0.9)


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (FocalSoftmax, {}),
        (FocalSoftmax, {"gamma": 2.0}),
        (LDAM, {"scale": 30.0}),
        (LDAM, {"scale": 30.0, "defer_from": 0.8}),
        (BalancedSoftmax, {"defer_from": 0.5}),
    ],
)
def test_a_loss_without_weights_may_have_its_usual_options(loss, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss([5, 2], **options)
