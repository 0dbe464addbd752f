"""Runs with damaged files: every command names and skips them."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ltr.cli import run_guarded

NOT_FORESEEN = "not a mistake that ltr foresees"
VALUES: tuple[Any, ...] = (None, "x", "", -1, 1.5, 10**400, math.nan, math.inf, [], ["x"], {}, {"a": None}, True)
HUGE = "x" * 100_000
DELETED = object()
FILES = (
    "metrics.csv",
    "predictions.parquet",
    "per_class.parquet",
    "result.json",
    "status.json",
    "config.yaml",
    "provenance.json",
    "split.npz",
    "figures/training_curves.png",
    "artifacts/draws.npz",
    "artifacts/examples.npz",
)
FORMATS = ("table", "markdown", "latex", "csv", "html")


def places(node: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys of everything in a JSON value, of containers too."""
    if here:
        yield here
    if isinstance(node, dict):
        for key, value in node.items():
            yield from places(value, (*here, key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from places(value, (*here, number))


def changed(node: Any, path: tuple[Any, ...], value: Any) -> Any:
    damaged = copy.deepcopy(node)
    parent = damaged
    for key in path[:-1]:
        parent = parent[key]
    if value is DELETED:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return damaged


@pytest.fixture
def two_runs(finished_run, tmp_path) -> tuple[Path, Path]:
    """A good run and one to damage, below ``outputs``."""
    folders = []
    for name in ("good", "bad"):
        folder = tmp_path / "outputs" / "digits_lt" / "erm" / name
        shutil.copytree(finished_run, folder)
        result = json.loads((folder / "result.json").read_text())
        result["config"]["name"] = name
        (folder / "result.json").write_text(json.dumps({**result, "run_hash": name, "group_hash": name}))
        folders.append(folder)
    return folders[0], folders[1]


@pytest.fixture(scope="module")
def published():
    from ltr.report.published_lookup import PublishedNumbers

    return PublishedNumbers()


@pytest.fixture
def report(tmp_path, capsys, monkeypatch, published):
    """Run ``ltr-report outputs`` in-process; what is wrong with the outcome fails the test."""
    from ltr.commands.report import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ltr.report.compose.PublishedNumbers", lambda: published)  # reading the configs takes the time

    def run(*arguments: str, code: int = 0) -> tuple[str, str]:
        assert run_guarded(lambda: main(["outputs", *arguments])) == code, capsys.readouterr()
        captured = capsys.readouterr()
        assert NOT_FORESEEN not in captured.err, captured.err
        config = tmp_path / "outputs" / "report.html"
        return (config.read_text() if "html" in arguments else captured.out), captured.err

    return run


def test_no_damaged_value_of_a_result_stops_the_report(two_runs, report):
    """Set each key to some of the values; every format is made for some of the changes."""
    _, bad = two_runs
    good = json.loads((bad / "result.json").read_text())
    named = 0
    for number, index in enumerate(places(good)):
        values = [*VALUES, HUGE, DELETED]
        for step in range(2):
            value = values[(2 * number + step) % len(values)]
            (bad / "result.json").write_text(json.dumps(changed(good, index, value)))
            form = FORMATS[(number + step) % len(FORMATS)]
            more = ("--against", "good") if number % 3 == 0 else ("--metric", "all") if number % 3 == 1 else ()
            out, err = report("--format", form, *more)
            assert "good" in out, (index, value)
            named += "bad/result.json" in err
    assert named > 50  # the check is not empty


@pytest.mark.parametrize(
    "value", [None, "../x", [], {}, 1.5, True, DELETED], ids=lambda value: "deleted" if value is DELETED else str(value)
)
def test_a_value_that_tables_calculate_with_is_named(two_runs, report, value):
    _, bad = two_runs
    good = json.loads((bad / "result.json").read_text())
    for index in [
        ("config", "seed"),
        ("rows", 0, "protocol"),
        ("rows", 0, "metrics"),
        ("rows",),
    ]:
        if index == ("config", "seed") and value is DELETED:
            continue
        (bad / "result.json").write_text(json.dumps(changed(good, index, value)))
        out, err = report()
        assert "bad/result.json" in err, index
        assert "good" in out


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b"[]"], ids=list("abcdef"))
@pytest.mark.parametrize("name", FILES)
def test_no_damaged_file_stops_the_report(two_runs, report, name, content):
    _, bad = two_runs
    (bad / name).parent.mkdir(exist_ok=True)
    (bad / name).write_bytes(content)
    out, _ = report("--format", "html", "--against", "good")
    assert "good" in out


@pytest.mark.parametrize("table", ["predictions", "per_class"])
def test_tables_of_other_kinds_are_named(two_runs, report, table):
    """Replace or remove every column of a table: figures, classes and pairs are still made."""
    _, bad = two_runs
    path = bad / f"{table}.parquet"
    whole = pq.read_table(path)
    for name in whole.column_names:
        for kind in ("text", "nothing", "lists", "without"):
            column = {
                "text": pa.array(["x"] * whole.num_rows),
                "nothing": pa.nulls(whole.num_rows),
                "lists": pa.array([[]] * whole.num_rows, pa.list_(pa.float32())),
            }.get(kind)
            index = whole.column_names.index(name)
            pq.write_table(
                whole.remove_column(index) if column is None else whole.set_column(index, name, column), path
            )
            out, _ = report("--format", "html", "--against", "good")
            assert "good" in out, (name, kind)


def test_figures_of_a_damaged_run_are_named_and_other_figures_made(two_runs, report):
    good, bad = two_runs
    (bad / "artifacts").mkdir(exist_ok=True)
    np.savez(bad / "artifacts" / "examples.npz", images=np.zeros(3), selected_1=np.zeros(3))
    (bad / "metrics.csv").write_text("stage,epoch\nmain,x\n")
    _, err = report("--figures", "two")
    assert "metrics.csv" in err
    assert "selected_locations cannot be drawn" in err
    for run in (good, bad):
        assert (run / "figures" / "accuracy_by_frequency.png").is_file()


def test_a_folder_linked_into_itself_is_read_once(two_runs, report, tmp_path):
    (tmp_path / "outputs" / "digits_lt" / "again").symlink_to(tmp_path / "outputs")
    (tmp_path / "outputs" / "loop").symlink_to(tmp_path / "outputs" / "loop")
    out, err = report()
    assert "good" in out
    assert "two places" not in err
