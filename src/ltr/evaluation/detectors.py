"""Detectors of the optional package pytorch-ood as scorers, some of them fitted to a trained network's training images.

Those that work on logits, on features, or on features and a linear classifier are served; those that need images,
gradients or several layers are not.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ltr.errors import ConfigError, nearest
from ltr.evaluation.gather import several_processes
from ltr.evaluation.rows import Rows
from ltr.evaluation.scores import Scores

PREFIX = "pytorch_ood."  # what the name of such a scorer begins with
_NOTHING = ("model", "encoder")  # arguments that None is given for: what they would compute is there
_OF_HEAD = ("head", "w", "b", "d")
_NOT_LINEAR = 1e-3  # largest share of the logits' variance that a linear classifier may leave


class TrainingScores(NamedTuple):
    """What a network says of its training images: logits [N, C], features [N, D] or None, labels int64 [N]."""

    logits: Tensor
    features: Tensor | None
    labels: Tensor


class Collected:
    """Gathers `TrainingScores` batch by batch and over processes."""

    def __init__(self) -> None:
        self._rows: Rows | None = None

    def update(self, scores: Scores, labels: Tensor, indices: Tensor) -> None:
        """Keep one batch; arguments as of a protocol's `update`."""
        values = {"logits": scores.logits.float(), "labels": labels, "indices": indices}
        if scores.features is not None:
            values["features"] = scores.features.float()
        if self._rows is None:
            columns = {name: (value.dtype, tuple(value.shape[1:])) for name, value in values.items()}
            self._rows = Rows(columns, labels.device)
        self._rows.add(**{name: value.clone() for name, value in values.items()})

    def all(self) -> TrainingScores:
        """Everything on the CPU, in order of the images, whatever the number of processes."""
        assert self._rows is not None
        if several_processes():
            self._rows.gather()
        order = self._rows["indices"].argsort()
        found = {name: torch.from_numpy(self._rows[name][order]) for name in self._rows.columns if name != "indices"}
        return TrainingScores(found["logits"], found.get("features"), found["labels"])


class Detector:
    """One detector of pytorch-ood under its name, as in ``pytorch_ood.Mahalanobis``.

    What its constructor asks for is given: a linear classifier (``head``, or ``w`` and ``b``) is found by least squares
    from the training images' features and logits, which is exact where the network's head is linear; ViM's ``d`` is
    half the width of the features. Everything else has the package's defaults.

    Raises:
        ConfigError: there is no such detector among those that can be served, or pytorch-ood is not installed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._class, self.of_features = _found(name)
        self._arguments = _required(self._class)
        self.needs_training = bool(self._class.requires_fit or set(self._arguments) & set(_OF_HEAD))
        self._fitted: Any = None if self.needs_training else self._built({})

    def fit(self, training: TrainingScores) -> None:
        """Fit it, where it is one that needs it.

        Raises:
            ConfigError: it cannot be fitted to these images.
        """
        if not self.needs_training:
            return
        logits, features, labels = (None if one is None else one.cpu() for one in training)
        assert logits is not None
        assert labels is not None
        if self.of_features and features is None:
            raise ConfigError(f"evaluation.scorers: '{self.name}' is about features, and these scores hold none")
        # what is fitted may need gradients of its own
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
            given = self._of_head(logits, features) if set(self._arguments) & set(_OF_HEAD) else {}
            try:
                built = self._built(given)
                if self._class.requires_fit:
                    if features is not None and self.of_features:
                        built.fit_features(features.clone(), labels.clone())
                    else:
                        built.fit_logits(logits.double(), labels.clone())
            except Exception as error:
                reason = str(error) or type(error).__name__
                raise ConfigError(
                    f"evaluation.scorers: '{self.name}' cannot be fitted to these {len(logits):,} training images: "
                    f"{reason}. Leave it out; what was trained is kept"
                ) from error
        self._fitted = built

    def __call__(self, scores: Scores) -> Tensor:
        """How known each image looks, [B]: minus what the detector says."""
        if self._fitted is None:
            raise RuntimeError(f"{self.name} has to be fitted first")
        given = scores.features if self.of_features else scores.logits
        assert given is not None
        given = given.cpu() if self.needs_training else given  # what is fitted lies on the CPU
        with torch.autocast(given.device.type, enabled=False):
            if self.of_features:
                return -self._fitted.predict_features(given.float())
            return -self._fitted.predict_logits(given)

    def _built(self, given: dict[str, Any]) -> Any:
        return self._class(**{name: given.get(name) for name in self._arguments})

    def _of_head(self, logits: Tensor, features: Tensor | None) -> dict[str, Any]:
        assert features is not None
        ones = torch.ones(len(features), 1, dtype=torch.float64)
        inputs, wanted = torch.cat([features.double(), ones], dim=1), logits.double()
        found = torch.linalg.lstsq(inputs, wanted, driver="gelsd").solution  # [D + 1, C]
        left = (inputs @ found - wanted).square().mean() / wanted.var().clamp_min(torch.finfo(torch.float64).tiny)
        if not left <= _NOT_LINEAR:
            raise ConfigError(
                f"evaluation.scorers: '{self.name}' needs a linear classifier on the features, and these logits are "
                f"none ({float(left):.0%} of their variance is left). Use pytorch_ood.Mahalanobis or pytorch_ood.KNN; "
                "what was trained is kept"
            )
        head = nn.Linear(features.shape[1], logits.shape[1]).requires_grad_(False)
        head.weight.copy_(found[:-1].T)
        head.bias.copy_(found[-1])
        return {"head": head, "w": head.weight.detach(), "b": head.bias.detach(), "d": max(1, features.shape[1] // 2)}


def is_detector(scorer: str) -> bool:
    """Whether a scorer's name is one of this package's."""
    return scorer.startswith(PREFIX)


def _found(scorer: str) -> tuple[Any, bool]:
    """The detector's class, and whether it is about features."""
    try:
        api, package = (importlib.import_module(f"pytorch_ood.{name}") for name in ("api", "detector"))
    except ImportError as error:
        raise ConfigError(
            f"evaluation.scorers: '{scorer}' needs the package pytorch-ood, which cannot be imported ({error}). "
            "Install it with pip install 'ltr[ood]', or leave it out"
        ) from error
    kinds = (api.LogitsDetector, api.FeaturesDetector)
    usable = {
        name: detector
        for name, detector in vars(package).items()
        if isinstance(detector, type)
        and issubclass(detector, kinds)
        and set(_required(detector)) <= {*_NOTHING, *_OF_HEAD}
    }
    name = scorer.removeprefix(PREFIX)
    if name not in usable:
        raise ConfigError(
            f"evaluation.scorers: '{scorer}' is no detector that works on logits or features; there are "
            f"{', '.join(PREFIX + known for known in sorted(usable))}{nearest(name, tuple(usable))}"
        )
    return usable[name], issubclass(usable[name], api.FeaturesDetector)


def _required(detector: Any) -> list[str]:
    parameters = inspect.signature(detector).parameters.values()
    return [one.name for one in parameters if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
