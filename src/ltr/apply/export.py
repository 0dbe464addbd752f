"""Export of a trained network to files for other programs, after a check against the original network."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ltr.apply.decisions import decisions_file, decisions_of, read_decisions
from ltr.errors import CheckpointError, ConfigError, TrainingError
from ltr.evaluation.decision_file import FILE as DECISIONS
from ltr.files import write_json, written_atomically
from ltr.methods.core.checkpoint import FORMAT, VERSION, describe, network_from_description
from ltr.randomness import generator

WEIGHTS, DESCRIPTION, CLASSES, ONNX = "model.safetensors", "config.json", "class_names.json", "model.onnx"
IMAGES = 4  # made-up ones that the two networks must agree on
MERGE_TOLERANCE = 1e-5  # largest difference of logits after merging LoRA, relative to the largest logit
TOLERANCE = 1e-3  # largest difference of ONNX logits, relative to the largest logit: another runtime sums otherwise


@dataclass(frozen=True)
class Exported:
    """The written file, and the largest difference of logits in the self-check (0 after a reload)."""

    folder: Path
    files: tuple[str, ...]
    difference: float
    merged_difference: float | None = None  # largest difference of logits by merging LoRA; None without LoRA
    onnx_difference: float | None = None  # None where it was not asked for, or no onnxruntime is there to check it


def export(checkpoint: Path, folder: Path, *, onnx: bool = False) -> Exported:
    """Write a network's weights (safetensors), its description (JSON) and its class names (JSON).

    It adds ``decisions.json`` if ``ltr-eval --decide`` chose thresholds for these weights.

    The low-rank updates of ``tune=lora`` are merged into their weights; the logits may then differ by at most
    `MERGE_TOLERANCE`.

    The files are read back by `load_exported`, and the logits of some generated images must be bit-equal to those of
    the (merged) original, in fp32 on the CPU; only then do the files appear in ``folder``.

    Args:
        checkpoint: a weights file of this project.
        onnx: also write ``model.onnx``: uint8 images [N, C, H, W] to the logits [N, classes] of the headline variant.

    Raises:
        CheckpointError: the weights cannot be read.
        ConfigError: ONNX is requested and cannot be written.
        TrainingError: the self-check failed; no file remains.
    """
    if onnx:
        require_onnx()
    description = describe(checkpoint)
    state: dict[str, Tensor] = description.pop("state_dict")
    network = network_from_description({**description, "state_dict": state}, checkpoint)
    if description.pop("base", None) is not None:  # an export needs no other file
        state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    images = check_images(network.dataset_info.image_shape)
    expected = logits(network, images)
    merged_difference = None
    if getattr(getattr(network, "tuning", None), "name", None) == "lora":
        original = expected
        state, description = _merge(network, description)
        expected = logits(network, images)
        merged_difference = largest_difference(original, expected)
        if not merged_difference <= MERGE_TOLERANCE * max(1.0, float(original.abs().max())):
            raise TrainingError(f"merging LoRA changes the logits by {merged_difference:.3g}: nothing was exported")
    folder.mkdir(parents=True, exist_ok=True)
    with drafts_in(folder) as drafts:
        _write(drafts, description, state)
        difference = largest_difference(expected, logits(load_exported(drafts), images))
        if difference != 0:
            raise TrainingError(f"the exported network's logits differ by {difference:.3g}: nothing was exported")
        names = [WEIGHTS, DESCRIPTION, CLASSES]
        onnx_difference = None
        if onnx:
            names.append(ONNX)
            onnx_difference = _write_onnx(drafts / ONNX, network, images, expected)
        stored = decisions_file(checkpoint)
        if stored is not None and read_decisions(stored, checkpoint, description["facts"]["class_names"]) is not None:
            write_json(drafts / DECISIONS, decisions_of(stored, checkpoint))
            names.append(DECISIONS)
        for name in names:
            os.replace(drafts / name, folder / name)
    return Exported(folder, tuple(names), difference, merged_difference, onnx_difference)


def _merge(network: Any, description: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Fold the updates of ``tune=lora`` into a network; return its state dict and a description without tuning."""
    network.tuning.merge(network.backbone)
    state = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    settings = {key: value for key, value in description["settings"].items() if key != "tune"}
    return state, {**description, "settings": settings}


