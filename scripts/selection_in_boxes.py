"""Share of a trained HERBS's or PIM's selected locations inside the data set's bounding boxes.

    python scripts/selection_in_boxes.py outputs/cub/herbs/herbs-s0-1a2b3c4d
    python scripts/selection_in_boxes.py weights.ckpt --data /path/to/data --split test --figure around.png

A location is inside where its centre is, after evaluation's crop. Beside the selected locations stand all of them (what
a selection at random would give: the box's share of the crop) and the dropped ones. Shares are means over images, and
the numbers in brackets are standard errors of the mean. The figure aligns all boxes: how often a
place in and around the box is selected.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltr.cli import run_guarded
from ltr.data.images.boxes import boxes_in_crop, locations_in_boxes
from ltr.data.images.crop import FileCrop
from ltr.data.module import DataModule
from ltr.data.packed_images.reading import read_source
from ltr.data.source import ImageFiles, Source
from ltr.data.splitting.exclusion import read_split
from ltr.errors import CheckpointError, DataError
from ltr.files import checkpoint_file
from ltr.methods.core.checkpoint import describe, load_network
from ltr.methods.herbs.network import HerbsNetwork
from ltr.report.style import figure_file
from ltr.writing import check_file

KINDS = ("selected", "all", "dropped")
AROUND = (-0.5, 1.5)  # the shown range, in sides of the box
CELLS = 16  # of the figure, along each side
FEW = 10  # locations say nothing about how often a place is selected

Shares = dict[str, dict[str, np.ndarray]]


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a run's directory, or a checkpoint file")
    parser.add_argument("--data", type=Path, help="folder of the data sets (default: the run's)")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test")
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--figure", "--picture", type=Path, help="write a figure (PNG) to this file")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    arguments = parse_arguments(argv)
    if arguments.figure:
        check_file(arguments.figure, f"--figure {arguments.figure}")
    path = checkpoint_file(arguments.checkpoint)
    network = load_network(path)
    if not isinstance(network, HerbsNetwork) or not network.suppression:
        raise CheckpointError(f"{path} selects no locations; a network of method=herbs or pim with suppression does")
    config = describe(path)["dataset"]
    if arguments.data and "root" in config["source"]:
        config = {**config, "source": {**config["source"], "root": str(arguments.data)}}
    source = read_source(config)
    if source.boxes is None or not isinstance(source.images, ImageFiles):
        raise DataError(f"{source.name} has no bounding boxes; cub and nabirds have")
    shares, rates = measured(network, source, config, arguments.split, arguments.batch_size)
    images = len(next(iter(shares.values()))["all"])
    print(f"{path}\n{source.name}, {arguments.split}: {images} images; share of locations inside the box, in percent")
    print(f"{'level':<10}{'selected':>16}{'all (chance)':>16}{'dropped':>16}{'selected - all':>18}")
    for level, of_level in shares.items():
        gain = of_level["selected"] - of_level["all"]
        cells = [f"{shown(of_level[kind]):>16}" for kind in KINDS]
        print(f"{level:<10}{''.join(cells)}{shown(gain):>18}")
    if arguments.figure:
        draw(rates, arguments.figure)
    return 0


@torch.inference_mode()
def measured(
    network: HerbsNetwork, source: Source, config: dict[str, Any], part: str, batch_size: int
) -> tuple[Shares, dict[str, np.ndarray]]:
    """Measure where the selected locations lie.

    Returns:
        Shares of each image by kind, float64 [N], for each selecting level and for all levels; and for each level the
        selection rates around the box, float64 [CELLS, CELLS], NaN for cells with hardly any location.
    """
    split = read_split(config, source)
    data = DataModule.for_evaluation(source, split, config, batch_size)
    crop = FileCrop(config["image_size"], resize=config.get("image_resize"))
    collected: dict[str, dict[str, list[np.ndarray]]] = {}
    counts: dict[str, np.ndarray] = {}
    for batch in data.evaluation_loader(part):
        outcome = network.forward_pass(network.to_unit(batch.images))
        boxes = boxes_in_crop(source, batch.indices.numpy(), crop)
        first = len(outcome.levels) - len(outcome.selections)
        inside_all, selected_all = [], []
        for number, chosen in enumerate(outcome.selections, first + 1):
            height, width = outcome.levels[number - 1].shape[1:3]
            inside, selected = locations_in_boxes(boxes, height, width), (~chosen.dropped).numpy()
            add(collected, f"level {number}", inside, selected)
            of_level = counts.setdefault(f"level {number}", np.zeros((2, CELLS, CELLS)))
            of_level += around_boxes(boxes, selected.reshape(-1, height, width))
            inside_all.append(inside)
            selected_all.append(selected)
        add(collected, "together", np.concatenate(inside_all, 1), np.concatenate(selected_all, 1))
    shares = {level: {kind: np.concatenate(v) for kind, v in kinds.items()} for level, kinds in collected.items()}
    rates = {
        level: np.divide(selected, seen, out=np.full_like(seen, np.nan), where=seen >= FEW)
        for level, (selected, seen) in counts.items()
    }
    return shares, rates


def around_boxes(boxes: np.ndarray, selected: np.ndarray) -> np.ndarray:
    """Return counts of selected and of all locations by position relative to the box, int64 [2, CELLS, CELLS].

    Args:
        boxes: float64 [B, 4] as left, top, right, bottom in fractions of the crop.
        selected: bool [B, H, W].
    """
    _, height, width = selected.shape
    left, top, right, bottom = (side[:, None] for side in boxes.T)
    across = ((np.arange(width) + 0.5) / width - left) / (right - left)
    down = ((np.arange(height) + 0.5) / height - top) / (bottom - top)
    low, high = AROUND
    cells = [np.floor((coordinates - low) / (high - low) * CELLS).astype(np.int64) for coordinates in (down, across)]
    row, column = (np.broadcast_to(c, selected.shape) for c in (cells[0][:, :, None], cells[1][:, None, :]))
    near = (row >= 0) & (row < CELLS) & (column >= 0) & (column < CELLS)
    counted = np.zeros((2, CELLS, CELLS), dtype=np.int64)
    for kind, chosen in enumerate((near & selected, near)):
        np.add.at(counted[kind], (row[chosen], column[chosen]), 1)
    return counted


def draw(rates: dict[str, np.ndarray], path: Path) -> None:
    """Draw a map per level, with the box as a frame."""
    from matplotlib.patches import Rectangle

    with figure_file(path, 3.1 * len(rates) + 0.8, 3.6) as figure:
        grid = figure.subplots(1, len(rates), squeeze=False)[0]
        for axes, (level, rate) in zip(grid, rates.items()):
            image = axes.imshow(rate, extent=(*AROUND, *AROUND[::-1]), vmin=0, vmax=1, cmap="cividis")
            axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor="white", linewidth=2))
            axes.set(title=level, xticks=[], yticks=[])
            axes.grid(False)
        figure.colorbar(image, ax=list(grid), label="share selected", shrink=0.9)


def add(shares: dict[str, dict[str, list[np.ndarray]]], level: str, inside: np.ndarray, selected: np.ndarray) -> None:
    """Append each image's shares; NaN where no location is of a kind."""
    of_level = shares.setdefault(level, {kind: [] for kind in KINDS})
    with np.errstate(invalid="ignore"):
        of_level["selected"].append((inside & selected).sum(1) / selected.sum(1))
        of_level["dropped"].append((inside & ~selected).sum(1) / (~selected).sum(1))
    of_level["all"].append(inside.mean(1))


def shown(shares: np.ndarray) -> str:
    """Return ``71.3 (0.8)``: the mean and its standard error in percent."""
    error = shares.std(ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else float("nan")
    return f"{100 * shares.mean():.1f} ({100 * error:.1f})"


if __name__ == "__main__":
    sys.exit(run_guarded(lambda: main(sys.argv[1:])))
