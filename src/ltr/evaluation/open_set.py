"""The open-set protocol: classify known images, and detect images of unknown classes.

Closed-set metrics are over known images only. Detection compares the scores of known and unknown images; results name
the scorer, because they depend on it. Decisions need a threshold, whose source is part of the metric's name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ltr.errors import ConfigError
from ltr.evaluation.averages import ratio
from ltr.evaluation.curves import histograms, thin_curve
from ltr.evaluation.detection import (
    aupr_known,
    aupr_unknown,
    auroc,
    detection_accuracy,
    fpr95_id_pos,
    fpr95_ood_pos,
    operating_points,
    oscr,
    oscr_arpl,
    oscr_curve,
    roc_curve,
    threshold_at_tpr,
)
from ltr.evaluation.groups import GROUPS, class_table, group_means, shot_groups
from ltr.evaluation.open_decisions import best_threshold, decide_open_set, open_f_measure, open_macro_f1
from ltr.evaluation.protocol import Measurements, Protocol
from ltr.evaluation.rows import PerImageTable, refuse_bad_labels, refuse_bad_scores
from ltr.evaluation.scorers import Scorer, build_scorer, known_scores
from ltr.evaluation.scores import Scores, check_link, class_labels
from ltr.evaluation.training_scores import TrainingScores
from ltr.identity import named

VALIDATION, FIXED, ORACLE = "validation", "fixed", "oracle"


@dataclass(frozen=True, eq=False)
class OpenSetResult(Measurements):
    """Result of `OpenSet`.

    Attributes:
        metrics: fractions in [0, 1], except ``threshold_<source>`` in units of the score; NaN if there is nothing to
            average: without unknown images, all but the closed-set metrics.
        per_class: arrays [C] of the known images, before any is rejected, as in the closed-set protocol.
        predictions: one row per image, sorted by id: ``id label prediction known_score top5 [N, k] scores [N, k]``; the
            label of unknown images is -1, scores are probabilities. Empty without ``keep_predictions``.
        curves: ``roc_fpr roc_tpr oscr_fpr oscr_ccr``, thinned to at most 200 points, ``histogram_edges`` and the
            counts ``histogram_correct histogram_wrong histogram_unknown``, ``threshold_<source>``, ``accuracy``;
            ``score_label`` is the name of the score in figures.
        threshold_at_95_tpr: highest threshold that accepts 95 % of these known images; pass that of validation images
            to `OpenSet.with_threshold`.
    """

    threshold_at_95_tpr: float = float("nan")


@named("protocol/open_set")
class OpenSet(Protocol):
    """Open-set protocol, with 16 bytes of memory per image (48 more with predictions).

    Args:
        class_counts: int64 [C], training images of each known class.
        scorer: see `ltr.evaluation.scorers.build_scorer`.
        link: ``softmax`` or ``sigmoid``, the loss's function from logits to probabilities.
        many_above: see `ltr.evaluation.groups.shot_groups`.
        few_below: see `ltr.evaluation.groups.shot_groups`.
        fixed_threshold: probability in (0, 1). For scorers that determine the largest probability (msp), decisions are
            also evaluated with images below it as unknown; 0.1 as in open long-tailed recognition (Liu et al., CVPR
            2019).
        keep_predictions: True keeps a row for each image.
        device: device of the scores.

    Raises:
        ConfigError: the scorer or the link is unknown, or bounds are out of range.
    """

    name: ClassVar[str] = "open_set"
    headline: ClassVar[str] = "closed_set_accuracy"
    parts = ("unknown",)

    def __init__(
        self,
        class_counts: np.ndarray | Tensor,
        *,
        scorer: str | Mapping[str, Any] | Scorer = "msp",
        link: str = "softmax",
        many_above: int = 100,
        few_below: int = 20,
        fixed_threshold: float = 0.1,
        keep_predictions: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        self._scorer = build_scorer(scorer)
        check_link(link)
        if not 0 < fixed_threshold < 1:
            raise ConfigError(f"fixed_threshold={fixed_threshold} is a probability: choose one in (0, 1)")
        self.class_counts = np.asarray(class_counts, dtype=np.int64)
        self.groups = shot_groups(self.class_counts, many_above, few_below)
        self.num_classes = len(self.class_counts)
        self.scorer = self._scorer.name
        self.needs = tuple(dict.fromkeys(("logits", *self._scorer.needs)))
        self.link = link
        self.keep_predictions = keep_predictions
        self.device = torch.device(device)
        fixed = self._scorer.threshold_at_probability(fixed_threshold)
        self._thresholds = {VALIDATION: float("nan"), FIXED: fixed}
        number = torch.float32 if self.device.type == "mps" else torch.float64
        self._rows = PerImageTable((number, ()), self.num_classes, link, keep_predictions, self.device)

    def with_threshold(self, value: float, source: str = VALIDATION) -> OpenSet:
        """Add a threshold at which decisions are evaluated; the names of their metrics end in its source.

        Args:
            value: threshold in units of the score, such as `OpenSetResult.threshold_at_95_tpr` of validation images.
            source: word for the metrics' names; not ``oracle``, the threshold chosen on the test images.
        """
        if not source.isidentifier() or source == ORACLE:
            raise ValueError(f"A threshold's source is a word, and not '{ORACLE}': {source!r} was given.")
        self._thresholds[source] = float(value)
        return self

    @property
    def needs_training(self) -> bool:
        """True if the scorer must be fitted to training images before the first `update`."""
        return self._scorer.needs_training

    def fit(self, training: TrainingScores) -> None:
        """Fit the scorer if it requires this; see `ltr.evaluation.scorers.Scorer.fit`."""
        self._scorer.fit(training)

    @torch.no_grad()
    def update(self, scores: Scores, labels: Tensor, indices: Tensor | None = None) -> None:
        """Add one batch.

        Args:
            scores: logits [B, C], and ``knownness`` [B] for the scorer ``distance``.
            labels: integers [B], in [0, C), or -1 for unknown images.
            indices: int64 [B], source indices of the images; None numbers images in order of arrival.
        """
        labels = class_labels(labels)
        logits = self._rows.logits_of(scores, labels)
        score = known_scores(self._scorer, scores._replace(logits=logits), self.link)
        self._rows.add_batch(score, logits, labels, indices)

    def reduce(self) -> None:
        """Join the images of all processes; see `ltr.evaluation.rows.Rows.join`."""
        self._rows.join()

    def compute(self) -> OpenSetResult:
        """Compute the result over all images so far.

        Raises:
            TrainingError: some scores were not finite.
            DataError: some labels were out of range.
            RuntimeError: there are several processes and `reduce` has not been called.
        """
        self._rows.check_joined()
        score = self._rows["score"].astype(np.float64)
        label, prediction = self._rows.integers("label"), self._rows.integers("prediction")
        is_wrong = (label < -1) | (label >= self.num_classes)
        allowed = f"0..{self.num_classes - 1} and -1, the classes of the split and 'unknown'"
        refuse_bad_labels(int(is_wrong.sum()), len(label), allowed)
        refuse_bad_scores(int(np.isnan(score).sum()), len(score))
        known = label >= 0
        correct = label[known] == prediction[known]
        points = operating_points(score[known], score[~known], correct)
        per_class = self._per_class(label[known], prediction[known])
        thresholds = {**self._thresholds, ORACLE: best_threshold(score, prediction, label, self.num_classes)}
        accuracy = float(ratio(correct.sum(), known.sum()))
        metrics = {
            "closed_set_accuracy": accuracy,
            "auroc": auroc(points),
            "aupr_known": aupr_known(points),
            "aupr_unknown": aupr_unknown(points),
            "oscr": oscr(points),
            "fpr95_id_pos": fpr95_id_pos(points),
            "fpr95_ood_pos": fpr95_ood_pos(points),
            "detection_accuracy": detection_accuracy(points),
            "oscr_arpl": oscr_arpl(score[known], score[~known], correct),
            "accuracy": accuracy,  # the name that all protocols share
            **group_means(per_class["accuracy"], self.groups),
        }
        for source, threshold in thresholds.items():
            metrics |= self._decided(score, prediction, label, threshold, source)
        kinds = {"correct": label == prediction, "wrong": known & (label != prediction), "unknown": ~known}
        curves = histograms(score, kinds) | {"accuracy": np.array(accuracy)}
        curves |= {f"threshold_{source}": np.array(value) for source, value in thresholds.items()}
        curves["score_label"] = np.array(self._scorer.label)
        if not points.one_sided:
            for curve, (x, y), names in (
                ("roc", roc_curve(points), ("fpr", "tpr")),
                ("oscr", oscr_curve(points), ("fpr", "ccr")),
            ):
                keep = thin_curve(x, y)
                curves |= {f"{curve}_{name}": values[keep] for name, values in zip(names, (x, y))}
        return OpenSetResult(
            metrics,
            per_class,
            self._rows.predictions(known_score=score),
            curves,
            threshold_at_95_tpr=threshold_at_tpr(score[known]),
        )

    def _per_class(self, label: np.ndarray, prediction: np.ndarray) -> dict[str, np.ndarray]:
        n, predicted = (np.bincount(values, minlength=self.num_classes) for values in (label, prediction))
        correct = np.bincount(label[label == prediction], minlength=self.num_classes)
        return class_table(self.class_counts, self.groups, n, correct, predicted)

    def _decided(
        self, score: np.ndarray, prediction: np.ndarray, label: np.ndarray, threshold: float, source: str
    ) -> dict[str, float]:
        """Return the metrics at a threshold; NaN without one."""
        metrics = dict.fromkeys(
            ("threshold", "open_macro_f1", "open_f_measure", "unknown_rejected", "open_accuracy", *GROUPS), float("nan")
        )
        if not math.isnan(threshold):
            decision = decide_open_set(score, prediction, threshold)
            known = label >= 0
            right = np.bincount(label[known & (decision == label)], minlength=self.num_classes)
            n = np.bincount(label[known], minlength=self.num_classes)
            groups = group_means(ratio(right, n), self.groups)
            metrics |= {
                "threshold": threshold,
                "open_macro_f1": open_macro_f1(decision, label, self.num_classes),
                "open_f_measure": open_f_measure(decision, label),
                "unknown_rejected": float(ratio((decision[~known] < 0).sum(), (~known).sum())),
                "open_accuracy": float(ratio(right.sum(), n.sum())),
                **{name: groups[name] for name in GROUPS},
            }
        return {f"{name}_{source}": value for name, value in metrics.items()}
