"""Export of a trained network to files for other programs, checked against the original network."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ltr.apply.decisions import decisions_file, decisions_of, read_decisions
from ltr.apply.model import class_logits, was_trained_on_crops
from ltr.errors import CheckpointError, ConfigError, TrainingError, first_line
from ltr.evaluation.decision_file import FILE as DECISIONS
from ltr.files import is_regular, write_json, written_atomically
from ltr.methods.core.checkpoint import FORMAT, VERSION, describe, network_from_description
from ltr.randomness import generator

WEIGHTS, DESCRIPTION, CLASSES, ONNX = "model.safetensors", "config.json", "class_names.json", "model.onnx"
FILES = (WEIGHTS, DESCRIPTION, CLASSES, ONNX, DECISIONS)
IMAGES = 4  # number of generated images for the self-check
# largest differences of logits, relative to the largest logit: after merging LoRA, and of ONNX in another runtime
MERGE_TOLERANCE, ONNX_TOLERANCE = 1e-5, 1e-3


@dataclass(frozen=True)
class ExportedNetwork:
    """Written files, and the largest differences of logits in the self-check.

    Attributes:
        folder: folder of the files.
        files: their names.
        difference: difference after reloading the files, which is 0.
        merged_difference: difference by merging LoRA; None without LoRA.
        onnx_difference: difference of ONNX; None without ONNX, or if onnxruntime is not installed to check it.
    """

    folder: Path
    files: tuple[str, ...]
    difference: float
    merged_difference: float | None = None
    onnx_difference: float | None = None


def export(checkpoint: Path, folder: Path, *, onnx: bool = False) -> ExportedNetwork:
    """Write a network's weights (safetensors), its description (JSON) and its class names (JSON).

    ``decisions.json`` is added if ``ltr-eval --decide`` chose thresholds for these weights. The low-rank updates of
    ``tune=lora`` are merged into the weights; this may change the logits by at most `MERGE_TOLERANCE`.

    The files of an earlier export into ``folder`` are replaced or removed after a self-check: `load_exported` reads the
    new files, and the logits of some generated images must be bit-equal to those of the (merged) original, in fp32 on
    the CPU.

    Args:
        checkpoint: a weights file of this project.
        onnx: also write ``model.onnx``, which maps uint8 images [N, C, H, W] to logits [N, classes] of the headline.

    Raises:
        CheckpointError: the weights cannot be read.
        ConfigError: ONNX cannot be written, the network has no score for each class, or ``folder`` holds another model.
        TrainingError: the self-check fails; no file remains.
    """
    if onnx:
        require_onnx()
    description = describe(checkpoint)
    decisions = decisions_file(checkpoint)
    class_names = description["facts"]["class_names"]
    has_decisions = decisions is not None and read_decisions(decisions, checkpoint, class_names) is not None
    names = [WEIGHTS, DESCRIPTION, CLASSES, *([ONNX] if onnx else []), *([DECISIONS] if has_decisions else [])]
    refuse_other_model(folder, names, _is_export(folder), "--out")
    state: dict[str, Tensor] = description.pop("state_dict")
    network = network_from_description({**description, "state_dict": state}, checkpoint)
    if description.pop("base", None) is not None:  # an export needs no other file
        state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    images = generated_images(network.dataset_info.image_shape)
    expected = logits(network, images)
    merged_difference = None
    if getattr(getattr(network, "tuning", None), "name", None) == "lora":
        original = expected
        state, description = _merge(network, description)
        expected = logits(network, images)
        merged_difference = largest_difference(original, expected)
        if not merged_difference <= MERGE_TOLERANCE * max(1.0, float(original.abs().max())):
            raise TrainingError(
                f"merging LoRA changes the logits by {merged_difference:.3g}, more than rounding does: nothing was "
                "exported. Check the weights with ltr-eval"
            )
    folder.mkdir(parents=True, exist_ok=True)
    with draft_folder(folder) as drafts:
        _write(drafts, description, state, cut_by_box=was_trained_on_crops(description, checkpoint))
        difference = largest_difference(expected, logits(load_exported(drafts), images))
        if difference != 0:
            raise TrainingError(f"the exported network's logits differ by {difference:.3g}: nothing was exported")
        onnx_difference = _write_onnx(drafts / ONNX, network, images, expected) if onnx else None
        if decisions is not None and has_decisions:
            write_json(drafts / DECISIONS, decisions_of(decisions, checkpoint))
        replace_export(drafts, folder, names)
    return ExportedNetwork(folder, tuple(names), difference, merged_difference, onnx_difference)


def refuse_other_model(folder: Path, names: Sequence[str], is_export: bool, flag: str) -> None:
    """Raise ConfigError for files of these names in a folder, unless it is an export of the same kind.

    Args:
        flag: flag of ``ltr-export`` that names the folder.
    """
    existing = [folder / name for name in _description_first(names) if os.path.lexists(folder / name)]
    if existing and not is_export:
        raise ConfigError(
            f"{flag} {folder}: {existing[0]} is not of ltr-export {flag}, and would be replaced. Name another folder"
        )


def _description_first(names: Sequence[str]) -> list[str]:
    """Return names with ``config.json`` first, which says whose files the others are."""
    return sorted(names, key=lambda name: name != DESCRIPTION)


def _is_export(folder: Path) -> bool:
    """Return whether a folder holds files of `export`."""
    if not is_regular(folder / DESCRIPTION):  # reading a pipe could block
        return False
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(description, dict) and description.get("format") == FORMAT


def replace_export(drafts: Path, folder: Path, names: Sequence[str]) -> None:
    """Move complete files into place; remove those of an earlier export that the new one does not write."""
    if _is_export(folder):
        for name in set(FILES) - set(names):
            (folder / name).unlink(missing_ok=True)
    for name in _description_first(names):
        os.replace(drafts / name, folder / name)


def _merge(network: Any, description: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Merge the updates of ``tune=lora`` into a network; return its state dict and a description without tuning."""
    network.tuning.merge(network.backbone)
    state = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    settings = {key: value for key, value in description["settings"].items() if key != "tune"}
    return state, {**description, "settings": settings}


