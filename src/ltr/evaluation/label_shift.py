"""Label shift: accuracy under a deployment prior, on the test set and on long-tailed subsets of it."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ltr.errors import ConfigError
from ltr.evaluation.averages import ratio
from ltr.evaluation.groups import group_means, shot_groups
from ltr.evaluation.priors import (
    log_prior_ratio,
    long_tail_prior,
    normalise_prior,
    subsample,
    tail_exponent,
    tail_prior,
)
from ltr.evaluation.protocol import Measurements, Protocol
from ltr.evaluation.rows import Rows
from ltr.evaluation.scores import Scores, class_labels, require_part, top_classes
from ltr.identity import named

# imbalance factor and direction of each subset of the test set, by the name of its row; None: the whole test set
COMPOSITIONS: dict[str, tuple[int, bool] | None] = {
    "test": None,
    **{f"forward_{factor}": (factor, False) for factor in (50, 25, 10)},
    **{f"backward_{factor}": (factor, True) for factor in (10, 25, 50)},
}


class LogitTable:
    """Table of logits, labels and ids, shared by the rows of `LabelShift`; it takes 4 C + 12 bytes per image.

    Args:
        classes: number C of the logits.
        device: device of the scores.
    """

    def __init__(self, classes: int, device: torch.device | str = "cpu") -> None:
        columns = {"logits": (torch.float32, (classes,)), "label": (torch.int32, ()), "id": (torch.int64, ())}
        self.rows = Rows(columns, device)

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Logits float32 [N, C] and labels int64 [N] of all images, in the order of the ids."""
        columns = self.rows.sorted_by_id()
        return columns["logits"].cpu().numpy(), columns["label"].cpu().numpy().astype(np.int64)


@named("protocol/label_shift")
class LabelShift(Protocol):
    """Protocol of the accuracy on one composition of the test set, with the scores adjusted to a deployment prior.

    A prediction is the class of the highest logit + log(deployment prior / prior of the scores).

    Args:
        class_counts: int64 [C], training images of each class.
        prior: deployment prior, float64 [C]; None estimates it from the images of the row, see
            `ltr.evaluation.priors.tail_exponent`.
        prior_of_scores: class prior implied by the logits, float64 [C], all positive.
        composition: key of `COMPOSITIONS`.
        table: table of the images, shared by the rows of one evaluation and filled by the first one.
        fills: True for the first row.
        link: link of the scores, which must be ``softmax``.
        many_above, few_below: see `ltr.evaluation.groups.shot_groups`.

    Raises:
        ConfigError: the link is ``sigmoid``, or a prior is invalid.
    """

    name: ClassVar[str] = "label_shift"
    headline: ClassVar[str] = "accuracy"

    def __init__(
        self,
        class_counts: np.ndarray,
        prior: np.ndarray | None,
        prior_of_scores: np.ndarray,
        composition: str,
        table: LogitTable,
        *,
        fills: bool,
        link: str = "softmax",
        many_above: int = 100,
        few_below: int = 20,
    ) -> None:
        if link != "softmax":
            raise ConfigError(
                f"evaluation.prior: the network's loss has a {link}, whose scores are not a posterior over the "
                "classes. Leave evaluation.prior out, or train with a softmax loss"
            )
        self.class_counts = np.asarray(class_counts)
        self.groups = shot_groups(self.class_counts, many_above, few_below)
        self.prior = None if prior is None else normalise_prior(prior)
        self.prior_of_scores = normalise_prior(prior_of_scores)
        self.scorer = composition
        self.table = table
        self.fills = fills
        # raises for a class without training images before the evaluation
        log_prior_ratio(
            self.prior_of_scores if prior is not None else normalise_prior(self.class_counts), self.prior_of_scores
        )

    def update(self, scores: Scores, labels: Tensor, indices: Tensor | None = None) -> None:
        if self.fills:
            logits = require_part(scores.logits, "logits")
            self.table.rows.add(logits=logits, label=class_labels(labels), id=indices)

    def reduce(self) -> None:
        self.table.rows.join()

    def compute(self) -> Measurements:
        """Return accuracies with the prior (overall, balanced, by shot group), and accuracies for comparison.

        ``unadjusted_accuracy`` uses the scores without a prior, ``known_prior_accuracy`` the class frequencies of the
        composition as the prior; ``images`` is the number of images. If the prior is estimated, ``prior_exponent`` is
        the exponent of the training counts.
        """
        logits, labels = self.table.arrays
        shape = COMPOSITIONS[str(self.scorer)]
        if shape is not None:
            rows = subsample(labels, long_tail_prior(self.class_counts, *shape))
            logits, labels = logits[rows], labels[rows]
        counts = np.bincount(labels, minlength=len(self.class_counts))
        estimate = {}
        prior = self.prior
        if prior is None:
            exponent = tail_exponent(logits, self.prior_of_scores, self.class_counts)
            prior, estimate = tail_prior(self.class_counts, exponent), {"prior_exponent": exponent}
        correct = _hits(logits, labels, log_prior_ratio(self.prior_of_scores, prior))
        known = log_prior_ratio(self.prior_of_scores, normalise_prior(counts))
        recall = ratio(np.bincount(labels, weights=correct, minlength=len(counts)), counts)
        return Measurements(
            {
                "accuracy": float(correct.mean()),
                **group_means(recall, self.groups),
                "unadjusted_accuracy": float(_hits(logits, labels, np.zeros(len(counts))).mean()),
                "known_prior_accuracy": float(_hits(logits, labels, known).mean()),
                "images": float(len(labels)),
                **estimate,
            }
        )


def label_shift_rows(
    class_counts: np.ndarray,
    prior: np.ndarray | None,
    prior_of_scores: np.ndarray,
    *,
    link: str,
    many_above: int,
    few_below: int,
    device: torch.device | str,
) -> list[LabelShift]:
    """Return a protocol object for each of `COMPOSITIONS`; they share one table of logits."""
    table = LogitTable(len(class_counts), device)
    return [
        LabelShift(
            class_counts,
            prior,
            prior_of_scores,
            composition,
            table,
            fills=position == 0,
            link=link,
            many_above=many_above,
            few_below=few_below,
        )
        for position, composition in enumerate(COMPOSITIONS)
    ]


def _hits(logits: np.ndarray, labels: np.ndarray, log_ratio: np.ndarray) -> np.ndarray:
    """Return whether each image's highest adjusted logit is its label's, bool [N]."""
    adjusted = torch.from_numpy(logits + log_ratio.astype(np.float32))
    return np.asarray(top_classes(adjusted, 1)[1][:, 0].numpy() == labels)
