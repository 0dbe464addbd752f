"""The interpolations of configs, ``${of_weights:ITEM,OTHERWISE}`` and ``${scaled:NUMBER,FACTOR}``."""

from __future__ import annotations

from omegaconf import OmegaConf

from ltr.configuration.weights_input import of_weights


def scaled(number: float, factor: float) -> int:
    """Return the product, rounded to a whole number: a size proportional to another one."""
    return round(number * factor)


def register() -> None:
    """Make the interpolations known to OmegaConf."""
    for name, resolver in (("of_weights", of_weights), ("scaled", scaled)):
        if not OmegaConf.has_resolver(name):
            OmegaConf.register_new_resolver(name, resolver)
