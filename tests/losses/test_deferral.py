"""The epoch at which deferred weights switch on."""

from __future__ import annotations

import pytest

from ltr.errors import ConfigError
from ltr.losses.base import first_epoch
from ltr.losses.classification import BalancedSoftmax


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
