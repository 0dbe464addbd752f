"""Batches of stored features: the order of the samplers, and a view for each position."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ltr.data.loaders.feature_table import FeatureTable, fill
from ltr.data.loaders.features import FeatureLoader

IMAGES, WIDTH = 30, 2
LABELS = torch.arange(IMAGES) % 3


@pytest.fixture
def tables(tmp_path):
    """Three tables whose features tell the table and the image."""

    def table(number):
        filled = FeatureTable(tmp_path / str(number), IMAGES, WIDTH)
        rows = np.stack([np.full(IMAGES, number), np.arange(IMAGES)], axis=1).astype(np.float32)
        fill(filled, np.arange(IMAGES), lambda indices: [rows[indices]], IMAGES)
        return filled

    return [table(number) for number in range(3)]


def loader(tables, **options):
    order = np.random.default_rng(1).permutation(IMAGES)
    return FeatureLoader(tables, LABELS, device=torch.device("cpu"), order=lambda epoch: order, **options)


def test_a_batch_holds_the_features_and_labels_of_its_images(tables):
    seen = list(loader(tables[:1], batch_size=8))
    assert [len(batch.images) for batch in seen] == [8, 8, 8, 6]
    for batch in seen:
        assert torch.equal(batch.images[:, 1].long(), batch.indices)
        assert torch.equal(batch.labels, LABELS[batch.indices])


def test_views_depend_on_epoch_and_position_only(tables):
    def views(epoch, batch_size):
        one = loader(tables, batch_size=batch_size, seed_of_epoch=lambda number: 100 + number)
        one.sampler.set_epoch(epoch)
        return torch.cat([batch.images[:, 0] for batch in one])

    assert set(views(0, 7).tolist()) == {0.0, 1.0, 2.0}
    assert torch.equal(views(0, 7), views(0, 30))
    assert not torch.equal(views(0, 7), views(1, 7))


def test_an_epoch_resumes_in_its_middle(tables):
    whole = list(loader(tables, batch_size=8))
    later = loader(tables, batch_size=8)
    later.start_at(0, 2)
    for batch, expected in zip(later, whole[2:], strict=True):
        assert torch.equal(batch.images, expected.images)
