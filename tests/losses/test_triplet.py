"""The triplet loss against loops, and distance-weighted mining against its formula and the package that has it."""

from __future__ import annotations

import importlib
import math
from typing import get_args

import pytest
import torch
from torch.nn import functional

from ltr.errors import ConfigError
from ltr.losses.triplet import Mining, Triplet, all_triplets, draw_negatives, negative_weights, positive_pairs

LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])


def embeddings(seed: int = 0, images: int = 8, width: int = 6) -> torch.Tensor:
    return torch.randn(images, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(loss: Triplet, points: torch.Tensor, labels: torch.Tensor = LABELS) -> torch.Tensor:
    torch.manual_seed(3)
    return loss(points, labels)


def test_all_triplets_equal_a_loop():
    points = embeddings()
    costs = [
        max(0.0, float((points[a] - points[p]).norm() - (points[a] - points[n]).norm()) + 0.2)
        for a in range(8)
        for p in range(8)
        for n in range(8)
        if a != p and LABELS[a] == LABELS[p] and LABELS[a] != LABELS[n]
    ]
    assert float(Triplet([1], mining="all")(points, LABELS)) == pytest.approx(sum(costs) / len(costs))


def test_the_weights_of_negatives_are_the_inverse_density_of_distances_on_a_sphere():
    points = embeddings()
    weights = negative_weights(points, LABELS, 0.5, 1.4)
    unit = functional.normalize(points, dim=1)
    for anchor in range(8):
        expected = torch.zeros(8, dtype=torch.float64)
        for image in range(8):
            d = max(float((unit[anchor] - unit[image]).norm()), 0.5)
            if LABELS[anchor] != LABELS[image] and d < 1.4:
                expected[image] = d ** (2 - 6) * (1 - d * d / 4) ** (-(6 - 3) / 2)
        torch.testing.assert_close(weights[anchor], expected / expected.sum(), atol=1e-6, rtol=1e-6)


def test_the_weights_equal_those_of_the_package(monkeypatch):
    miners = importlib.import_module("pytorch_metric_learning.miners")
    helpers = importlib.import_module("pytorch_metric_learning.utils.loss_and_miner_utils")
    caught = {}

    def catch(labels, ref_labels=None, weights=None):
        caught["weights"] = weights
        return torch.zeros(3, 0, dtype=torch.int64).unbind(0)

    monkeypatch.setattr(helpers, "get_random_triplet_indices", catch)
    points = embeddings(width=16)
    miners.DistanceWeightedMiner(cutoff=0.5, nonzero_loss_cutoff=1.4)(points, LABELS)
    torch.testing.assert_close(caught["weights"], negative_weights(points, LABELS, 0.5, 1.4), atol=1e-9, rtol=1e-9)


def test_an_anchor_with_distant_negatives_only_samples_them_uniformly():
    points = torch.eye(8, dtype=torch.float64)
    points[3:5] = -points[0]  # at distance 2 of the first
    points[5:] = -points[0]
    points[1:3] = points[0]
    weights = negative_weights(points, LABELS, 0.5, 1.4)[0]
    torch.testing.assert_close(weights, torch.tensor([0.0, 0, 0, 0.2, 0.2, 0.2, 0.2, 0.2], dtype=torch.float64))


def test_near_negatives_are_weighted_as_those_at_the_cutoff():
    points = functional.normalize(torch.tensor([[1.0, 0, 0], [1, 0.1, 0], [1, 0.4, 0], [1, 0, 0.2]]), dim=1)
    weights = negative_weights(points, torch.tensor([0, 1, 1, 2]), 0.5, 1.4)[0]
    torch.testing.assert_close(weights, torch.tensor([0, 1 / 3, 1 / 3, 1 / 3]))


def test_negatives_are_sampled_by_their_weights():
    points, labels = embeddings(images=8), LABELS
    torch.manual_seed(0)
    draws = torch.stack([draw_negatives(points, labels, 0.5, 1.4) for _ in range(500)])  # [500, 8, 8]
    weights = negative_weights(points, labels, 0.5, 1.4)
    for anchor in range(8):
        share = torch.bincount(draws[:, anchor].flatten(), minlength=8) / draws[:, anchor].numel()
        assert (share - weights[anchor]).abs().max() < 4 * math.sqrt(0.25 / 4000)
        assert share[weights[anchor] == 0].sum() == 0


def test_sampled_triplets_have_hinge_losses_averaged_over_pairs():
    points = embeddings().requires_grad_()
    cost = seeded(Triplet([1]), points)
    torch.manual_seed(3)
    chosen = draw_negatives(points.detach(), LABELS, 0.5, 1.4)
    costs = [
        functional.relu((points[a] - points[p]).norm() - (points[a] - points[chosen[a, p]]).norm() + 0.2)
        for a, p in positive_pairs(LABELS).nonzero().tolist()
    ]
    assert len(costs) == 14
    torch.testing.assert_close(cost, torch.stack(costs).mean())


@pytest.mark.parametrize("mining", get_args(Mining))
def test_every_mining_gives_a_loss_with_a_finite_gradient_also_for_duplicates(mining):
    points = embeddings()
    points[1] = points[0]
    points[5] = points[3]
    points.requires_grad_()
    cost = seeded(Triplet([1], mining=mining), points)
    cost.backward()
    assert cost > 0
    assert torch.isfinite(points.grad).all()


@pytest.mark.parametrize("mining", ["distance_weighted", "all"])
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [0]])
def test_a_batch_without_a_triplet_has_zero_loss(mining, labels):
    points = embeddings(images=len(labels)).requires_grad_()
    cost = Triplet([1], mining=mining)(points, torch.tensor(labels))
    cost.backward()
    assert cost.detach() == 0
    assert points.grad.abs().max() == 0


def test_sampled_triplets_follow_the_seed_of_torch():
    points = embeddings()
    assert torch.equal(seeded(Triplet([1]), points), seeded(Triplet([1]), points))


def test_autocast_does_not_affect_the_loss():
    points = embeddings().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cost = seeded(Triplet([1]), points)
    assert torch.equal(cost, seeded(Triplet([1]), points))


def test_triplets_beyond_the_margin_have_zero_loss():
    distances = torch.tensor([[0.0, 0.1, 2.0], [0.1, 0.0, 2.0], [2.0, 2.0, 0.0]])
    assert all_triplets(distances, torch.tensor([0, 0, 1]), 0.2) == 0


def test_a_missing_package_is_named_with_what_to_do(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"pytorch-metric-learning, which is not installed.*mining=distance_weighted"):
        Triplet([1], mining="pytorch_metric_learning")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mining": "hard"}, "loss.mining=hard.*distance_weighted"),
        ({"cutoff": 1.5}, "0 < cutoff < nonzero_cutoff"),
        ({"nonzero_cutoff": 2.0}, "0 < cutoff < nonzero_cutoff"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Triplet([1], **options)


def test_mixed_images_are_refused():
    with pytest.raises(ConfigError, match="mixup"):
        Triplet([1])(embeddings(), LABELS, (LABELS, torch.ones(8)))
