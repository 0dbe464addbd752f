"""The closed-set protocol: accuracy on the training classes, overall and by shot group.

Counts are integers per class on the device, so that sums over batches or processes are exact in any order. Only
`ClosedSet.compute` synchronises with the device, and no C x C matrix is formed.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, distributed

from ltr.errors import ConfigError
from ltr.evaluation.averages import calibration_error, geometric_mean, mean, ratio
from ltr.evaluation.gather import is_distributed
from ltr.evaluation.groups import class_table, group_means, shot_groups
from ltr.evaluation.protocol import Measurements, Protocol
from ltr.evaluation.rows import Rows, refuse_bad_labels, refuse_bad_scores
from ltr.evaluation.scores import (
    Scores,
    check_link,
    class_labels,
    log_normaliser,
    probabilities,
    require_part,
    top_classes,
)
from ltr.identity import named

# confidences are summed as integers of this resolution: exact in any order, room for 2**31 images
_FIXED_POINT = 2**32
# number of logits that are gathered before they are counted, because for few classes the calls dominate the time
_GATHERED = 2**18


@named("protocol/closed_set")
class ClosedSet(Protocol):
    """Closed-set protocol: `update` counts predictions, `reduce` joins processes, `compute` returns the metrics.

    A prediction is the class of the highest logit, for ties the lowest class id. ``update`` does not synchronise with
    the device: it counts non-finite scores and labels out of range, and ``compute`` raises the error.

    Args:
        class_counts: int64 [C], training images of each class.
        many_above: see `ltr.evaluation.groups.shot_groups`.
        few_below: see `ltr.evaluation.groups.shot_groups`.
        top_k: k of top-k accuracy and of the kept predictions; the number of classes if that is smaller.
        calibration_bins: number of bins of equal width for the calibration error.
        link: ``softmax`` or ``sigmoid``, the loss's function from logits to probabilities.
        keep_predictions: True keeps a row for each image (about 60 bytes at k = 5).
        device: device of the scores and the counters.

    Raises:
        ConfigError: the link is unknown, or bounds, top_k or bins are out of range.
    """

    name: ClassVar[str] = "closed_set"
    headline: ClassVar[str] = "balanced_accuracy"

    def __init__(
        self,
        class_counts: np.ndarray | Tensor,
        *,
        many_above: int = 100,
        few_below: int = 20,
        top_k: int = 5,
        calibration_bins: int = 15,
        link: str = "softmax",
        keep_predictions: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        check_link(link)
        if top_k < 1 or calibration_bins < 1:
            raise ConfigError(
                f"evaluation.top_k={top_k} and evaluation.calibration_bins={calibration_bins} must both be at least 1."
            )
        self.class_counts = np.asarray(class_counts, dtype=np.int64)
        self.groups = shot_groups(self.class_counts, many_above, few_below)
        self.num_classes = len(self.class_counts)
        self.top_k = top_k
        self.bins = calibration_bins
        self.link = link
        self.keep_predictions = keep_predictions
        self.device = torch.device(device)
        self._float = torch.float32 if self.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        sizes = {
            "n": self.num_classes,
            "correct": self.num_classes,
            "predicted": self.num_classes,
            "confidence": self.num_classes,
            # the first half counts all images, the second those of few-shot classes
            "bin_n": 2 * self.bins,
            "bin_correct": 2 * self.bins,
            "bin_confidence": 2 * self.bins,
            "top_correct": 1,
            "bad_scores": 1,
            "bad_labels": 1,
        }
        with torch.inference_mode(False):  # tensors of inference mode cannot be changed outside of it
            self._few = torch.from_numpy(self.groups["few"]).to(self.device, torch.int64)
            # one buffer, so that one all-reduce joins the processes
            self._counts = torch.zeros(sum(sizes.values()), dtype=torch.int64, device=self.device)
            self._nll = torch.zeros(1, dtype=self._float, device=self.device)
        self._counter = dict(zip(sizes, self._counts.split(list(sizes.values()))))
        k = min(top_k, self.num_classes)
        columns = {
            "id": (torch.int64, ()),
            "label": (torch.int32, ()),
            "top": (torch.int32, (k,)),
            "scores": (torch.float32, (k,)),
            "nll": (torch.float32, ()),
        }
        self._rows = Rows(columns if keep_predictions else {}, self.device)
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._seen = 0
        self._reduced = False

    def check_labels(self, labels: np.ndarray) -> None:
        """Raise ConfigError for images of classes without training images, as in retrieval."""
        outside = int(((labels < 0) | (labels >= self.num_classes)).sum())
        if outside:
            raise ConfigError(
                f"evaluation.extra_protocols: closed_set needs images of the {self.num_classes} training classes, and "
                f"{outside} of {len(labels)} are of other classes. Leave closed_set out"
            )

    @torch.no_grad()
    def update(self, scores: Scores, labels: Tensor, indices: Tensor | None = None) -> None:
        """Count one batch.

        Args:
            scores: logits [B, C], converted to float32; the other parts are ignored.
            labels: integers [B], in [0, C).
            indices: int64 [B], source indices of the images; None numbers images in order of arrival.
        """
        if self._reduced:
            raise RuntimeError("The counters are already joined over processes: a new object is needed.")
        logits, labels = require_part(scores.logits, "logits").float(), class_labels(labels)
        if logits.shape != (len(labels), self.num_classes):
            raise ValueError(
                f"Scores of shape {tuple(logits.shape)} for {len(labels)} labels, {self.num_classes} classes."
            )
        if indices is None:
            indices = torch.arange(self._seen, self._seen + len(labels), device=self.device)
        self._waiting.append((logits, labels, indices))
        self._seen += len(labels)
        if sum(waiting.numel() for waiting, _, _ in self._waiting) >= _GATHERED:
            self._count_waiting()

    @torch.no_grad()
    def _count_waiting(self) -> None:
        """Count the gathered images."""
        if not self._waiting:
            return
        logits, labels, indices = (torch.cat(rows) for rows in zip(*self._waiting))
        self._waiting = []
        valid = ((labels >= 0) & (labels < self.num_classes)).long()
        labels = labels.clamp(0, self.num_classes - 1)

        top_values, top = top_classes(logits, min(self.top_k, self.num_classes))
        normaliser = log_normaliser(logits, self.link)
        top_probabilities = probabilities(top_values, normaliser, self.link)
        nll = normaliser - logits.gather(1, labels[:, None])[:, 0]
        hits = (top == labels[:, None]) & valid.bool()[:, None]

        self._count(labels, top[:, 0], hits[:, 0].long(), top_probabilities[:, 0], valid)
        self._counter["top_correct"] += hits.any(dim=1).sum()
        # a NaN or +inf among the logits makes the normaliser non-finite; -inf excludes a class, and is allowed
        self._counter["bad_scores"] += (~normaliser.isfinite()).sum()
        self._counter["bad_labels"] += (1 - valid).sum()
        self._nll += nll.to(self._float).sum()
        if self.keep_predictions:
            self._rows.add(id=indices, label=labels, top=top, scores=top_probabilities, nll=nll)

    def _count(self, labels: Tensor, predicted: Tensor, correct: Tensor, confidence: Tensor, valid: Tensor) -> None:
        """Add one batch [B] to the per-class counters and to the calibration bins."""
        # index_add_ and not bincount, which waits for the device to determine the number of bins
        weight = confidence.to(self._float).nan_to_num(0.0)
        fixed = (weight * _FIXED_POINT).round().long() * valid
        # bins are open on the left: (0, 1/M], (1/M, 2/M], ...
        bins = (weight * self.bins).ceil().long().sub_(1).clamp_(0, self.bins - 1)
        few = self._few[labels]
        for name, index, amount in (
            ("n", labels, valid),
            ("correct", labels, correct),
            ("predicted", predicted, valid),
            ("confidence", labels, fixed),
            ("bin_n", bins, valid),
            ("bin_correct", bins, correct),
            ("bin_confidence", bins, fixed),
            ("bin_n", bins + self.bins, valid * few),
            ("bin_correct", bins + self.bins, correct * few),
            ("bin_confidence", bins + self.bins, fixed * few),
        ):
            self._counter[name].index_add_(0, index, amount)

    def reduce(self) -> None:
        """Sum the counters over all processes, which is exact for any division of the images.

        All processes must call it, and all hold the sums afterwards. It is a no-op without ``torch.distributed`` and
        when called again.
        """
        self._count_waiting()
        if self._reduced or not is_distributed():
            return
        distributed.all_reduce(self._counts)
        distributed.all_reduce(self._nll)
        self._rows.join()
        self._reduced = True

    def compute(self) -> Measurements:
        """Compute the result over all images so far.

        Returns:
            ``metrics`` are fractions in [0, 1] except ``nll`` (nats); NaN if there is nothing to average.
            ``per_class`` has arrays [C] ``class_id train_count group n correct accuracy precision recall f1
            mean_confidence``; n is the number of evaluated images, and the accuracy of a class equals its recall.
            ``predictions`` has one row per image, sorted by id: ``id label prediction top5 [N, k] scores [N, k] nll``;
            the name ``top5`` follows ``top_k``, scores are probabilities. Empty without ``keep_predictions``.

        Raises:
            TrainingError: some scores were not finite.
            DataError: some labels were out of range.
            RuntimeError: there are several processes and `reduce` has not been called.
        """
        self._count_waiting()
        self._rows.check_joined()
        counts = {name: counter.cpu().numpy() for name, counter in self._counter.items()}
        bad_labels, bad_scores = int(counts["bad_labels"][0]), int(counts["bad_scores"][0])
        images = int(counts["n"].sum()) + bad_labels
        refuse_bad_labels(bad_labels, images, f"0..{self.num_classes - 1}, the classes of the split")
        refuse_bad_scores(bad_scores, images)
        per_class = self._per_class(counts)
        metrics = self._metrics(counts, per_class, float(self._nll))
        if not self.keep_predictions:
            return Measurements(metrics, per_class)
        rows = {name: values.cpu().numpy() for name, values in self._rows.sorted_by_id().items()}
        top = rows["top"].astype(np.int64)
        predictions = {
            "id": rows["id"],
            "label": rows["label"].astype(np.int64),
            "prediction": top[:, 0],
            f"top{self.top_k}": top,
            "scores": rows["scores"],
            "nll": rows["nll"],
        }
        return Measurements(metrics, per_class, predictions)

    def _per_class(self, counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        n, correct = counts["n"].copy(), counts["correct"].copy()
        table = class_table(self.class_counts, self.groups, n, correct, counts["predicted"])
        return table | {"mean_confidence": ratio(counts["confidence"] / _FIXED_POINT, n)}

    def _metrics(self, counts: dict[str, np.ndarray], per_class: dict[str, np.ndarray], nll: float) -> dict[str, float]:
        present = counts["n"] > 0
        recall = per_class["accuracy"]
        total = counts["n"].sum()
        bin_n, bin_correct = counts["bin_n"].reshape(2, -1), counts["bin_correct"].reshape(2, -1)
        bin_confidence = counts["bin_confidence"].reshape(2, -1) / _FIXED_POINT
        ece, ece_few = map(calibration_error, bin_n, bin_correct, bin_confidence)
        return {
            "accuracy": float(ratio(counts["correct"].sum(), total)),
            f"top{self.top_k}": float(ratio(counts["top_correct"][0], total)),
            **group_means(recall, self.groups),
            "geometric_mean": geometric_mean(recall[present]),
            # over the classes that occur in the labels or the predictions, as in scikit-learn
            "macro_f1": mean(per_class["f1"][~np.isnan(per_class["f1"])]),
            "nll": float(ratio(np.float64(nll), total)),
            "ece": ece,
            "ece_few": ece_few,
        }
