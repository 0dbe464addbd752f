"""Weights in the layout of timm and the Hugging Face hub: ``local-dir:FOLDER`` and ``hf-hub:OWNER/NAME``.

Such a folder holds ``config.json``, with the architecture and the preprocessing, and ``model.safetensors`` or
``pytorch_model.bin``.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltr.errors import CheckpointError, first_line
from ltr.escaping import one_line

LOCAL, HUB = "local-dir:", ("hf-hub:", "hf_hub:")
CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def weights_file(weights: str) -> str:
    """Return the path of the weights file that ``backbone.weights`` names; a plain path is returned unchanged.

    ``hf-hub:OWNER/NAME`` (optionally with ``@REVISION``) is downloaded into the cache of huggingface_hub.

    Raises:
        CheckpointError: the folder has no weights file, or the download failed.
    """
    if weights.startswith(LOCAL):
        folder = Path(weights.removeprefix(LOCAL)).expanduser()
        return str(_in_folder(folder, weights))
    if weights.startswith(HUB):
        if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", weights.partition(":")[2]):
            raise CheckpointError(
                f"backbone.weights={weights}: the form is hf-hub:OWNER/NAME or hf-hub:OWNER/NAME@REVISION. For a "
                "folder set backbone.weights=local-dir:FOLDER"
            )
        file, error = _downloaded(weights.partition(":")[2])
        if file is None:
            name = weights.partition(":")[2].partition("@")[0]
            raise CheckpointError(
                f"backbone.weights={weights}: the weights could not be downloaded ({error}). Check the name and the "
                f"network, or fetch them elsewhere (hf download {name} --local-dir FOLDER) and set "
                "backbone.weights=local-dir:FOLDER"
            )
        return file
    return weights


def with_weights_file(backbone: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a backbone's config with the path of the weights file instead of a hub name or folder."""
    weights = backbone.get("weights")
    if not isinstance(weights, str) or not weights.startswith((LOCAL, *HUB)):
        return backbone
    return {**backbone, "weights": weights_file(weights)}


def hub_config(weights: str) -> Mapping[str, Any] | None:
    """Return timm's ``pretrained_cfg`` and ``architecture`` from a weights file's folder; None without a config."""
    try:
        config = json.loads((Path(weights_file(weights)).parent / CONFIG).read_text(encoding="utf-8"))
    except (CheckpointError, OSError, ValueError):  # the construction of the backbone reports a missing file
        return None
    if not isinstance(config, dict) or not isinstance(config.get("pretrained_cfg"), dict):
        return None
    return {"architecture": config.get("architecture"), **config["pretrained_cfg"]}


def other_architecture(weights: str, name: str) -> str:
    """Return a sentence if a hub folder has an architecture other than ``name``; '' otherwise.

    Args:
        weights: a value for `weights_file`, or the path of a file.
        name: timm's name, with or without a tag.
    """
    stored = str((hub_config(weights) or {}).get("architecture") or "")
    if not stored or stored.partition(".")[0] == name.partition(".")[0]:
        return ""
    return (
        f"{Path(weights_file(weights)).parent / CONFIG} names the architecture {one_line(stored)}, and backbone.name "
        f"asks for {name}. Set backbone.name={one_line(stored)}, or give weights of {name}"
    )


def _in_folder(folder: Path, weights: str) -> Path:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    problem = "the folder has no" if folder.is_dir() else "there is no such folder with"
    raise CheckpointError(
        f"backbone.weights={weights}: {problem} {' or '.join(WEIGHTS)}. Give the folder that ltr-export RUN --hub "
        "FOLDER or a download wrote"
    )


@functools.lru_cache(maxsize=16)  # a run calls it several times, and each attempt without a network takes seconds
def _downloaded(name: str) -> tuple[str | None, str]:
    """Return the weights file of a model on the hub in the local cache, or None with the reason."""
    import huggingface_hub  # installed with timm
    from huggingface_hub.errors import EntryNotFoundError

    model, _, revision = name.partition("@")

    def fetch(file: str) -> str:
        return huggingface_hub.hf_hub_download(model, file, revision=revision or None)

    try:
        fetch(CONFIG)
        try:
            return fetch(WEIGHTS[0]), ""
        except EntryNotFoundError:
            return fetch(WEIGHTS[1]), ""
    except Exception as error:  # network, hub and a wrong name raise different errors
        return None, one_line(first_line(error))
