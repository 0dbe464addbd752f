"""SMOTE: neighbours against brute force, what is interpolated, and the two spaces as runs."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from method_plans import planned

from ltr.errors import ConfigError
from ltr.methods.core.step_data import step_of
from ltr.methods.decoupling.smote import PixelSmote, choose_partners, nearest_neighbours

COUNTS = np.array([40, 4, 1])


def test_nearest_neighbours_equal_a_search_over_all_pairs(monkeypatch):
    monkeypatch.setattr("ltr.methods.decoupling.smote._ROWS", 7)  # several blocks, the last one short
    points = torch.rand(20, 5, generator=torch.Generator().manual_seed(0))
    distance = torch.cdist(points, points) + torch.diag(torch.full((20,), torch.inf))
    assert torch.equal(nearest_neighbours(points, 4), distance.argsort(1)[:, :4])


def test_neighbours_are_trained_images_of_the_same_class_and_never_the_image_itself():
    plan = planned("method=smote")
    actual = plan.compute("neighbours", plan_network())["neighbours"]
    data = plan.data
    labels, train = data.split.labels(data.source), data.split.train
    assert actual.shape == (len(data.source), 5)
    own = actual[train]
    assert (own >= -1).all()
    assert not (own == train[:, None]).any()
    known = own >= 0
    assert (labels[own[known]] == np.repeat(labels[train], 5).reshape(-1, 5)[known]).all()
    counts = data.split.class_counts[labels[train]]
    assert (known.sum(1) == np.minimum(counts - 1, 5)).all()
    assert (actual[data.split.test] == -1).all()


def plan_network():
    return planned().representation()


def test_images_are_replaced_as_often_as_a_class_lacks_images_and_partners_are_any_of_the_neighbours():
    labels = np.repeat(np.arange(2), 10000)
    near = np.tile([7, 8, -1], (20000, 1))
    rows, others, weights = choose_partners(labels, COUNTS, near, np.random.default_rng(0).random((20000, 3)))
    assert (labels[rows] == 1).all()
    assert len(rows) / 10000 == pytest.approx(0.9, abs=0.01)
    assert np.bincount(others)[7:] / len(others) == pytest.approx([0.5, 0.5], abs=0.02)
    assert np.histogram(weights, 4, (0, 1))[0] / len(weights) == pytest.approx(0.25, abs=0.02)


def test_the_only_image_of_a_class_is_unchanged():
    rows, _, _ = choose_partners(np.array([2, 2]), COUNTS, np.full((2, 5), -1), np.full((2, 3), 0.99))
    assert len(rows) == 0


def test_replaced_images_lie_between_their_image_and_its_neighbour(monkeypatch):
    plan = planned("method=smote")
    actual = plan.compute("neighbours", plan_network())["neighbours"]
    stage = plan.stages["classifier"]
    network = stage.network(plan.dataset_info, 0)
    network._neighbours = actual
    monkeypatch.setattr(PixelSmote, "data", plan.data)
    batch = plan.batch()
    step, indices = step_of(None, 0, 0, batch), batch.indices.numpy()
    images, share = network.interpolate_images(batch, step, indices)
    rows, others, weights = network.partners(step, indices)
    assert share == len(rows) / len(batch.labels)
    changed = (images != batch.images).flatten(1).any(1)
    assert set(changed.nonzero()[:, 0].tolist()) <= set(rows)
    first, second = batch.images[rows].float(), plan.data.images.take(torch.from_numpy(others)).float()
    between = first + torch.from_numpy(weights).float().view(-1, 1, 1, 1) * (second - first)
    assert (images[rows].float() - between).abs().max() <= 0.5 + 1e-3


def test_features_start_from_the_plain_representation():
    plan = planned("method=smote", "method.space=feature")
    assert list(plan.stages) == ["representation", "neighbours", "classifier"]
    assert plan.keys["representation"] == planned().keys["representation"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [(["augment=cifar_mixup"], "interpolated twice"), (["augment=imagenet"], r"method\.space=feature")],
)
def test_data_that_cannot_be_interpolated_are_refused(more, reason):
    with pytest.raises(ConfigError, match=reason):
        planned("method=smote", *more)


@pytest.mark.slow
@pytest.mark.parametrize("space", ["pixel", "feature"])
def test_both_spaces_run_and_log_the_share_that_is_synthetic(ltr_train, space):
    short = ["trainer.max_epochs=2", "trainer.precision=fp32", "augment=digits"]
    second = ["method.classifier.epochs=2"] if space == "feature" else []
    done = ltr_train("method=smote", f"method.space={space}", *short, *second)
    assert done.code == 0, done.err
    with open(done.directory / "metrics.csv", newline="") as file:
        shares = [float(row["train/slots"]) for row in csv.DictReader(file) if row["stage"] == "classifier"]
    counts = np.asarray(planned().dataset_info.class_counts)
    assert shares == pytest.approx([1 - (counts / counts.max()).mean()] * 2, abs=0.06)
