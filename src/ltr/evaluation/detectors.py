"""Detectors of the optional package pytorch-ood as scorers.

Every detector of the installed package that works on logits, on features, or on features and a linear classifier is
available; detectors that need images, gradients or several layers are not. Some are fitted to the training images.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ltr.errors import ConfigError, nearest
from ltr.evaluation.scorers import Scorer, as_float64
from ltr.evaluation.scores import Scores
from ltr.evaluation.training_scores import TrainingScores
from ltr.identity import named

PREFIX = "pytorch_ood."  # prefix of the names of these scorers
_NOTHING = ("model", "encoder")  # arguments set to None, because logits and features are already computed
_OF_HEAD = ("head", "w", "b", "d")
_NOT_LINEAR = 1e-3  # largest share of the logits' variance that a linear classifier may leave unexplained


@named("scorer/pytorch_ood")
class Detector(Scorer):
    """Detector of pytorch-ood by name, as in ``pytorch_ood.Mahalanobis``; the score is minus the detector's.

    `fit` supplies the constructor's arguments: a linear classifier (``head``, or ``w`` and ``b``) is fitted by least
    squares to the training images' features and logits, which is exact if the network's head is linear; ViM's ``d`` is
    half the width of the features. All other arguments have the package's defaults.

    Args:
        name: ``pytorch_ood.`` followed by the class in ``pytorch_ood.detector``.
        options: further arguments of the detector, such as ``{k: 10}`` of KNN.

    Raises:
        ConfigError: there is no such detector among those that work on logits or features, pytorch-ood is not
            installed, or the detector takes no such option.
    """

    label = "minus the detector's score"

    def __init__(self, *, name: str, options: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self._class, self.of_features = _class_of(name)
        self._options = dict(options or {})
        self._check_options()
        self._arguments = _required(self._class)
        self.needs = ("features",) if self.of_features else ("logits",)
        self.needs_training = bool(self._class.requires_fit or set(self._arguments) & set(_OF_HEAD))
        self._fitted: Any = None if self.needs_training else self._built({})

    def _check_options(self) -> None:
        known = [name for name in inspect.signature(self._class).parameters if name not in (*_NOTHING, *_OF_HEAD)]
        for key in self._options:
            if key not in known:
                raise ConfigError(
                    f"evaluation.scorers: '{self.name}' takes no option '{key}'; it has {', '.join(known) or 'none'}"
                    f"{nearest(key, known)}"
                )

    def fit(self, training: TrainingScores) -> None:
        """Fit the detector to the training images, if it requires this.

        Raises:
            ConfigError: the detector cannot be fitted to these images.
        """
        if not self.needs_training:
            return
        logits, features, labels = (None if part is None else part.cpu() for part in training)
        assert logits is not None
        assert labels is not None
        if self.of_features and features is None:
            raise ConfigError(f"evaluation.scorers: '{self.name}' is about features, and these scores hold none")
        # fitting a detector may need gradients
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
            of_head = self._of_head(logits, features) if set(self._arguments) & set(_OF_HEAD) else {}
            try:
                built = self._built(of_head)
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

    def __call__(self, scores: Scores, link: str) -> Tensor:
        """Return minus the detector's score of each image, [B]."""
        if self._fitted is None:
            raise RuntimeError(f"{self.name} has to be fitted first")
        if link != "softmax" and not self.of_features:
            raise ConfigError(
                f"evaluation.scorers: '{self.name}' is about a softmax, and the loss has a {link}. Use a detector of "
                "features, such as pytorch_ood.KNN, or max_logit"
            )
        inputs = scores.features if self.of_features else scores.logits
        device = scores.logits.device
        assert inputs is not None
        inputs = inputs.cpu() if self.needs_training else inputs  # fitted detectors are on the CPU
        with torch.autocast(inputs.device.type, enabled=False):
            if self.of_features:
                return -as_float64(self._fitted.predict_features(inputs.float())).to(device)
            return -as_float64(self._fitted.predict_logits(inputs)).to(device)

    def _built(self, of_head: Mapping[str, Any]) -> Any:
        return self._class(**{name: of_head.get(name) for name in self._arguments}, **self._options)

    def _of_head(self, logits: Tensor, features: Tensor | None) -> dict[str, Any]:
        assert features is not None
        ones = torch.ones(len(features), 1, dtype=torch.float64)
        inputs, targets = torch.cat([features.double(), ones], dim=1), logits.double()
        solution = torch.linalg.lstsq(inputs, targets, driver="gelsd").solution  # [D + 1, C]
        variance = targets.var().clamp_min(torch.finfo(torch.float64).tiny)
        unexplained = (inputs @ solution - targets).square().mean() / variance
        if not unexplained <= _NOT_LINEAR:
            raise ConfigError(
                f"evaluation.scorers: '{self.name}' needs a linear classifier on the features, and these logits are "
                f"none ({float(unexplained):.0%} of their variance is left). Use pytorch_ood.Mahalanobis or "
                "pytorch_ood.KNN; what was trained is kept"
            )
        head = nn.Linear(features.shape[1], logits.shape[1]).requires_grad_(False)
        head.weight.copy_(solution[:-1].T)
        head.bias.copy_(solution[-1])
        return {"head": head, "w": head.weight.detach(), "b": head.bias.detach(), "d": max(1, features.shape[1] // 2)}


def _class_of(scorer: str) -> tuple[Any, bool]:
    """Return the detector's class, and True if it works on features."""
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
            f"evaluation.scorers: '{scorer}' is not a detector that works on logits or features; there are "
            f"{', '.join(PREFIX + known for known in sorted(usable))}{nearest(name, tuple(usable))}"
        )
    return usable[name], issubclass(usable[name], api.FeaturesDetector)


def _required(detector: Any) -> list[str]:
    parameters = inspect.signature(detector).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
