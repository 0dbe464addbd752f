"""Few-shot recognition by nearest prototype, in episodes of a few classes with a few labelled images each."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from ltr.errors import ConfigError, DataError
from ltr.evaluation.embeddings import EmbeddingProtocol
from ltr.evaluation.protocol import Measurements
from ltr.identity import named
from ltr.randomness import generator


@named("protocol/few_shot")
class FewShot(EmbeddingProtocol):
    """Few-shot protocol: accuracy of nearest prototypes over episodes (Snell et al., NeurIPS 2017).

    An episode samples ``way`` classes, and ``shot`` labelled images and ``queries`` further images of each. The
    prototype of a class is the mean feature of its labelled images; a query is assigned to the nearest prototype in
    Euclidean distance. Episodes are a function of their number and the same for every network.

    Args:
        way: classes per episode, >= 2; 5 in the paper.
        shot: labelled images per class, >= 1; 1 or 5 in the paper.
        queries: queries per class, >= 1; 15 in the paper.
        episodes: number of episodes, >= 1; 600 in the paper.
        device: device of the scores.

    Raises:
        ConfigError: a number is out of range.
    """

    name: ClassVar[str] = "few_shot"
    headline: ClassVar[str] = "accuracy"

    def __init__(
        self,
        *,
        way: int = 5,
        shot: int = 1,
        queries: int = 15,
        episodes: int = 600,
        device: torch.device | str = "cpu",
    ) -> None:
        if way < 2 or min(shot, queries, episodes) < 1:
            raise ConfigError(
                f"evaluation.way={way} must be at least 2, shot={shot}, queries={queries} and episodes={episodes} 1"
            )
        self.way, self.shot, self.queries, self.episodes = way, shot, queries, episodes
        super().__init__(device)

    def check_labels(self, labels: np.ndarray) -> None:
        """Raise DataError if too few classes have the images that an episode needs."""
        classes_for_episodes(labels, self.way, self.shot + self.queries)

    def compute(self) -> Measurements:
        """Compute the result over all episodes.

        Returns:
            ``metrics``: ``accuracy``, the mean over episodes, and ``accuracy_ci95``, half the width of its 95 %
            interval (1.96 standard errors), both fractions; ``episodes``, their number. ``curves``: ``accuracy``
            [episodes].

        Raises:
            DataError: too few classes have the images that an episode needs.
        """
        features, labels, _ = self.embeddings()
        accuracies = episode_accuracies(
            features.double().cpu().numpy(), labels.cpu().numpy(), self.way, self.shot, self.queries, self.episodes
        )
        half = 1.96 * accuracies.std(ddof=1) / np.sqrt(len(accuracies)) if len(accuracies) > 1 else float("nan")
        metrics = {
            "accuracy": float(accuracies.mean()),
            "accuracy_ci95": float(half),
            "episodes": float(len(accuracies)),
        }
        return Measurements(metrics, curves={"accuracy": accuracies})


def episode_accuracies(
    features: np.ndarray, labels: np.ndarray, way: int, shot: int, queries: int, episodes: int
) -> np.ndarray:
    """Return the accuracy of nearest prototypes in each episode, float64 [episodes].

    Args:
        features: float64 [N, D].
        labels: int64 [N].

    Raises:
        DataError: fewer than ``way`` classes have ``shot + queries`` images.
    """
    needed = shot + queries
    members = classes_for_episodes(labels, way, needed)
    accuracies = np.empty(episodes)
    for episode in range(episodes):
        draws = generator(0, "few_shot", episode)
        chosen = draws.choice(len(members), way, replace=False)
        images = np.stack([draws.choice(members[number], needed, replace=False) for number in chosen])  # [way, needed]
        x = features[images]
        prototypes = x[:, :shot].mean(1)  # [way, D]
        query_features = x[:, shot:].reshape(way * queries, -1)
        distances = ((query_features[:, None] - prototypes) ** 2).sum(-1)
        accuracies[episode] = (distances.argmin(1) == np.repeat(np.arange(way), queries)).mean()
    return accuracies


def classes_for_episodes(labels: np.ndarray, way: int, needed: int) -> list[np.ndarray]:
    """Return the positions of the images of each class that has at least ``needed`` of them.

    Args:
        labels: int64 [N].

    Raises:
        DataError: there are fewer than ``way`` such classes.
    """
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    members = [rows for rows in members if len(rows) >= needed]
    if len(members) < way:
        raise DataError(
            f"a {way}-way episode needs {way} classes with {needed} images each (evaluation.shot + queries), and "
            f"{len(members)} have so many. Lower evaluation.way, shot or queries"
        )
    return members
