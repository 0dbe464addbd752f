"""Content of a report, independent of its format: tables, curves, comparisons and warnings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltr.errors import ConfigError, DataError, nearest
from ltr.evaluation.metrics import Metric
from ltr.names import counted
from ltr.report import formats
from ltr.report.blocks import wrap_lines
from ltr.report.comparison import Section, sections
from ltr.report.decisions import decision_sheet
from ltr.report.naming import check_keys
from ltr.report.paired_tests import check_reference, pairs, reference_of
from ltr.report.published_lookup import PublishedNumbers
from ltr.report.read_runs import FinishedRun, RunCollection
from ltr.report.series import MIN_VALUES, Curve, curves
from ltr.report.sheet import Sheet, curve_sheet, legend, pairs_sheet, section_sheet

_MAX_LISTED = 3


@dataclass(frozen=True)
class Options:
    """Options of a report; see ``ltr-report --help``."""

    by: tuple[str, ...] = ("name",)
    metrics: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    against: str = ""
    curves: tuple[str, ...] = ()
    level: float = 0.95


@dataclass(frozen=True)
class Part:
    """One table of a report with its metrics, its curves, its comparisons and the decisions of its runs."""

    section: Section
    sheet: Sheet
    metrics: tuple[Metric, ...] = ()
    curves: tuple[Curve, ...] = ()
    pairs: Sheet | None = None
    decisions: Sheet | None = None


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes:
        parts: one per table; numbers of two parts are not comparable.
        runs: number of runs.
        warnings: messages for the reader of the report.
        published: the published numbers, for CSV.
        uncompared: True if a comparison was requested and failed for every table.
    """

    parts: tuple[Part, ...]
    runs: int
    warnings: tuple[str, ...]
    published: PublishedNumbers | None = None
    uncompared: bool = False


def compose_report(collection: RunCollection, options: Options) -> Report:
    """Compose the report of a collection of runs.

    Raises:
        ConfigError: an unknown data set, metric, setting or line.
    """
    runs = chosen_runs(collection.runs, options.datasets, options.metrics)
    sort_by = next((name for name in options.metrics if name != "all"), "")
    tables = sections(runs, options.by, sort_by)
    check_keys(runs, options.curves, "--curve")
    if options.against:
        check_reference(tables, options.against)
    published = PublishedNumbers()
    comparison_problems: list[str] = []
    decision_problems: list[str] = []
    parts = tuple(
        _compose_part(section, options, published, comparison_problems, decision_problems)
        for section in tables
        if section.metrics(options.metrics)
    )
    drawn = {curve.key for part in parts for curve in part.curves}
    without_curve = [
        f"--curve {key}: no method has {MIN_VALUES} values of it, which a curve needs"
        for key in options.curves
        if key not in drawn
    ]
    warnings = (*_warnings(collection, tables), *without_curve, *comparison_problems, *decision_problems)
    uncompared = bool(comparison_problems) and all(part.pairs is None for part in parts)
    return Report(parts, len(runs), warnings, published, uncompared)


def chosen_runs(runs: list[FinishedRun], datasets: Sequence[str], metrics: Sequence[str]) -> list[FinishedRun]:
    """Return the runs on these data sets, or all runs if none is named; check that some run has the metrics.

    Raises:
        ConfigError: an unknown data set, or a metric that no run has.
    """
    if datasets:
        available = sorted({str(run.config.get("dataset.name", "?")) for run in runs})
        _refuse_unknown("--dataset", datasets, available)
        runs = [run for run in runs if str(run.config.get("dataset.name", "?")) in datasets]
    available = sorted({name for run in runs for row in run.rows for name in row["metrics"]})
    _refuse_unknown("--metric", [name for name in metrics if name != "all"], available)
    return runs


def _compose_part(
    section: Section,
    options: Options,
    published: PublishedNumbers,
    comparison_problems: list[str],
    decision_problems: list[str],
) -> Part:
    metrics = section.metrics(options.metrics)
    sheet = section_sheet(section, metrics, published, " ".join(options.by))
    comparison_sheet = None
    # the tests compare predicted classes, which only the closed-set protocol evaluates
    is_compared = options.against and section.protocol == "closed_set"
    reference = reference_of(section, options.against) if is_compared else None
    if reference is not None and len(section.lines) > 1:
        try:
            differences = pairs(section, reference, level=options.level)
            comparison_sheet = pairs_sheet(section, reference, differences, options.level)
        except DataError as error:
            comparison_problems.append(f"--against {options.against}: {section.title} is not compared: {error}")
    decisions = decision_sheet(section, decision_problems)
    return Part(section, sheet, tuple(metrics), tuple(curves(section, options.curves)), comparison_sheet, decisions)


