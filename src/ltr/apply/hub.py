"""Export in the layout of timm and the Hugging Face hub: ``timm.create_model("local-dir:FOLDER")`` reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ltr.apply.export import (
    draft_folder,
    generated_images,
    largest_difference,
    logits,
    refuse_other_model,
    replace_export,
)
from ltr.apply.model_card import CITED, model_card
from ltr.errors import ConfigError, TrainingError
from ltr.files import is_regular, write_text
from ltr.methods.core.checkpoint import describe, load_network
from ltr.methods.core.timm_model import timm_model

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
WRITTEN_BY = "ltr-export --hub"  # in config.json
TOLERANCE = 1e-4  # largest difference of logits, relative to the largest logit: merged weights are rounded
_RUN_HASH = re.compile(r"\b[0-9a-f]{64}\b")
_OF_OTHER_WEIGHTS = ("license", "origin_url", "paper_ids", "paper_name", "notes", "tag")  # entries of pretrained_cfg


@dataclass(frozen=True)
class HubExport:
    """Written files, and the largest difference between the logits of timm's model and of the run's network.

    ``kept_card`` is True if the folder had a card, which was kept.
    """

    folder: Path
    files: tuple[str, ...]
    difference: float
    kept_card: bool


def export_hub(checkpoint: Path, folder: Path, result: Mapping[str, Any] | None = None, limited: str = "") -> HubExport:
    """Write a network as a timm model: ``config.json``, ``model.safetensors`` and a card ``README.md``.

    The files appear in ``folder`` after a self-check: timm builds the model from them, and its logits of some generated
    images must agree with the network's. An existing README.md is kept.

    Args:
        checkpoint: a weights file of this project.
        result: content of the run's ``result.json``, for the card; None without one.
        limited: note on a limited run, for the card.

    Raises:
        CheckpointError: the weights cannot be read.
        ConfigError: timm does not have the backbone, the logits are not a linear function of its features, or the
            folder has another model or the card of another run.
        TrainingError: timm's model gives other logits; no file remains.
    """
    import timm

    refuse_other_model(folder, (CONFIG, WEIGHTS), _is_hub_export(folder), "--hub")
    _check_card(folder / CARD, result)
    description = describe(checkpoint)
    network = load_network(checkpoint)
    images = generated_images(network.dataset_info.image_shape)
    expected = logits(network, images)  # before LoRA is merged
    model = timm_model(network)
    folder.mkdir(parents=True, exist_ok=True)
    with draft_folder(folder) as drafts:
        timm.models.save_for_hf(
            model, str(drafts), model_config=_config(network, description["dataset"]), safe_serialization=True
        )
        _remove_facts_of_other_weights(drafts / CONFIG)
        reloaded = timm.create_model(f"local-dir:{drafts}", pretrained=True).eval()
        difference = largest_difference(expected, _logits_of_timm(network, reloaded, images))
        if not difference <= TOLERANCE * max(1.0, expected.abs().max().item()):
            raise TrainingError(
                f"the logits of timm's model differ by {difference:.3g}: nothing was exported. Use ltr-export RUN "
                "--out FOLDER, which keeps the network unchanged"
            )
        write_text(drafts / CARD, model_card(description, result, folder.name, limited))
        kept_card = (folder / CARD).exists()
        names = [CONFIG, WEIGHTS, *([] if kept_card else [CARD])]
        replace_export(drafts, folder, names)
    return HubExport(folder, tuple(names), difference, kept_card)


def _is_hub_export(folder: Path) -> bool:
    """Return whether a folder holds files of `export_hub`; those of earlier versions are known by their card."""
    if not is_regular(folder / CONFIG):  # reading a pipe could block
        return False
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if isinstance(config, dict) and config.get("written_by") == WRITTEN_BY:
            return True
        return is_regular(folder / CARD) and CITED in (folder / CARD).read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return False


def _check_card(card: Path, result: Mapping[str, Any] | None) -> None:
    """Raise ConfigError for a folder with the card of another run."""
    if not is_regular(card):
        return
    hashes = set(_RUN_HASH.findall(card.read_text(encoding="utf-8", errors="replace")))
    if hashes and (result or {}).get("run_hash") not in hashes:
        raise ConfigError(
            f"--hub {card.parent}: {card.name} in it has the metrics of another run. Give another folder, or move "
            f"{card} elsewhere"
        )


@torch.inference_mode()
def _logits_of_timm(network: Any, model: nn.Module, images: Tensor) -> Tensor:
    return model.to(memory_format=torch.channels_last)(network.normalise(network.to_unit(images))).float()


def _config(network: Any, dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of ``config.json`` that describe classes and preprocessing."""
    info = network.dataset_info
    side = info.image_shape[1]
    resize = dataset.get("image_resize")
    crop: dict[str, Any] = {"crop_pct": 1.0, "crop_mode": "center"}
    if "image_size" in dataset:  # image files: the short side is resized, then the centre is cropped
        short = resize if isinstance(resize, int) else resize[0] if resize else round(side * 8 / 7)
        crop = {"crop_pct": side / short, "crop_mode": "center" if not isinstance(resize, (list, tuple)) else "squash"}
    preprocessing = {
        "mean": list(info.mean),
        "std": list(info.std),
        "input_size": list(info.image_shape),
        "interpolation": info.interpolation or "bilinear",
        **crop,
    }
    return {"label_names": list(info.class_names), "pretrained_cfg": preprocessing, "written_by": WRITTEN_BY}


def _remove_facts_of_other_weights(path: Path) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    for name in _OF_OTHER_WEIGHTS:
        config["pretrained_cfg"].pop(name, None)
    write_text(path, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