def load_exported(folder: str | Path) -> Any:
    """Return the network of an export, in eval mode on the CPU.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    base = Path(folder)
    for name in (WEIGHTS, DESCRIPTION):
        if not (base / name).is_file():
            raise CheckpointError(f"{base} is not an export: it has no {name}. Export a run with ltr-export")
    try:
        description = json.loads((base / DESCRIPTION).read_text(encoding="utf-8"))
        state = load_file(base / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{base}: the export cannot be read: {error}. Export the run again") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise CheckpointError(f"{base / DESCRIPTION} has no format '{FORMAT}'. Give a folder that ltr-export wrote")
    if description.get("version", 0) > VERSION:
        raise CheckpointError(f"{base / DESCRIPTION} is of a newer version of ltr. Install that version")
    return network_from_description({**description["network"], "state_dict": state}, base / WEIGHTS)


def generated_images(image_shape: tuple[int, int, int]) -> Tensor:
    """Return fixed random images for the self-check, uint8 [4, C, H, W]."""
    pixels = generator("export", "check").integers(0, 256, (IMAGES, *image_shape), dtype="uint8")
    return torch.from_numpy(pixels)


@torch.inference_mode()
def logits(network: Any, images: Tensor) -> Tensor:
    """Return logits [N, classes] of the headline variant, in fp32 on the CPU.

    Raises:
        ConfigError: the network has no score for each class.
    """
    return class_logits(network, network.predict(images)[network.headline]).float()


def require_onnx() -> None:
    """Raise ConfigError if a package that writes ONNX is not installed."""
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--onnx needs {' and '.join(missing)}, which ltr does not install: pip install onnx onnxscript "
            "onnxruntime (the last one checks the file), or leave --onnx out"
        )


def _write(folder: Path, description: Mapping[str, Any], state: Mapping[str, Tensor], *, cut_by_box: bool) -> None:
    from safetensors.torch import save

    # safetensors refuses two names of one tensor, and its own files are readable by their owner only
    copies = {name: tensor.clone().contiguous() for name, tensor in state.items()}
    (folder / WEIGHTS).write_bytes(save(copies))
    names = description["facts"]["class_names"]
    about = {
        "format": FORMAT,
        "version": VERSION,
        "library": "ltr",
        "input": "uint8 [N, C, H, W], 0 to 255; the network normalises",
        "image_shape": description["facts"]["image_shape"],
        # conversion of files to pixels in training; null: alpha was dropped, and 65535 was white in 16-bit files
        "decoding": {key: description["facts"].get(key) for key in ("matte", "white_level")},
        # true: the images of training were crops of boxes, as of MegaDetector's
        "cut_by_box": cut_by_box,
        "network": dict(description),
    }
    write_json(folder / DESCRIPTION, about)
    write_json(folder / CLASSES, list(names))


@contextlib.contextmanager
def draft_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder in ``folder``, from which complete files are moved into place."""
    drafts = folder / f".export.{os.getpid()}"
    drafts.mkdir()
    try:
        yield drafts
    finally:
        shutil.rmtree(drafts, ignore_errors=True)


def largest_difference(expected: Tensor, actual: Tensor) -> float:
    """Return the largest absolute difference; infinity for other shapes or NaN."""
    if expected.shape != actual.shape:
        return float("inf")
    worst = (expected - actual).abs().max().item()
    return worst if worst == worst else float("inf")


class _Headline(nn.Module):
    """Module that maps images to the logits of a network's headline variant."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.predict(images)[self.network.headline].logits.float()


def _write_onnx(path: Path, network: Any, images: Tensor, expected: Tensor) -> float | None:
    """Write ONNX; return the largest difference of its logits, or None if onnxruntime is not installed."""
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
    except Exception as error:  # torch raises errors of any type
        raise ConfigError(
            f"--onnx: {type(network).__name__} cannot be written as ONNX: {first_line(error)}. Export without --onnx"
        ) from error
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {"images": images.numpy()})
    difference = largest_difference(expected, torch.from_numpy(actual))
    if difference > ONNX_TOLERANCE * max(1.0, expected.abs().max().item()):
        raise TrainingError(f"the logits of {ONNX} differ by {difference:.3g}: nothing was exported. Leave --onnx out")
    return difference
