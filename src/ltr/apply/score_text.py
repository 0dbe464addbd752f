"""Scores as text with enough digits to show the order of a ranking."""

from __future__ import annotations

import math
from collections.abc import Sequence

_DECIMALS = range(2, 7)


def score_texts(scores: Sequence[float], decimals: Sequence[int] = _DECIMALS) -> list[str]:
    """Return scores with as few of these ``decimals`` as different scores need to differ, else with the most."""
    number = len(set(scores))
    texts: list[str] = []
    for places in decimals:
        texts = [f"{score:.{places}f}" for score in scores]
        if len(set(texts)) == number:
            break
    return texts


def probability_texts(probabilities: Sequence[float]) -> list[str]:
    """Return probabilities with three decimals, or as log-odds if rounding would make different ones equal.

    Probabilities of rare classes are often all below 0.001, where log-odds show which is larger.
    """
    texts = score_texts(probabilities, (3,))
    if len(set(texts)) == len(set(probabilities)):
        return texts
    return [f"log-odds {text}" for text in score_texts([log_odds(probability) for probability in probabilities])]


def log_odds(probability: float) -> float:
    """Return ln(p / (1 - p)); infinite for 0 and 1."""
    if probability <= 0:
        return -math.inf
    return math.inf if probability >= 1 else math.log(probability) - math.log1p(-probability)
