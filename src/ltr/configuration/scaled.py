"""The interpolation ``${scaled:NUMBER,FACTOR}`` of configs: an integer proportional to another one."""

from __future__ import annotations

from omegaconf import OmegaConf


def _scaled(number: float, factor: float) -> int:
    """Return the product, rounded to a whole number."""
    return round(number * factor)


def register() -> None:
    """Make the interpolation known to OmegaConf."""
    if not OmegaConf.has_resolver("scaled"):
        OmegaConf.register_new_resolver("scaled", _scaled)


register()
