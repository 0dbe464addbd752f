"""Checks of a result before it counts in a leaderboard: whole epochs, selection, folder, and split.

``splits.csv`` of a results folder lists each split once, with its digest and numbers of images; ``costs.csv`` lists the
operations of training.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltr import escaping
from ltr.errors import DataError, nearest
from ltr.files import is_regular
from ltr.report.columns import metric_table
from ltr.report.limits import few_batches, trained_test_images
from ltr.report.read_run import Run, number
from ltr.report.read_runs import settings

SPLITS, COSTS = "splits.csv", "costs.csv"
SPLIT_COLUMNS = ("split", "digest", "train_images", "val_images", "test_images", "unknown_images", "classes")
COST_COLUMNS = ("group_hash", "run", "epochs", "operations")
_SELECTIONS = ("last", "best_val")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def entry_mistakes(run: Run) -> list[str]:
    """Return the reasons why a leaderboard refuses a result, apart from its folder and split; empty without any."""
    result, data, headline = run.result, run.result["data"], run.headline
    hashes = {"run_hash": result.get("run_hash"), "group_hash": result.get("group_hash")}
    hashes["data.split_digest"] = data.get("split_digest")
    reasons = [
        f"{key} is {_short(value)}; needed is a SHA-256 in hex. Keep the file that ltr-train writes"
        for key, value in hashes.items()
        if not (isinstance(value, str) and _SHA256.fullmatch(value))
    ]
    if not (data.get("fingerprint") is None or _SHA256.fullmatch(str(data["fingerprint"]))):  # None: an earlier version
        reasons.append(
            f"data.fingerprint is {_short(data['fingerprint'])}; needed is a SHA-256 in hex. Keep the file that "
            "ltr-train writes"
        )
    if not data.get("split") or not data.get("test_images"):
        reasons.append("data lacks the split or its number of test images. Train with the current version of ltr")
    if not str(data.get("split", "")).isprintable():
        reasons.append(f"its split {_short(data['split'])} is no name in one line. Give dataset.name another value")
    if limited := few_batches(result["config"]):
        reasons.append(f"limited: {limited}; only whole epochs count. Train without this override")
    selection = headline["selection"]
    if selection not in _SELECTIONS:
        reasons.append(
            f"its weights were selected by {_short(selection)}; allowed are {' and '.join(_SELECTIONS)}. Train with "
            "trainer.selection=last"
        )
    if trained := trained_test_images(data):
        reasons.append(f"{trained}; needed are weights that saw none. Start from weights of a run with the same split")
    if chosen := _chosen_without_validation(run):
        reasons.append(
            f"{chosen} without validation images; the test set must not choose. Train with dataset.val=test_fraction"
        )
    if headline["split"] != "test":
        reasons.append(f"its result is on the split {headline['split']}; needed is test. Add the run of ltr-train")
    reasons += _metric_mistakes(run)
    if absolute := next(iter(_absolute_paths(result)), None):
        reasons.append(
            f"it contains the absolute path {_short(absolute)}; only file names are allowed. Add the run with --add, "
            "which removes folders"
        )
    return reasons


def _chosen_without_validation(run: Run) -> str:
    if run.result["data"].get("val_images"):
        return ""
    if run.headline["selection"] == "best_val":
        return "weights were selected on validation"
    return "method.tau=auto was chosen" if run.result["config"].get("method.tau") == "auto" else ""


def _metric_mistakes(run: Run) -> list[str]:
    metrics, name = run.headline["metrics"], run.result.get("metric", "")
    value = number(metrics.get(name))
    if value != value:
        return [f"its headline row has no value of {_short(name)}, the run's metric. Keep the file of ltr-train"]
    table = metric_table([run.result.get("declared_metrics", ())])
    for row in run.result["rows"]:
        for key, shown in row["metrics"].items():
            is_outside = not math.isnan(number(shown)) and not 0 <= number(shown) <= 1
            if is_outside and table.find(key, row["protocol"]).is_fraction:
                return [f"{key} is {shown}; a fraction lies in [0, 1]. Keep the file of ltr-train"]
    return []


def folder_mistakes(run: Run) -> list[str]:
    """Return the reason why a result is in the wrong folder; empty if it is not."""
    expected = run_folder(run)
    location = Path(*run.path.parts[-3:])
    if location.parts[:2] == expected.parts[:2] and run.path.name == expected.name:
        return []
    return [f"it is in {location}; needed is {expected}. Move the folder, or add the run with --add"]


def group_mistakes(run: Run, other: Run) -> list[str]:
    """Return the reason why a result cannot have the group hash of another one; empty if its settings are the same.

    Settings that one of them lacks do not count: it may be from a version without this option.
    """
    new, known = settings(run.result["config"]), settings(other.result["config"])
    key = next((key for key in sorted(new.keys() & known.keys()) if new[key] != known[key]), None)
    if key is None:
        return []
    return [
        f"{key} is {_short(new[key])}, and {_short(known[key])} in {other.path}, which has the same group_hash. "
        "Keep the file that ltr-train writes"
    ]


def run_folder(run: Run) -> Path:
    """Return the folder of a run, relative to a results folder: data set / method / name, seed and hash."""
    config = run.result["config"]
    run_hash = str(run.result.get("run_hash", ""))[:8]
    parts = (config.get("dataset.name", "?"), config.get("method.name", "?"))
    name = f"{config.get('name', '?')}-s{config.get('seed', '?')}-{run_hash}"
    return Path(*(re.sub(r"[^\w.=+,-]", "_", str(part)).lstrip(".") or "_" for part in (*parts, name)))


def split_mistakes(run: Run, splits: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the reason why a split is not as ``splits.csv`` lists it; empty if it is."""
    line = split_line(run)
    known = splits.get(line["split"])
    if known is None:
        return [
            f"its split {_short(line['split'])} is not listed{nearest(line['split'], splits)}; {SPLITS} has a line for "
            "each split. Add the run with --add, which adds the line of a new split"
        ]
    key = next((key for key in SPLIT_COLUMNS if known[key] != line[key]), None)
    if key is None:
        return []
    return [
        f"{key} of its split {line['split']} is {_short(line[key])}; {SPLITS} lists {_short(known[key])}. The run used "
        "other images: check the data set's files with ltr-data check, and train again"
    ]


