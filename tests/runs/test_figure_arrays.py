"""Arrays that a run keeps for its figures: sampling frequencies, and norms of the classifier's weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ltr.data.sampling.class_index import ClassIndex
from ltr.data.sampling.samplers import ClassBalanced
from ltr.methods.background_splitting.head import BackgroundHead
from ltr.methods.core.network import ImageClassifier
from ltr.models.heads import CosineHead, LinearHead
from ltr.runs.figure_arrays import draws_of


class Facts:
    num_classes = 3


class Network:
    dataset_info = Facts()

    def __init__(self, head):
        self.head = head


def linear(rows: int = 3) -> LinearHead:
    head = LinearHead(2, rows)
    head.weight.data = torch.tensor([[3.0, 4.0], [0.0, 1.0], [2.0, 0.0]])[:rows]
    return head


def test_norms_of_a_linear_head_are_those_of_its_rows():
    assert ImageClassifier.weight_norms(Network(linear())).tolist() == [5, 1, 2]


def test_a_constant_background_has_no_norm():
    norms = ImageClassifier.weight_norms(Network(BackgroundHead(linear(2), 0.1)))
    assert norms[0].isnan()
    assert norms[1:].tolist() == [5, 1]


@pytest.mark.parametrize("head", [CosineHead(2, 3), BackgroundHead(CosineHead(2, 2), 0.1), linear(2), None])
def test_classifiers_without_rows_have_no_norms(head):
    assert ImageClassifier.weight_norms(Network(head)) is None


def arrays(path):
    with np.load(path) as file:
        return dict(file)


def test_a_decoupled_run_stores_sampled_classes_of_both_stages_and_norms_before_and_after(ltr_train):
    done = ltr_train("method=lws", "trainer.max_epochs=2", "method.classifier.epochs=2")
    assert done.code == 0, done.err
    draws = arrays(done.directory / "artifacts" / "draws.npz")
    counts = arrays(done.directory / "split.npz")["class_counts"]
    assert draws["representation.epochs"].tolist() == [1, 2]
    assert (draws["representation.counts"] == counts).all()
    assert np.ptp(draws["classifier.counts"][0]) <= 1  # class-balanced
    norms = arrays(done.directory / "artifacts" / "class_weights.npz")
    assert norms["before"].shape == norms["after"].shape == counts.shape
    assert not np.allclose(norms["before"], norms["after"])


class Data:
    """A data module of 40 epochs over three classes, drawn class-balanced from epoch 33 on."""

    epochs = 40
    sampler = ClassBalanced(defer_from=0.8)

    class split:
        num_classes = 3
        train = np.arange(60)

        @staticmethod
        def labels(source):
            return np.repeat(np.arange(3), [40, 15, 5])

    source = None

    def epoch_sample(self, epoch):
        index = ClassIndex.from_labels(self.split.labels(None), 3)
        return self.sampler.epoch(index, seed=0, epoch=epoch, epochs=self.epochs)


def test_a_deferred_sampling_distribution_is_stored_before_and_after_its_start():
    draws = draws_of(Data())
    assert draws["epochs"].tolist()[0] == 1
    assert draws["epochs"].tolist()[-1] == 40
    assert len(draws["epochs"]) <= 18
    before, after = draws["epochs"] <= 32, draws["epochs"] > 32
    assert {32, 33} <= set(draws["epochs"].tolist())
    assert (draws["counts"][before] == [40, 15, 5]).all()
    assert (draws["counts"][after] == 20).all()


def test_weights_normalised_with_tau_one_have_unit_norms(ltr_train):
    done = ltr_train("method=tau_norm", "method.tau=1", "trainer.max_epochs=1")
    norms = arrays(done.directory / "artifacts" / "class_weights.npz")
    assert norms["after"] == pytest.approx(np.ones(10))
    assert norms["before"].std() > 0
