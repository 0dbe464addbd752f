"""Episodes of nearest prototypes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ltr.errors import ConfigError, DataError
from ltr.evaluation.few_shot import FewShot, episode_accuracies
from ltr.evaluation.scores import Scores

LABELS = np.repeat(np.arange(6), 20)


def separated(noise: float) -> np.ndarray:
    return np.eye(6)[LABELS] * 10 + np.random.default_rng(0).normal(size=(120, 6)) * noise


def test_well_separated_classes_are_classified_without_error():
    assert episode_accuracies(separated(0.1), LABELS, 5, 1, 15, 20).tolist() == [1.0] * 20


def test_uninformative_features_give_chance_accuracy():
    features = np.random.default_rng(1).normal(size=(120, 6))
    assert episode_accuracies(features, LABELS, 5, 5, 15, 400).mean() == pytest.approx(0.2, abs=0.03)


def test_more_labelled_images_help():
    one, five = (episode_accuracies(separated(6.0), LABELS, 5, shot, 10, 200).mean() for shot in (1, 5))
    assert five > one + 0.05


def test_the_interval_is_that_of_the_mean_over_episodes():
    evaluate = FewShot(way=3, shot=1, queries=5, episodes=50)
    evaluate.update(Scores(torch.empty(0), torch.as_tensor(separated(5.0))), torch.as_tensor(LABELS))
    result = evaluate.compute()
    accuracies = result.curves["accuracy"]
    assert result.metrics["accuracy"] == accuracies.mean()
    assert result.metrics["accuracy_ci95"] == pytest.approx(1.96 * accuracies.std(ddof=1) / np.sqrt(50))


def test_episodes_do_not_depend_on_the_network():
    first, second = (episode_accuracies(separated(5.0), LABELS, 5, 1, 10, 30) for _ in range(2))
    np.random.seed(3)  # noqa: NPY002  the global generator has no part in it
    assert np.array_equal(first, second)
    assert np.array_equal(first, episode_accuracies(separated(5.0), LABELS, 5, 1, 10, 30))


def test_classes_with_too_few_images_are_left_out_and_too_few_classes_are_an_error():
    with pytest.raises(DataError, match=r"5-way episode needs 5 classes with 21 images each .* and 0 have so many"):
        episode_accuracies(separated(1.0), LABELS, 5, 1, 20, 1)


@pytest.mark.parametrize("wrong", [{"way": 1}, {"shot": 0}, {"queries": 0}, {"episodes": 0}])
def test_an_empty_episode_is_refused(wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        FewShot(**wrong)
