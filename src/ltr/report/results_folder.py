"""Folder of results that a repository keeps: ``result.json`` files without weights, each checked before it counts.

    results/splits.csv
    results/costs.csv                                (optional: operations of training, see `read_costs`)
    results/<data set>/<method>/<name>-s<seed>-<hash>/result.json
                                                     /provenance.json   (optional: commit, hardware, precision)

A result is refused if its epochs are not whole, it was selected on test, has another split than ``splits.csv`` lists
under its name, or lies in a folder of another run. Schedules shorter than the recipe's have a table of their own.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ltr import escaping
from ltr.errors import ConfigError, DataError, nearest
from ltr.files import write_text
from ltr.names import counted
from ltr.report.limits import few_batches
from ltr.report.read_run import Run, number, read_run
from ltr.results import AGAIN

SPLITS = "splits.csv"
COSTS = "costs.csv"
BOARD = "leaderboard.html"
RESULT, PROVENANCE = "result.json", "provenance.json"
SPLIT_COLUMNS = ("split", "digest", "train_images", "val_images", "test_images", "unknown_images", "classes")
COST_COLUMNS = ("group_hash", "run", "epochs", "operations")
SELECTIONS = ("last", "best_val")

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST = 2_000_000  # bytes of a file: no weights, no predictions


@dataclass(frozen=True)
class ResultsFolder:
    """Results of a folder.

    Attributes:
        folder: the folder.
        accepted: the runs that passed every check, in order of their paths.
        refused: message for each file that did not: what it is, what is allowed, what to do.
        costs: multiply-accumulate operations of training by group hash, see `read_costs`.
    """

    folder: Path
    accepted: tuple[Run, ...] = ()
    refused: tuple[str, ...] = field(default=())
    costs: Mapping[str, float] = field(default_factory=dict)


def read_results_folder(folder: Path) -> ResultsFolder:
    """Read and check all results below a folder.

    Raises:
        DataError: there is no such folder, it holds no result, or its ``splits.csv`` cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder. Give a folder of results, such as results")
    if next(folder.rglob("checkpoints/*.ckpt"), None) is not None:
        raise DataError(
            f"{folder} is a folder of runs with their weights; a leaderboard needs only results. Compare the runs "
            f"with ltr-report {folder}, or copy a result: ltr-report --leaderboard results --add RUN"
        )
    splits = read_splits(folder / SPLITS)
    accepted: list[Run] = []
    refused: list[str] = []
    hashes: dict[str, Path] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()):
        if path in (folder / SPLITS, folder / COSTS, folder / BOARD):
            continue
        if path.name == RESULT and not path.is_symlink():
            run, reasons = _checked(path, splits, hashes)
            refused += [f"{path}: {reason}" for reason in reasons]
            accepted += [run] if run is not None and not reasons else []
        elif path.name != PROVENANCE or path.is_symlink() or not path.with_name(RESULT).is_file():
            refused.append(
                f"{path}: not a file of a result; a run's folder here holds {RESULT} and may hold {PROVENANCE}. "
                f"Move it elsewhere, or add the run with ltr-report --leaderboard {folder} --add RUN"
            )
    if not accepted and not refused:
        raise DataError(f"{folder} holds no {RESULT}. Add a run with ltr-report --leaderboard {folder} --add RUN")
    return ResultsFolder(folder, tuple(accepted), tuple(refused), read_costs(folder / COSTS))


def _checked(
    path: Path, splits: Mapping[str, Mapping[str, str]], hashes: dict[str, Path]
) -> tuple[Run | None, list[str]]:
    """Return a run and the reasons to refuse it; no run if it cannot be read."""
    try:
        if path.stat().st_size > _LARGEST:
            return None, [
                f"{path.stat().st_size:,} bytes; allowed are {_LARGEST:,}. Keep the file that ltr-train writes"
            ]
        run = read_run(path.parent)
        if path.with_name(PROVENANCE).is_file():
            _ = run.provenance
    except DataError as error:
        advice = "Restore it from the repository, or add the run again with ltr-report --leaderboard FOLDER --add RUN"
        return None, [str(error).removeprefix(f"{path} ").replace(AGAIN, advice)]
    reasons = [*entry_mistakes(run), *_place_mistakes(run), *_split_mistakes(run, splits)]
    run_hash = str(run.result.get("run_hash", ""))
    if run_hash in hashes:
        reasons.append(f"the same run as {hashes[run_hash]}; a run counts once. Remove one of the two")
    hashes.setdefault(run_hash, path.parent)
    return run, reasons


