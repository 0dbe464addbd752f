"""The moving average of the weights: torch's bits, and no waiting for the device."""

from __future__ import annotations

import copy

import numpy as np
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


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("updates", [0, 1, 2, 30])
def test_a_resumed_average_has_the_same_bits(network, updates, warmup):
    average = MovingAverage(network, 0.9, CPU, warmup=warmup)
    for _ in range(updates):
        move(network)
        average.update_parameters(network)
    resumed = MovingAverage(copy.deepcopy(network), 0.9, CPU, warmup=warmup)
    resumed.load_state_dict(average.state_dict())
    move(network)
    average.update_parameters(network)
    resumed.update_parameters(network)
    assert_same_bits(resumed, average)


def recursion(values, decay, warmup):
    """The average of a sequence of arrays in double precision; the first update copies its value."""
    average = values[0].astype(np.float64)
    for update, value in enumerate(values[1:], start=1):
        d = min(decay, (1 + update) / (10 + update)) if warmup else decay
        average = d * average + (1 - d) * value
    return average


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("decay", [0.3, 0.9, 0.999])
def test_parameters_and_running_statistics_follow_the_recursion(network, decay, warmup):
    average = MovingAverage(network, decay, CPU, warmup=warmup)
    states = []
    for _ in range(40):
        move(network)
        states.append({name: value.double().numpy().copy() for name, value in network.state_dict().items()})
        average.update_parameters(network)
    for name, value in average.module.state_dict().items():
        if value.is_floating_point():
            expected = recursion([state[name] for state in states], decay, warmup)
            np.testing.assert_allclose(value.numpy(), expected, rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize(("decay", "steps"), [(0.999, 100), (0.9999, 320), (0.9, 30)])
def test_after_a_warm_up_the_first_weights_have_no_share(decay, steps):
    weight = nn.Linear(1, 1, bias=False)
    average = MovingAverage(weight, decay, CPU, warmup=True)
    for step in range(steps):
        nn.init.constant_(weight.weight, float(step == 0))
        average.update_parameters(weight)
    assert float(average.module.weight) < 1e-6


def test_from_the_second_update_on_no_value_is_read_by_the_host(network):
    average = MovingAverage(network, 0.9, CPU)
    average.update_parameters(network)
    # tensors without values raise an error if the host reads one
    average.to("meta").update_parameters(copy.deepcopy(network).to("meta"))
    with pytest.raises((RuntimeError, NotImplementedError)):
        MovingAverage(network, 0.9, CPU).to("meta").update_parameters(copy.deepcopy(network).to("meta"))
