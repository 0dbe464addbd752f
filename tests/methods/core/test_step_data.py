"""The generator that a training step draws from."""

from __future__ import annotations

import pytest
import torch

from ltr.methods.core.step_data import seed_step


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_a_step_on_a_cpu_draws_what_torch_draws_after_its_own_seeding(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expected = torch.rand(5)
        seed_step(seed, torch.device("cpu"))
        assert torch.equal(torch.rand(5), expected)
        assert torch.initial_seed() == seed
