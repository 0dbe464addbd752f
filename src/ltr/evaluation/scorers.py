"""Scorers: one number per image that says how known it looks, by name; higher is more known.

Probabilities near 1 cannot be told apart in floating point, and confident networks give almost nothing else. Where a
scorer is a function of probabilities, a strictly increasing function of it is computed instead that keeps its order and
never saturates. Everything is computed in float64.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ltr.errors import ConfigError, nearest
from ltr.evaluation.scores import Scores, log_normaliser


def known_scores(scorer: str, scores: Scores, link: str) -> Tensor:
    """How known each image looks, float64 [B]; higher is more known.

    ``msp``: log-odds log(p / (1 - p)) of the largest probability p; the order is that of p (Hendrycks & Gimpel, ICLR
    2017). ``max_logit``: the largest logit (Vaze et al., ICLR 2022). ``energy``: log sum_c exp(z_c), the negative free
    energy at temperature 1 (Liu et al., NeurIPS 2020); with a sigmoid link sum_c log(1 + exp(z_c)) (Wang et al.,
    NeurIPS 2021). ``entropy``: -log H of the probabilities' entropy H, with a sigmoid link of the sum of the C
    binary entropies. ``distance``: the known-ness that the method itself gives. ``pytorch_ood.<detector>``, as in
    ``pytorch_ood.GEN``: minus what a detector of the optional package pytorch-ood makes of the logits under a softmax;
    those that must be fitted to training features are not served.

    Args:
        scorer: one of `SCORERS`, or a detector.
        scores: logits [B, C]; ``distance`` needs known-ness.
        link: ``softmax`` or ``sigmoid``.

    Raises:
        ConfigError: an unknown name, or ``distance`` of a method that gives none.
    """
    check_scorer(scorer)
    if scorer == "distance":
        if scores.knownness is None:
            raise ConfigError(
                "evaluation.scorers: 'distance' needs a method that gives one (rpl, arpl, gcpl); this one gives class "
                f"logits only. Use {', '.join(name for name in SCORERS if name != 'distance')}"
            )
        return exact(scores.knownness)
    if scorer.startswith(DETECTORS):
        if link != "softmax":
            raise ConfigError(f"evaluation.scorers: '{scorer}' is about a softmax, and the loss has a {link}")
        return -_detector(scorer)(exact(scores.logits))
    return _OF_LOGITS[scorer](exact(scores.logits), link)


def check_scorer(scorer: str) -> None:
    """Refuse a name that is no scorer.

    Raises:
        ConfigError: it is none, or pytorch-ood is not installed.
    """
    if scorer.startswith(DETECTORS):
        _detector(scorer)
        return
    if scorer not in SCORERS:
        raise ConfigError(
            f"evaluation.scorers: there is no scorer '{scorer}'; choose of {', '.join(SCORERS)}"
            f"{nearest(scorer, SCORERS)}"
        )


def _detector(scorer: str) -> Callable[[Tensor], Tensor]:
    """Logits [B, C] to how unknown each image looks, [B]."""
    try:
        api, found = (importlib.import_module(f"pytorch_ood.{name}") for name in ("api", "detector"))
    except ImportError as error:
        raise ConfigError(
            f"evaluation.scorers: '{scorer}' needs the package pytorch-ood, which cannot be imported ({error}). "
            f"Install it with pip install 'ltr[ood]', or use {', '.join(SCORERS)}"
        ) from error
    usable = {
        name: detector
        for name, detector in vars(found).items()
        if isinstance(detector, type)
        and issubclass(detector, api.LogitsDetector)
        and not getattr(detector, "requires_fit", False)
        and not _needs_more_than_a_model(detector)
    }
    name = scorer.removeprefix(DETECTORS)
    if name not in usable:
        raise ConfigError(
            f"evaluation.scorers: '{scorer}' is no detector that works on logits without being fitted; there are "
            f"{', '.join(DETECTORS + known for known in sorted(usable))}{nearest(name, tuple(usable))}"
        )
    return usable[name](None).predict_logits


def _needs_more_than_a_model(detector: type) -> bool:
    _, *others = inspect.signature(detector).parameters.values()
    return any(one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD for one in others)


def exact(values: Tensor) -> Tensor:
    """In float64, or in float32 on Apple's GPUs, which have no float64."""
    return values.float() if values.device.type == "mps" else values.double()


def log_odds(logits: Tensor, link: str) -> Tensor:
    """log(p_c / (1 - p_c)) of every class [B, C]: ordered as the probability p_c, and never saturated.

    Softmax: z_c - log sum_{k != c} exp(z_k); sigmoid: the logit itself.
    """
    logits = exact(logits)
    if link == "sigmoid":
        return logits
    log_p = logits - logits.logsumexp(dim=1, keepdim=True)
    # 1 - p is accurate for every class but the largest, whose p may be near 1
    top = logits.argmax(dim=1, keepdim=True)
    rest = log_p - torch.log1p(-log_p.exp().clamp(max=0.5))
    return rest.scatter(1, top, _largest_log_odds(logits, link)[:, None])


def _largest_log_odds(logits: Tensor, link: str) -> Tensor:
    top, place = logits.max(dim=1, keepdim=True)
    if link == "sigmoid":
        return top[:, 0]
    others = logits.scatter(1, place, -torch.inf)
    return top[:, 0] - others.logsumexp(dim=1)


def _largest_logit(logits: Tensor, link: str) -> Tensor:
    return logits.amax(dim=1)


def _minus_log_entropy(logits: Tensor, link: str) -> Tensor:
    if link == "sigmoid":
        size = logits.abs()
        tail = (-size).exp().clamp_min(torch.finfo(logits.dtype).tiny)
        # h(a) = log(1 + e^-a) + a / (1 + e^a), with e^-a taken out so that its logarithm stays exact
        return -(torch.log(torch.log1p(tail) / tail + size / (1 + tail)) - size).logsumexp(dim=1)
    odds = log_odds(logits, link)
    information = functional.softplus(-odds)  # -log p
    # log(softplus(-o)) is -o where o is large: softplus underflows there, its logarithm does not
    logarithm = torch.where(odds > 30, -odds, information.log())
    terms = torch.where(odds == -torch.inf, -torch.inf, logarithm - information)
    return -terms.logsumexp(dim=1)


_OF_LOGITS: dict[str, Callable[[Tensor, str], Tensor]] = {
    "msp": _largest_log_odds,
    "max_logit": _largest_logit,
    "energy": log_normaliser,
    "entropy": _minus_log_entropy,
}
SCORERS = ("msp", "max_logit", "energy", "distance", "entropy")
DETECTORS = "pytorch_ood."  # what the name of a scorer of the optional package begins with
