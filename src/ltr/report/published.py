"""Markdown tables of finished runs, averaged over seeds, each with the published number of its experiment.

All values come from run directories (``result.json``, ``provenance.json``). Rows of another split, or selected on test,
go into a separate table with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ltr import escaping
from ltr.errors import DataError
from ltr.evaluation.metrics import METRICS, Metric
from ltr.files import write_text
from ltr.report.columns import heading, unit_note
from ltr.report.formats import markdown_table
from ltr.report.limits import footnotes, marks_of
from ltr.report.published_lines import Entry, PublishedLine, joined, lines_of
from ltr.report.style import NOTHING, SELECTED_ON_TEST


def markdown(entries: Sequence[Entry], command: str, missing: Sequence[str] = (), left_out: Sequence[str] = ()) -> str:
    """Return the Markdown of some entries: a command, one table per data set, and the names of missing rows.

    Args:
        command: the command that writes this block.
        missing: names of rows without a result.
        left_out: names of rows that choose on validation images, on a data set without any.
    """
    lines = lines_of(entries)
    text = ["```bash", command, "```", ""]
    for dataset in dict.fromkeys(line.dataset for line in lines):
        text += _dataset(dataset, [line for line in lines if line.dataset == dataset])
    if missing:
        text += [f"No result yet: {', '.join(missing)}.", ""]
    if left_out:
        text += [f"Left out, because they choose on validation images: {', '.join(left_out)}.", ""]
    return "\n".join(text).rstrip()


def _dataset(dataset: str, lines: list[PublishedLine]) -> list[str]:
    """Return the table of a data set's most frequent split, then a table of the lines that cannot be compared."""
    comparable = [line for line in lines if not line.on_test]
    main_split = Counter(line.split for line in comparable).most_common(1)[0][0] if comparable else None
    main = [line for line in comparable if line.split == main_split]
    separate_lines = [line for line in lines if line not in main]
    sources = list(dict.fromkeys(line.entry.source for line in lines if line.entry.published is not None))
    text = [f"**{escaping.markdown(dataset)}**", ""]
    if main:
        text += [*_table(main, sources, {}), ""]
    if separate_lines:
        reasons = {
            id(line): SELECTED_ON_TEST if line.on_test else f"another split: {line.split[0]}" for line in separate_lines
        }
        text += ["Not to be compared with the rows above:" if main else "Not to be compared:", ""]
        text += [*_table(separate_lines, sources, reasons), ""]
    text += [f"[{number}] {source}." for number, source in enumerate(sources, start=1)]
    return [*text, ""] if sources else text


def _table(lines: list[PublishedLine], sources: list[str], reasons: dict[int, str]) -> list[str]:
    """Return a table; descriptors that all lines share are in the sentence below it, the others in columns."""
    descriptors = [line.descriptors() for line in lines]
    daggers = marks_of([line.limited for line in lines])
    names = list(dict.fromkeys(name for of_line in descriptors for name in of_line))
    shared_names = [name for name in names if len({of_line.get(name) for of_line in descriptors}) == 1]
    differing_names = [name for name in names if name not in shared_names]
    protocol = lines[0].protocol
    metrics = lines[0].table.columns("published", protocol, [name for line in lines for name in line.metrics])
    published_metrics = dict.fromkeys(line.entry.metric for line in lines if line.entry.published is not None)
    metric_headings = (METRICS.find(name, protocol).heading for name in published_metrics if name != "accuracy")
    labels = ["method", *(["scorer"] if any(line.scorer for line in lines) else [])]
    numbers = [*(escaping.markdown(heading(metric)) for metric in metrics), " ".join(["published", *metric_headings])]
    remarks = [*differing_names, "cost", *(["reason"] if reasons else [])]
    rows = []
    for line, of_line in zip(lines, descriptors):
        dagger = f" {daggers[line.limited]}" if line.limited else ""
        cells = [f"{escaping.markdown(line.name)}{dagger}", escaping.markdown(line.scorer)][: len(labels)]
        cells += [*(line.value_text(metric) for metric in metrics), _published(line, sources, dagger)]
        cells += [escaping.markdown(of_line.get(name, NOTHING)) for name in differing_names]
        cells.append(line.cost() if line.is_headline else NOTHING)
        rows.append([*cells, *([escaping.markdown(reasons[id(line)])] if reasons else [])])
    numeric = [*[False] * len(labels), *[True] * len(numbers), *[False] * len(remarks)]
    common = "; ".join(f"{name}: {escaping.markdown(descriptors[0][name])}" for name in shared_names)
    text = markdown_table([*labels, *numbers, *remarks], numeric, rows)
    text += ["", _sentence(common), f"Test images: {joined(_test_images(lines))}. {_legend(lines, metrics)}"]
    return [*text, *(line for note in footnotes(daggers) for line in ("", escaping.markdown(note)))]


def _legend(lines: Sequence[PublishedLine], metrics: Sequence[Metric]) -> str:
    over = "seeds and trials" if any(len(line.trials) > 1 for line in lines) else "seeds"
    return (
        f"{unit_note(metrics).replace('percent', 'Percent', 1)}, mean ± s.d. over {over}. Cost: seconds of the stages "
        "that the row's runs trained; trained stages + cached stages."
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _test_images(lines: Iterable[PublishedLine]) -> list[str]:
    counts = []
    for line in lines:
        data = line.runs[0].result.get("data", {})
        validation_images = data.get("val_images") if data.get("val_rule") == "test_fraction" else 0
        note = f" ({validation_images:,} more are validation images; published numbers count all)"
        counts.append(f"{data.get('test_images', 0):,}{note if validation_images else ''}")
    return counts


def _published(line: PublishedLine, sources: list[str], dagger: str) -> str:
    entry = line.entry
    if entry.published is None or not line.is_headline:
        return NOTHING
    return f"{entry.published:.2f} [{sources.index(entry.source) + 1}]{dagger}"


def write_between_markers(path: Path, name: str, block: str) -> None:
    """Write a block between ``<!-- name:begin -->`` and ``<!-- name:end -->``, or at the end of a file without them.

    Text outside the markers is kept; writing the same block again changes nothing.

    Raises:
        DataError: one marker without the other, twice, or in the wrong order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    whole = f"{begin}\n{block}\n{end}"
    if begin not in text and end not in text:
        before = f"{text.rstrip()}\n\n" if text.strip() else ""
        write_text(path, f"{before}{whole}\n")
        return
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise DataError(
            f"{path}: the markers {begin} and {end} are needed once each, in this order. Restore them, or write "
            "to another file"
        )
    write_text(path, text[: text.index(begin)] + whole + text[text.index(end) + len(end) :])
