"""Figure: selected locations of each level over some test images (HERBS, PIM)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ltr.report.classes import shorten
from ltr.report.read_run import Run, read_arrays
from ltr.report.style import WARNING, figure_file, set_run_title

MAX_IMAGES = 8
_DROPPED_BRIGHTNESS = 0.25  # brightness factor of dropped locations
_LEVEL = re.compile(r"selected_(\d+)")


def selected_locations(run: Run, path: Path) -> bool:
    """Draw a row per image: the image, then a copy per level with dropped locations darkened.

    Returns:
        False if the run's ``artifacts/examples.npz`` is missing or has no selection.

    Raises:
        DataError: the file is damaged.
    """
    arrays = read_arrays(run.path / "artifacts" / "examples.npz")
    levels = sorted((int(match[1]), name) for name in arrays if (match := _LEVEL.fullmatch(name)))
    if not levels:
        return False
    images = arrays["images"][:MAX_IMAGES]
    names = run.per_class["class_name"]
    with figure_file(path, 2.2 * (1 + len(levels)), 0.7 + 2.35 * len(images)) as figure:
        set_run_title(figure, run)
        grid = figure.subplots(len(images), 1 + len(levels), squeeze=False)
        for row, (axes, image) in enumerate(zip(grid, images)):
            label, prediction = int(arrays["labels"][row]), int(arrays["predictions"][row])
            is_correct = label == prediction
            caption = _name(names, label) if is_correct else f"{_name(names, label)}\n{_name(names, prediction)}?"
            axes[0].set_ylabel(caption, fontsize=12.5, color="black" if is_correct else WARNING)
            axes[0].imshow(_as_rgb(image))
            for column, (level, name) in enumerate(levels, 1):
                mask = arrays[name][row]
                axes[column].imshow(overlay(_as_rgb(image), mask))
                if row == 0:
                    axes[column].set_title(f"level {level}\n{mask.sum()} of {mask.size}", fontsize=12.5)
            for panel in axes:
                panel.set(xticks=[], yticks=[])
                panel.grid(False)
                panel.spines[:].set_visible(False)
    return True


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the image with its dropped locations darkened.

    Args:
        image: uint8 [H, W, 3].
        mask: bool [h, w], True for the selected locations of a feature map that covers the image.

    Returns:
        uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    rows = np.arange(height) * mask.shape[0] // height
    columns = np.arange(width) * mask.shape[1] // width
    is_selected = mask[rows][:, columns, None]
    return np.where(is_selected, image, (image * _DROPPED_BRIGHTNESS).astype(np.uint8))


def _as_rgb(image: np.ndarray) -> np.ndarray:
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]


def _name(names: np.ndarray, label: int) -> str:
    return shorten(names[label]) if 0 <= label < len(names) else "unknown"
