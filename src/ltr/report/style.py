"""Style of figures: fixed colours of the shot groups, large type, atomic writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltr.files import written_atomically
from ltr.report.read_run import Run, number

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# dark blue, yellow, red: distinguishable with all common kinds of colour blindness, and in grey by lightness
GROUP_COLOURS = {"many": "#004488", "medium": "#DDAA33", "few": "#BB5566"}
GROUP_MARKERS = {"many": "o", "medium": "s", "few": "^"}
INK = "#222222"
PALE = "#777777"
WARNING = "#C00000"

NOTHING = "–"
SELECTED_ON_TEST = "selected on test"

_DPI = 150
_SETTINGS: dict[Any, Any] = {
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.labelsize": 13,
    "legend.fontsize": 11.5,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "text.parse_math": False,  # a name with dollar signs is a name
}


@contextmanager
def figure_file(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of width x height inches and write it as PNG to ``path``; an error leaves no file.

    Imports matplotlib lazily and without pyplot, so that it needs no display and shares no state with the caller.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(width, height), dpi=_DPI)
        FigureCanvasAgg(figure)
        yield figure
        with written_atomically(path) as temporary:
            # the file omits matplotlib's version, so that the same run gives the same file
            figure.savefig(temporary, format="png", metadata={"Software": None})


def headline_title(figure: Figure, run: Run) -> None:
    """Title a figure by method, data set, seed and checkpoint selection; red for selection on test."""
    row = run.headline
    flagged = row["selection"] == "best_test"
    rule = SELECTED_ON_TEST if flagged else row["selection"]
    name, method = run.result["config"].get("name"), run.result["config"].get("method.name")
    known_as = f"{name} · " if name and name != method else ""  # methods with another loss have a name of their own
    text = f"{known_as}{run.title} · {row['split']}, {rule}"
    figure_title(figure, text, WARNING if flagged else INK)


def figure_title(figure: Figure, text: str, colour: str = INK) -> None:
    """Title a figure at its left; a title that is wider than the figure continues in a second line or is shortened."""
    title = figure.suptitle(text, x=0.01, ha="left", fontsize=14, color=colour)
    title.set_text("\n".join(_fitted_lines(figure, text, 14)))


def text_width(text: str, size: float) -> float:
    """Return the width of a line of text in inches.

    Args:
        size: font size in points.
    """
    from matplotlib.textpath import TextPath

    return TextPath((0, 0), text, size=size).get_extents().width / 72 if text.strip() else 0.0


def _fitted_lines(figure: Figure, text: str, size: float) -> list[str]:
    """Return a text in one line or, broken at a separator, in two; what does not fit loses its middle."""
    width = 0.96 * figure.get_figwidth()
    if text_width(text, size) <= width:
        return [text]
    parts = text.split(" · ")
    halves = [(" · ".join(parts[:cut]), " · ".join(parts[cut:])) for cut in range(1, len(parts))]
    first, second = min(halves, key=lambda pair: max(len(half) for half in pair), default=(text, ""))
    return [_shortened(half, size, width) for half in (first, second) if half]


def _shortened(text: str, size: float, width: float) -> str:
    kept = text
    while text_width(kept, size) > width and len(kept) > 8:
        middle = len(kept) // 2
        kept = f"{kept[: middle - 2]}…{kept[middle + 2 :]}"
    return kept


def log_numbers(axis: Axis, low: float, high: float) -> None:
    """Label a log axis from low to high with plain numbers: 1, 2, 5 times powers of ten; powers only on long axes."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    wide = high > 2000 * low
    axis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def percent(fraction: float | None) -> str:
    """Return ``71.3 %``, or a dash for NaN."""
    value = number(fraction)
    return NOTHING if value != value else f"{100 * value:.1f} %"
