"""Lines of a published table: finished runs with a published number, averaged over seeds and trials.

Runs are averaged only if they differ solely in their seed, and in the published trial of an open-set data set if there
are several.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ltr.evaluation.metrics import Metric, MetricTable
from ltr.report.columns import mean_text, metric_table
from ltr.report.limits import limits_of, longer_schedule
from ltr.report.naming import commit_text, schedule_text
from ltr.report.read_run import Run, number
from ltr.report.read_runs import groups_by_data, settings_without_trial
from ltr.report.style import NOTHING


@dataclass(frozen=True)
class Entry:
    """Runs of an experiment, and its published number.

    Attributes:
        config: name of the config in ``conf/experiment``.
        runs: runs of any seeds; runs that may not be averaged become separate lines.
        published: the published number in percent; None if there is none.
        source: where it was published.
        metric: name of its metric.
    """

    config: str
    runs: tuple[Run, ...]
    published: float | None = None
    source: str = ""
    metric: str = "accuracy"


@dataclass(frozen=True)
class PublishedLine:
    """Line of a table: runs that differ only in trial and seed, evaluated with one scorer.

    Attributes:
        entry: the experiment.
        runs: the runs, in order of trial and seed.
        scorer: name of the scorer; None for that of the headline row.
    """

    entry: Entry
    runs: tuple[Run, ...]
    scorer: str | None = None

    @property
    def dataset(self) -> str:
        return str(self._config("dataset.name"))

    @property
    def name(self) -> str:
        return str(self._config("name") or self.entry.config)

    @property
    def protocol(self) -> str:
        return str(self.runs[0].headline["protocol"])

    @property
    def is_headline(self) -> bool:
        """True if the line shows the headline rows of its runs."""
        return self.scorer in (None, self.runs[0].headline.get("scorer"))

    @property
    def split(self) -> tuple[str, str]:
        """Name and digest of the split; for several trials, the data set with its trials and all digests."""
        data = self.runs[0].result.get("data", {})
        if len(self.trials) > 1:
            digests = {str(run.result.get("data", {}).get("split_digest", "")) for run in self.runs}
            return f"{self.dataset}, trials {', '.join(self.trials)}", " ".join(sorted(digests))
        return str(data.get("split", NOTHING)), str(data.get("split_digest", ""))

    @property
    def trials(self) -> list[str]:
        """The published trials of an open-set data set among the runs."""
        return self._distinct("dataset.trial")

    @property
    def on_test(self) -> bool:
        """True if the weights of a run were selected on the test set."""
        return any(run.headline["selection"] == "best_test" for run in self.runs)

    @property
    def limited(self) -> str:
        """Footnote on a limit or a longer schedule; empty without one. See `ltr.report.limits`."""
        config = self.runs[0].result["config"]
        return limits_of((config, run.result["data"]) for run in self.runs) or longer_schedule(config)

    @property
    def table(self) -> MetricTable:
        """All metrics, including those that the runs declare."""
        return metric_table(run.result["declared_metrics"] for run in self.runs)

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics that all runs have."""
        first, *rest = (self._row(run)["metrics"] for run in self.runs)
        return [name for name in first if all(name in metrics for metrics in rest)]

    def value_text(self, metric: Metric) -> str:
        """Return the mean over runs as text, see `ltr.report.columns.mean_text`."""
        return mean_text(metric, [number(self._row(run)["metrics"].get(metric.name)) for run in self.runs])

    def _row(self, run: Run) -> dict[str, Any]:
        """Return the headline row, or the row of another scorer with the same split, weights and variant."""
        if self.is_headline:
            return run.headline
        shared_keys = ("protocol", "split", "checkpoint", "selection", "variant")
        matching_rows = [
            row for row in run.result["rows"] if all(row.get(key) == run.headline.get(key) for key in shared_keys)
        ]
        return next(row for row in matching_rows if row.get("scorer") == self.scorer)

    def _distinct(self, key: str) -> list[str]:
        """Return the distinct values of a setting in these runs."""
        return list(dict.fromkeys(str(run.result["config"].get(key, 0)) for run in self.runs))

    def cost(self) -> str:
        """Return the seconds of the trained stages, and the numbers of trained and cached stages."""
        stages = [stage for run in self.runs for stage in run.result.get("stages", [])]
        trained = [stage for stage in stages if stage["status"] == "trained"]
        seconds = sum(stage["seconds"] for stage in trained)
        return f"{seconds:,.0f} s; {len(trained)} + {len(stages) - len(trained)}"

    def descriptors(self) -> dict[str, str]:
        """Return schedule, seeds, split, selection, commit and hardware by column heading.

        They include the headline's scorer if the table has no column for scorers.
        """
        scorer = self.runs[0].headline.get("scorer")
        hardware = [f"{run.provenance.get('device')}, {run.provenance.get('precision')}" for run in self.runs]
        tau = ", tau on val" if self._config("method.tau") == "auto" else ""
        return {
            "schedule": schedule_text(self.runs[0].result["config"]),
            "seeds": ", ".join(self._distinct("seed")),
            "split": self.split[0],
            **({"scorer": str(scorer)} if self.scorer is None and scorer is not None else {}),
            "selection": joined(run.headline["selection"] for run in self.runs) + tau,
            "commit": joined(commit_text(run.provenance.get("code", {})) or "unknown" for run in self.runs),
            "hardware": joined(hardware),
        }

    def _config(self, key: str) -> Any:
        return self.runs[0].result["config"].get(key)


def lines_of(entries: Iterable[Entry]) -> list[PublishedLine]:
    """Return the lines of all entries: runs grouped by settings except seed and trial, by split and by selection.

    In the open-set protocol each scorer has a line.
    """
    lines = []
    for entry in entries:
        trials = {run.result["config"].get("dataset.trial") for run in entry.runs}
        groups: dict[Any, list[Run]] = {}
        distinct_runs = list({run.result.get("run_hash", index): run for index, run in enumerate(entry.runs)}.values())
        results = [run.result for run in distinct_runs]
        keys = groups_by_data(results)
        for run, group in zip(distinct_runs, keys):
            key = (*_averaging_key(run, len(trials) > 1, group), run.headline["selection"])
            groups.setdefault(key, []).append(run)
        for runs in groups.values():
            runs.sort(key=lambda run: [run.result["config"].get(key, 0) for key in ("dataset.trial", "seed")])
            lines += [PublishedLine(entry, tuple(runs), scorer) for scorer in _scorers(runs[0])]
    return lines


def _averaging_key(run: Run, over_trials: bool, group: str) -> tuple[Any, ...]:
    """Return the key under which runs are averaged."""
    if not over_trials:
        return group, run.result.get("data", {}).get("split_digest")
    return settings_without_trial(run.result["config"])


def _scorers(run: Run) -> list[str | None]:
    """Return the scorers with a line each: those of the open-set protocol; for other protocols None, the headline's."""
    headline = run.headline
    if headline["protocol"] != "open_set":
        return [None]
    rows = [row for row in run.result["rows"] if row["split"] == headline["split"] and row["protocol"] == "open_set"]
    return list(dict.fromkeys([headline["scorer"], *(row["scorer"] for row in rows)]))


def joined(values: Iterable[str]) -> str:
    """Return the distinct texts, separated by commas."""
    return ", ".join(dict.fromkeys(values))