def load_exported(folder: str | Path) -> Any:
    """Return the network of an export, in eval mode on the CPU.

    Raises:
        CheckpointError: a file is missing or damaged, or weights that do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    base = Path(folder)
    for name in (WEIGHTS, DESCRIPTION):
        if not (base / name).is_file():
            raise CheckpointError(f"{base} holds no export: {name} is not there. ltr-export makes one of a run")
    try:
        description = json.loads((base / DESCRIPTION).read_text(encoding="utf-8"))
        state = load_file(base / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{base}: an export that cannot be read: {error}") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise CheckpointError(f"{base / DESCRIPTION} is not of this project (no format '{FORMAT}')")
    if description.get("version", 0) > VERSION:
        raise CheckpointError(f"{base / DESCRIPTION}: written by a newer version of ltr")
    return network_from_description({**description["network"], "state_dict": state}, base / WEIGHTS)


def check_images(image_shape: tuple[int, int, int]) -> Tensor:
    """Return made-up images for the self-check, uint8 [4, C, H, W], always the same."""
    pixels = generator("export", "check").integers(0, 256, (IMAGES, *image_shape), dtype="uint8")
    return torch.from_numpy(pixels)


@torch.inference_mode()
def logits(network: Any, images: Tensor) -> Tensor:
    """Return logits [N, classes] of the headline variant, in fp32 on the CPU."""
    return network.predict(images)[network.headline].logits.float()


def require_onnx() -> None:
    """Raise ConfigError, saying how to get them, where the packages that write ONNX are not installed."""
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--onnx needs {' and '.join(missing)}, which ltr does not install: pip install onnx onnxscript "
            "onnxruntime (the last one checks the file). Without --onnx the export needs nothing more"
        )


def _write(folder: Path, description: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save

    # copies: two names of one tensor would be refused; bytes: others could not read a file of safetensors' own
    copies = {name: tensor.clone().contiguous() for name, tensor in state.items()}
    (folder / WEIGHTS).write_bytes(save(copies))
    names = description["facts"]["class_names"]
    about = {
        "format": FORMAT,
        "version": VERSION,
        "library": "ltr",
        "input": "uint8 [N, C, H, W], 0 to 255; the network normalises",
        "image_shape": description["facts"]["image_shape"],
        # how files became these pixels in training; null: alpha was dropped, and 65535 of 16 bits was white
        "decoding": {key: description["facts"].get(key) for key in ("matte", "white_level")},
        "network": dict(description),
    }
    write_json(folder / DESCRIPTION, about)
    write_json(folder / CLASSES, list(names))


@contextlib.contextmanager
def drafts_in(folder: Path) -> Iterator[Path]:
    """Yield a folder for drafts in ``folder``, from which a file is moved into place whole."""
    drafts = folder / f".export.{os.getpid()}"
    drafts.mkdir()
    try:
        yield drafts
    finally:
        shutil.rmtree(drafts, ignore_errors=True)


def largest_difference(expected: Tensor, actual: Tensor) -> float:
    if expected.shape != actual.shape:
        return float("inf")
    worst = (expected - actual).abs().max().item()
    return worst if worst == worst else float("inf")


class _Headline(nn.Module):
    """Module that maps pixels to the logits of a network."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.predict(images)[self.network.headline].logits.float()


def _write_onnx(path: Path, network: Any, images: Tensor, expected: Tensor) -> float | None:
    """Write ONNX and, where onnxruntime is installed, run it on the same images; the largest difference."""
    try:
        with contextlib.redirect_stdout(None), written_atomically(path) as temporary:
            torch.onnx.export(
                _Headline(network).eval(),
                (images,),
                str(temporary),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes={"images": {0: torch.export.Dim("n", min=1)}},
                dynamo=True,
                external_data=False,
            )
    except Exception as error:  # torch raises many kinds
        reason = (str(error).splitlines() or [""])[0]
        raise ConfigError(f"--onnx: {type(network).__name__} cannot be written as ONNX: {reason}") from error
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {"images": images.numpy()})
    difference = largest_difference(expected, torch.from_numpy(actual))
    if difference > TOLERANCE * max(1.0, expected.abs().max().item()):
        raise TrainingError(f"the logits of {ONNX} differ by {difference:.3g}: nothing was exported")
    return difference
