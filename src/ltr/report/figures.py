"""Figures of a run, drawn from its files into ``figures/``; each figure has its own module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ltr.errors import ConfigError, DataError, nearest
from ltr.report.background_classes import background_classes
from ltr.report.confusion import confusion
from ltr.report.curves import training_curves
from ltr.report.draws import draws
from ltr.report.embedding import feature_plane
from ltr.report.frequency import accuracy_by_frequency
from ltr.report.open_world import OPEN_WORLD_FIGURES
from ltr.report.priors import predicted_prior
from ltr.report.read_run import Run, read_run
from ltr.report.reliability import reliability
from ltr.report.selections import selected_locations
from ltr.report.translations import translations
from ltr.report.variants import variant_curve
from ltr.report.weight_norms import weight_norms

DrawFigure = Callable[[Run, Path], bool]  # draws a file; returns False if the run has no data for it
# by the name of their file
DEFAULT_FIGURES: dict[str, DrawFigure] = {
    "accuracy_by_frequency": accuracy_by_frequency,
    "training_curves": training_curves,
}
# of some methods: drawn by default for runs that have the arrays
METHOD_FIGURES: dict[str, DrawFigure] = {
    "curve": variant_curve,
    "translations": translations,
    "selected_locations": selected_locations,
    "feature_plane": feature_plane,
}
# figures=all adds these for runs with classes
CLASS_FIGURES: dict[str, DrawFigure] = {
    "confusion": confusion,
    "predicted_prior": predicted_prior,
    "weight_norms": weight_norms,
    "reliability": reliability,
    "draws": draws,
    "background_classes": background_classes,
}
FIGURES: dict[str, DrawFigure] = {**DEFAULT_FIGURES, **METHOD_FIGURES, **CLASS_FIGURES, **OPEN_WORLD_FIGURES}


def draw(
    run_dir: str | Path, which: str = "two", *, only_missing: bool = False, left_out: list[str] | None = None
) -> list[Path]:
    """Draw a run's figures into ``<run_dir>/figures/*.png``.

    Args:
        run_dir: a finished run.
        which: ``two`` for the default figures and those of the method, ``all`` for every figure.
        only_missing: draw only figures that have no file yet.
        left_out: list to which the names of figures without data are added.

    Returns:
        The written files.

    Raises:
        ConfigError: unknown ``which``.
        DataError: the directory is not a finished run, or has damaged files; figures of intact files are drawn first.
    """
    if which not in ("two", "all"):
        raise ConfigError(f"figures={which!r}: choose two or all{nearest(which, ('two', 'all'))}")
    run = read_run(run_dir)
    written: list[Path] = []
    problems: list[str] = []
    for name, draw_figure in ({**DEFAULT_FIGURES, **METHOD_FIGURES} if which == "two" else FIGURES).items():
        path = run.path / "figures" / f"{name}.png"
        if only_missing and path.is_file():
            continue
        try:
            if draw_figure(run, path):
                written.append(path)
            elif left_out is not None:
                left_out.append(name)
        except OSError:
            raise
        except DataError as error:
            problems.append(str(error))
        except Exception as error:  # arrays of unexpected shapes or values raise errors of any type
            problems.append(f"{name} cannot be drawn from the files of {run.path}: {type(error).__name__}: {error}")
    if problems:
        raise DataError("; ".join(dict.fromkeys(problems)))
    return written
