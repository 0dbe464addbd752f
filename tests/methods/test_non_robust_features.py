"""Training on non-robust features: the perturbed images, their labels, and that untouched ones are evaluated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_plans import planned, state

from ltr.errors import ConfigError
from ltr.methods.non_robust_features import new_labels

# digits: 8 x 8 pixels need a larger change than a photograph
EASY = ["method=non_robust_features", "dataset=digits", "method.budget=1.5", "method.step_size=0.3", "method.steps=20"]


@pytest.fixture(scope="module")
def network():
    """A plain network that has learned something."""
    plan = planned("dataset=digits")
    actual = plan.representation()
    optimizer = torch.optim.Adam(actual.parameters(), 3e-3)
    actual.train()
    for _ in range(3):
        for batch in plan.data.evaluation_loader(np.random.default_rng(0).permutation(plan.data.split.train)):
            optimizer.zero_grad()
            actual.training_step(batch, 0)["loss"].backward()
            optimizer.step()
    return actual.eval()


@pytest.fixture(scope="module")
def perturbed(network):
    return planned(*EASY).compute("perturbed", network)


def test_the_representation_is_that_of_erm():
    plan = planned("method=non_robust_features", "loss=ldam", "sampler=class_balanced")
    assert list(plan.stages) == ["representation", "perturbed", "classifier"]
    assert plan.keys["representation"] == planned().keys["representation"]


def test_the_new_network_starts_from_other_weights_than_the_representation():
    plan = planned(*EASY)
    first, fresh = (plan.stages[name] for name in ("representation", "classifier"))
    one, other = (s.network(plan.dataset_info, 0) for s in (first, fresh))
    assert not torch.equal(one.backbone.stage1[0].weight, other.backbone.stage1[0].weight)


def test_every_training_image_is_perturbed_within_the_budget_to_be_predicted_as_its_target(network, perturbed):
    data = planned(*EASY).data
    train = data.split.train
    assert perturbed["images"].dtype == np.uint8
    change = (perturbed["images"][train].astype(float) - data.source.images[train]) / 255
    length = np.sqrt((change**2).sum((1, 2, 3)))
    assert length == pytest.approx(perturbed["length"][train], abs=1e-3)
    assert length.max() < 1.5 + 0.02  # rounding to 8 bits
    with torch.no_grad():
        images = torch.from_numpy(perturbed["images"][train]).permute(0, 3, 1, 2)
        seen = network(network.to_unit(images)).argmax(1).numpy()
    assert (seen == perturbed["targets"][train]).mean() > 0.8


def test_only_training_images_are_perturbed(perturbed):
    test = planned(*EASY).data.split.test
    assert not perturbed["images"][test].any()
    assert not perturbed["length"][test].any()


def test_perturbing_images_does_not_change_the_network(network):
    before = state(network)
    planned(*EASY, "method.steps=1").compute("perturbed", network)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(p.grad is None or not p.grad.isnan().any() for p in network.parameters())


def test_the_control_has_the_same_labels_and_noise_of_the_same_norm(network, perturbed):
    control = planned(*EASY, "method.perturbation=noise").compute("perturbed", network)
    train = planned(*EASY).data.split.train
    assert np.array_equal(control["targets"], perturbed["targets"])
    assert control["length"][train] == pytest.approx(1.5, abs=0.02)
    assert not np.array_equal(control["images"], perturbed["images"])


def test_random_targets_are_independent_of_the_label_and_next_targets_follow_it():
    labels = np.repeat(np.arange(10), 5000)
    random = new_labels(labels, 10, "random", seed=0)
    table = np.zeros((10, 10))
    np.add.at(table, (labels, random), 1 / 5000)
    assert table == pytest.approx(0.1, abs=0.02)
    assert new_labels(np.array([0, 8, 9]), 10, "next", seed=0).tolist() == [1, 9, 0]


@pytest.mark.parametrize(
    ("more", "reason"),
    [("augment=cifar_mixup", "and no label"), ("augment=imagenet", "files are too large")],
)
def test_data_that_cannot_be_perturbed_are_refused(more, reason):
    with pytest.raises(ConfigError, match=reason):
        planned("method=non_robust_features", more)


@pytest.mark.slow
def test_training_with_random_labels_classifies_clean_images_above_chance(ltr_train):
    # the finding of the paper, small: chance is 10 %
    long = ["trainer.max_epochs=8", "trainer.precision=fp32", "optimizer.lr=0.05", "scheduler=cosine"]
    done = ltr_train(*EASY, *long)
    assert done.code == 0, done.err
    assert done.headline["accuracy"] > 0.3
    assert [stage["name"] for stage in done.result["stages"]] == ["representation", "perturbed", "classifier"]
    with np.load(done.directory / "artifacts" / "perturbed.npz") as arrays:
        assert len(arrays["targets"]) == len(arrays["images"])