# -- checks -------------------------------------------------------------------------------------------------------


def entry_mistakes(run: Run) -> list[str]:
    """Return the reasons why a result cannot be in a leaderboard, apart from its folder; empty if it can."""
    result, data, headline = run.result, run.result["data"], run.headline
    reasons = []
    for key, value in (
        ("run_hash", result.get("run_hash")),
        ("group_hash", result.get("group_hash")),
        ("data.split_digest", data.get("split_digest")),
    ):
        if not (isinstance(value, str) and _SHA256.fullmatch(value)):
            reasons.append(f"{key} is {_short(value)}; needed is a SHA-256 in hex. Keep the file that ltr-train writes")
    if not data.get("split") or not data.get("test_images"):
        reasons.append("data names no split with test images; needed are both. Train with the present version of ltr")
    if limited := few_batches(result["config"]):
        reasons.append(f"limited: {limited}; only whole epochs count. Train without this override")
    selection = headline["selection"]
    if selection not in SELECTIONS:
        reasons.append(
            f"its weights were selected by {_short(selection)}; allowed are {' and '.join(SELECTIONS)}. Train with "
            "trainer.selection=last"
        )
    if chosen := _chosen_without_validation(run):
        reasons.append(
            f"{chosen} without validation images; the test set may choose nothing. Train with dataset.val=test_fraction"
        )
    if headline["split"] != "test":
        reasons.append(f"its result is of the split {headline['split']}; needed is test. Train without --split")
    reasons += _metric_mistakes(run)
    if absolute := next(iter(_absolute_paths(result)), None):
        reasons.append(
            f"it holds the path {_short(absolute)} of one machine; paths are left out. Add the run with --add, which "
            "keeps the names of files only"
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
        return [f"its headline row has no value of {_short(name)}, the metric of the run. Keep the file of ltr-train"]
    beyond = [key for key in ("accuracy", "balanced_accuracy", "top5") if not 0 <= number(metrics.get(key, 0.0)) <= 1]
    return (
        [f"{beyond[0]} is {metrics[beyond[0]]}; a fraction lies in [0, 1]. Keep the file of ltr-train"]
        if beyond
        else []
    )


def _place_mistakes(run: Run) -> list[str]:
    expected = run_folder(run)
    location = Path(*run.path.parts[-3:])
    if location.parts[:2] == expected.parts[:2] and run.path.name == expected.name:
        return []
    return [f"it lies in {location}; needed is {expected}. Move the folder, or add the run with --add"]


def run_folder(run: Run) -> Path:
    """Return the place of a run in a results folder: data set / method / name, seed and hash, as below ``outputs``."""
    config = run.result["config"]
    run_hash = str(run.result.get("run_hash", ""))[:8]
    parts = (config.get("dataset.name", "?"), config.get("method.name", "?"))
    name = f"{config.get('name', '?')}-s{config.get('seed', '?')}-{run_hash}"
    return Path(*(re.sub(r"[^\w.=+,-]", "_", str(part)).lstrip(".") or "_" for part in (*parts, name)))


def _split_mistakes(run: Run, splits: Mapping[str, Mapping[str, str]]) -> list[str]:
    line = split_line(run)
    known = splits.get(line["split"])
    if known is None:
        return [
            f"its split {_short(line['split'])} is not listed{nearest(line['split'], splits)}; {SPLITS} has a line for "
            "each split. Add the run with --add, which adds the line of a new split"
        ]
    different = [key for key in SPLIT_COLUMNS[1:] if known[key] != line[key]]
    if not different:
        return []
    key = different[0]
    return [
        f"{key} of its split {line['split']} is {_short(line[key])}; {SPLITS} lists {_short(known[key])}. The "
        "images are others: check the data set's files with ltr-data, and train again"
    ]


def split_line(run: Run) -> dict[str, str]:
    """Return the line of ``splits.csv`` for the split of a run."""
    data = run.result["data"]
    names = {"split": "split", "digest": "split_digest"}
    return {column: str(data.get(names.get(column, column), 0)) for column in SPLIT_COLUMNS}


def read_splits(path: Path) -> dict[str, dict[str, str]]:
    """Return the lines of a ``splits.csv`` by the split's name; none without the file.

    Raises:
        DataError: it cannot be read, has other columns, or lists a split twice.
    """
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            lines, header = list(reader), reader.fieldnames
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}. Restore it from the repository") from error
    columns = ", ".join(SPLIT_COLUMNS)
    if tuple(header or ()) != SPLIT_COLUMNS:
        raise DataError(
            f"{path}: its first line is not the list of the columns {columns}. Restore it from the repository"
        )
    splits: dict[str, dict[str, str]] = {}
    for line_number, line in enumerate(lines, start=2):
        if None in line or None in line.values():
            raise DataError(f"{path}, line {line_number}: a cell is needed for each of {columns}. Mend the line")
        if line["split"] in splits:
            raise DataError(
                f"{path}, line {line_number}: {line['split']} is listed twice; a split has one line. Remove one"
            )
        splits[line["split"]] = dict(line)
    return splits


