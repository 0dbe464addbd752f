"""Reader of Camtrap DP 1.x packages (https://camtrap-dp.tdwg.org): datapackage.json and three CSV tables.

Fields, from the tables' schemas (https://camtrap-dp.tdwg.org/data): deployments ``deploymentID``, ``locationID``,
``locationName``; media ``mediaID``, ``deploymentID``, ``timestamp``, ``filePath``; observations ``mediaID``,
``deploymentID``, ``eventID``, ``eventStart``, ``eventEnd``, ``observationLevel`` (media or event), ``observationType``
(animal, human, vehicle, blank, unknown, unclassified), ``scientificName`` and ``bboxX``, ``bboxY``, ``bboxWidth``,
``bboxHeight`` in fractions of the image. The version is part of ``profile`` in datapackage.json.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ltr.data.annotations.records import (
    UNKNOWN_TIME,
    ImageColumns,
    Interned,
    Records,
    box_of,
    class_numbers,
    instant,
    merge_class_names,
    seconds,
)
from ltr.data.tables import iterate_rows
from ltr.data.unread_divisions import refuse_other_case
from ltr.errors import DataError
from ltr.escaping import csv_text
from ltr.files import is_regular, read_json
from ltr.names import counted, list_first, missing_values

FORMAT = "camtrap_dp"
TYPES = ("animal", "human", "vehicle", "blank", "unknown", "unclassified")
BLANK = "blank"
BOX = ("bboxX", "bboxY", "bboxWidth", "bboxHeight")
READ = {  # columns of each table; the first two are required
    "deployments": ("deploymentID", "locationID", "locationName"),
    "media": ("mediaID", "deploymentID", "timestamp", "filePath"),
    "observations": (
        *("observationID", "deploymentID", "observationLevel", "observationType"),
        *("mediaID", "eventID", "eventStart", "eventEnd", "scientificName"),
        *BOX,
    ),
}
_VERSION = re.compile(r"camtrap-dp/v?(\d+(?:\.\d+)*)")


@dataclass(frozen=True)
class Package:
    """Tables of a package.

    Attributes:
        file: datapackage.json.
        tables: paths of ``deployments``, ``media`` and ``observations``, by name.
    """

    file: Path
    tables: dict[str, Path]


def open_package(
    name: str, package_path: Path, needed: tuple[str, ...] = ("deployments", "media", "observations")
) -> Package:
    """Find the tables of a package.

    Args:
        name: name of the data set, for messages.
        package_path: datapackage.json, or its folder.
        needed: names of the required tables.

    Raises:
        DataError: the file is missing or damaged, has another version, or lacks a table.
    """
    file = package_path / "datapackage.json" if package_path.is_dir() else package_path
    try:
        content = read_json(file)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{name}: {file} cannot be read as the description of a Camtrap DP package: {error}") from error
    resources = content.get("resources") if isinstance(content, dict) else None
    if not isinstance(resources, list) or not all(isinstance(resource, dict) for resource in resources):
        raise DataError(
            f"{name}: {file} has no list of resources, so it describes no Camtrap DP package. "
            "Name the package's datapackage.json, or leave dataset.format out so that the format is recognised"
        )
    match = _VERSION.search(str(content.get("profile", "")))
    if match is None or match.group(1).split(".")[0] != "1":
        version = match.group(1) if match else f"of the profile {content.get('profile')!r}"
        raise DataError(
            f"{name}: {file} is Camtrap DP {version}; version 1 is read. Export the package again, or convert it (the "
            "R package camtrapdp does)"
        )
    tables: dict[str, Path] = {}
    for resource in resources:
        path = resource.get("path")
        if resource.get("name") in needed and isinstance(path, str):
            tables[resource["name"]] = file.parent / path
    missing = [key for key in needed if key not in tables or not is_regular(tables[key])]
    if missing:
        raise DataError(
            f"{name}: {file} has no CSV file for {', '.join(missing)} in its folder; it names "
            f"{list_first([str(table.name) for table in tables.values()]) or 'none'}. Unpack the whole package"
        )
    return Package(file, tables)


def read_camtrap_dp(name: str, package_path: Path, root: str) -> Records:
    """Read a package; the class is ``scientificName`` or, if blank, ``observationType``.

    Media without observations get the observations of the events of their deployment that cover their time; such an
    event is also their group ``seq_id``. Times are compared as instants if both have a time zone, else as local times.
    ``unknown`` and ``unclassified`` are not labels; ``blank`` is one. Remarks count events without a start, and those
    that cover no medium.

    Args:
        root: folder that relative ``filePath`` starts from.

    Raises:
        DataError: see `open_package`; an id is repeated or refers to no row, or a cell cannot be read.
    """
    package = open_package(name, package_path)
    for key, table in package.tables.items():
        refuse_other_case(name, table, ("deploymentID",), READ[key])
    locations = _locations(name, package.tables["deployments"])
    media = _Media(name, package.tables["media"], locations)
    observations = _Observations(name, package.tables["observations"], media, locations)
    images, classes, boxes = observations.labels()
    class_names, numbers = merge_class_names(f"{name}: {package.file}", observations.classes.values)
    media.columns.groups["seq_id"] = observations.events()
    return media.columns.records(
        FORMAT, root, images, class_numbers(numbers, classes), boxes, class_names, remarks=observations.remarks()
    )


def _rows(table: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> Iterator[tuple[int, list[str | None]]]:
    """Yield the rows of a table as `iterate_rows`, also of one that ltr wrote, see `ltr.escaping.csv_text`."""
    for line, cells in iterate_rows(table, needed, optional):
        yield line, [csv_text(cell) if cell else cell for cell in cells]


def _locations(name: str, table: Path) -> dict[str, str]:
    """Return the location of each deployment: its id, its name, or the deployment itself."""
    locations: dict[str, str] = {}
    columns = READ["deployments"]
    for line, (deployment, location, location_name) in _rows(table, columns[:1], columns[1:]):
        if not deployment or deployment in locations:
            what = f"deploymentID {deployment} appears twice" if deployment else "deploymentID is blank"
            raise DataError(f"{name}: {table}, line {line}: {what}. Every deployment needs a unique id")
        known = (text for text in (location, location_name) if text and not missing_values([text]))
        locations[deployment] = next(known, deployment)
    return locations


class _Media:
    """Columns of the table ``media``."""

    def __init__(self, name: str, table: Path, locations: dict[str, str]) -> None:
        self.columns = ImageColumns(("location", "seq_id", "deployment"))  # seq_id follows from the observations
        for line, (key, deployment, timestamp, path) in _rows(table, READ["media"]):
            what = ""
            if not key or not path:
                what = "mediaID or filePath is blank. Every medium needs both"
            elif self.columns.row_of.setdefault(key, len(self.columns.paths)) != len(self.columns.paths):
                what = f"mediaID {key} appears twice. Every medium needs a unique id"
            elif deployment not in locations:
                what = f"deploymentID {deployment} is not in deployments. Add it there"
            elif "://" in path:
                what = f"filePath {path} is an address. Download the files, and write their paths"
            if what:
                raise DataError(f"{name}: {table}, line {line}: {what}")
            self.columns.add(path or "", timestamp, (locations[deployment or ""], None, deployment))


class _Event(NamedTuple):
    """Observation of an event: where and when it was, its class and its id."""

    deployment: str
    start: str | None
    end: str | None
    label: str | None
    event: str


class _Observations:
    """Columns of the table ``observations``."""

    def __init__(self, name: str, table: Path, media: _Media, locations: dict[str, str]) -> None:
        self.classes = Interned()
        self.media = media
        self._locations = locations
        self.images = array("q")  # medium of each observation
        self.boxes = array("f")
        self._event_of = np.full(len(media.columns.paths), -1, dtype=np.int64)
        self._event_names: dict[str, int] = {}
        self._is_observed = np.zeros(len(media.columns.paths), dtype=bool)
        self._events: list[_Event] = []
        self._unlabelled = self._unplaced = self._unused = 0
        columns = READ["observations"]
        seen: set[str] = set()
        for line, cells in _rows(table, columns[:4], columns[4:]):
            try:
                self._add(seen, cells)
            except ValueError as error:
                raise DataError(f"{name}: {table}, line {line}: {error}") from error

    def _add(self, seen: set[str], cells: list[Any]) -> None:
        key, deployment, level, kind, medium, event, start, end, species, *box = cells
        if not key or key in seen:
            raise ValueError(
                f"observationID {key} appears twice. Each may appear once"
                if key
                else "observationID is blank. Every observation needs one"
            )
        seen.add(key)
        if kind not in TYPES:
            raise ValueError(f"observationType is {kind!r}; allowed are {', '.join(TYPES)}")
        species = (species or "").strip()
        label = BLANK if kind == BLANK else (species or (kind if kind in ("human", "vehicle", "animal") else None))
        if kind in ("unknown", "unclassified"):
            label = None
        self._unlabelled += label is None
        if level == "event":
            self._add_event(deployment, start, end, label, event)
            return
        if level != "media":
            raise ValueError(f"observationLevel is {level!r}; allowed are media and event")
        row = self.media.columns.row_of.get(medium or "", -1)
        if row < 0:
            raise ValueError(f"mediaID {medium} is not in media. Add it there, or remove the observation")
        if deployment and not self.media.columns.groups["deployment"].holds(row, deployment):
            raise ValueError(
                f"deploymentID is {deployment}, and mediaID {medium} is of another deployment in media. Correct one of "
                "them"
            )
        self._is_observed[row] = True
        bounds = box_of(box, BOX)
        if event:
            self._event_of[row] = self._event_names.setdefault(event, len(self._event_names))
        if label is None:
            return
        self.images.append(row)
        self.classes.add(label)
        self.boxes.extend(bounds)

    def _add_event(
        self, deployment: str | None, start: str | None, end: str | None, label: str | None, event: str | None
    ) -> None:
        """Read an event, whose media follow when all are known."""
        if deployment not in self._locations:
            raise ValueError(
                f"deploymentID {deployment} is not in deployments. Add it there, or remove the observation"
            )
        for column, text in (("eventStart", start), ("eventEnd", end)):
            if text and text.strip() and seconds(text) == UNKNOWN_TIME:
                raise ValueError(f"{column} is {text!r}; write it as 2024-05-31T23:59:01Z")
        if start and end and _is_before(end, start):
            raise ValueError(f"eventEnd {end} is before eventStart {start}. Correct one of them")
        if seconds(start) == UNKNOWN_TIME:
            self._unplaced += 1
        else:
            self._events.append(_Event(deployment or "", start, end, label, event or ""))

    def labels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return image int64 [n], class int32 [n] and box float32 [n, 4] of every label."""
        if self._events:
            self._add_events()
        boxes = np.array(self.boxes, dtype=np.float32).reshape(-1, 4)
        more = len(self.images) - len(boxes)
        boxes = np.concatenate([boxes, np.full((more, 4), np.nan, dtype=np.float32)])
        return np.array(self.images, dtype=np.int64), np.array(self.classes.codes, dtype=np.int32), boxes

    def _add_events(self) -> None:
        """Give media without observations the labels of the events that cover their time."""
        columns = self.media.columns
        deployments = columns.groups["deployment"]
        codes = np.array(deployments.codes, dtype=np.int32)
        local = _Timeline(np.array(columns.times, dtype=np.int64), codes, len(deployments.values))
        universal = _Timeline(np.array(columns.instants, dtype=np.int64), codes, len(deployments.values))
        has_zone = universal.times != UNKNOWN_TIME
        number_of = {value: number for number, value in enumerate(deployments.values)}
        for deployment, start, end, label, event in self._events:
            number = number_of.get(deployment)
            if number is None:  # its deployment has no media
                self._unused += 1
                continue
            rows = local.rows_within(number, seconds(start), seconds(end))
            if instant(start) != UNKNOWN_TIME and (instant(end) != UNKNOWN_TIME or seconds(end) == UNKNOWN_TIME):
                zoned = universal.rows_within(number, instant(start), instant(end))
                rows = np.concatenate([zoned, rows[~has_zone[rows]]])
            self._unused += not len(rows)
            for row in rows.tolist():
                if event and self._event_of[row] < 0:
                    self._event_of[row] = self._event_names.setdefault(event, len(self._event_names))
                if label is not None and not self._is_observed[row]:
                    self.images.append(row)
                    self.classes.add(label)

    def events(self) -> Interned:
        """Return the event of each medium."""
        column, names = Interned(), list(self._event_names)
        for number in self._event_of.tolist():
            column.add(names[number] if number >= 0 else None)
        return column

    def remarks(self) -> list[str]:
        counts = {
            f"{self._unlabelled:,} observations are unknown or unclassified, which are not labels": self._unlabelled,
            f"{counted(self._unplaced, 'event has', 'events have')} no eventStart, so no medium has the labels of "
            f"{'it' if self._unplaced == 1 else 'them'}": self._unplaced,
            f"{counted(self._unused, 'event covers', 'events cover')} the time of no medium": self._unused,
        }
        return [remark for remark, number in counts.items() if number]


def _is_before(end: str, start: str) -> bool:
    """Return whether a time is before another one: as instants if both have a time zone, else if neither has one."""
    instants = instant(end), instant(start)
    if UNKNOWN_TIME not in instants:
        return instants[0] < instants[1]
    times = seconds(end), seconds(start)
    return instants[0] == instants[1] and UNKNOWN_TIME not in times and times[0] < times[1]


class _Timeline:
    """Media by deployment and time."""

    def __init__(self, times: np.ndarray, codes: np.ndarray, num_deployments: int) -> None:
        self.times = times
        self._order = np.lexsort((times, codes))
        self._starts = np.searchsorted(codes[self._order], np.arange(num_deployments + 1))

    def rows_within(self, deployment: int, start: int, end: int) -> np.ndarray:
        """Return the media of a deployment from ``start`` to ``end`` inclusive; an end before the start equals it."""
        rows = self._order[self._starts[deployment] : self._starts[deployment + 1]]
        first, last = np.searchsorted(self.times[rows], (start, max(start, end) + 1))
        return rows[first:last]
