"""The open-set network and the network for digits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from ltr.models.classifier32 import Classifier32
from ltr.models.digits_net import DigitsNet
from ltr.models.heads import LinearHead
from ltr.models.weights import seeded_construction


def test_classifier32_has_nine_convolutions_of_the_papers_widths():
    convolutions = [module for module in Classifier32(3).modules() if isinstance(module, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [64, 64, 128, 128, 128, 128, 128, 128, 128]
    assert [c.stride[0] for c in convolutions] == [1, 1, 2] * 3
    assert all(c.bias is None for c in convolutions)


def test_classifier32_starts_from_the_papers_normal_distributions():
    with seeded_construction(0):
        network = Classifier32(3)
    convolutions = torch.cat([m.weight.flatten() for m in network.modules() if isinstance(m, nn.Conv2d)])
    norms = torch.cat([m.weight for m in network.modules() if isinstance(m, nn.BatchNorm2d)])
    assert convolutions.std().item() == pytest.approx(0.05, rel=0.01)
    assert norms.mean().item() == pytest.approx(1.0, abs=0.005)
    assert norms.std().item() == pytest.approx(0.02, rel=0.1)


def test_classifier32_drops_channels_only_in_training():
    network = Classifier32(3)
    images = torch.randn(4, 3, 32, 32)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


@pytest.mark.parametrize("size", [32, 64])
def test_classifier32_accepts_cifar_and_tiny_imagenet_sizes(size):
    assert Classifier32(3, feature_dim=50)(torch.randn(2, 3, size, size)).shape == (2, 50)


def test_digits_net_has_few_parameters():
    assert 20_000 < sum(p.numel() for p in DigitsNet(1).parameters()) < 60_000


def test_digits_net_classifies_more_than_95_percent_of_the_digits_after_six_epochs():
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
    labels = torch.tensor(digits.target)
    with seeded_construction(0):
        backbone, head = DigitsNet(1), LinearHead(64, 10)
    optimizer = torch.optim.SGD([*backbone.parameters(), *head.parameters()], lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(labels), generator=generator)
    train, test = order[:1000], order[1000:]
    for _ in range(6):
        for batch in train[torch.randperm(len(train), generator=generator)].split(64):
            loss = F.cross_entropy(head(backbone(images[batch])), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    backbone.eval()
    with torch.no_grad():
        accuracy = (head(backbone(images[test])).argmax(1) == labels[test]).float().mean()
    assert accuracy > 0.95