def read_costs(path: Path) -> dict[str, float]:
    """Return the multiply-accumulate operations of a whole training by the runs' group hash; none without the file.

    They are those of convolutions and matrix products, forward and backward, of all stages of a run.

    Raises:
        DataError: it cannot be read, has other columns, or a cost is not a number above 0.
    """
    if not path.is_file():
        return {}
    again = "Write it again with python scripts/training_operations.py"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            lines, header = list(reader), reader.fieldnames
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}. {again}") from error
    if tuple(header or ()) != COST_COLUMNS:
        raise DataError(f"{path}: its first line is not the list of the columns {', '.join(COST_COLUMNS)}. {again}")
    costs: dict[str, float] = {}
    for line_number, line in enumerate(lines, start=2):
        cost = number(_as_number(line["operations"]))
        if not 0 < cost < float("inf"):
            raise DataError(
                f"{path}, line {line_number}: operations is {_short(line['operations'])}; needed is a number above 0. "
                f"{again}"
            )
        costs[line["group_hash"]] = cost
    return costs


def _as_number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


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


# -- adding -------------------------------------------------------------------------------------------------------


def add_run(folder: Path, path: Path) -> Path:
    """Copy the result of a finished run into a results folder; return the new folder.

    Of paths in the result only the file's name is kept. A split that ``splits.csv`` does not list gets its line.

    Raises:
        DataError: the run is unfinished or damaged.
        ConfigError: the result cannot be in a leaderboard: it is limited, selected on test, or of other images than the
            listed split.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--leaderboard {folder}: a folder of results is needed, and this is a file. Name the folder")
    run = Run(path, json.loads(without_paths(json.dumps(read_run(path).result))))
    splits = read_splits(folder / SPLITS)
    is_new_split = split_line(run)["split"] not in splits
    reasons = [*entry_mistakes(run), *([] if is_new_split else _split_mistakes(run, splits))]
    if reasons:
        more = f" ({counted(len(reasons) - 1, 'more reason')}: {'; '.join(reasons[1:])})" if len(reasons) > 1 else ""
        raise ConfigError(f"--add {path}: {reasons[0]}{more}")
    target = folder / run_folder(run)
    target.mkdir(parents=True, exist_ok=True)
    for name in (PROVENANCE, RESULT):  # the result completes the entry
        if (path / name).is_file():
            write_text(target / name, without_paths((path / name).read_text("utf-8")))
    if is_new_split:
        _write_splits(folder / SPLITS, [*splits.values(), split_line(run)])
    return target


def _write_splits(path: Path, lines: Sequence[Mapping[str, str]]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, SPLIT_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(lines, key=lambda line: line["split"]))
    write_text(path, buffer.getvalue())


def without_paths(text: str) -> str:
    """Return the JSON of a result with the names of files in place of absolute paths."""
    return json.dumps(_shortened(json.loads(text)), indent=1, sort_keys=False) + "\n"


def _shortened(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _shortened(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_shortened(value) for value in node]
    return Path(node).name if isinstance(node, str) and os.path.isabs(node) else node