def split_line(run: Run) -> dict[str, str]:
    """Return the line of ``splits.csv`` for the split of a run."""
    data = run.result["data"]
    names = {"split": "split", "digest": "split_digest"}
    return {column: str(data.get(names.get(column, column), 0)) for column in SPLIT_COLUMNS}


def read_splits(path: Path) -> dict[str, dict[str, str]]:
    """Return the lines of a ``splits.csv`` by the split's name; {} if the file does not exist.

    Raises:
        DataError: the file cannot be read, has other columns, or lists a split twice.
    """
    splits: dict[str, dict[str, str]] = {}
    for line_number, line in _read_lines(path, SPLIT_COLUMNS, "Restore it from the repository"):
        if line["split"] in splits:
            raise DataError(f"{path}, line {line_number}: {line['split']} is listed twice. Remove one of the lines")
        splits[line["split"]] = line
    return splits


def read_costs(path: Path) -> dict[str, float]:
    """Return the multiply-accumulate operations of a whole training by group hash; {} if the file does not exist.

    These are the operations of convolutions and matrix products, forward and backward, in all stages of a run.

    Raises:
        DataError: the file cannot be read, has other columns, or a cost is not a number above 0.
    """
    advice = "Write it again with python scripts/training_operations.py"
    costs: dict[str, float] = {}
    for line_number, line in _read_lines(path, COST_COLUMNS, advice):
        text = line["operations"]
        try:
            cost = number(float(text))
        except ValueError:
            cost = math.nan
        if not cost > 0:
            raise DataError(
                f"{path}, line {line_number}: operations is {_short(text)}; needed is a number above 0. {advice}"
            )
        costs[line["group_hash"]] = cost
    return costs


def _read_lines(path: Path, columns: Sequence[str], advice: str) -> list[tuple[int, dict[str, str]]]:
    """Return number and cells of each line of a CSV file with these columns; [] if the file does not exist."""
    if not os.path.lexists(path):
        return []
    if not is_regular(path):
        raise DataError(f"{path} is not a regular file. {advice}")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            lines, header = list(reader), reader.fieldnames
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}. {advice}") from error
    if list(header or ()) != list(columns):
        raise DataError(f"{path}: the first line must name the columns {', '.join(columns)}. {advice}")
    for line_number, line in enumerate(lines, start=2):
        if None in line or None in line.values():
            raise DataError(f"{path}, line {line_number}: a cell is needed for each of {', '.join(columns)}. {advice}")
    return list(enumerate(lines, start=2))


def _absolute_paths(node: Any) -> Iterable[str]:
    if isinstance(node, dict):
        for value in node.values():
            yield from _absolute_paths(value)
    elif isinstance(node, list):
        for value in node:
            yield from _absolute_paths(value)
    elif isinstance(node, str) and (os.path.isabs(node) or re.match(r"[A-Za-z]:[\\/]", node)):
        yield node


def _short(value: Any) -> str:
    return escaping.name(value, 60)
