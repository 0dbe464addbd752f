"""A composed configuration made plain and checked; imports nothing heavy."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ltr.configuration.allowed import check_values
from ltr.configuration.targets import check_targets
from ltr.errors import ConfigError


def checked(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain data, with values and targets checked.

    Raises:
        ConfigError: all mistakes in one message.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"the configuration cannot be resolved: {str(error).strip()}") from error
    assert isinstance(plain, dict)
    mistakes = check_values(plain) + check_targets(plain)
    if mistakes:
        raise ConfigError("\n".join(["the configuration is not allowed:", *(f"  {m}" for m in mistakes)]))
    return {str(key): value for key, value in plain.items()}
