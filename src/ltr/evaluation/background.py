"""The background protocol: find images of a few rare classes among many background images.

Label 0 is the background, 1..N are the foreground classes. Every foreground class ranks all images by its score. A
class may have a handful of images among a hundred thousand; average precision is therefore exact and not binned, for
which the protocol keeps N numbers per image.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ltr.errors import ConfigError, nearest
from ltr.evaluation.averages import mean, ratio
from ltr.evaluation.curves import histograms
from ltr.evaluation.groups import GROUPS, class_table, shot_groups
from ltr.evaluation.protocol import Measurements, Protocol
from ltr.evaluation.ranking import RankedPositives, as_numpy, ranked_columns
from ltr.evaluation.rows import PerImageTable, refuse_bad_labels, refuse_bad_scores
from ltr.evaluation.scorers import log_odds
from ltr.evaluation.scores import Scores, check_link, class_labels
from ltr.identity import named

SCORERS = ("probability", "logit")
_LABELS = {"probability": "log-odds of the best foreground class", "logit": "largest foreground logit"}

_AT = (10, 100)  # k of precision at k
_PRECISIONS = (0.9, 0.5)  # precisions of recall at fixed precision
_CURVE_POINTS = 200


@named("protocol/background")
class Background(Protocol):
    """Background protocol, with 4 N + 8 bytes of memory per image (48 more with predictions).

    100,000 images take 41 MB for 100 classes and 401 MB for 1,000; `compute` adds a copy of 16 classes at a time.

    Args:
        class_counts: int64 [N + 1], training images of the background and of each foreground class.
        scorer: score that ranks images for a class, its ``probability`` or its ``logit``. The orders differ for a
            softmax link, where a probability also depends on the other logits of the image, and are equal for a sigmoid
            link. Probabilities are kept as log-odds, which have the same order and do not saturate near 1.
        link: ``softmax`` or ``sigmoid``, the loss's function from logits to probabilities.
        many_above: see `ltr.evaluation.groups.shot_groups`; the background is in no group.
        few_below: see `ltr.evaluation.groups.shot_groups`.
        keep_predictions: True keeps a row for each image.
        device: device of the scores.

    Raises:
        ConfigError: the scorer or the link is unknown, there is no foreground class, or bounds are out of range.
    """

    name: ClassVar[str] = "background"
    headline: ClassVar[str] = "map"
    own_scorers: ClassVar[tuple[str, ...]] = SCORERS

    def __init__(
        self,
        class_counts: np.ndarray | Tensor,
        *,
        scorer: str = "probability",
        link: str = "softmax",
        many_above: int = 100,
        few_below: int = 20,
        keep_predictions: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        if scorer not in SCORERS:
            raise ConfigError(
                f"the background protocol scores by {' or '.join(SCORERS)}, not by {scorer!r}{nearest(scorer, SCORERS)}"
            )
        check_link(link)
        self.class_counts = np.asarray(class_counts, dtype=np.int64)
        if len(self.class_counts) < 2:
            raise ConfigError(
                f"the background protocol needs label 0, the background, and at least one foreground class; the split "
                f"has {len(self.class_counts)} labels. Use a dataset config with background (cifar100_bg, inat_bg, ...)"
            )
        self.groups = shot_groups(self.class_counts[1:], many_above, few_below)
        self.num_foreground = len(self.class_counts) - 1
        self.scorer = scorer
        self.link = link
        self.keep_predictions = keep_predictions
        score = (torch.float32, (self.num_foreground,))
        self._rows = PerImageTable(score, self.num_foreground + 1, link, keep_predictions, device)

    @property
    def bytes_per_image(self) -> int:
        """Device memory that one image takes."""
        return self._rows.bytes_per_image

    @torch.no_grad()
    def update(self, scores: Scores, labels: Tensor, indices: Tensor | None = None) -> None:
        """Add one batch.

        Args:
            scores: logits [B, N + 1], the background's first; the rest is ignored.
            labels: integers [B], in [0, N].
            indices: int64 [B], source indices of the images; None numbers images in order of arrival.
        """
        labels = class_labels(labels)
        logits = self._rows.logits_of(scores, labels)
        score = (log_odds(logits, self.link) if self.scorer == "probability" else logits)[:, 1:]
        self._rows.add_batch(score, logits, labels, indices)

    def reduce(self) -> None:
        """Join the images of all processes; see `ltr.evaluation.rows.Rows.join`."""
        self._rows.join()

    def compute(self) -> Measurements:
        """Compute the result over all images so far.

        Returns:
            ``metrics`` are fractions in [0, 1], and false alarms per thousand background images; NaN if there is
            nothing to average. Means are over foreground classes that have evaluated images.
            ``per_class`` has arrays [N] of the foreground classes, whose ``class_id`` starts at 1: ``class_id
            train_count group n correct accuracy precision recall f1 average_precision r_precision precision_at_10
            precision_at_100 recall_at_precision_90 recall_at_precision_50``.
            ``predictions`` has one row per image, sorted by id: ``id label prediction top5 [n, k] scores [n, k]`` with
            the probabilities of the five best classes, including the background. Empty without ``keep_predictions``.
            ``curves``: ``pr_recall pr_precision`` [N, 200 at most], rows padded with NaN, ``pr_class_id`` and
            ``average_precision`` [N]; ``histogram_edges`` and the counts ``histogram_background histogram_foreground``
            of each image's best foreground score; ``false_alarms`` [N], background images predicted as each class;
            ``score_label`` is the name of the score in figures.

        Raises:
            TrainingError: some scores were not finite.
            DataError: some labels were out of range.
            RuntimeError: there are several processes and `reduce` has not been called.
        """
        self._rows.check_joined()
        label, prediction = self._rows.integers("label"), self._rows.integers("prediction")
        best = np.concatenate([as_numpy(batch.amax(dim=1)) for batch in self._rows.batches("score")])
        is_wrong = (label < 0) | (label > self.num_foreground)
        allowed = f"0..{self.num_foreground}, the background and the foreground classes of the split"
        refuse_bad_labels(int(is_wrong.sum()), len(label), allowed)
        refuse_bad_scores(int(np.isnan(best).sum()), len(label))

        ranked: dict[str, list[float]] = {name: [] for name in _RANKED}
        precision_recall = []
        for ranking in ranked_columns(self._rows.batches("score"), label - 1):
            for name, values in ranked.items():
                values.append(_RANKED[name](ranking))
            precision_recall.append(ranking.curve(_CURVE_POINTS))
        per_class = self._per_class(label, prediction) | {k: np.array(v) for k, v in ranked.items()}
        background = label == 0
        predicted_as = np.bincount(prediction[background], minlength=self.num_foreground + 1)
        false_alarms = 1000 * float(ratio(predicted_as[1:].sum(), background.sum()))
        metrics = self._metrics(per_class, false_alarms) | {"accuracy": mean(label == prediction)}
        return Measurements(
            metrics,
            per_class,
            self._rows.predictions(),
            curves={
                **_padded(precision_recall),
                "pr_class_id": per_class["class_id"],
                "average_precision": per_class["average_precision"],
                "false_alarms": predicted_as[1:],
                "score_label": np.array(_LABELS[str(self.scorer)]),
                **histograms(best, {"background": background, "foreground": ~background}),
            },
        )

    def _per_class(self, label: np.ndarray, prediction: np.ndarray) -> dict[str, np.ndarray]:
        size = self.num_foreground + 1
        n, predicted = (np.bincount(values, minlength=size)[1:] for values in (label, prediction))
        correct = np.bincount(label[label == prediction], minlength=size)[1:]
        table = class_table(self.class_counts[1:], self.groups, n, correct, predicted)
        return table | {"class_id": table["class_id"] + 1}

    def _metrics(self, per_class: dict[str, np.ndarray], false_alarms: float) -> dict[str, float]:
        """Return means over the foreground classes that have evaluated images, of all classes and by shot group."""
        present = per_class["n"] > 0
        # the precision of a class that is never predicted counts as 0, as in the code of the paper
        values = {
            "map": per_class["average_precision"],
            "macro_precision": np.nan_to_num(per_class["precision"]),
            "macro_recall": per_class["recall"],
            "macro_f1": per_class["f1"],
        }
        metrics = {name: mean(value[present]) for name, value in values.items()}
        metrics["false_alarms_per_thousand"] = false_alarms
        for name in _RANKED:
            if name != "average_precision":
                value = per_class[name][present]
                metrics[name] = mean(value[~np.isnan(value)])
        for group in GROUPS:
            members = present & self.groups[group]
            metrics |= {f"{name}_{group}": mean(value[members]) for name, value in values.items()}
            metrics[group] = metrics[f"macro_recall_{group}"]
        return metrics


_RANKED: dict[str, Callable[[RankedPositives], float]] = {
    "average_precision": RankedPositives.average_precision,
    "r_precision": RankedPositives.r_precision,
    **{f"precision_at_{k}": partial(RankedPositives.precision_at, k=k) for k in _AT},
    **{
        f"recall_at_precision_{100 * precision:.0f}": partial(RankedPositives.recall_at_precision, precision=precision)
        for precision in _PRECISIONS
    },
}


def _padded(curves: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return curves of unequal lengths as two float32 arrays [N, longest], padded with NaN."""
    longest = max((len(recall) for recall, _ in curves), default=0)
    arrays = {name: np.full((len(curves), longest), np.nan, dtype=np.float32) for name in ("recall", "precision")}
    for row, (recall, precision) in enumerate(curves):
        arrays["recall"][row, : len(recall)] = recall
        arrays["precision"][row, : len(precision)] = precision
    return {f"pr_{name}": values for name, values in arrays.items()}
