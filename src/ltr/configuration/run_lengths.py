"""Lengths relative to the run: ``warmup_epochs: 5/200`` is 5 epochs of 200, and at most a tenth of a shorter run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ltr.configuration.configs import mappings, node_at
from ltr.names import counted

_FRACTION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*")
_KEYS = ("warmup_epochs",)
_SHARE = Fraction(1, 10)  # of a short run; in proportion, 5 of 200 epochs would be too few steps to protect the start
_LEAST_STAIR = 2  # epochs of a rise by whole epochs, whose last step is the full rate


def resolve_run_lengths(config: dict[str, Any]) -> None:
    """Replace each length ``n/m`` of a plain configuration by epochs of its stage, in place.

    A stage of m epochs or more gets n, so that the published lengths give the published schedule. A shorter one of e
    epochs gets n, too, but not more than e / 10 (or n e / m, if that is more). A shortened warm-up of fewer than two
    epochs rises at every step (``warmup: step``), because a rise by whole epochs would begin at the full rate. A value
    in another form is unchanged; the checks of values name it.
    """
    for parent, key, written, epochs in _lengths(config):
        parent[key] = _length(written, epochs)
        if _is_shortened(written, parent[key]) and parent[key] < _LEAST_STAIR and parent.get("warmup") == "epoch":
            parent["warmup"] = "step"


def shortened_lengths(raw: Mapping[str, Any], plain: Mapping[str, Any]) -> list[str]:
    """Return a message for each length that was shortened for a short stage.

    Args:
        raw: the configuration before `resolve_run_lengths`.
        plain: after it.
    """
    lines = []
    for path, node in mappings(raw):
        for key in _KEYS:
            if (match := _match(node.get(key))) is None:
                continue
            value, epochs = node_at(plain, path)[key], _epochs_at(plain, path)
            if epochs is not None and _is_shortened(match, value):
                name = f"{path}.{key}"
                stepwise = " (at every step)" if node.get("warmup") != node_at(plain, path).get("warmup") else ""
                lines.append(
                    f"{name}={value:g}{stepwise}: of this run's {counted(epochs, 'epoch')}; {match[1]} of {match[2]} "
                    f"are published. {name}={match[1]} keeps the length"
                )
    return lines


def _lengths(config: dict[str, Any]) -> list[tuple[dict[str, Any], str, re.Match[str], int | None]]:
    """Return parent, key, match and epochs of the stage for each length that is written as a fraction."""
    lengths = []
    for path, node in mappings(config):
        for key in _KEYS:
            if isinstance(node, dict) and (match := _match(node.get(key))) is not None:
                lengths.append((node, key, match, _epochs_at(config, path)))
    return lengths


def _match(value: Any) -> re.Match[str] | None:
    match = _FRACTION.fullmatch(value) if isinstance(value, str) else None
    return match if match is not None and Fraction(match[2]) > 0 else None


def _epochs_at(config: Mapping[str, Any], path: str) -> int | None:
    """Return the epochs of the stage that the schedule at ``path`` belongs to; None if it is no whole number."""
    above = path.rpartition(".")[0]
    epochs = node_at(config, f"{above}.epochs") if above else None
    if epochs is None:
        epochs = node_at(config, "trainer.max_epochs")
    return epochs if isinstance(epochs, int) and not isinstance(epochs, bool) and epochs > 0 else None


def _length(match: re.Match[str], epochs: int | None) -> int | float:
    length, of = Fraction(match[1]), Fraction(match[2])
    if epochs is None or epochs >= of:
        return _number(length)
    return _number(min(length, epochs * max(length / of, _SHARE)))


def _is_shortened(match: re.Match[str], value: float) -> bool:
    return value != _number(Fraction(match[1]))


def _number(value: Fraction) -> int | float:
    return int(value) if value.denominator == 1 else float(value)
