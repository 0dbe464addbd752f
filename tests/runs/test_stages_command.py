"""ltr-stages: list, show and prune."""

from __future__ import annotations

import json
import os
import time

import pytest

from ltr.commands.stages import main, seconds
from ltr.errors import ConfigError, LtrError
from ltr.runs.store import RECORD, StageStore

DAY = 86400


@pytest.fixture
def store(tmp_path):
    """Three finished stages, 0, 10 and 40 days old, and one that is unfinished."""
    store = StageStore(tmp_path)
    for number, age in enumerate((0, 10, 40)):
        key = f"{number}{'f' * 63}"
        store.folder(key).mkdir()
        (store.folder(key) / "weights.ckpt").write_bytes(b"w" * 1000)
        spec = {"target": "ltr.methods.core.network.ImageClassifier", "seed": number, "settings": {"epochs": 3}}
        store.finish(key, spec, 2.0, {"name": "representation"})
        os.utime(store.folder(key) / RECORD, (time.time() - age * DAY,) * 2)
    (tmp_path / "unfinished" / "state").mkdir(parents=True)
    return store


def keys(store):
    return sorted(stage["key"][0] for stage in store.finished())


def test_the_list_has_one_line_per_stage_newest_first(store, capsys):
    assert main(["--stages", str(store.root), "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines[1:]] == ["0", "1", "2"]
    assert "image_classifier" in lines[1]
    assert "10d ago" in lines[2] or "1w ago" in lines[2]


@pytest.mark.parametrize("before", [[], ["--stages", "/no/such/folder"]])
def test_the_store_may_be_named_behind_the_command(store, before, capsys):
    assert main([*before, "list", "--stages", str(store.root)]) == 0
    assert main([*before, "show", "0", "--stages", str(store.root)]) == 0
    assert main([*before, "prune", f"--stages={store.root}", "--older-than", "30d"]) == 0
    assert keys(store) == ["0", "1"]
    with pytest.raises(ConfigError, match="--stages /no/such/folder: there is no such folder"):
        main(["list", "--stages", "/no/such/folder"])


def test_a_flag_of_another_command_gets_that_command():
    with pytest.raises(ConfigError, match="--keep-last 3; --keep-last is a flag of ltr-stages prune\n"):
        main(["list", "--keep-last", "3"])


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        pytest.param({"checkpoint": "ab12"}, "(checkpoint)", id="a network from a checkpoint"),
        pytest.param(
            {"target": "ltr.methods.background_splitting.pseudo_labels.of", "settings": {"epochs": 3}},
            "of ",
            id="without a seed",
        ),
    ],
)
def test_the_list_shows_stages_that_were_not_trained(store, spec, shown, capsys):
    key = "a" * 64
    store.folder(key).mkdir()
    store.finish(key, spec, 0.5, {"name": "teacher"})
    assert main(["--stages", str(store.root), "list"]) == 0
    assert shown in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("a" * 12))


def test_an_empty_store_is_reported(tmp_path, capsys):
    assert main(["--stages", str(tmp_path), "list"]) == 0
    assert "no finished stages" in capsys.readouterr().out


def test_show_accepts_the_beginning_of_a_key(store, capsys):
    assert main(["--stages", str(store.root), "show", "1f"]) == 0
    assert "seed: 1" in capsys.readouterr().out


def test_show_refuses_a_key_that_is_not_one_stage(store):
    with pytest.raises(LtrError, match="ltr-stages list"):
        main(["--stages", str(store.root), "show", "9"])


def test_an_empty_key_is_refused(store):
    with pytest.raises(ConfigError, match="the argument '' after show is empty"):
        main(["--stages", str(store.root), "show", ""])


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--older-than", "30d"], ["0", "1"]),
        (["--older-than", "5d"], ["0"]),
        (["--older-than", "5d", "--keep-last", "2"], ["0", "1"]),
        (["--keep-last", "1"], ["0"]),
        (["--keep-last", "5"], ["0", "1", "2"]),
    ],
)
def test_prune_deletes_old_finished_stages_only(store, options, left, capsys):
    assert main(["--stages", str(store.root), "prune", "--dry-run", *options]) == 0
    assert keys(store) == ["0", "1", "2"]
    assert main(["--stages", str(store.root), "prune", *options]) == 0
    assert keys(store) == left
    assert (store.root / "unfinished" / "state").is_dir()


def test_a_stage_in_use_is_not_pruned(store, capsys):
    key = next(stage["key"] for stage in store.finished() if stage["key"][0] == "2")
    with store.locked(key, "representation"):
        main(["--stages", str(store.root), "prune", "--older-than", "30d"])
    assert "a run is using it" in capsys.readouterr().out
    assert "2" in keys(store)


def test_prune_without_a_limit_is_refused(store):
    with pytest.raises(ConfigError, match="every stage"):
        main(["--stages", str(store.root), "prune"])


@pytest.mark.parametrize("duration", ["30", "d", "-3d", "3 days", "3y"])
def test_a_duration_that_cannot_be_read_is_refused(duration):
    with pytest.raises(ConfigError, match="such as 30d"):
        seconds(duration)


@pytest.mark.parametrize("command", ["list", "show", "prune"])
@pytest.mark.parametrize(
    "change",
    [
        {"spec": None},
        {"spec": []},
        {"spec": {"target": 1}},
        {"spec": {"settings": []}},
        {"seconds": "x"},
        {"seconds": None},
        {"seconds": float("inf")},
        {"name": {}},
        {"spec": {"seed": [1], "settings": {"epochs": {}}}},
        {"name": "a\x1b[2Jb\nc"},
        "[]",
        "{",
        "[" * 100_000,
    ],
    ids=lambda change: ascii(change)[:30],
)
def test_a_damaged_record_is_named_and_other_stages_are_listed(store, change, command, capsys):
    key = "a" * 64
    store.folder(key).mkdir()
    store.finish(key, {"target": "ltr.methods.core.network.ImageClassifier", "seed": 0}, 1.0, {"name": "main"})
    path = store.folder(key) / RECORD
    record = json.loads(path.read_text())
    path.write_text(change if isinstance(change, str) else json.dumps({**record, **change}))
    more = {"list": [], "show": ["0f"], "prune": ["--older-than", "1d", "--dry-run"]}[command]
    assert main(["--stages", str(store.root), command, *more]) == 0
    captured = capsys.readouterr()
    shown = {"list": "0fffffffffff", "show": "ImageClassifier", "prune": "would delete 2"}[command]
    assert shown in captured.out
    assert "\x1b" not in captured.out + captured.err
    assert command != "list" or "a" * 12 in captured.out + captured.err


def test_a_negative_number_to_keep_is_refused_and_nothing_is_deleted(store):
    with pytest.raises(ConfigError, match="--keep-last -1: allowed is 0 or more"):
        main(["--stages", str(store.root), "prune", "--keep-last", "-1"])
    assert keys(store) == ["0", "1", "2"]


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_a_store_that_is_no_folder_is_refused(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=f"--stages .*{name}: (there is no such|it is no) folder"):
        main(["--stages", str(tmp_path / name), "list"])


def test_without_a_store_of_the_usual_name_there_are_no_stages(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 0
    assert "no finished stages in outputs/stages" in capsys.readouterr().out


def test_a_pipe_named_as_a_record_is_skipped(store, capsys):
    record = store.folder(f"0{'f' * 63}") / RECORD
    record.unlink()
    os.mkfifo(record)
    assert main(["--stages", str(store.root), "list"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3
    assert "it is not a regular file" in captured.err
