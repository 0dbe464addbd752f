"""Figure: M2m's generated images of the rarest classes, with seeds and perturbations."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ltr.report.classes import shorten
from ltr.report.read_run import Run, read_arrays
from ltr.report.style import INK, PALE, figure_file, set_run_title

_TRIPLES = 4  # per class
_TILE = 1.05  # inches
_REQUIRED = ("seed", "perturbation", "result", "label", "seed_label", "accepted", "class_names")


def translations(run: Run, path: Path) -> bool:
    """Draw a row per class with several triples of seed, amplified perturbation (grey: no change) and result.

    Returns:
        False if the run stored no generated images.
    """
    sheet = sheet_of(run.path)
    if sheet is None:
        return False
    rows, shown = len(sheet["label"]), min(_TRIPLES, sheet["seed"].shape[1])
    gain = amplification(sheet["perturbation"])
    columns = 1 + 4 * shown  # the name, then triples with a gap before each
    ratios = [1.8, *([0.22, 1, 1, 1] * shown)]
    with figure_file(path, _TILE * sum(ratios), 1.5 + (_TILE + 0.42) * rows) as figure:
        set_run_title(figure, run)
        grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"width_ratios": ratios})
        for row, line in enumerate(grid):
            for axes in line:
                axes.set_axis_off()
            line[0].text(0, 0.5, f"for '{_name(sheet, sheet['label'][row])}'", va="center", fontsize=12.5)
            for triple in range(shown):
                _draw_triple(line[2 + 4 * triple : 5 + 4 * triple], sheet, row, triple, gain)
        figure.supxlabel(
            f"from left to right: the seed, the perturbation (times {gain:g}; grey: no change), the result; "
            "pale name: rejected, the baseline network was not confident enough",
            fontsize=11.5,
            color=PALE,
        )
    return True


def sheet_of(run_dir: Path) -> dict[str, np.ndarray] | None:
    """Return the arrays of a run's example images (see `ltr.methods.m2m.examples`), or None."""
    stored = read_arrays(run_dir / "artifacts" / "classifier.npz")
    return {name: stored[name] for name in _REQUIRED} if set(_REQUIRED) <= set(stored) else None


def amplification(perturbation: np.ndarray) -> float:
    """Return the largest of 1, 2, 5, 10, ..., 500 for which 99 % of the changes fit between black and white; or 1."""
    largest_change = float(np.quantile(np.abs(perturbation.astype(np.float32)), 0.99))
    gains = (step * 10.0**power for power in range(3) for step in (1, 2, 5))
    return max((gain for gain in gains if gain * largest_change <= 0.5), default=1.0)


def _draw_triple(line, sheet: dict[str, np.ndarray], row: int, triple: int, gain: float) -> None:
    is_accepted = bool(sheet["accepted"][row, triple])
    change = np.clip(0.5 + gain * sheet["perturbation"][row, triple].astype(np.float32), 0, 1)
    for axes, image in zip(line, (sheet["seed"][row, triple], change, sheet["result"][row, triple])):
        if image.shape[-1] == 1:
            top = 255 if image.dtype == np.uint8 else 1
            axes.imshow(image[..., 0], cmap="gray", vmin=0, vmax=top, interpolation="nearest")
        else:
            axes.imshow(image, interpolation="nearest")
    title = f"from {_name(sheet, sheet['seed_label'][row, triple])}"
    line[1].set_title(title, fontsize=11, color=INK if is_accepted else PALE)


def _name(sheet: dict[str, np.ndarray], label: int) -> str:
    return shorten(sheet["class_names"][label], 16)
