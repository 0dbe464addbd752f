"""Folder of results that a repository keeps: ``result.json`` files without weights, each checked before it counts.

    results/splits.csv
    results/costs.csv                                (optional: operations of training)
    results/<data set>/<method>/<name>-s<seed>-<hash>/result.json
                                                     /provenance.json   (optional: commit, hardware, precision)

A result is refused if its epochs are incomplete, if it was selected on test, if its split is not as ``splits.csv``
lists it, or if it is in the folder of another run, see `ltr.report.results_checks`. Schedules that are shorter than the
recipe's have a separate table.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from ltr.errors import ConfigError, DataError
from ltr.files import is_regular, write_text
from ltr.names import counted
from ltr.report.read_run import Run, read_run
from ltr.report.results_checks import (
    COSTS,
    SPLIT_COLUMNS,
    SPLITS,
    entry_mistakes,
    folder_mistakes,
    group_mistakes,
    read_costs,
    read_splits,
    run_folder,
    split_line,
    split_mistakes,
)
from ltr.results import AGAIN
from ltr.writing import check_folder

BOARD = "leaderboard.html"
RESULT, PROVENANCE = "result.json", "provenance.json"
_NAMES = (RESULT, PROVENANCE, SPLITS, COSTS, BOARD)
_LARGEST = 2_000_000  # bytes of a result


@dataclass(frozen=True)
class ResultsFolder:
    """Results of a folder.

    Attributes:
        folder: the folder.
        accepted: the runs that passed all checks, in order of their paths.
        refused: a message for each mistake.
        costs: multiply-accumulate operations of training by group hash, see `ltr.report.results_checks.read_costs`.
    """

    folder: Path
    accepted: tuple[Run, ...] = ()
    refused: tuple[str, ...] = ()
    costs: Mapping[str, float] = field(default_factory=dict)


def read_results_folder(folder: Path) -> ResultsFolder:
    """Read and check all results below a folder.

    Raises:
        DataError: the folder is missing, has no result, or has weights, or its ``splits.csv`` or ``costs.csv`` cannot
            be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder. Give a folder of results, such as results")
    if next(folder.rglob("checkpoints/*.ckpt"), None) is not None:
        raise DataError(
            f"{folder} is a folder of runs with weights; a leaderboard takes only results. Compare the runs with "
            f"ltr-report {quote(str(folder))}, or copy a result: ltr-report --leaderboard results --add RUN"
        )
    splits = read_splits(folder / SPLITS)
    accepted: list[Run] = []
    refused: list[str] = []
    hashes: dict[str, Path] = {}
    groups: dict[str, Run] = {}  # the first accepted run of each
    for path in _entries(folder):
        if path in (folder / SPLITS, folder / COSTS, folder / BOARD):
            continue
        if path.name == RESULT and not path.is_symlink():
            run, reasons = _read_entry(path, splits, hashes)
            if run is not None and not reasons:
                reasons = group_mistakes(run, groups.setdefault(run.result["group_hash"], run))
            refused += [f"{path}: {reason}" for reason in reasons]
            accepted += [run] if run is not None and not reasons else []
        elif path.name != PROVENANCE or path.is_symlink() or not path.with_name(RESULT).is_file():
            refused.append(
                f"{path}: not a file of a result; a run's folder has {RESULT} and may have {PROVENANCE}. Move it "
                f"elsewhere, or add the run with ltr-report --leaderboard {quote(str(folder))} --add RUN"
            )
    if not accepted and not refused:
        raise DataError(
            f"{folder} has no {RESULT}. Add a run with ltr-report --leaderboard {quote(str(folder))} --add RUN"
        )
    return ResultsFolder(folder, tuple(accepted), tuple(refused), read_costs(folder / COSTS))


