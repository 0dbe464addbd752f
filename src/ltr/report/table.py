"""Table of a run's result, styled for a terminal or as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ltr.escaping import name, one_line
from ltr.evaluation.groups import GROUPS
from ltr.evaluation.metrics import Metric
from ltr.report.blocks import BlockLine, table_blocks, wrap_lines
from ltr.report.columns import heading, metric_table, unit_note, value_text
from ltr.report.limits import incidents_note, limits, longer_schedule
from ltr.report.read_run import headline_row, number, run_title
from ltr.report.style import NOTHING, SELECTED_ON_TEST

if TYPE_CHECKING:
    from rich.text import Text

_MAX_VARIANTS = 6  # of more variants, only the headline's is shown
_LABELS = ("", "protocol", "split", "selection", "variant", "scorer")


def result_table(result: dict[str, Any], width: int | None = None) -> Text:
    """Return the table of a ``result.json`` for a terminal; the headline is bold, selection on test is red.

    Args:
        width: terminal width in characters; None: no limit.
    """
    from rich.text import Text

    rows = shown_rows(result)
    text = Text()
    text.append(f"{name(run_title(result))}\n", style="italic")
    for row, block in enumerate(_blocks(result, width)):
        text.append("\n" if row else "")
        for line in block:
            is_bold = line.row is not None and rows[line.row]["headline"]
            text.append(f"{line.text}\n", style="bold" if is_bold else "")
    text.highlight_words([SELECTED_ON_TEST], "red")
    return text.append("\n".join(wrap_lines(one_line(_caption(result)), width)), style="dim")


def plain_table(result: dict[str, Any], width: int | None = None) -> str:
    """Return the same table as plain text, for logs and pipes; no line ends in spaces."""
    blocks = "\n\n".join("\n".join(line.text for line in block) for block in _blocks(result, width))
    return "\n".join([name(run_title(result)), blocks, *wrap_lines(one_line(_caption(result)), width)])


def _blocks(result: dict[str, Any], width: int | None) -> list[list[BlockLine]]:
    headings, lines = _cells(result)
    numeric = [title not in _LABELS for title in headings]
    return table_blocks([headings, *lines], numeric, len(headings) - sum(numeric), width)


def shown_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows that a table shows: all rows, or those of the headline's variant if there are many variants."""
    rows = result["rows"]
    if len({row["variant"] for row in rows}) <= _MAX_VARIANTS:
        return rows
    return [row for row in rows if row["variant"] == headline_row(result)["variant"]]


def _cells(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return headings and lines; labels that are equal in all rows have no column, except split and selection."""
    rows = shown_rows(result)
    labels = [
        key for key in _LABELS[1:] if key in ("split", "selection") or len({row.get(key) for row in result["rows"]}) > 1
    ]
    metrics = _metric_columns(result)
    headings = ["", *labels, *map(heading, metrics)]
    lines = []
    for row in rows:
        line = ["*" if row["headline"] else ""]
        line += [_label(row, key) for key in labels]
        line += [value_text(metric, number(row["metrics"].get(metric.name))) for metric in metrics]
        lines.append(line)
    return headings, lines


def _metric_columns(result: dict[str, Any]) -> list[Metric]:
    """Return the metrics that the console shows for the protocols of the rows, without those that have no value."""
    rows = shown_rows(result)
    table = metric_table([result.get("declared_metrics", ())])
    columns: dict[str, Metric] = {}
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        names = [key for row in rows if row["protocol"] == protocol for key in row["metrics"]]
        for metric in table.columns("console", protocol, names):
            columns.setdefault(metric.name, metric)
    values = {name: [number(row["metrics"].get(name)) for row in rows] for name in columns}
    has_value = {name: any(value == value for value in values[name]) for name in columns}
    return [metric for name, metric in columns.items() if name in GROUPS or has_value[name]]


def _label(row: dict[str, Any], key: str) -> str:
    value = NOTHING if row.get(key) is None else str(row[key])
    if key == "selection" and value == "best_test":
        return f"best_test: {SELECTED_ON_TEST}"
    return name(value)


def _caption(result: dict[str, Any]) -> str:
    config = result["config"]
    many, few = config.get("evaluation.many_above", 100), config.get("evaluation.few_below", 20)
    hidden = len({row["variant"] for row in result["rows"]}) - len({row["variant"] for row in shown_rows(result)})
    more = f"; {hidden} more variants in curve.csv" if hidden else ""
    unit = unit_note(_metric_columns(result))
    meaning = f"many > {many}, few < {few} training images; * the run's result; {NOTHING} nothing to average"
    caveat = f"limited: {reason}" if (reason := limits(config, result.get("data", {}))) else longer_schedule(config)
    parts = [unit, meaning + more, caveat, incidents_note(result.get("stages", []))]
    return "; ".join(filter(None, parts))
