"""Scores as text keep the order of a ranking."""

from __future__ import annotations

import math

import pytest

from ltr.apply.score_text import log_odds, probability_texts, score_texts


def test_probabilities_that_differ_in_three_decimals_are_shown_unchanged():
    assert probability_texts([0.912, 0.5, 0.5, 0.0004]) == ["0.912", "0.500", "0.500", "0.000"]


@pytest.mark.parametrize("probabilities", [[4e-4, 3e-4, 1e-9], [0.9999, 0.9997, 0.5], [2.5e-7, 2.4999e-7]])
def test_probabilities_that_round_to_the_same_text_are_shown_as_log_odds(probabilities):
    texts = probability_texts(probabilities)
    assert all(text.startswith("log-odds ") for text in texts)
    shown = [float(text.removeprefix("log-odds ")) for text in texts]
    assert shown == sorted(shown, reverse=True)
    assert len(set(shown)) == len(probabilities)
    assert shown == pytest.approx([math.log(p / (1 - p)) for p in probabilities], abs=5e-3)


def test_certain_probabilities_have_infinite_log_odds():
    assert (log_odds(0.0), log_odds(1.0), log_odds(0.5)) == (-math.inf, math.inf, 0.0)


def test_scores_have_just_enough_decimals_to_differ():
    assert score_texts([1.0, 0.5]) == ["1.00", "0.50"]
    assert score_texts([0.9991, 0.9994]) == ["0.9991", "0.9994"]
    assert score_texts([0.5, 0.5]) == ["0.50", "0.50"]
    assert score_texts([]) == []
