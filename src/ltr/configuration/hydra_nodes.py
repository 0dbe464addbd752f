"""What Hydra itself builds from a configuration (launcher, sweeper, callbacks, logging), before any page is checked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from ltr.configuration.launchers import check_launcher
from ltr.configuration.pages import mappings
from ltr.errors import ConfigError

ALLOWED = ("hydra._internal.core_plugins.", "hydra.experimental.callbacks.", "hydra_plugins.", "ltr.sweeps.", "optuna.")
_LOGGING = ("job_logging", "hydra_logging")


def check_hydra(node: Mapping[str, Any], allowed: tuple[str, ...] = ()) -> list[str]:
    """One sentence for everything below ``hydra`` that would run code of somebody else.

    Args:
        node: as it is written, interpolations not resolved: a target must be a plain name.
        allowed: packages that the command line allows beside `ALLOWED`.
    """
    prefixes = ALLOWED + tuple(f"{name.rstrip('.')}." for name in allowed)
    mistakes = []
    verbose = node.get("verbose", False)
    if not isinstance(verbose, (bool, str)) and not (
        isinstance(verbose, list) and all(isinstance(name, str) for name in verbose)
    ):
        mistakes.append(f"hydra.verbose={verbose}: allowed is true, false, a logger's name or a list of names")
    for path, found in mappings(node):
        target = found.get("_target_")
        if "_target_" in found and not (isinstance(target, str) and target.startswith(prefixes)):
            mistakes.append(
                f"hydra.{path}._target_={target}: not one of Hydra's own, nor of its plugins. For your own code pass "
                "--allow PREFIX"
            )
        if path.split(".")[0] not in _LOGGING:
            continue
        # Python's logging calls what these keys name
        if "()" in found:
            mistakes.append(f"hydra.{path}: a factory '()' is not allowed")
        named = found.get("class")
        if named is not None and not str(named).startswith(("logging.", "colorlog.")):
            mistakes.append(f"hydra.{path}.class={named}: handlers and formatters are those of the package logging")
    return mistakes


@contextlib.contextmanager
def guarded_hydra(allowed: tuple[str, ...] = ()) -> Iterator[None]:
    """Inside, Hydra refuses a configuration that `check_hydra` finds fault with, before it builds anything of it.

    Raises:
        ConfigError: all that is wrong with it.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    load = ConfigLoaderImpl.load_configuration

    def checked(self: Any, *arguments: Any, **named: Any) -> Any:
        config = load(self, *arguments, **named)
        hydra = config.get("hydra")
        node = OmegaConf.to_container(hydra, resolve=False) if OmegaConf.is_config(hydra) else {}
        mistakes = (
            check_hydra({str(key): value for key, value in node.items()}, allowed) if isinstance(node, dict) else []
        )
        if RunMode.MULTIRUN in (*arguments, *named.values()) and isinstance(node, dict):
            mistakes += check_launcher(node.get("launcher"))
        if mistakes:
            raise ConfigError("\n".join(["the configuration is not allowed:", *(f"  {line}" for line in mistakes)]))
        return config

    ConfigLoaderImpl.load_configuration = checked  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = load  # type: ignore[method-assign]
