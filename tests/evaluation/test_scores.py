"""Class scores: the order of the best classes and the two links."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn import functional

from ltr.evaluation.scores import log_normaliser, probabilities, top_classes

FEW_VALUES = st.sampled_from([-np.inf, -3.5, -1.0, -0.0, 0.0, 1e-30, 1.0, 2.5, 1e30, np.inf])


def best_by_sorting(logits: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-logits, axis=1, kind="stable")[:, :k]


@settings(max_examples=60, deadline=None)
@given(
    logits=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=FEW_VALUES.map(np.float32)
    ),
    data=st.data(),
)
def test_top_classes_are_those_of_a_stable_sort_even_with_ties(logits, data):
    k = data.draw(st.integers(1, logits.shape[1]))
    values, ids = top_classes(torch.from_numpy(logits), k)
    assert ids.tolist() == best_by_sorting(logits, k).tolist()
    assert values.tolist() == np.take_along_axis(logits, ids.numpy(), 1).tolist()


@pytest.mark.parametrize("classes", [64, 128, 700, 704, 1000, 1343])
@pytest.mark.parametrize("levels", [1, 3, 50, 100_000])
def test_ranking_in_blocks_equals_a_stable_sort(classes, levels):
    draws = np.random.default_rng(classes + levels).integers(0, levels, size=(8, classes))
    logits = (draws / 7 - levels / 20).astype(np.float32)
    values, ids = top_classes(torch.from_numpy(logits), 5)
    assert ids.tolist() == best_by_sorting(logits, 5).tolist()
    assert values.tolist() == np.take_along_axis(logits, ids.numpy(), 1).tolist()


def test_ties_are_resolved_towards_the_lowest_class():
    assert top_classes(torch.zeros(1, 5000), 5)[1].tolist() == [[0, 1, 2, 3, 4]]


def test_softmax_normaliser_minus_label_logit_is_cross_entropy():
    logits, labels = 4 * torch.randn(32, 7), torch.randint(0, 7, (32,))
    nll = log_normaliser(logits, "softmax") - logits[torch.arange(32), labels]
    torch.testing.assert_close(nll, functional.cross_entropy(logits, labels, reduction="none"))


def test_sigmoid_normaliser_minus_label_logit_is_the_sum_of_binary_cross_entropies():
    logits, labels = 4 * torch.randn(32, 7), torch.randint(0, 7, (32,))
    nll = log_normaliser(logits, "sigmoid") - logits[torch.arange(32), labels]
    one_hot = functional.one_hot(labels, 7).float()
    expected = functional.binary_cross_entropy_with_logits(logits, one_hot, reduction="none").sum(1)
    torch.testing.assert_close(nll, expected)


def test_softmax_probabilities_of_all_classes_sum_to_one():
    logits = 50 * torch.randn(16, 9)
    total = probabilities(logits, log_normaliser(logits, "softmax"), "softmax").sum(1)
    torch.testing.assert_close(total, torch.ones(16))


def test_sigmoid_probabilities_are_not_divided_by_their_sum():
    logits = torch.zeros(1, 3)
    assert probabilities(logits, log_normaliser(logits, "sigmoid"), "sigmoid").tolist() == [[0.5, 0.5, 0.5]]
