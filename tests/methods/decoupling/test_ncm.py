"""NCM: the means and the nearest of them, against scikit-learn and the equations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from method_plans import planned
from sklearn.neighbors import NearestCentroid

from ltr.methods.decoupling.ncm import MeansHead, NearestMean, means_of


@pytest.fixture
def network():
    return planned().representation()


def features_and_labels(network, part):
    actual, labels = [], []
    with torch.no_grad():
        for batch in planned().data.evaluation_loader(part):
            actual.append(network.features(network.to_unit(batch.images)))
            labels.append(batch.labels)
    return torch.cat(actual), torch.cat(labels)


def prepared(features, centre, features_norm):
    if features_norm == "centred_l2":
        features = features - centre
    return features if features_norm == "none" else F.normalize(features, dim=1)


def predictions(plan, network, part="test"):
    predictor = plan.method.predictor(plan.outputs(network, means=plan.compute("means", network)))
    batches = plan.data.evaluation_loader(part)
    return torch.cat([predictor.predict(batch.images)["default"].logits for batch in batches])


@pytest.mark.parametrize("features_norm", ["none", "l2", "centred_l2"])
def test_nearest_mean_equals_scikit_learns_nearest_centroid(network, features_norm):
    train, labels = features_and_labels(network, "train")
    test, _ = features_and_labels(network, "test")
    centre = train.mean(0)
    reference = NearestCentroid().fit(prepared(train, centre, features_norm).numpy(), labels.numpy())
    actual = predictions(planned("method=ncm", f"method.features_norm={features_norm}"), network)
    expected = reference.predict(prepared(test, centre, features_norm).numpy())
    assert np.array_equal(actual.argmax(1).numpy(), expected)
    assert len(set(expected)) > 5


@pytest.mark.parametrize("features_norm", ["none", "l2", "centred_l2"])
def test_the_logits_are_minus_the_squared_distances(network, features_norm):
    plan = planned("method=ncm", f"method.features_norm={features_norm}")
    arrays = plan.compute("means", network)
    test, _ = features_and_labels(network, "test")
    x = prepared(test, torch.from_numpy(arrays["centre"]), features_norm).double()
    distances = (x.unsqueeze(1) - torch.from_numpy(arrays["means"]).double()).square().sum(2)
    torch.testing.assert_close(predictions(plan, network).double(), -distances, rtol=1e-4, atol=1e-4)


def test_cosine_logits_are_cosines(network):
    plan = planned("method=ncm", "method.distance=cosine")
    arrays = plan.compute("means", network)
    test, _ = features_and_labels(network, "test")
    x, means = test - torch.from_numpy(arrays["centre"]), torch.from_numpy(arrays["means"])
    expected = F.cosine_similarity(x.unsqueeze(1), means.unsqueeze(0), dim=2)
    torch.testing.assert_close(predictions(plan, network), expected, rtol=1e-4, atol=1e-5)


def test_the_centre_is_the_mean_of_images_and_not_of_classes():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [5.0, 4.0]])
    actual = means_of(features, torch.tensor([0, 0, 0, 1]), 2, "centred_l2")
    assert actual["centre"].tolist() == [2.0, 1.0]


def test_means_of_unit_features_are_not_normalised_again():
    features = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    actual = means_of(features, torch.tensor([0, 0]), 1, "l2")
    assert actual["means"].tolist() == [[0.5, 0.5]]


def test_a_rare_class_has_the_mean_of_its_images():
    features = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0] * 48 + [1, 1])
    actual = means_of(features, labels, 2, "none")
    torch.testing.assert_close(actual["means"][1], features[48:].mean(0))
    assert not actual["centre"].any()


def test_logits_are_float32_under_autocast():
    head = MeansHead(16, 3, "l2", "euclidean")
    head.means.copy_(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)) * 0.01)
    features = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    plain = head(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(features), plain)


def test_probabilities_are_a_softmax_for_any_loss_of_the_network():
    plan = planned("method=ncm", "loss=focal_sigmoid")
    network = plan.representation()
    assert network.link == "sigmoid"
    assert plan.method.predictor(plan.outputs(network, means=plan.compute("means", network))).link == "softmax"


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_a_class_without_training_images_is_never_predicted(distance):
    head = MeansHead(2, 3, "none", distance)
    head.means.copy_(torch.tensor([[3.0, 0.0], [0.0, 3.0], [0.0, 0.0]]))
    features = torch.tensor([[0.2, 0.1], [0.1, 0.2]])
    before = head(features)
    head.is_empty[2] = True
    assert torch.equal(head(features)[:, :2], before[:, :2])
    assert (head(features)[:, 2] == -torch.inf).all()
    assert head(features).argmax(1).tolist() == [0, 1]


def test_classes_without_training_images_are_named_in_a_warning(network):
    counts = (0, *network.dataset_info.class_counts[1:])
    spec = network.spec.replaced(dataset_info=replace(network.dataset_info, class_counts=counts))
    with pytest.warns(UserWarning, match="1 of 10 classes have no training images"):
        nearest = NearestMean(spec, features_norm="none", distance="euclidean")
    assert nearest.head.is_empty.tolist() == [True] + [False] * 9
    assert "is_empty" not in nearest.head.state_dict()
