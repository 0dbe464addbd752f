"""Style of figures: colours of the shot groups, fonts, titles and axes; each figure is written atomically."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltr.files import written_atomically
from ltr.report.read_run import Run, number
from ltr.writing import PNG_SOFTWARE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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

    It does not use pyplot, so that it needs no display and shares no state with the caller.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(width, height), dpi=_DPI)
        FigureCanvasAgg(figure)
        yield figure
        with written_atomically(path) as temporary:
            # without matplotlib's version, so that the same run gives the same file
            figure.savefig(temporary, format="png", metadata={"Software": PNG_SOFTWARE})


def set_run_title(figure: Figure, run: Run) -> None:
    """Set the title of a figure: name, method, data set, seed and checkpoint selection; red for selection on test."""
    row = run.headline
    is_on_test = row["selection"] == "best_test"
    name, method = run.result["config"].get("name"), run.result["config"].get("method.name")
    prefix = f"{name} · " if name and name != method else ""
    text = f"{prefix}{run.title} · {row['split']}, {SELECTED_ON_TEST if is_on_test else row['selection']}"
    set_title(figure, text, WARNING if is_on_test else INK)


def set_title(figure: Figure, text: str, colour: str = INK) -> None:
    """Set the title of a figure, at its left; a wide title is broken into two lines or loses its middle."""
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
    """Return a text in one line or, broken at a separator, in two; a line that does not fit loses its middle."""
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


def format_log_axis(axis: Axis, low: float, high: float) -> None:
    """Label a log axis with plain numbers: 1, 2, 5 times powers of ten; only powers if it spans more than 2,000."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1,) if high > 2000 * low else (1, 2, 5), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def use_integer_ticks(axis: Axis) -> None:
    """Label an axis with at most six whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(6, integer=True))


def draw_mean_line(axes: Axes, x: Any, y: Any, label: str | None = None, zorder: float = 2) -> None:
    """Draw a dark line with markers; a white rim sets it off from points below."""
    axes.plot(x, y, color="white", linewidth=5, zorder=zorder)
    axes.plot(x, y, color=INK, marker="o", markersize=6, zorder=zorder + 0.1, label=label)


def percent(fraction: float | None) -> str:
    """Return ``71.3 %``, or a dash for NaN."""
    value = number(fraction)
    return NOTHING if value != value else f"{100 * value:.1f} %"
