"""Scorers: one number per image that says how known it looks, by name; higher is more known.

Probabilities near 1 cannot be told apart in floating point, and confident networks give almost nothing else. Where a
scorer is a function of probabilities, a strictly increasing function of it is computed instead that keeps its order and
never saturates. Everything is computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ltr.errors import ConfigError, nearest
from ltr.evaluation.detectors import Detector, is_detector
from ltr.evaluation.scores import Scores, log_normaliser


def known_scores(scorer: str, scores: Scores, link: str, detector: Detector | None = None) -> Tensor:
    """How known each image looks, float64 [B]; higher is more known.

    ``msp``: log-odds log(p / (1 - p)) of the largest probability p; the order is that of p (Hendrycks & Gimpel, ICLR
    2017). ``max_logit``: the largest logit (Vaze et al., ICLR 2022). ``energy``: log sum_c exp(z_c), the negative free
    energy at temperature 1 (Liu et al., NeurIPS 2020); with a sigmoid link sum_c log(1 + exp(z_c)) (Wang et al.,
    NeurIPS 2021). ``entropy``: -log H of the probabilities' entropy H, with a sigmoid link of the sum of the C
    binary entropies. ``distance``: the known-ness that the method itself gives. ``pytorch_ood.<detector>``, as in
    ``pytorch_ood.GEN``: minus what a detector of the optional package pytorch-ood makes of logits under a softmax or of
    features, see `ltr.evaluation.detectors`.

    Args:
        scorer: one of `SCORERS`, or a detector.
        scores: logits [B, C]; ``distance`` needs known-ness.
        link: ``softmax`` or ``sigmoid``.
        detector: the detector of this name, fitted, where it is one that has to be.

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
    if is_detector(scorer):
        detector = detector or Detector(scorer)
        if link != "softmax" and not detector.of_features:
            raise ConfigError(f"evaluation.scorers: '{scorer}' is about a softmax, and the loss has a {link}")
        return exact(detector(scores._replace(logits=exact(scores.logits)))).to(scores.logits.device)
    return _OF_LOGITS[scorer](exact(scores.logits), link)


def check_scorer(scorer: str) -> None:
    """Refuse a name that is no scorer.

    Raises:
        ConfigError: it is none, or pytorch-ood is not installed.
    """
    if is_detector(scorer):
        Detector(scorer)
        return
    if scorer not in SCORERS:
        raise ConfigError(
            f"evaluation.scorers: there is no scorer '{scorer}'; choose of {', '.join(SCORERS)}"
            f"{nearest(scorer, SCORERS)}"
        )


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
