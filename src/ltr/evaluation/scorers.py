"""Scorers: one number for each image; higher means more likely a known class.

Probabilities near 1, which confident networks often give, become equal in floating point. Scorers that depend on
probabilities therefore compute a strictly increasing function of them that does not saturate. All computations are in
float64.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ltr.configuration.listed_configs import config_of, listed_names
from ltr.configuration.targets import instantiate
from ltr.configuration.unwritten import left_to_subclasses
from ltr.errors import ConfigError
from ltr.evaluation.scores import Scores, log_normaliser
from ltr.evaluation.training_scores import TrainingScores
from ltr.identity import named
from ltr.results import is_name


class Scorer:
    """Base class of scorers.

    A config names a scorer by its ``_target_``; the keys of the config are keyword arguments of its constructor.

    Attributes:
        name: name in rows of results, from the config or else the class.
        needs: parts of `Scores` that it reads; methods that lack one are refused.
        needs_training: True if `fit` must be called before the first score.
        label: axis label in figures.
    """

    name: str = ""
    needs: tuple[str, ...] = ("logits",)
    needs_training: bool = False
    label: str = "score"

    def fit(self, training: TrainingScores) -> None:
        """Fit the scorer to the scores of the training images, if it requires this."""

    @left_to_subclasses()
    def __call__(self, scores: Scores, link: str) -> Tensor:
        """Return the score of each image, [B]; higher means more likely a known class.

        Args:
            scores: scores of a batch; logits [B, C] are float64.
            link: ``softmax`` or ``sigmoid``, the loss's function from logits to probabilities.
        """
        raise NotImplementedError

    def threshold_at_probability(self, probability: float) -> float:
        """Return the score of an image with this largest probability; NaN if the probability does not determine it."""
        return math.nan


@named("scorer/msp")
class MaxProbability(Scorer):
    """Log-odds log(p / (1 - p)) of the largest probability p, which have the same order as p."""

    name = "msp"
    label = "log-odds of the largest probability"

    def __call__(self, scores: Scores, link: str) -> Tensor:
        return _largest_log_odds(scores.logits, link)

    def threshold_at_probability(self, probability: float) -> float:
        return math.log(probability / (1 - probability))


@named("scorer/max_logit")
class MaxLogit(Scorer):
    """Largest logit."""

    name = "max_logit"
    label = "largest logit"

    def __call__(self, scores: Scores, link: str) -> Tensor:
        return scores.logits.amax(dim=1)


@named("scorer/energy")
class Energy(Scorer):
    """Negative free energy log sum_c exp(z_c); with a sigmoid link sum_c log(1 + exp(z_c)) (Wang et al., 2021)."""

    name = "energy"
    label = "negative energy"

    def __call__(self, scores: Scores, link: str) -> Tensor:
        return log_normaliser(scores.logits, link)


@named("scorer/entropy")
class Entropy(Scorer):
    """Score -log H of the entropy H of the probabilities; with a sigmoid link, H sums the C binary entropies."""

    name = "entropy"
    label = "minus the logarithm of the entropy"

    def __call__(self, scores: Scores, link: str) -> Tensor:
        return _minus_log_entropy(scores.logits, link)


@named("scorer/distance")
class MethodScore(Scorer):
    """Knownness score that the method computes, such as the distance to reciprocal points."""

    name = "distance"
    label = "distance score"
    needs = ("knownness",)

    def __call__(self, scores: Scores, link: str) -> Tensor:
        if scores.knownness is None:
            names = ", ".join(name for name in scorer_names() if name != self.name)
            raise ConfigError(
                f"evaluation.scorers: '{self.name}' needs a method that gives one (rpl, arpl, gcpl); this one gives "
                f"class logits only. Use {names}"
            )
        knownness = as_float64(scores.knownness)
        return torch.where(knownness.isfinite(), knownness, torch.nan)


def scorer_names() -> tuple[str, ...]:
    """Return the names of the shipped scorers that need no optional package."""
    return tuple(name for name in listed_names("scorer") if "." not in name)


def build_scorer(entry: str | Mapping[str, Any] | Scorer) -> Scorer:
    """Build a scorer.

    Args:
        entry: entry of ``evaluation.scorers``: the name of a shipped scorer, a config with a ``_target_``, or a scorer.

    Raises:
        ConfigError: the name is unknown, the config does not fit, or the target is not a scorer.
    """
    if isinstance(entry, Scorer):
        return entry
    try:
        config = config_of("scorer", entry)
    except ConfigError as error:
        raise ConfigError(f"evaluation.scorers: {error}") from error
    scorer = instantiate(config)
    if not isinstance(scorer, Scorer):
        raise ConfigError(
            f"evaluation.scorers: {config['_target_']} makes a {type(scorer).__name__}, and a scorer is needed. Derive "
            "the class from ltr.evaluation.scorers.Scorer"
        )
    scorer.name = str(config.get("name") or scorer.name or _snake_case(type(scorer).__name__))
    if not is_name(scorer.name):
        raise ConfigError(
            f"evaluation.scorers: the name {scorer.name!r} names files; allowed are letters, digits, spaces and any of "
            ". = + , : - after a first letter. Set another name in its config"
        )
    return scorer


def known_scores(scorer: str | Mapping[str, Any] | Scorer, scores: Scores, link: str) -> Tensor:
    """Return the score of each image, float64 [B]; higher means more likely a known class.

    Args:
        scorer: see `build_scorer`; already fitted if it requires this.
        scores: logits [B, C], and all other parts that the scorer needs.
        link: ``softmax`` or ``sigmoid``.

    Raises:
        ConfigError: the name is unknown, the scores lack a part that the scorer needs, or its result is not one number
            per image.
    """
    built = build_scorer(scorer)
    exact_scores = scores if scores.logits is None else scores._replace(logits=as_float64(scores.logits))
    known = built(exact_scores, link)
    images = next(len(part) for part in scores if part is not None)
    if not isinstance(known, Tensor) or known.shape != (images,):
        shape = list(known.shape) if isinstance(known, Tensor) else type(known).__name__
        raise ConfigError(
            f"evaluation.scorers: '{built.name}' returns {shape} for {images} images; one number for each is needed. "
            "Return a tensor [B]"
        )
    return as_float64(known)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def as_float64(values: Tensor) -> Tensor:
    """Return values in float64, or in float32 on Apple's GPUs, which have no float64."""
    return values.float() if values.device.type == "mps" else values.double()


