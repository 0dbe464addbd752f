"""The moving average of the weights: torch's bits, and no waiting for the device."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from ltr.runs.training.averaging import MovingAverage

CPU = torch.device("cpu")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 3))


def move(network):
    """Change parameters, running statistics and the step counter, as a training step does."""
    network(torch.randn(8, 1, 8, 8))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))


def assert_same_bits(first, second):
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_the_bits_are_those_of_torchs_average(network):
    expected = AveragedModel(network, avg_fn=get_ema_avg_fn(0.9), use_buffers=True)
    average = MovingAverage(network, 0.9, CPU)
    for _ in range(5):
        move(network)
        expected.update_parameters(network)
        average.update_parameters(network)
        assert_same_bits(average, expected)
    assert int(average.n_averaged) == 5


def test_a_resumed_average_has_the_same_bits(network):
    average = MovingAverage(network, 0.9, CPU)
    for _ in range(2):
        move(network)
        average.update_parameters(network)
    resumed = MovingAverage(copy.deepcopy(network), 0.9, CPU)
    resumed.load_state_dict(average.state_dict())
    move(network)
    average.update_parameters(network)
    resumed.update_parameters(network)
    assert_same_bits(resumed, average)


def test_from_the_second_update_on_no_value_is_read_by_the_host(network):
    average = MovingAverage(network, 0.9, CPU)
    average.update_parameters(network)
    # tensors without values raise an error if the host reads one
    average.to("meta").update_parameters(copy.deepcopy(network).to("meta"))
    with pytest.raises((RuntimeError, NotImplementedError)):
        MovingAverage(network, 0.9, CPU).to("meta").update_parameters(copy.deepcopy(network).to("meta"))
