"""Finished runs as the rows of a published table: averaged over seeds, beside the published number, as Markdown.

Everything here is read from run directories (``result.json``, ``provenance.json``). Runs are averaged only if they
differ in nothing but their seed; rows of another split, or selected on test, stand apart and say so.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltr.errors import DataError
from ltr.files import write_text
from ltr.report.collect import Run, number
from ltr.report.style import NOTHING, SELECTED_ON_TEST

_DIRTY = " with uncommitted changes"
_METRICS = {"accuracy": "all", "many": "many", "medium": "medium", "few": "few", "balanced_accuracy": "bACC"}


@dataclass(frozen=True)
class Entry:
    """What a table wants to show in one place: a row's runs, and what was published of it.

    Attributes:
        page: of ``conf/experiment``.
        runs: of any seeds; those that may not be averaged become lines of their own.
        accuracy: published, in percent; None where there is none.
        source: where.
    """

    page: str
    runs: tuple[Run, ...]
    accuracy: float | None = None
    source: str = ""


@dataclass(frozen=True)
class Line:
    """Runs that differ in nothing but their seed, in order of their seeds."""

    entry: Entry
    runs: tuple[Run, ...]

    @property
    def dataset(self) -> str:
        return str(self._config("dataset.name"))

    @property
    def name(self) -> str:
        return str(self._config("name") or self.entry.page)

    @property
    def seeds(self) -> list[int]:
        return [run.result["config"].get("seed", 0) for run in self.runs]

    @property
    def split(self) -> tuple[str, str]:
        """Name and digest."""
        data = self.runs[0].result.get("data", {})
        return str(data.get("split", NOTHING)), str(data.get("split_digest", ""))

    @property
    def on_test(self) -> bool:
        """Whether its weights were selected on the test set."""
        return any(run.headline["selection"] == "best_test" for run in self.runs)

    def percent(self, metric: str) -> str:
        """Mean, with ± the standard deviation (n - 1) over two or more seeds, in percent; a dash where one is NaN."""
        values = [100 * number(run.headline["metrics"].get(metric)) for run in self.runs]
        if any(value != value for value in values):
            return NOTHING
        mean = f"{statistics.fmean(values):.1f}"
        return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1f}"

    def cost(self) -> str:
        """Seconds of the stages that these runs trained, and how many they trained and took from the store."""
        stages = [stage for run in self.runs for stage in run.result.get("stages", [])]
        trained = [stage for stage in stages if stage["status"] == "trained"]
        seconds = sum(stage["seconds"] for stage in trained)
        return f"{seconds:,.0f} s; {len(trained)} + {len(stages) - len(trained)}"

    def facts(self) -> dict[str, str]:
        """How it was made. What all lines of a table share is said once, the rest in columns."""
        code = [run.provenance.get("code", {}) for run in self.runs]
        commits = [(one.get("commit") or "unknown")[:10] + (_DIRTY if one.get("dirty") else "") for one in code]
        tau = ", tau on val" if self._config("method.tau") == "auto" else ""
        hardware = [f"{run.provenance.get('device')}, {run.provenance.get('precision')}" for run in self.runs]
        return {
            "schedule": self._schedule(),
            "seeds": ", ".join(str(seed) for seed in self.seeds),
            "split": self.split[0],
            "selection": _each(run.headline["selection"] for run in self.runs) + tau,
            "commit": _each(commits),
            "hardware": _each(hardware),
        }

    def _schedule(self) -> str:
        config = self.runs[0].result["config"]
        more = [
            f"{key.split('.')[-2]} {value}"
            for key, value in config.items()
            if re.fullmatch(r"method\.\w+\.epochs", key)
        ]
        text = f"{config.get('trainer.max_epochs', NOTHING)} epochs"
        return " + ".join([text, *more])

    def _config(self, key: str) -> Any:
        return self.runs[0].result["config"].get(key)


def lines_of(entries: Iterable[Entry]) -> list[Line]:
    """The runs of each entry, grouped by all but their seed, by split and by selection."""
    lines = []
    for entry in entries:
        groups: dict[tuple, list[Run]] = {}
        for run in entry.runs:
            data = run.result.get("data", {})
            same = (run.result.get("group_hash"), data.get("split_digest"), run.headline["selection"])
            groups.setdefault(same, []).append(run)
        for runs in groups.values():
            in_order = sorted(runs, key=lambda run: run.result["config"].get("seed", 0))
            lines.append(Line(entry, tuple(in_order)))
    return lines


def markdown(entries: Sequence[Entry], command: str, missing: Sequence[str] = (), left_out: Sequence[str] = ()) -> str:
    """The block of a table: the command, one table per data set, and what is missing.

    Args:
        command: that makes it.
        missing: rows without a result, as text.
        left_out: rows that choose something on validation images, where there are none.
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


