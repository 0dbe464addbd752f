"""Which published number belongs beside a line: that of the experiment page whose data, method and loss it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ltr.configuration import pages
from ltr.configuration.pages import leaves
from ltr.configuration.tables import PUBLISHED, TableRow, table_rows
from ltr.report.comparison import Line

# of a page's own values, what a shorter schedule may change: the table says how many epochs were trained
_SCHEDULE = ("trainer.max_epochs", "scheduler.", "batch_size", "name", "seed")
_PARTS = ("sampler", "loss", "method")  # whose choice makes another method of a run
_DATA = ("imbalance_factor", "profile", "subset", "n_max", "num_classes")
_MISSING = object()


# pages choose the same ones again and again, and reading YAML is what takes time here
@cache
def _read_page(page: str) -> Mapping[str, Any]:
    return pages.read_page(page)


@cache
def _page_names(group: str) -> list[str]:
    return pages.page_names(group)


@dataclass(frozen=True)
class Published:
    """A number that a paper or a repository printed: a metric in percent, and where."""

    number: float
    source: str
    metric: str


class PublishedNumbers:
    """The published numbers of the shipped experiment pages.

    A page's number stands beside a line if the line's data set (with its imbalance, profile and subset), sampler, loss
    and method are the page's, and every other value that the page sets, but for the schedule. Validation images may be
    taken from the test set; a table says on how many images it was measured.
    """

    def __init__(self) -> None:
        rows = [row for row in table_rows() if row.published is not None]
        self._pages = [(row, _Conditions.of(row)) for row in rows]

    def of(self, line: Line, protocol: str = "closed_set") -> Published | None:
        """The number beside a line of a protocol; of several pages that fit, the one of the line's own name.

        Of several scorers the first one's line has it.
        """
        config = line.config
        if line.scorer is not None and not line.rows[0]["headline"]:
            return None
        of_protocol = [pair for pair in self._pages if PUBLISHED[pair[0].metric] == protocol]
        fitting = [row for row, conditions in of_protocol if conditions.hold(config)]
        fitting.sort(key=lambda row: not row.page.endswith(f"_{config.get('name')}"))
        if not fitting:
            return None
        row = fitting[0]
        assert row.published is not None
        return Published(row.published, row.source, row.metric)


@dataclass(frozen=True)
class _Conditions:
    """What a flat configuration must hold to be a page's run."""

    values: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, row: TableRow) -> _Conditions:
        page = _read_page(f"experiment/{row.page}")
        chosen = {**_choices("train"), **_choices(f"experiment/{row.page}")}
        values: dict[str, Any] = {}
        dataset = chosen.get("dataset", "")
        if dataset in _page_names("dataset"):
            data = _read_page(f"dataset/{dataset}")
            values["dataset.name"] = data.get("name", dataset)
            values |= {f"dataset.{key}": data[key] for key in _DATA if key in data}
        for group in _PARTS:
            option = chosen.get(group)
            if option in _page_names(group):
                part = {**_read_page(f"{group}/{option}")}
                part.pop("defaults", None)
                if group == "method":
                    part = {"name": part.get("name"), "_target_": part.get("_target_")}
                values |= {f"{group}.{key}": value for key, value in leaves(part)}
        own = {key: value for key, value in page.items() if key != "defaults"}
        values |= {key: value for key, value in leaves(own) if not key.startswith(_SCHEDULE)}
        plain = {key: value for key, value in values.items() if not (isinstance(value, str) and "${" in value)}
        return cls(tuple(plain.items()))

    def hold(self, config: dict[str, Any]) -> bool:
        return all(config.get(key, _MISSING) == value for key, value in self.values)


def _choices(page: str) -> dict[str, str]:
    """Group to page in a page's defaults list."""
    found: dict[str, str] = {}
    entries: Sequence[Any] = _read_page(page).get("defaults", [])
    for entry in entries:
        if isinstance(entry, dict):
            for key, value in entry.items():
                words = str(key).split()
                group = words[-1].lstrip("/").partition("@")[0]
                if isinstance(value, str) and "${" not in value and "optional" not in words:
                    found[group] = value
    return found