def log_odds(logits: Tensor, link: str) -> Tensor:
    """Return log(p_c / (1 - p_c)) of every class, [B, C], which has the order of the probability and does not saturate.

    Softmax: z_c - log sum_{k != c} exp(z_k); sigmoid: the logit itself.
    """
    logits = as_float64(logits)
    if link == "sigmoid":
        return logits
    log_p = logits - logits.logsumexp(dim=1, keepdim=True)
    # 1 - p is accurate for every class but the largest, whose p may be near 1
    top = logits.argmax(dim=1, keepdim=True)
    odds = log_p - torch.log1p(-log_p.exp().clamp(max=0.5))
    return odds.scatter(1, top, _largest_log_odds(logits, link)[:, None])


def _largest_log_odds(logits: Tensor, link: str) -> Tensor:
    top, top_class = logits.max(dim=1, keepdim=True)
    if link == "sigmoid":
        return top[:, 0]
    other_logits = logits.scatter(1, top_class, -torch.inf)
    return top[:, 0] - other_logits.logsumexp(dim=1)


def _minus_log_entropy(logits: Tensor, link: str) -> Tensor:
    if link == "sigmoid":
        size = logits.abs()
        tail = (-size).exp().clamp_min(torch.finfo(logits.dtype).tiny)
        # h(a) = log(1 + e^-a) + a / (1 + e^a), with e^-a factored out so that its logarithm stays finite
        return -(torch.log(torch.log1p(tail) / tail + size / (1 + tail)) - size).logsumexp(dim=1)
    odds = log_odds(logits, link)
    information = functional.softplus(-odds)  # -log p
    # log(softplus(-o)) is -o for large o: softplus underflows there, its logarithm does not
    logarithm = torch.where(odds > 30, -odds, information.log())
    terms = torch.where(odds == -torch.inf, -torch.inf, logarithm - information)
    return -terms.logsumexp(dim=1)
