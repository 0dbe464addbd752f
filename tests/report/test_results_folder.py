"""Checks of a folder of results: what is accepted, and each reason to refuse a file."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from made_up_outputs import digest, write

from ltr.errors import ConfigError, DataError, LtrError
from ltr.report.leaderboard import leaderboard_rows
from ltr.report.leaderboard_html import leaderboard_html
from ltr.report.read_run import read_run
from ltr.report.results_checks import SPLIT_COLUMNS, read_splits, run_folder, split_line
from ltr.report.results_folder import add_run, add_runs, read_results_folder


@pytest.fixture
def folder(tmp_path) -> Path:
    """A results folder with ERM of two seeds and cRT."""
    for method, seed in (("erm", 0), ("erm", 1), ("crt", 0)):
        add_run(tmp_path / "results", write(tmp_path / "outputs", method, seed))
    return tmp_path / "results"


def a_result(folder: Path) -> Path:
    return next(folder.glob("cifar10_lt/crt/*/result.json"))


def change(path: Path, **changes) -> None:
    """Change keys of a ``result.json``; ``a__b`` is key b of the mapping a."""
    result = json.loads(path.read_text())
    for key, value in changes.items():
        *outer, last = key.split("__")
        node = result
        for name in outer:
            node = node[int(name)] if name.isdigit() else node[name]
        node[last] = value
    path.write_text(json.dumps(result))


def test_added_runs_are_accepted(folder):
    results = read_results_folder(folder)
    assert results.refused == ()
    assert [run.path.parts[-2] for run in results.accepted] == ["crt", "erm", "erm"]


def test_a_row_needs_one_file(folder):
    assert {path.name for path in folder.rglob("*.json")} == {"result.json"}


def test_adding_a_run_twice_changes_nothing(folder, tmp_path):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    add_run(folder, next((tmp_path / "outputs").glob("cifar10_lt/crt/*")))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"run_hash": "abc"}, "run_hash is abc; needed is a SHA-256"),
        ({"group_hash": ""}, "group_hash is ; needed"),
        ({"data__split_digest": "0" * 64}, "digest of its split"),
        ({"data__split": "another"}, "its split another is not listed"),
        ({"data__test_images": 9999}, "test_images of its split"),
        ({"data__test_images": 0}, "lacks the split or its number of test images"),
        ({"config__trainer.limit_train_batches": 4}, "limited: 4 batches an epoch"),
        ({"rows__0__selection": "best_test"}, "selected by best_test; allowed are last and best_val"),
        ({"rows__0__selection": "best_val"}, "selected on validation without validation images"),
        ({"config__method.tau": "auto"}, "method.tau=auto was chosen without validation images"),
        ({"rows__0__split": "val"}, "on the split val; needed is test"),
        ({"rows__0__metrics": {"nll": 1.0}}, "no value of balanced_accuracy"),
        ({"rows__0__metrics__accuracy": 38.2}, "accuracy is 38.2; a fraction lies in [0, 1]"),
        ({"rows__0__metrics__few": 7.5}, "few is 7.5; a fraction lies in [0, 1]"),
        ({"rows__0__metrics__ece": -0.1}, "ece is -0.1; a fraction lies in [0, 1]"),
        ({"data__fingerprint": "zz"}, "data.fingerprint is zz; needed is a SHA-256"),
        ({"config__backbone.weights": "/home/me/w.pth"}, "contains the absolute path /home/me/w.pth"),
        ({"config__seed": 7}, "needed is cifar10_lt/crt/crt-s7-"),
        ({"schema_version": 99}, "layout 99"),
        ({"rows": []}, "lacks rows"),
    ],
)
def test_a_file_is_refused_with_its_reason(folder, changes, reason):
    path = a_result(folder)
    change(path, **changes)
    results = read_results_folder(folder)
    assert len(results.accepted) == 2
    assert any(reason in line for line in results.refused), results.refused
    assert all(line.startswith(str(path)) for line in results.refused)


def test_members_of_a_group_have_the_same_settings(folder):
    first, second = sorted(folder.glob("cifar10_lt/erm/*/result.json"))
    assert read_results_folder(folder).refused == ()
    change(second, config__of_a_later_version=True)
    assert read_results_folder(folder).refused == ()
    change(second, **{"config__trainer.max_epochs": 100})
    (line,) = read_results_folder(folder).refused
    assert line.startswith(f"{second}: trainer.max_epochs is 100, and 200 in ")
    assert f"in {first.parent}, which has the same group_hash" in line


def test_a_short_schedule_is_accepted(folder):
    change(a_result(folder), **{"config__trainer.max_epochs": 30})
    assert read_results_folder(folder).refused == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("group_hash,operations\nab,1\n", "the first line must name the columns"),
        ("group_hash,run,epochs,operations\nab,erm,30,many\n", "line 2: operations is many"),
        ("group_hash,run,epochs,operations\nab,erm,30,0\n", "a number above 0"),
    ],
)
def test_invalid_costs_are_refused(folder, text, message):
    (folder / "costs.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_results_folder(folder)


def test_costs_belong_to_a_folder(folder):
    (folder / "costs.csv").write_text("group_hash,run,epochs,operations\nab,erm,30,6.7e13\n")
    results = read_results_folder(folder)
    assert (results.costs, results.refused) == ({"ab": 6.7e13}, ())


def test_a_run_counts_once(folder):
    shutil.copytree(a_result(folder).parent, folder / "elsewhere" / "crt" / a_result(folder).parent.name)
    results = read_results_folder(folder)
    assert len(results.accepted) == 2 + 1
    assert any("the same run as" in line for line in results.refused)


@pytest.mark.parametrize("name", ["final.ckpt", "cifar10_lt/crt/notes.txt", "cifar10_lt/crt/provenance.json"])
def test_other_files_are_refused(folder, name):
    (folder / name).write_text("{}")
    (line,) = read_results_folder(folder).refused
    assert "not a file of a result" in line


def test_a_link_is_refused(folder, tmp_path):
    target = a_result(folder)
    outside = tmp_path / "outside.json"
    target.rename(outside)
    target.symlink_to(outside)
    (line,) = read_results_folder(folder).refused
    assert "not a file of a result" in line


def test_a_damaged_provenance_is_refused(folder):
    a_result(folder).with_name("provenance.json").write_text('{"code": 3}')
    (line,) = read_results_folder(folder).refused
    assert "provenance.json" in line


def test_a_large_file_is_refused(folder):
    change(a_result(folder), padding="x" * 2_100_000)
    (line,) = read_results_folder(folder).refused
    assert "allowed are 2,000,000" in line


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("split,digest\na,b\n", "columns"),
        (f"{','.join(SPLIT_COLUMNS)}\na,b\n", "line 2"),
        (f"{','.join(SPLIT_COLUMNS)}\na,b,1,0,1,0,2\na,b,1,0,1,0,2\n", "twice"),
        ("\x00", "splits.csv"),
    ],
)
def test_a_wrong_list_of_splits_is_an_error(folder, text, reason):
    (folder / "splits.csv").write_text(text)
    with pytest.raises(DataError, match=reason):
        read_results_folder(folder)


def test_a_new_split_gets_its_line_and_a_known_one_is_compared(folder, tmp_path):
    run = write(tmp_path / "outputs", "lws", split='new, with "comma"')
    add_run(folder, run)
    line = read_splits(folder / "splits.csv")['new, with "comma"']
    assert line == split_line(read_run(run))
    assert line["digest"] == digest('new, with "comma"')
    other = write(tmp_path / "outputs", "ncm")
    change(other / "result.json", data__split_digest=digest("others"))
    with pytest.raises(ConfigError, match="digest of its split"):
        add_run(folder, other)
    assert not list(folder.glob("*/ncm"))


def test_added_results_contain_file_names_without_folders(folder, tmp_path):
    run = write(tmp_path / "outputs", "lws", config={"backbone.weights": "/home/me/w.pth"})
    (run / "provenance.json").write_text('{"device": "a CPU", "packages": {"x": "/opt/x"}}')
    target = add_run(folder, run)
    assert '"/' not in (target / "result.json").read_text() + (target / "provenance.json").read_text()
    assert json.loads((target / "result.json").read_text())["config"]["backbone.weights"] == "w.pth"


def content(folder: Path) -> dict[Path, object]:
    return {path: path.read_bytes() if path.is_file() else path.is_symlink() for path in folder.rglob("*")}


def in_config(key: str, value: object):
    return lambda run, folder: change(run / "result.json", **{f"config__{key}": value})


def in_provenance(text: bytes):
    return lambda run, folder: (run / "provenance.json").write_bytes(text)


def replace_splits(run: Path, folder: Path) -> None:
    (folder / "splits.csv").unlink()
    (folder / "splits.csv").mkdir()


def entry_of(run: Path, folder: Path) -> Path:
    return folder / run_folder(read_run(run))


def link_entry(run: Path, folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    entry_of(run, folder).parent.symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda run, folder: (run / "result.json").write_text("{"), "cannot be read"),
        (lambda run, folder: change(run / "result.json", schema_version=9), "has layout 9"),
        (in_provenance(b"{"), "cannot be read"),
        (in_provenance(b"\xff"), "cannot be read"),
        (in_provenance(b"[" * 100_000), "cannot be read"),
        (in_provenance(b"[]"), "is damaged"),
        (lambda run, folder: os.mkfifo(run / "provenance.json"), "is not a regular file"),
        (in_config("name", "x" * 300), "a name in it is longer than 255 bytes"),
        (in_config("dataset.name", "x" * 300), "a name in it is longer than 255 bytes"),
        (lambda run, folder: change(run / "result.json", data__split="a\nb"), "is no name in one line"),
        (lambda run, folder: change(run / "result.json", data__split="a\udc80b"), "is no name in one line"),
        (lambda run, folder: change(run / "result.json", run_hash="0" * 63), "needed is a SHA-256 in hex"),
        (
            lambda run, folder: change(
                run / "result.json", run_hash=read_run(a_result(folder).parent).result["run_hash"]
            ),
            "the same run as",
        ),
        (link_entry, "is a link; an entry is a folder with files"),
        (lambda run, folder: entry_of(run, folder).parent.write_text("a file"), "a folder is needed, and .* is a file"),
        (replace_splits, "splits.csv is not a regular file"),
    ],
)
def test_a_run_that_is_not_added_changes_nothing_and_no_other_is_added_beside_it(folder, tmp_path, spoil, reason):
    good, bad = write(tmp_path / "outputs", "tau_norm"), write(tmp_path / "outputs", "lws")
    spoil(bad, folder)
    before = content(folder)
    with pytest.raises(LtrError, match=reason) as error:
        add_runs(folder, [good, bad])
    assert len(str(error.value).splitlines()) == 1
    assert content(folder) == before


def test_names_with_markup_do_not_reach_paths_or_html(folder, tmp_path):
    name = "<script>alert('x')</script>"
    target = add_run(folder, write(tmp_path / "outputs", "lws", config={"name": "x"}))
    change(target / "result.json", config__name=name)
    target.rename(target.with_name(run_folder(read_run(target)).name))
    results = read_results_folder(folder)
    assert not results.refused
    assert name not in leaderboard_html(leaderboard_rows(results))


@pytest.mark.parametrize("name", ["result.json", "provenance.json", "splits.csv", "costs.csv"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_a_folder_or_a_pipe_named_as_a_file_is_refused(folder, name, make):
    path = a_result(folder).with_name(name) if name.endswith("json") else folder / name
    path.unlink(missing_ok=True)
    make(path)
    try:
        messages = list(read_results_folder(folder).refused)
    except DataError as error:
        messages = [str(error)]
    assert any(str(path) in message and "not a regular file" in message for message in messages), messages


def test_a_limited_run_is_not_added(folder, tmp_path):
    run = write(tmp_path / "outputs", "lws", config={"trainer.limit_train_batches": 1}, selection="best_test")
    with pytest.raises(ConfigError, match=r"limited: 1 batch .*1 more reason.*best_test"):
        add_run(folder, run)


def test_a_result_path_stays_inside_the_folder(tmp_path):
    folder = write(tmp_path, "erm")
    names = {"name": "../../x", "dataset.name": "..", "method.name": "/etc"}
    change(folder / "result.json", **{f"config__{key}": value for key, value in names.items()})
    location = run_folder(read_run(folder))
    assert len(location.parts) == 3
    assert not location.is_absolute()
    assert ".." not in location.parts


def test_a_folder_of_runs_is_refused_in_one_message(tmp_path):
    weights = tmp_path / "erm" / "erm-s0" / "checkpoints" / "final.ckpt"
    weights.parent.mkdir(parents=True)
    weights.touch()
    with pytest.raises(DataError, match=r"is a folder of runs with weights.* --leaderboard results --add RUN"):
        read_results_folder(tmp_path)


def test_adding_to_a_file_is_refused(folder, tmp_path):
    (tmp_path / "afile").write_text("")
    with pytest.raises(ConfigError, match="a folder of results is needed"):
        add_run(tmp_path / "afile", a_result(folder).parent)


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir])
def test_a_folder_without_results_is_an_error(tmp_path, make):
    make(tmp_path / "results")
    with pytest.raises(DataError, match="results"):
        read_results_folder(tmp_path / "results")