def _entries(folder: Path) -> list[Path]:
    """Return all files and links below a folder, and folders that are named as files, in order.

    Raises:
        DataError: a folder cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed: {error.strerror}. Make it readable") from error

    paths = []
    for directory, folders, files in os.walk(folder, onerror=fail):
        above = Path(directory)
        paths += [above / name for name in files]
        paths += [path for name in folders if (path := above / name).is_symlink() or name in _NAMES]
    return sorted(paths)


def _read_entry(
    path: Path, splits: Mapping[str, Mapping[str, str]], hashes: dict[str, Path]
) -> tuple[Run | None, list[str]]:
    """Return a run, None if it cannot be read, and the reasons to refuse it."""
    if not is_regular(path):
        return None, ["not a regular file. Restore it from the repository"]
    size = path.stat().st_size
    if size > _LARGEST:
        return None, [f"{size:,} bytes; allowed are {_LARGEST:,}. Keep the file that ltr-train writes"]
    try:
        run = read_run(path.parent)
        if os.path.lexists(path.with_name(PROVENANCE)):
            _ = run.provenance
    except DataError as error:
        advice = "Restore it from the repository, or add the run again with ltr-report --leaderboard FOLDER --add RUN"
        return None, [str(error).removeprefix(f"{path} ").replace(AGAIN, advice)]
    reasons = [*entry_mistakes(run), *folder_mistakes(run), *split_mistakes(run, splits)]
    run_hash = str(run.result.get("run_hash", ""))
    if run_hash in hashes:
        reasons.append(f"the same run as {hashes[run_hash]}, and a run counts once. Remove one of them")
    hashes.setdefault(run_hash, path.parent)
    return run, reasons


def add_run(folder: Path, path: Path) -> Path:
    """Copy the result of a finished run into a results folder, see `add_runs`; return the new folder."""
    return add_runs(folder, [path])[0]


def add_runs(folder: Path, paths: Sequence[Path]) -> list[Path]:
    """Copy the results of finished runs into a results folder; return the new folders.

    All are checked before the first one is written. Absolute paths in a result are replaced by file names. A new split
    gets a line in ``splits.csv``.

    Raises:
        DataError: a run is unfinished or damaged.
        ConfigError: a result is refused: it is limited, selected on test, in the folder already under another path, or
            its split is not as listed.
        LtrError: the folder is not writable.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--leaderboard {folder}: a folder of results is needed, and this is a file. Give the folder")
    splits = read_splits(folder / SPLITS)
    listed = len(splits)
    entry_folders = _entry_folders(folder)
    texts: dict[Path, dict[str, str]] = {}
    for path in paths:
        finished = read_run(path)
        run = Run(path, json.loads(without_paths(json.dumps(finished.result))))
        line, target = split_line(run), folder / run_folder(run)
        check_folder(target, f"--add {path}: {target}")
        is_new_split = line["split"] not in splits
        reasons = [*entry_mistakes(run), *([] if is_new_split else split_mistakes(run, splits))]
        reasons += _target_mistakes(folder, target, entry_folders.setdefault(str(run.result.get("run_hash")), target))
        if reasons:
            rest = "; ".join(reasons[1:])
            more = f" ({counted(len(reasons) - 1, 'more reason')}: {rest})" if len(reasons) > 1 else ""
            raise ConfigError(f"--add {path}: {reasons[0]}{more}")
        names = [RESULT]  # it completes the entry
        if os.path.lexists(path / PROVENANCE):
            _ = finished.provenance  # raises for a damaged one
            names.insert(0, PROVENANCE)
        texts[target] = {name: without_paths((path / name).read_text("utf-8")) for name in names}
        if is_new_split:
            splits[line["split"]] = line
    if len(splits) > listed:
        _write_splits(folder / SPLITS, list(splits.values()))
    for target, files in texts.items():
        for name, text in files.items():
            write_text(target / name, text)
    return list(texts)


def _entry_folders(folder: Path) -> dict[str, Path]:
    """Return the folders of a results folder's entries by run hash, without those that cannot be read."""
    entry_folders: dict[str, Path] = {}
    for path in _entries(folder) if folder.is_dir() else ():
        if path.name == RESULT and is_regular(path) and not path.is_symlink():
            try:
                entry_folders.setdefault(str(read_run(path.parent).result.get("run_hash")), path.parent)
            except DataError:
                continue
    return entry_folders


def _target_mistakes(folder: Path, target: Path, present: Path) -> list[str]:
    """Return the reasons why a result cannot be written to a folder."""
    if present != target:
        return [f"the same run as {present}, and a run counts once. Remove one of them"]
    inside = [target / RESULT, target / PROVENANCE, target, *target.parents]
    links = [path for path in inside if path.is_symlink() and folder in path.parents]
    return [f"{link} is a link; an entry is a folder with files. Remove the link" for link in links[:1]]


def _write_splits(path: Path, lines: Sequence[Mapping[str, str]]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, SPLIT_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(lines, key=lambda line: line["split"]))
    write_text(path, buffer.getvalue())


def without_paths(text: str) -> str:
    """Return the JSON of a result with file names instead of absolute paths."""
    return json.dumps(_shorten_paths(json.loads(text)), indent=1) + "\n"


def _shorten_paths(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _shorten_paths(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_shorten_paths(value) for value in node]
    return Path(node).name if isinstance(node, str) and os.path.isabs(node) else node
