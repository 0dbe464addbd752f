"""The embedding head."""

from __future__ import annotations

import pytest
import torch

from ltr.models.embedding import EmbeddingHead
from ltr.models.weights import seeded_construction


@pytest.mark.parametrize("normalise", [True, False])
def test_an_embedding_is_a_linear_layer_at_length_one_if_requested(normalise):
    head = EmbeddingHead(5, 3, width=7, normalise=normalise)
    embeddings = head(torch.randn(4, 5))
    assert embeddings.shape == (4, 7)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(4)) is normalise


def test_normalisation_is_done_in_float32_under_autocast():
    head = EmbeddingHead(5, 3, normalise=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embeddings = head(torch.randn(4, 5))
    assert embeddings.dtype == torch.float32
    assert embeddings.norm(dim=1).tolist() == pytest.approx([1] * 4, abs=1e-6)


def test_a_reset_samples_from_the_distribution_of_construction():
    with seeded_construction(1):
        head = EmbeddingHead(400, 3, width=500)
    before = head.projection.weight.detach().clone()
    head.reset(torch.Generator().manual_seed(2))
    after = head.projection.weight.detach()
    assert not torch.equal(before, after)
    assert after.std().item() == pytest.approx(before.std().item(), rel=0.02)
    assert head.projection.bias.abs().max().item() <= 400**-0.5
