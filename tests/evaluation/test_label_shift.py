"""Accuracy under a prior of deployment."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ltr.errors import ConfigError
from ltr.evaluation.label_shift import COMPOSITIONS, label_shift_rows
from ltr.evaluation.priors import tail_prior
from ltr.evaluation.scores import Scores

COUNTS = np.array([300, 60, 10])
LABELS = np.tile(np.arange(3), 100)
LOGITS = np.random.default_rng(0).normal(size=(300, 3)) + 1.2 * np.eye(3)[LABELS] + 0.5 * np.log(COUNTS / 370)


def results(prior, prior_of_scores, link="softmax", batches=1):
    rows = label_shift_rows(COUNTS, prior, prior_of_scores, link=link, many_above=100, few_below=20, device="cpu")
    order = np.random.default_rng(1).permutation(300)
    for part in np.array_split(order, batches):
        for row in rows:
            row.update(
                Scores(torch.tensor(LOGITS[part], dtype=torch.float32)),
                torch.tensor(LABELS[part]),
                torch.tensor(part),
            )
    return {row.scorer: row.compute().metrics for row in rows}


def test_each_composition_has_a_row():
    assert list(results(COUNTS, COUNTS)) == list(COMPOSITIONS)


@pytest.mark.parametrize("prior", [COUNTS, np.ones(3)])
def test_the_prior_of_the_scores_does_not_change_predictions(prior):
    for metrics in results(prior, prior).values():
        assert metrics["accuracy"] == metrics["unadjusted_accuracy"]


def test_the_accuracy_is_that_of_the_posterior_times_the_ratio_of_priors():
    target = np.array([0.2, 0.3, 0.5])
    posterior = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    expected = (posterior * target / (COUNTS / COUNTS.sum())).argmax(1) == LABELS
    metrics = results(target, COUNTS)["test"]
    assert metrics["accuracy"] == pytest.approx(expected.mean())
    assert metrics["few"] == pytest.approx(expected[LABELS == 2].mean())
    assert metrics["balanced_accuracy"] == pytest.approx(expected.mean())
    assert metrics["images"] == 300


def test_the_known_prior_of_the_whole_balanced_test_set_is_uniform():
    metrics = results(np.ones(3), COUNTS)
    assert metrics["test"]["known_prior_accuracy"] == metrics["test"]["accuracy"]
    assert metrics["backward_50"]["images"] == metrics["forward_50"]["images"] == 100 + 14 + 2


def test_an_estimated_prior_is_that_of_the_estimated_exponent():
    metrics = results(None, COUNTS)["backward_50"]
    assert metrics["prior_exponent"] < 0
    fixed = results(tail_prior(COUNTS, metrics["prior_exponent"]), COUNTS)["backward_50"]
    assert metrics == {**fixed, "prior_exponent": metrics["prior_exponent"]}
    assert "prior_exponent" not in fixed


def test_results_do_not_depend_on_batches():
    assert results(np.ones(3), COUNTS, batches=7) == results(np.ones(3), COUNTS)


def test_scores_of_a_sigmoid_are_refused():
    with pytest.raises(ConfigError, match="not a posterior"):
        results(np.ones(3), COUNTS, link="sigmoid")
