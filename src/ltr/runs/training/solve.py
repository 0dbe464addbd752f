"""Linear head on stored features, fitted by L-BFGS on all images along a path of penalties.

The objective is the sampler's expected loss plus half of ``l2`` times the squared weights, without biases:

    sum_i w_i loss_i + l2 / 2 * ||W||^2,   w_i = p(class of i) / images of that class

with the class probabilities p of the sampler. Deferred samplers and losses are in the state of the last epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltr.data.batch import to_device
from ltr.data.module import DataModule
from ltr.errors import TrainingError
from ltr.files import write_csv
from ltr.methods.core.checkpoint import network_checkpoint, write_checkpoint
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.stage import Stage
from ltr.models.backbone_output import local_features
from ltr.runs.evaluation.network import evaluate
from ltr.runs.processes import distributed
from ltr.runs.result import FIRST_COLUMNS, write_arrays
from ltr.runs.training.train import TrainingContext, TrainingRecord, ValidationSpec

_ROWS = 65_536  # number of features processed at a time
_HISTORY = 10  # history size of L-BFGS


def solve_stage(
    stage: Stage,
    network: ImageClassifier,
    data: DataModule,
    folder: Path,
    context: TrainingContext,
    validation: ValidationSpec | None,
    print_line: Callable[[str], None],
) -> TrainingRecord:
    """Fit the head of a stage and write ``weights.ckpt`` to ``folder``.

    Every process solves the whole problem; rank 0 writes.

    Args:
        stage: stage whose ``settings.features`` has ``solver=lbfgs``.
        network: initialised network; weights and biases of its head are set to zero first.
        data: data of the stage with its stored features.
        folder: folder of the stage in the store.
        context: device, data set and signals.
        validation: evaluation that chooses the penalty if ``l2=auto``.

    Raises:
        TrainingError: the loss is not finite.
        Interrupted: a signal stopped the fit, whose progress is lost.
    """
    began = time.perf_counter()
    options = stage.settings.features
    assert options is not None
    network.to(context.device).train()
    network.start_epoch(stage.settings.epochs - 1)
    objective = Objective(network, data, context.device)
    with torch.no_grad():  # independent of the seed, because the solver may stop before the minimum; scales start at 1
        for name, parameter in objective.named:
            if name.rpartition(".")[2] in ("weight", "bias"):
                parameter.zero_()
    penalties = sorted(options["l2_path"], reverse=True) if options["l2"] == "auto" else [float(options["l2"])]
    rows: list[dict[str, Any]] = []
    best: tuple[float, int, dict[str, Tensor]] | None = None
    for number, l2 in enumerate(penalties):
        with context.request.while_polled():
            loss, steps = minimise(objective, l2, options["max_iterations"], context.request.check)
        row: dict[str, Any] = {"stage": stage.name, "epoch": number + 1, "step": steps, "l2": l2, "train/loss": loss}
        if len(penalties) > 1:
            assert validation is not None
            metrics = _validated(network, data, validation, context, stage.settings.precision)
            row |= {f"val/{name}": value for name, value in metrics.items()}
            value = metrics[validation.monitor]
            print_line(
                f"{stage.name}: l2={l2:g}, {steps} evaluations, loss {loss:.4f}, {validation.monitor} {value:.1%}"
            )
            if best is None or value > best[0]:
                best = (value, number, {name: tensor.clone() for name, tensor in network.head.state_dict().items()})
        else:
            print_line(f"{stage.name}: l2={l2:g}, {steps} evaluations, loss {loss:.4f}")
        rows.append(row)
    chosen = 0
    if best is not None:
        chosen = best[1]
        network.head.load_state_dict(best[2])
        print_line(f"{stage.name}: l2={penalties[chosen]:g} is the best on {len(data.split.val):,} validation images")
        if chosen == len(penalties) - 1 or chosen == 0:
            print_line(f"{stage.name}: this is the end of features.l2_path; the optimum may lie outside")
    if distributed.is_rank_zero():
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(folder / "metrics.csv", rows, FIRST_COLUMNS)
        write_arrays(folder / "l2.npz", {"l2": np.array(penalties), "chosen": np.array(chosen)})
        network.eval()
        write_checkpoint(folder / "weights.ckpt", network_checkpoint(network, context.config["dataset"]))
    return TrainingRecord(distributed.broadcast_from_rank_zero(lambda: time.perf_counter() - began))


class Objective:
    """Expected loss, under the sampler, of a network's head on the stored features of its training images."""

    def __init__(self, network: ImageClassifier, data: DataModule, device: torch.device) -> None:
        assert data.features is not None
        self.network = network
        self.tables = data.features.views or (data.features.plain,)
        self.indices = np.sort(data.split.train)
        self.labels = data.split.labels(data.source)[self.indices]
        self.device = device
        counts = data.class_index.counts
        shares = data.sampler.class_probabilities(counts, data.epochs - 1, data.epochs)
        weights = (shares / np.maximum(counts, 1))[self.labels] / len(self.tables)
        self.weights = torch.from_numpy(weights).to(device)
        self.named = [(name, value) for name, value in network.head.named_parameters() if value.requires_grad]
        self.parameters = [value for _, value in self.named]
        self.penalised = [value for name, value in self.named if name.rpartition(".")[2] != "bias"]
        self.scale = self._scale()
        self._kept = self._all() if len(self.indices) * len(self.tables) <= _ROWS else None

    def __call__(self, l2: float) -> Tensor:
        """Add the gradient of the objective to the parameters' gradients, and return the objective."""
        loss = self.network.loss
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for features, labels, weights in self._kept or self._read():
            losses = loss.per_image(self.network.head(features), labels)
            part = (losses.double() * weights).sum() / self.scale
            part.backward()
            total += part.detach()
        for parameter in self.penalised:
            penalty = l2 / 2 * parameter.double().square().sum()
            penalty.backward()
            total += penalty.detach()
        return total

    def _scale(self) -> float | Tensor:
        """Return the divisor of the sum: the mean class weight if the loss is a weighted mean, else 1."""
        if self.network.loss.reduction != "weight_sum":
            return 1.0
        label_weights = self.network.loss.label_weights(torch.from_numpy(self.labels).to(self.device))
        repeated = len(self.tables)
        return 1.0 if label_weights is None else (label_weights.double() * self.weights).sum() * repeated

    def _all(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return the parts that `_read` yields, in memory; pooled maps and tokens as one part."""
        parts = list(self._read())
        return parts if len(self.tables[0].shape) == 1 else [tuple(map(torch.cat, zip(*parts, strict=True)))]  # type: ignore[list-item]

    def _read(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for table in self.tables:
            rows = _ROWS if len(table.shape) == 1 else table.block_rows
            for first in range(0, len(self.indices), rows):
                part = slice(first, first + rows)
                stored = local_features(to_device(table.take(self.indices[part]), self.device))
                with torch.no_grad():
                    features = self.network.features(stored)
                yield features, to_device(self.labels[part], self.device), self.weights[part]


def minimise(objective: Any, l2: float, iterations: int, check: Callable[[], None] = lambda: None) -> tuple[float, int]:
    """Minimise an objective from the current parameters; return its value and the number of evaluations.

    Args:
        objective: see `Objective`.
        iterations: largest number of iterations.
        check: raises if a signal stops the run.

    Raises:
        TrainingError: the objective is not finite.
    """
    solver = torch.optim.LBFGS(
        objective.parameters,
        max_iter=iterations,
        history_size=_HISTORY,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-6,
        tolerance_change=1e-10,
    )
    values: list[float] = []

    def closure() -> Tensor:
        check()
        solver.zero_grad()
        value: Tensor = objective(l2)
        values.append(float(value))
        if not np.isfinite(values[-1]):
            raise TrainingError(
                f"the loss is {values[-1]} at features.l2={l2:g}. Use a larger features.l2, or "
                "features.standardize=true"
            )
        return value

    solver.step(closure)
    with torch.enable_grad():
        solver.zero_grad()
        value = float(objective(l2))
    return value, len(values)


def _validated(
    network: ImageClassifier, data: DataModule, validation: ValidationSpec, context: TrainingContext, precision: str
) -> Mapping[str, float]:
    """Return the metrics on the validation split; the network is in training mode afterwards."""
    results = evaluate(
        network,
        {"val": data.evaluation_loader("val")},  # a named part is sharded over the processes
        lambda link, keep: [validation.protocol(link)],
        context.device,
        precision,
    )
    network.train()
    return results[0].result.metrics
