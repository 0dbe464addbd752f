"""The lock of a run directory: one process at a time, and no trace of a refused command."""

from __future__ import annotations

import multiprocessing
import time

import pytest

from ltr.runs import finished
from ltr.runs.run_lock import locked_run


def _hold(directory, ready, seconds):
    with locked_run(directory, print):
        directory.mkdir()
        ready.set()
        time.sleep(seconds)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_run_waits_for_another_one_in_its_directory(tmp_path, is_killed):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    directory, lines = tmp_path / "outputs" / "tiny" / "erm" / "erm-s0-0123abcd", []
    other = context.Process(target=_hold, args=(directory, ready, 60 if is_killed else 0.5))
    other.start()
    assert ready.wait(120)
    if is_killed:
        other.kill()
        other.join()
    with locked_run(directory, lines.append) as has_waited:
        assert has_waited == bool(lines) == (not is_killed)
    other.join()


def test_a_block_that_fails_before_the_run_begins_leaves_nothing(tmp_path):
    directory = tmp_path / "outputs" / "tiny" / "erm" / "erm-s0-0123abcd"
    with pytest.raises(ValueError, match="refused"), locked_run(directory, print):
        raise ValueError("refused")
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_waited_uses_the_result_of_the_other_one(ltr_train, tmp_path):
    directory = ltr_train("debug=fast").directory
    (directory / "result.json").rename(tmp_path / "kept.json")
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    other = context.Process(target=_finish, args=(directory, tmp_path / "kept.json", ready))
    other.start()
    assert ready.wait(120)
    done = ltr_train("debug=fast")
    other.join()
    assert done.code == 0, done.err
    assert "another process is running this command" in done.out
    assert "finished before" in done.out


def _finish(directory, kept, ready):
    with locked_run(directory, print):
        ready.set()
        time.sleep(2)
        kept.rename(directory / "result.json")


def test_a_result_in_another_precision_is_not_used_for_auto(ltr_train, monkeypatch):
    monkeypatch.setattr(finished, "resolve_precision", lambda name, device: "fp32")
    monkeypatch.setattr("ltr.runs.plan.resolve_precision", lambda name, device: "fp32")
    first = ltr_train("debug=fast", "trainer.precision=auto")
    assert first.result["precision"] == "fp32"
    assert "finished before" in ltr_train("debug=fast", "trainer.precision=auto").out
    monkeypatch.setattr(finished, "resolve_precision", lambda name, device: "bf16")
    monkeypatch.setattr("ltr.runs.plan.resolve_precision", lambda name, device: "bf16")
    second = ltr_train("debug=fast", "trainer.precision=auto")
    assert second.code == 0, second.err
    assert "in another precision than trainer.precision=auto chooses here (bf16)" in second.out
    assert len(second.directories) == 2
    assert "finished before" in ltr_train("debug=fast", "trainer.precision=auto").out
    assert "finished before" in ltr_train("debug=fast", "trainer.precision=bf16").out


@pytest.mark.parametrize("name", ["stages", "sweeps", "evaluations", "audit", "reproduce", "cache"])
def test_a_data_set_cannot_have_the_name_of_another_folder_of_the_outputs(ltr_train, tmp_path, name):
    done = ltr_train("stages=plan", f"dataset.name={name}", f"paths.stages={tmp_path}/outputs/cache")
    assert done.code == 2
    assert f"dataset.name={name}: it names the folder" in done.err
    assert ltr_train("stages=plan", "dataset.name=stages_of_life").code == 0
