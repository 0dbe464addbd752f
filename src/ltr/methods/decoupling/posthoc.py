"""tau-normalisation and post-hoc logit adjustment: both change the logits of a trained network by one parameter, tau.

Tau is an option, or is selected from a grid on the validation split. The stage ``tau`` stores it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ltr.configuration.targets import class_name, instantiate
from ltr.errors import ConfigError
from ltr.evaluation.averages import mean, ratio
from ltr.evaluation.groups import shot_groups
from ltr.evaluation.scores import Scores
from ltr.identity import named
from ltr.losses.weights import log_prior
from ltr.methods.core.class_shares import ends_rebalanced
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Computation, NetworkSpec, Stage, StageOutput
from ltr.methods.decoupling.options import GridOptions, PostHocLAOptions, TauNormOptions
from ltr.methods.decoupling.representation import FromRepresentation, network_of
from ltr.models.heads import head_kind

_NO_BIAS = "method.keep_bias=true keeps the bias of the classifier"


def variant_name(tau: float) -> str:
    """Return the name of a variant in the results: ``tau=0.35``."""
    return f"tau={tau:g}"


class AdjustedClassifier(ImageClassifier):
    """Trained network that predicts one set of logits per value of tau, from one pass through its backbone.

    Args:
        taus: values of tau, >= 0.
        chosen: index of the headline value.
    """

    def __init__(self, spec: NetworkSpec, *, taus: Sequence[float], chosen: int) -> None:
        super().__init__(spec)
        self.options = {"taus": list(taus), "chosen": chosen}
        self.headline = variant_name(taus[chosen])
        self.register_buffer("taus", torch.tensor(taus), persistent=False)

    @classmethod
    def from_network(
        cls, network: ImageClassifier, taus: Sequence[float], chosen: int, **options: Any
    ) -> AdjustedClassifier:
        """Build the adjusted network from the weights of a trained one; ``options`` are those of the subclass."""
        adjusted = cls(network.spec, taus=taus, chosen=chosen, **options)
        adjusted.take_backbone(network)
        adjusted.head.load_state_dict(network.head.state_dict())
        return adjusted.eval()

    def adjusted_logits(self, features: Tensor) -> Tensor:
        """Return logits float32 [T, B, C] of features [B, D], one set per tau."""
        raise NotImplementedError

    @torch.no_grad()
    def predict(self, images: Tensor) -> dict[str, Scores]:
        """Return scores by variant, one for each tau, with names from `variant_name`."""
        features = self.features(self.to_unit(images))
        shared = features.float()
        return {
            variant_name(tau): Scores(logits, shared)
            for tau, logits in zip(self.options["taus"], self.adjusted_logits(features).unbind(0))
        }


@named("network/tau_norm")
class TauNormalised(AdjustedClassifier):
    """tau-normalised classifier: logits_j = (w_j / ||w_j||^tau) . x (Kang et al., ICLR 2020).

    Args:
        keep_bias: True adds the bias b_j, unscaled (Bag of Tricks' code).

    Raises:
        ConfigError: there is no bias to keep.
    """

    def __init__(self, spec: NetworkSpec, *, keep_bias: bool = False, **options: Any) -> None:
        super().__init__(spec, **options)
        self.keeps_bias = keep_bias
        if keep_bias and self.head.bias is None:
            raise ConfigError(f"{_NO_BIAS}, and this network has none. Leave method.keep_bias out")
        if keep_bias:
            self.options = {**self.options, "keep_bias": True}

    def adjusted_logits(self, features: Tensor) -> Tensor:
        norms = self.head.weight.float().norm(dim=1).clamp_min(1e-12)
        factors = norms.pow(-self.taus.unsqueeze(1))  # type: ignore[operator]  # [T, C]
        logits = F.linear(features, self.head.weight).float() * factors.unsqueeze(1)
        return logits + self.head.bias.float() if self.keeps_bias else logits

    @torch.no_grad()
    def linear_readout(self) -> tuple[Tensor, Tensor] | None:
        linear = super().linear_readout()
        if linear is None:
            return None
        bias = self.head.linear_map()[1]
        shift = linear[1] - bias  # of a standardisation, which tau scales as the weights, unlike the bias
        norms = self.head.weight.float().norm(dim=1).clamp_min(1e-12)
        factors = norms.pow(-self.options["taus"][self.options["chosen"]])
        return linear[0] * factors.unsqueeze(1), shift * factors + (bias if self.keeps_bias else 0)

    def weight_norms(self) -> Tensor | None:
        """Return the norms of the class weights, float64 [C], at the headline tau."""
        norms = super().weight_norms()
        return None if norms is None else norms.clamp_min(1e-12).pow(1 - self.options["taus"][self.options["chosen"]])


@named("network/posthoc_la")
class PriorAdjusted(AdjustedClassifier):
    """Prior-adjusted classifier: logits_j = z_j - tau log pi_j, pi the training prior (Menon et al., ICLR 2021)."""

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        super().__init__(spec, **options)
        prior = torch.from_numpy(log_prior(self.dataset_info.class_counts))
        self.register_buffer("log_prior", prior.float(), persistent=False)

    @torch.no_grad()
    def linear_readout(self) -> tuple[Tensor, Tensor] | None:
        linear = super().linear_readout()
        tau = self.options["taus"][self.options["chosen"]]
        return None if linear is None else (linear[0], linear[1] - tau * self.log_prior)

    def adjusted_logits(self, features: Tensor) -> Tensor:
        shifts = self.taus.unsqueeze(1) * self.log_prior  # type: ignore[operator]  # [T, C]
        return self.head(features).float() - shifts.unsqueeze(1)


ADJUSTMENTS: Mapping[str, type[AdjustedClassifier]] = {"tau_norm": TauNormalised, "posthoc_la": PriorAdjusted}


@named("computation/tau")
def choose_tau(
    computation: Computation, *, adjustment: str, taus: Sequence[float], search: bool, **options: Any
) -> dict[str, Any]:
    """Select tau, as the stage ``tau``.

    With ``search``, one pass over the validation split evaluates all candidates, and the one with the highest balanced
    accuracy is selected, the first of ties. Without, the first value is selected and no image is read.

    Args:
        computation: with the trained ``representation``.
        adjustment: a key of `ADJUSTMENTS`.
        search: select by validation accuracy.
        options: further options of the adjusted network.

    Returns:
        ``taus`` float64 [T] and ``chosen`` int64; with ``search`` also ``n`` int64 [C] (validation images of each
        class), ``correct`` int64 [T, C], and ``balanced_accuracy``, ``many``, ``medium``, ``few`` float64 [T], with
        the literature's bounds of the groups (above 100, below 20).
    """
    arrays: dict[str, Any] = {"taus": np.asarray(taus, dtype=np.float64), "chosen": np.int64(0)}
    if not search:
        return arrays
    kind = ADJUSTMENTS[adjustment]
    network = kind.from_network(network_of(computation.parents), taus, 0, **options).to(computation.device)
    classes = computation.dataset_info.num_classes
    n = torch.zeros(classes, dtype=torch.int64, device=computation.device)
    correct = torch.zeros(len(taus), classes, dtype=torch.int64, device=computation.device)
    with torch.inference_mode(), computation.autocast():
        for batch in computation.loader("val"):
            logits = network.adjusted_logits(network.features(network.to_unit(batch.images)))
            n += torch.bincount(batch.labels, minlength=classes)
            correct.index_add_(1, batch.labels, (logits.argmax(2) == batch.labels).long())
    arrays |= accuracy_curve(n.cpu().numpy(), correct.cpu().numpy(), np.asarray(computation.dataset_info.class_counts))
    return arrays | {"chosen": np.int64(np.argmax(arrays["balanced_accuracy"]))}


def accuracy_curve(n: np.ndarray, correct: np.ndarray, class_counts: np.ndarray) -> dict[str, np.ndarray]:
    """Compute accuracies for each tau; classes without images are left out, groups without classes are NaN.

    Args:
        n: validation images of each class, int64 [C].
        correct: correctly classified ones for each tau, int64 [T, C].
        class_counts: training images of each class, int64 [C].
    """
    recall, present = ratio(correct, n), n > 0
    groups = {"balanced_accuracy": present, **{k: g & present for k, g in shot_groups(class_counts).items()}}
    averages = {name: np.array([mean(row[chosen]) for row in recall]) for name, chosen in groups.items()}
    return {"n": n, "correct": correct, **averages}


class _PostHoc(FromRepresentation):
    """Base class for methods with the stages ``representation`` and ``tau``.

    Args:
        options: the fields of the method's declaration.

    Raises:
        ConfigError: a tau below 0, or an invalid grid.
    """

    keeps_head = True
    options: TauNormOptions | PostHocLAOptions
    adjustment: str

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        tau, candidates = self.options.tau, grid_values(self.options.grid)
        self.search = tau == "auto"
        self.taus = candidates if tau == "auto" else [float(tau)]

    @property
    def network_options(self) -> dict[str, Any]:
        """Options of the adjusted network besides tau, those that differ from their defaults."""
        return {}

    def check(self, dataset_info: DatasetInfo) -> None:
        super().check(dataset_info)
        changed = GridOptions.changed(self.options.grid)
        if changed and not self.search:
            raise ConfigError(
                f"method.grid.{changed[0]}={self.options.grid[changed[0]]:g} has no effect with "
                f"method.tau={self.options.tau:g}. Set method.tau=auto, or leave method.grid out"
            )

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        options = {"adjustment": self.adjustment, "taus": self.taus, "search": self.search, **self.network_options}
        tau = Stage(
            "tau",
            "tau",
            settings,
            compute=choose_tau,
            parents=("representation",),
            options=options,
            reads=("val",) if self.search else (),
        )
        return [*self.representation(settings, dataset_info), tau]

    def predictor(self, outputs: Mapping[str, StageOutput]) -> AdjustedClassifier:
        arrays = outputs["tau"].arrays
        taus, chosen = [float(tau) for tau in arrays["taus"]], int(arrays["chosen"])
        if self.search and chosen in (0, len(taus) - 1):
            best = f"tau={taus[chosen]:g} is the best on the validation split and the end of the grid"
            if taus[chosen] == 0:  # no lower value is allowed
                advice = "no other value of the grid improves on the classifier as it was trained"
            else:
                end = "method.grid.start" if chosen == 0 else "method.grid.stop"
                advice = f"a better value may lie outside. Widen the grid with {end}"
            warnings.warn(f"{best}: {advice}", stacklevel=2)
        network = network_of(outputs)
        return ADJUSTMENTS[self.adjustment].from_network(network, taus, chosen, **self.network_options)


def grid_values(grid: Mapping[str, float]) -> list[float]:
    """Return the values of a grid, rounded to 10 decimals: 21 values for ``{start: 0, stop: 1, step: 0.05}``.

    Raises:
        ConfigError: a key is missing or unknown, the step is not above 0, or the stop is below the start.
    """
    keys = ("start", "stop", "step")
    grid_keys = [key for key in grid if key != "_allowed_"]
    if sorted(grid_keys) != sorted(keys):
        raise ConfigError(f"method.grid has {', '.join(grid_keys) or 'no keys'}; it needs exactly {', '.join(keys)}")
    start, stop, step = (float(grid[key]) for key in keys)
    if not (0 <= start <= stop and step > 0):
        raise ConfigError(
            f"method.grid: start={start:g}, stop={stop:g}, step={step:g}; allowed are 0 <= start <= stop and step > 0"
        )
    return [round(start + i * step, 10) for i in range(int((stop - start) / step + 1e-6) + 1)]


@named("method/tau_norm")
class TauNorm(_PostHoc):
    """tau-normalisation (Kang et al., ICLR 2020): class weights divided by a power of their norm.

    Raises:
        ConfigError: invalid tau or grid, a head that is not linear, or one without the bias that is to be kept.
    """

    Options = TauNormOptions
    options: TauNormOptions
    adjustment = "tau_norm"

    @property
    def network_options(self) -> dict[str, Any]:
        return {"keep_bias": True} if self.options.keep_bias else {}

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        kind = head_kind(settings.head)
        if kind != "linear":
            why = "its weights are normalised already" if kind == "cosine" else "it has no plain weights to normalise"
            raise ConfigError(f"method=tau_norm needs head=linear, not {class_name(settings.head)}: {why}")
        if self.options.keep_bias and settings.head.get("bias") is False:
            raise ConfigError(f"{_NO_BIAS}, and head.bias=false. Leave one of the two out")
        return super().stages(settings, dataset_info)


@named("method/posthoc_la")
class PostHocLA(_PostHoc):
    """Post-hoc logit adjustment (Menon et al., ICLR 2021): subtract tau times the log prior from the logits.

    Warns if the loss or the sampler already corrects for the prior.

    Raises:
        ConfigError: invalid tau or grid.
    """

    Options = PostHocLAOptions
    adjustment = "posthoc_la"

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        is_trained = self.start_from is None and any(self.taus)
        if is_trained and ends_rebalanced(settings, dataset_info):
            warnings.warn(
                f"the sampler {class_name(settings.sampler)} rebalances the classes in the last epoch, and posthoc_la "
                "subtracts the prior of the training images: together they over-correct. Use sampler=instance",
                stacklevel=2,
            )
        if is_trained and instantiate(settings.loss, dataset_info.class_counts).adjusts_prior:
            warnings.warn(
                f"{class_name(settings.loss)} corrects for the class frequencies in training, and posthoc_la does it "
                "again: together they over-correct. Use loss=cross_entropy",
                stacklevel=2,
            )
        return super().stages(settings, dataset_info)
