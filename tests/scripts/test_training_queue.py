"""The queue of reproduce.py: order, a copy of its state that brings a lost folder back, results without paths."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import reproduce as script
import training_queue
from ltr.configuration.tables import table_rows
from training_queue import QueueFolders, keep_results, mirror, restore


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_shipped_rows_are_configs():
    assert set(training_queue.ROWS) <= {row.config for row in table_rows()}
    assert len(set(training_queue.ROWS)) == len(training_queue.ROWS)


def test_rows_keep_the_order_of_the_queue():
    arguments = script.parse_arguments(["--queue", "cifar10_lt_ldam_drw", "cifar10_lt_erm", "--seeds", "2"])
    assert [row.config for row in script.rows_of(arguments)] == ["cifar10_lt_ldam_drw", "cifar10_lt_erm"]
    assert (arguments.epochs, arguments.val) == (None, None)


def test_each_row_of_the_queue_has_the_schedule_of_its_experiment():
    arguments = script.parse_arguments(["--queue", "cifar100_lt_ride", "cifar100_lt_remix_drw", "cifar10_lt_remix_drw"])
    jobs = script.jobs_of(script.rows_of(arguments), arguments, {})
    assert [job.config["trainer"]["max_epochs"] for job in jobs] == [200, 300, 200]


def test_the_short_queue_has_longer_baselines_after_all_methods(tmp_path):
    assert {row for row, _ in training_queue.SHORT_ROWS} <= {row.config for row in table_rows()}
    arguments = script.parse_arguments(["--queue", "--short", "--val", "none"])
    lengths = [(job.row.config, job.config["trainer"]["max_epochs"]) for job in script.jobs_of(
        script.rows_of(arguments), arguments, {}
    )]  # fmt: skip
    assert sorted(lengths) == sorted(training_queue.SHORT_ROWS)
    first = sum(epochs == 30 for _, epochs in lengths)
    assert all(epochs == 30 for _, epochs in lengths[:first])
    assert script.command(arguments) == "python scripts/reproduce.py --queue --short --seeds 1 --val none"


def test_rows_that_are_named_have_thirty_epochs_in_the_short_queue():
    arguments = script.parse_arguments(["--queue", "--short", "cifar100_lt_erm"])
    assert (arguments.tables, arguments.epochs, arguments.lengths) == (["cifar100_lt_erm"], 30, {})


def test_short_rows_belong_to_the_queue(capsys):
    with pytest.raises(SystemExit):
        script.parse_arguments(["small", "--short"])
    assert "--short belongs to --queue" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--state", "--results"])
def test_folders_of_the_queue_are_refused_without_it(option, capsys):
    with pytest.raises(SystemExit) as stopped:
        script.parse_arguments(["small", option, "folder"])
    assert stopped.value.code == 2
    assert f"{option} belongs to --queue" in capsys.readouterr().err


def test_a_mirror_follows_changes_and_removals(tmp_path):
    original, copy = tmp_path / "original", tmp_path / "copy"
    write(original / "state" / "last.ckpt", "one")
    write(original / "old.txt", "old")
    mirror(original, copy)
    assert files(copy) == files(original)
    (original / "old.txt").unlink()
    changed = write(original / "state" / "last.ckpt", "two")
    os.utime(changed, (1e9, 1e9))
    mirror(original, copy)
    assert files(copy) == {"state/last.ckpt": "two"}


def test_a_lost_working_folder_is_restored(tmp_path):
    stages, outputs, state = tmp_path / "stages", tmp_path / "runs", tmp_path / "copy"
    write(stages / "aa" / "state" / "last.ckpt", "epoch 7")
    write(stages / "other" / "weights.ckpt", "not of this queue")
    run = write(outputs / "digits" / "erm" / "erm-s0" / "config.yaml", "seed: 0").parent
    before = files(run), files(stages / "aa")
    QueueFolders(stages, outputs, state, None, frozenset({"aa", "not begun"}), (run,)).save()
    shutil.rmtree(stages)
    shutil.rmtree(outputs)
    assert restore(state, stages, outputs) == 2
    assert (files(run), files(stages / "aa")) == before
    assert [path.name for path in stages.iterdir()] == ["aa"]
    write(run / "config.yaml", "seed: 1")
    assert restore(state, stages, outputs) == 0, "what is there is newer than its copy"
    assert (run / "config.yaml").read_text() == "seed: 1"


def queue_of_a_stage(tmp_path: Path) -> tuple[QueueFolders, Path, Path]:
    """Return a queue of one interrupted stage that has been copied, the stage's folder and its copy."""
    stages, state = tmp_path / "stages", tmp_path / "copy"
    write(stages / "aa" / "state" / "last.ckpt", "epoch 7")
    write(stages / "aa" / "metrics.csv", "7")
    folders = QueueFolders(stages, tmp_path / "runs", state, None, frozenset({"aa"}), ())
    folders.save()
    return folders, stages / "aa", state / "stages" / "aa"


