"""Which configs of ``conf/experiment`` are the rows of which table of results: the configs say so themselves.

A config names its tables in ``_table_`` (a list), and the number that a paper or a repository printed in
``_published_``: one of the metrics of `PUBLISHED`, in percent, and its ``source``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ltr.configuration.configs import conf_directory
from ltr.errors import ConfigError, nearest

# the metrics of published numbers, and the protocol that measures each
PUBLISHED = {"accuracy": "closed_set", "auroc": "open_set", "map": "background", "recall_at_1": "retrieval"}


@dataclass(frozen=True)
class TableRow:
    """A row of a published table.

    Attributes:
        config: of ``conf/experiment``, without its ending.
        tables: that it belongs to.
        published: the published number in percent; None where there is none on this data set.
        source: where it was published.
        metric: what it is, a key of `PUBLISHED`.
    """

    config: str
    tables: tuple[str, ...] = ()
    published: float | None = None
    source: str = ""
    metric: str = "accuracy"


def table_rows(config_dir: str | None = None) -> list[TableRow]:
    """All configs of ``conf/experiment`` (and of the user's own folder, which go before), in order of their names.

    Raises:
        ConfigError: a config that cannot be read, or whose private keys are not what is described above.
    """
    folders = [conf_directory(), *([Path(config_dir)] if config_dir else [])]
    configs = {path.stem: path for folder in folders for path in sorted((folder / "experiment").glob("*.yaml"))}
    return [_row(name, path) for name, path in sorted(configs.items())]


def chosen_rows(names: Sequence[str], config_dir: str | None = None) -> list[TableRow]:
    """The rows of tables, by name or by a pattern such as ``cifar10*``, and single configs.

    Rows come in the order of their published number, those without one last: a table's rows lie together, and what
    should be better stands lower.

    Raises:
        ConfigError: a name that is neither a table nor a config.
    """
    rows = table_rows(config_dir)
    tables = sorted({table for row in rows for table in row.tables})
    found: dict[str, TableRow] = {}
    for name in names:
        fitting = [row for row in rows if any(fnmatchcase(table, name) for table in row.tables)]
        fitting = fitting or [row for row in rows if row.config == name]
        if not fitting:
            known = [*tables, *(row.config for row in rows)]
            raise ConfigError(
                f"{name}: neither a table nor a config of conf/experiment; tables: {', '.join(tables) or 'none'}"
                f"{nearest(name, known)}"
            )
        found |= {row.config: row for row in fitting}
    return sorted(found.values(), key=_order)


def narrowed(rows: Iterable[TableRow], pattern: str) -> list[TableRow]:
    """The row of a config, or else the rows whose config fits a pattern such as ``*_crt``, or contains a text.

    Raises:
        ConfigError: none does.
    """
    rows = list(rows)
    named = [row for row in rows if row.config == pattern]  # which other configs' names may contain
    kept = named or [row for row in rows if fnmatchcase(row.config, pattern) or pattern in row.config]
    if not kept:
        raise ConfigError(f"no row fits '{pattern}'; there are: {', '.join(row.config for row in rows)}")
    return kept


def _order(row: TableRow) -> tuple[str, bool, float, str]:
    return (row.tables[0] if row.tables else "", row.published is None, row.published or 0.0, row.config)


def _row(name: str, path: Path) -> TableRow:
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
            f"{path}: _published_ is {published!r}; needed is {{accuracy: NUMBER in percent, source: TEXT}}; in the "
            f"place of accuracy {', '.join(metric for metric in PUBLISHED if metric != 'accuracy')} will do"
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
