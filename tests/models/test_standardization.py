"""Standardised features: zero mean and unit variance, and buffers that a checkpoint holds."""

from __future__ import annotations

import torch

from ltr.models.standardization import Standardization

FEATURES = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 3.0, 0.1, 0.0]) + 7


def test_features_have_zero_mean_and_unit_variance_for_any_batching():
    whole, blocks = Standardization(4), Standardization(4)
    whole.fit([FEATURES])
    blocks.fit(FEATURES.split(9))
    out = whole(FEATURES).double()
    assert torch.allclose(out.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(out[:, :3].square().mean(0), torch.ones(3, dtype=torch.float64), atol=1e-4)
    assert torch.allclose(blocks(FEATURES), whole(FEATURES), atol=1e-5)


def test_features_that_do_not_vary_stay_zero():
    scaled = Standardization(4)
    scaled.fit([FEATURES])
    assert torch.equal(scaled(FEATURES + 5)[:, 3], torch.zeros(50))


def test_unfitted_standardization_is_the_identity():
    assert torch.equal(Standardization(4)(FEATURES), FEATURES)