def _dataset(dataset: str, lines: list[Line]) -> list[str]:
    """A data set's table, then a second one of the lines that must not be compared with the first."""
    fair = [line for line in lines if not line.on_test]
    usual = Counter(line.split for line in fair).most_common(1)[0][0] if fair else None
    main = [line for line in fair if line.split == usual]
    apart = [line for line in lines if line not in main]
    sources = list(dict.fromkeys(line.entry.source for line in lines if line.entry.accuracy is not None))
    text = [f"**{dataset}**", ""]
    if main:
        text += [*_table(main, sources, {}), ""]
    if apart:
        why = {id(line): SELECTED_ON_TEST if line.on_test else f"another split: {line.split[0]}" for line in apart}
        text += ["Not to be compared with the rows above:" if main else "Not to be compared:", ""]
        text += [*_table(apart, sources, why), ""]
    text += [f"[{place}] {source}." for place, source in enumerate(sources, start=1)]
    return [*text, ""] if sources else text


def _table(lines: list[Line], sources: list[str], why: dict[int, str]) -> list[str]:
    facts = {id(line): line.facts() for line in lines}
    names = list(facts[id(lines[0])])
    shared = [name for name in names if len({fact[name] for fact in facts.values()}) == 1]
    own = [name for name in names if name not in shared]
    headings = ["method", *_METRICS.values(), "published", *own, "cost", *(["why apart"] if why else [])]
    rows = []
    for line in lines:
        cells = [line.name, *(line.percent(metric) for metric in _METRICS), _published(line.entry, sources)]
        cells += [*(facts[id(line)][name] for name in own), line.cost(), *([why[id(line)]] if why else [])]
        rows.append(cells)
    text = [_row(headings), _row(["---", *["---:"] * (len(_METRICS) + 1), *["---"] * (len(headings) - 7)])]
    text += [_row(cells) for cells in rows]
    first = facts[id(lines[0])]
    said = "; ".join(f"{name}: {first[name]}" for name in shared)
    text += ["", _sentence(said), f"Test images: {_each(_test_images(lines))}. {_LEGEND}"]
    return text


_LEGEND = (
    "Percent, mean ± s.d. over seeds. Cost: seconds of the stages that the row's runs trained; stages trained + stages "
    "taken from the store."
)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _test_images(lines: Iterable[Line]) -> list[str]:
    counts = []
    for line in lines:
        data = line.runs[0].result.get("data", {})
        used = data.get("val_images") if data.get("val_rule") == "test_fraction" else 0
        text = f"{data.get('test_images', 0):,}"
        counts.append(
            f"{text} ({used:,} more are the validation images; published numbers count all)" if used else text
        )
    return counts


def _published(entry: Entry, sources: list[str]) -> str:
    return NOTHING if entry.accuracy is None else f"{entry.accuracy:.2f} [{sources.index(entry.source) + 1}]"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _each(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def write_between_markers(path: Path, name: str, block: str) -> None:
    """Put a block between ``<!-- name:begin -->`` and ``<!-- name:end -->``; at the file's end where it has none.

    What stands outside the markers is not touched; writing the same block again changes nothing.

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
            f"{path}: the markers {begin} and {end} are needed once each, in this order. Mend or delete them"
        )
    write_text(path, text[: text.index(begin)] + whole + text[text.index(end) + len(end) :])