def _refuse_unknown(flag: str, names: Sequence[str], available: Sequence[str]) -> None:
    unknown = [name for name in names if name not in available]
    if unknown:
        raise ConfigError(
            f"{flag} {unknown[0]}: no run has it; there are: {', '.join(available)}{nearest(unknown[0], available)}"
        )


def collection_warnings(collection: RunCollection) -> list[str]:
    """Return messages about unfinished, repeated and damaged runs."""
    messages = []
    if collection.unfinished:
        messages.append(f"left out: {counted(collection.unfinished, 'unfinished run')}")
    if collection.duplicates:
        messages.append(f"stored in two places and counted once: {counted(collection.duplicates, 'run')}")
    if collection.damaged:
        rest = f", and {len(collection.damaged) - _MAX_LISTED:,} more" if len(collection.damaged) > _MAX_LISTED else ""
        messages.append(f"results that cannot be read are left out: {' '.join(collection.damaged[:_MAX_LISTED])}{rest}")
    return messages


def _warnings(collection: RunCollection, tables: Sequence[Section]) -> list[str]:
    messages = collection_warnings(collection)
    splits: dict[tuple[str, str], list[str]] = {}
    for section in tables:
        splits.setdefault((section.dataset, section.protocol), []).append(section.split or section.digest[:8])
    for (dataset, protocol), names in splits.items():
        if len(names) > 1:
            messages.append(
                f"{dataset}, {protocol}: {len(names)} different splits, whose numbers cannot be compared, each in a "
                f"separate table: {', '.join(names[:_MAX_LISTED])}{', ...' if len(names) > _MAX_LISTED else ''}"
            )
    on_test = sum(len(line.runs) for section in tables for line in section.selected_on_test)
    if on_test:
        messages.append(f"selected on the test set, flagged and never marked as best: {counted(on_test, 'result')}")
    limited = sum(len(line.runs) for section in tables for line in section.all_lines if line.limited)
    if limited:
        messages.append(
            f"with fewer batches or epochs than the recipe, flagged and never marked as best: "
            f"{counted(limited, 'result')}"
        )
    return messages


def as_text(report: Report, form: str, width: int | None = None) -> str:
    """Return the report as ``table``, ``markdown``, ``latex`` or ``csv`` (tables only, with every metric).

    Args:
        width: width of a ``table`` in characters; None: no limit.
    """
    if form == "csv":
        return formats.as_csv([part.section for part in report.parts], report.published)
    write = formats.writer(form, width)
    blocks = []
    for part in report.parts:
        blocks.append(write(part.sheet))
        blocks += [write(curve_sheet(part.section, curve)) for curve in part.curves]
        blocks += [write(sheet) for sheet in (part.pairs, part.decisions) if sheet is not None]
    lines = wrap_lines(legend(form), width if form == "table" else None)
    blocks.append(f"% {legend(form)}" if form == "latex" else "\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def evaluations_table(checkpoints: Sequence[tuple[str, Path, dict[str, Any]]]) -> str:
    """Return plain text: a row per checkpoint and scorer, best first, the best of each column marked.

    Args:
        checkpoints: label, folder and ``result.json`` of each checkpoint.
    """
    runs = [_finished_run(number, *checkpoint) for number, checkpoint in enumerate(checkpoints)]
    report = compose_report(RunCollection(runs), Options(by=("checkpoint",)))
    tables = [formats.plain(part.sheet) for part in report.parts]
    return "\n\n".join([*tables, "Fractions in percent; * marks the best of a column."])


def _finished_run(number: int, label: str, path: Path, result: dict[str, Any]) -> FinishedRun:
    data, rows = result["data"], result["rows"]
    split = rows[0]["split"]
    if split != "test":  # tables show rows of the test split only, so the evaluated split takes its name
        data = {**data, "split": f"{data['split']}, {split}", "test_images": data.get(f"{split}_images")}
        rows = [{**row, "split": "test"} for row in rows]
    return FinishedRun(
        path,
        {**result["config"], "checkpoint": label},
        int(result["config"].get("seed", 0)),
        str(number),  # each checkpoint is a separate line, even if only the seeds differ
        result["run_hash"],
        data,
        result["stages"],
        rows,
        result["metric"],
        tuple(result.get("declared_metrics", ())),
    )
