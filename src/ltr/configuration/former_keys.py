"""Former names of configuration keys, accepted in overrides and config files with a one-line notice.

`ltr.former_paths` holds the table. Stored configurations are read through `ltr.identity`, without a notice.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf, open_dict

from ltr.console import print_line
from ltr.identity import today_of

_PRINTED: set[str] = set()  # notices that the current command has printed


def forget_notices() -> None:
    """Reset the printed notices, for a further command in the same process."""
    _PRINTED.clear()


def rename_overrides(overrides: Iterable[Override], former: Mapping[str, str]) -> list[str]:
    """Replace former keys in overrides.

    Args:
        former: dotted former key -> today's, see `ltr.identity.former_keys`.

    Returns:
        One notice for each former key.
    """
    notices = []
    for override in overrides:
        key = str(override.key_or_group)
        today = today_of(key, former)
        if today != key:
            override.key_or_group = today
            notices.append(_notice("", key, today))
    return notices


def rename_in_file(loaded: ConfigResult, config_path: str, former: Mapping[str, str]) -> tuple[ConfigResult, list[str]]:
    """Return a config file's content with former keys replaced, and a notice for each.

    Args:
        loaded: as Hydra embeds it into the whole configuration.
        config_path: the file, for messages.

    Raises:
        ConfigCompositionException: the file sets a key under both of its names.
    """
    keys = [(old, new) for old, new in former.items() if _holds(loaded.config, old)]
    if not keys:
        return loaded, []
    renamed = copy.copy(loaded)
    renamed.config = copy.deepcopy(loaded.config)
    for old, new in keys:
        if _holds(renamed.config, new):
            raise ConfigCompositionException(
                f"In '{config_path}': {old} and {new} are one key under its former and its present name. Keep {new}"
            )
        node = _parent(renamed.config, old)
        assert node is not None
        _rename(node, old, new)
        if OmegaConf.is_dict(rules := node.get("_allowed_")):
            _rename(rules, old, new)
    return renamed, [_notice(f"in '{config_path}': ", old, new) for old, new in keys]


def print_notices(notices: Iterable[str]) -> None:
    """Print each notice once per command, on rank 0."""
    is_first = os.environ.get("RANK", "0") == "0" and "LTR_WATCHED" not in os.environ
    for notice in notices:
        if is_first and notice not in _PRINTED:
            _PRINTED.add(notice)
            print_line(notice, sys.stderr)


def _notice(where: str, old: str, new: str) -> str:
    return f"note: {where}{old} is now called {new}. The former name works until the next release; write {new}"


def _parent(config: Any, key: str) -> DictConfig | None:
    node, _, _ = key.rpartition(".")
    parent = OmegaConf.select(config, node) if node else config
    return parent if isinstance(parent, DictConfig) else None


def _holds(config: Any, key: str) -> bool:
    node = _parent(config, key)
    return node is not None and key.rpartition(".")[2] in node


def _rename(node: DictConfig, old: str, new: str) -> None:
    old, new = old.rpartition(".")[2], new.rpartition(".")[2]
    if old in node:
        with open_dict(node):
            node[new] = node._get_node(old)
            del node[old]
