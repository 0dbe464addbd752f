"""Digests of the files that a configuration names, such as pretrained weights: a result is valid for their content."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ltr.configuration.configs import leaves, mappings
from ltr.configuration.rules import read_rules
from ltr.errors import CheckpointError
from ltr.files import checkpoint_file, file_digest
from ltr.models.hub_weights import LOCAL, weights_file
from ltr.runs.keys import run_identity

_NUMBERED = re.compile(r"(\.\d+)+$")  # the position of an entry in a list


def named_files(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 in hex of each file that a setting names, by the setting's key.

    A run directory counts by its evaluated weights, and ``local-dir:FOLDER`` by the weights in the folder. Files of the
    data's source are not included, because a source has its fingerprint and metadata, nor are files that do
    not exist (any more).

    Args:
        config: the checked, resolved, plain configuration.
    """
    return {key: file_digest(file) for key, file in named_paths(config)}


def named_paths(config: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """Yield key and path of each file that `named_files` counts."""
    ruled = _keys_with_rules(config)
    of_source = {value for _, value in _texts(config["dataset"]["source"])}
    for key, text in _texts(run_identity(config)):
        # a name or a choice, such as erm or last, may by accident be that of a file here
        is_name = key.rpartition(".")[2] in ("name", "_target_") and os.sep not in text
        is_name = is_name or _NUMBERED.sub("", key) in ruled
        if text not in of_source and not is_name and (file := _file(text)) is not None:
            yield key, file


def _keys_with_rules(config: Mapping[str, Any]) -> set[str]:
    """Return the dotted keys whose values are choices, numbers or names of configs, and so never files."""
    return {
        f"{path}.{key}" if path else key
        for path, node in mappings(config)
        for key in {**read_rules(path, node), **read_rules(path, node, config)}
    }


def changed_files(stored: Mapping[str, str], current: Mapping[str, str]) -> list[str]:
    """Return the keys whose files differ, of those in both mappings of `named_files`."""
    return sorted(key for key in stored.keys() & current.keys() if stored[key] != current[key])


def _texts(node: Any) -> Iterator[tuple[str, str]]:
    """Yield key and value of all texts below ``node``, also in lists."""
    for key, value in leaves(node):
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, (list, tuple)):
            for number, item in enumerate(value):
                yield from ((f"{key}.{number}.{path}".rstrip("."), text) for path, text in _texts(item))


def _file(text: str) -> Path | None:
    if text.startswith(LOCAL):
        try:
            return Path(weights_file(text))
        except CheckpointError:
            return None
    path = Path(text)
    if os.path.isfile(path):  # unlike Path.is_file, False for a text that cannot be a path
        return path
    if not os.path.isdir(path / "checkpoints"):
        return None
    try:
        return checkpoint_file(path)
    except CheckpointError:
        return None
