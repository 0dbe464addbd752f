"""Tables of results: the experiments that are their rows, and the published numbers.

``conf/published.csv`` has the rows of the shipped experiments, and a file of the same name in a user's folder those of
the user's. Each line is one row:

- ``row``: the experiment; ``table``: the tables that it belongs to, separated by spaces;
- ``metric``, ``value``: published number on these data, in percent; ``source``: its publication; ``verified``: how the
  number was checked. All four are empty without a published number.

An experiment of the user's own may say the same in two private keys, ``_table_`` (a list) and ``_published_`` (the
metric with its value, and ``source``).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ltr.configuration.configs import conf_directory
from ltr.errors import ConfigError, nearest

PUBLISHED = ("accuracy", "auroc", "map", "recall_at_1")  # the metrics of published numbers
FILE = "published.csv"
COLUMNS = ("row", "table", "metric", "value", "source", "verified")


@dataclass(frozen=True)
class TableRow:
    """A row of a published table.

    Attributes:
        config: name of the config in ``conf/experiment``.
        tables: names of the tables that it belongs to.
        published: published number in percent; None without one on this data set.
        source: publication of the number.
        metric: name of the metric, one of `PUBLISHED`.
        verified: how the number was checked against its source.
    """

    config: str
    tables: tuple[str, ...] = ()
    published: float | None = None
    source: str = ""
    metric: str = "accuracy"
    verified: str = ""

    @property
    def citation(self) -> str:
        """Return the source, and how the number was checked against it."""
        return f"{self.source}; {self.verified}" if self.verified else self.source


def table_rows(config_dir: str | None = None) -> list[TableRow]:
    """Return all experiments (those of the user's own folder go before), in order of their names.

    Raises:
        ConfigError: a published.csv or an experiment cannot be read or is invalid.
    """
    rows: dict[str, TableRow] = {}
    for folder in (conf_directory(), *([Path(config_dir)] if config_dir else [])):
        experiments = {path.stem: path for path in sorted((folder / "experiment").glob("*.yaml"))}
        listed = _listed(folder / FILE, experiments)
        for name, path in experiments.items():
            rows[name] = listed.get(name) or (TableRow(name) if folder == conf_directory() else _described(name, path))
    return [rows[name] for name in sorted(rows)]


def chosen_rows(names: Sequence[str], config_dir: str | None = None) -> list[TableRow]:
    """Return the rows of tables, by name or by a pattern such as ``cifar10*``, and single experiments.

    Rows are sorted by their published number, those without one last.

    Raises:
        ConfigError: a name that is neither a table nor an experiment.
    """
    rows = table_rows(config_dir)
    tables = sorted({table for row in rows for table in row.tables})
    chosen: dict[str, TableRow] = {}
    for name in names:
        fitting = [row for row in rows if any(fnmatchcase(table, name) for table in row.tables)]
        fitting = fitting or [row for row in rows if row.config == name]
        if not fitting:
            known = [*tables, *(row.config for row in rows)]
            raise ConfigError(
                f"{name}: neither a table nor an experiment; tables: {', '.join(tables) or 'none'}"
                f"{nearest(name, known)}"
            )
        chosen |= {row.config: row for row in fitting}
    return sorted(chosen.values(), key=_order)


def narrowed(rows: Iterable[TableRow], pattern: str) -> list[TableRow]:
    """Return the row of an experiment, or the rows whose name fits a pattern such as ``*_crt`` or contains a text.

    Raises:
        ConfigError: no row matches.
    """
    rows = list(rows)
    named = [row for row in rows if row.config == pattern]  # a complete name goes before names that contain it
    kept = named or [row for row in rows if fnmatchcase(row.config, pattern) or pattern in row.config]
    if not kept:
        raise ConfigError(f"no row fits '{pattern}'; there are: {', '.join(row.config for row in rows)}")
    return kept


def _order(row: TableRow) -> tuple[str, bool, float, str]:
    return (row.tables[0] if row.tables else "", row.published is None, row.published or 0.0, row.config)


def _listed(path: Path, experiments: Mapping[str, Path]) -> dict[str, TableRow]:
    """Return the rows of a published.csv by their experiment; none where there is no such file."""
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Mend the file, or write it anew") from error
    rows: dict[str, TableRow] = {}
    for number, line in enumerate(lines, start=2):
        reason = _mistake(line, rows, experiments)
        if reason:
            raise ConfigError(f"{path}, line {number}: {reason}")
        rows[line["row"]] = TableRow(line["row"], tuple(line["table"].split()))
        if line["value"]:
            rows[line["row"]] = replace(
                rows[line["row"]],
                published=float(line["value"]),
                source=line["source"],
                metric=line["metric"],
                verified=line["verified"],
            )
    return rows


def _mistake(line: Mapping[str | None, Any], rows: Mapping[str, Any], experiments: Mapping[str, Any]) -> str | None:
    """Return the mistake in a line of a published.csv; None if there is none."""
    if set(line) != set(COLUMNS) or None in line.values():
        return f"the columns {', '.join(COLUMNS)} are needed, in a line of {len(COLUMNS)} cells each"
    name = line["row"]
    if name in rows:
        return f"row={name} appears twice; a row has one number. Delete one of them"
    if name not in experiments:
        return f"row={name}: there is no experiment of this name{nearest(name, experiments)}"
    filled = [key for key in ("metric", "value", "source", "verified") if line[key]]
    if not filled:
        return None
    if len(filled) < 4:
        return f"row={name}: only {', '.join(filled)}; metric, value, source and verified are given together, or none"
    if line["metric"] not in PUBLISHED:
        return f"row={name}, metric={line['metric']}: allowed is one of: {', '.join(PUBLISHED)}"
    try:
        is_percent = 1 < float(line["value"]) <= 100
    except ValueError:
        is_percent = False
    return None if is_percent else f"row={name}, value={line['value']}: a number in percent is needed, in (1, 100]"


def _described(name: str, path: Path) -> TableRow:
    """Return the row that an experiment of the user's own describes in its private keys."""
    import yaml

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    config = config if isinstance(config, dict) else {}
    tables, published = config.get("_table_", []), config.get("_published_", {})
    if not (isinstance(tables, list) and all(isinstance(table, str) for table in tables)):
        raise ConfigError(f"{path}: _table_ is {tables!r}; a list of names is needed")
    if published and not _is_published(published):
        raise ConfigError(
            f"{path}: _published_ is {published!r}; allowed is {{METRIC: NUMBER in percent, source: TEXT}} with "
            f"one of the metrics {', '.join(PUBLISHED)}"
        )
    if not published:
        return TableRow(name, tuple(tables))
    (metric,) = set(published) - {"source"}
    return TableRow(name, tuple(tables), float(published[metric]), published["source"], metric)


def _is_published(node: Any) -> bool:
    if not isinstance(node, dict) or not isinstance(node.get("source"), str):
        return False
    metrics = set(node) - {"source"}
    number = node[next(iter(metrics))] if len(metrics) == 1 and metrics <= set(PUBLISHED) else None
    return isinstance(number, (int, float)) and not isinstance(number, bool) and 1 < number <= 100
