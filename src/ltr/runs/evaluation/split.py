"""Evaluation of one checkpoint on the parts of a split, with a threshold chosen on validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ltr.data.module import DataModule
from ltr.data.split import Split
from ltr.runs.evaluation.location_stats import location_stats
from ltr.runs.evaluation.network import ProtocolResult, evaluate
from ltr.runs.evaluation.protocols import evaluated_parts, protocols_of
from ltr.runs.evaluation.views import TestTimeViews
from ltr.runs.failures import explain_failures, out_of_memory_in_evaluation

Thresholds = Mapping[tuple[str, str | None], float]  # threshold of the open-set protocol, by (variant, scorer)


@dataclass(frozen=True)
class SplitEvaluator:
    """Evaluator of networks on one split, by its protocols and the scorers of the evaluation config.

    Attributes:
        label: prefix of messages about memory.
    """

    split: Split
    data: DataModule
    evaluation: Mapping[str, Any]
    device: torch.device
    precision: str
    label: str

    def evaluate_parts(
        self, predictor: Any, parts: Sequence[str], network: Any = None, with_threshold: bool = True
    ) -> dict[str, list[ProtocolResult]]:
        """Evaluate a checkpoint on parts of the split.

        If the split has validation images, the open-set protocol uses the threshold at which this checkpoint accepts
        95 % of them.

        Args:
            predictor: computes the predictions.
            parts: names of the parts, such as ``val`` and ``test``.
            network: the method's network inside ``predictor``; None: ``predictor`` itself.
            with_threshold: False leaves the threshold to the protocol.
        """
        network = predictor if network is None else network
        needs_threshold = with_threshold and "test" in parts and "open_set" in self.split.protocols
        results: dict[str, list[ProtocolResult]] = {}
        if len(self.split.val) and ("val" in parts or needs_threshold):
            results["val"] = self._evaluate(predictor, network, "val", {})
        thresholds = _thresholds(results.get("val", ())) if with_threshold else {}
        for part in parts:
            if part != "val":
                results[part] = self._evaluate(predictor, network, part, thresholds)
        return {part: results[part] for part in parts if part in results}

    def _evaluate(self, predictor: Any, network: Any, part: str, thresholds: Thresholds) -> list[ProtocolResult]:
        # the deployment prior applies to test images only; no choice on validation images depends on it
        evaluation = self.evaluation if part == "test" else {**self.evaluation, "prior": None}

        def protocols(link: str, keep_predictions: bool) -> list[Any]:
            rows = protocols_of(self.split, evaluation, link, self.device, keep_predictions)
            network_protocols = getattr(network, "further_protocols", None)
            if keep_predictions and part == "test" and network_protocols is not None:
                rows += network_protocols(self.split, evaluation, self.device)
            return rows

        names = evaluated_parts(self.split, part, self.evaluation)
        loaders = {name: self.data.evaluation_loader(name) for name in names}
        with explain_failures(f"{self.label}{part}", lambda: out_of_memory_in_evaluation(self.data.eval_batch_size)):
            stats = location_stats(network, self.data)
            if self.evaluation.get("views") is not None:
                predictor = TestTimeViews(predictor, self.evaluation["views"])
            return evaluate(predictor, loaders, protocols, self.device, self.precision, thresholds, stats)


def _thresholds(on_val: Sequence[ProtocolResult]) -> dict[tuple[str, str | None], float]:
    open_set = [result for result in on_val if result.protocol == "open_set"]
    return {(one.variant, one.scorer): one.result.threshold_at_95_tpr for one in open_set}