def test_a_restore_that_is_cut_off_leaves_no_half_made_folder(tmp_path, monkeypatch):
    folders, stage, copy = queue_of_a_stage(tmp_path)
    before = files(copy)
    shutil.rmtree(stage)

    def killed(source, target):
        if target.name.startswith(".last"):
            raise KeyboardInterrupt
        return shutil.copyfile(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(training_queue.shutil, "copy2", killed)
        with pytest.raises(KeyboardInterrupt):
            restore(folders.state, folders.stages, folders.outputs)
    assert not stage.exists()
    folders.save()
    assert files(copy) == before
    assert restore(folders.state, folders.stages, folders.outputs) == 1
    assert files(stage) == before
    assert [path.name for path in folders.stages.iterdir()] == ["aa"]


def test_a_stage_that_was_lost_in_part_deletes_nothing_from_its_copy_and_is_restored(tmp_path):
    folders, stage, copy = queue_of_a_stage(tmp_path)
    before = files(copy)
    (stage / "state" / "last.ckpt").unlink()
    folders.save()
    assert files(copy) == before
    assert restore(folders.state, folders.stages, folders.outputs) == 1
    assert files(stage) == before


def test_the_training_state_of_a_finished_stage_leaves_its_copy(tmp_path):
    folders, stage, copy = queue_of_a_stage(tmp_path)
    (stage / "state" / "last.ckpt").unlink()
    write(stage / "stage.json", "{}")
    folders.save()
    assert files(copy) == {"metrics.csv": "7", "stage.json": "{}"}


def test_copies_are_made_when_they_are_due(tmp_path):
    now = [0.0]
    write(tmp_path / "stages" / "aa" / "metrics.csv", "1")
    folders = QueueFolders(
        tmp_path / "stages", tmp_path, tmp_path / "copy", None, frozenset({"aa"}), (), clock=lambda: now[0]
    )
    copied = tmp_path / "copy" / "stages" / "aa" / "metrics.csv"
    folders.save_if_due()
    assert copied.read_text() == "1"
    write(tmp_path / "stages" / "aa" / "metrics.csv", "1, 2")
    now[0] = training_queue.COPY_EVERY - 1
    folders.save_if_due()
    assert copied.read_text() == "1"
    now[0] += 1
    folders.save_if_due()
    assert copied.read_text() == "1, 2"


def test_results_are_copied_without_paths(tmp_path):
    run = tmp_path / "runs" / "digits" / "erm" / "erm-s0"
    write(run / "provenance.json", '{"device": "a CPU"}')
    config = {"backbone.weights": "/home/someone/w.pth", "seed": 0}
    write(run / "result.json", json.dumps({"config": config, "rows": [1]}))
    unfinished = write(tmp_path / "runs" / "digits" / "erm" / "erm-s1" / "config.yaml", "").parent
    results = tmp_path / "results"
    assert keep_results([run, unfinished], tmp_path / "runs", results) == 1
    kept = json.loads((results / "digits" / "erm" / "erm-s0" / "result.json").read_text())
    assert kept == {"config": {"backbone.weights": "w.pth", "seed": 0}, "rows": [1]}
    assert sorted(path.name for path in results.rglob("*.json")) == ["provenance.json", "result.json"]
    assert keep_results([run], tmp_path / "runs", results) == 0, "nothing has changed"


def test_a_queue_trains_writes_results_and_resumes_from_its_copy(tmp_path, monkeypatch, capsys):
    configs = tmp_path / "configs"
    text = "# @package _global_\ndefaults:\n  - override /dataset: digits_lt\n  - override /method: {}\n  - _self_\n"
    write(configs / "experiment" / "row_crt.yaml", text.format("crt") + "method: {classifier: {epochs: 1}}\n")
    write(configs / "experiment" / "row_erm.yaml", text.format("erm"))
    started: list[str] = []

    def in_this_process(tasks, at_once, environment, say, *, finished, meanwhile):
        from ltr.cli import train_main

        for task in tasks:
            started.append(task.label)
            assert train_main(list(task.command[3:])) == 0
            meanwhile()
            finished(task)
        return {}

    monkeypatch.setattr(training_queue, "run_tasks", in_this_process)
    monkeypatch.setattr(training_queue.os, "nice", lambda increment: 0)
    monkeypatch.chdir(tmp_path)
    command = ["--queue", "row_erm", "row_crt", "--epochs", "1", "--config-dir", str(configs), "--state", "copy"]
    command += ["--results", "kept", "--outputs", "out", "figures=none", "callbacks.progress=none"]
    command += ["trainer.limit_train_batches=2", "scheduler.warmup_epochs=0"]
    assert script.main(command) == 0
    assert started == ["row_erm, seed 0", "row_crt, seed 0"]
    out = capsys.readouterr().out
    assert "after row_crt, seed 0: 0.0 hours of one process are left" in out
    assert "restored" not in out
    assert len(list((tmp_path / "kept").rglob("result.json"))) == 2
    shutil.rmtree(tmp_path / "out")
    started.clear()
    assert script.main(command) == 0
    assert started == [], "everything is back from the copy"
    out = capsys.readouterr().out
    assert "stages and runs from copy" in out
    assert "2 finished before, 0 to do" in out
