"""The generator that a training step draws from."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ltr.methods.core.step_data import seed_step


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_a_step_on_a_cpu_uses_the_numbers_of_torch_with_its_seed(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expected = torch.rand(5)
        seed_step(seed, torch.device("cpu"))
        assert torch.equal(torch.rand(5), expected)
        assert torch.initial_seed() == seed


@pytest.mark.parametrize("device", ["cuda:1", "cuda"])
def test_a_step_on_a_gpu_seeds_its_generator_and_that_of_the_cpu(monkeypatch, device):
    seeds: dict[int, int] = {}
    generators = [SimpleNamespace(manual_seed=lambda seed, gpu=gpu: seeds.update({gpu: seed})) for gpu in range(2)]
    monkeypatch.setattr(torch.cuda, "default_generators", generators)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    with torch.random.fork_rng(devices=[]):
        seed_step(7, torch.device(device))
        assert (seeds, torch.initial_seed()) == ({1: 7}, 7)
