"""Files that disappear under a run: its directory is written whole in the end, or the run says what is missing."""

from __future__ import annotations

import shutil

import pytest

from ltr.runs import runner
from ltr.runs.result import AT_THE_END, AT_THE_START, FINAL
from ltr.runs.training.epoch_log import EpochLog

WHOLE = (*AT_THE_START, *AT_THE_END, f"checkpoints/{FINAL}", "predictions.parquet", "per_class.parquet")


@pytest.fixture
def removes(monkeypatch, tmp_path):
    """Have a method of a class remove files below the outputs, once, after (or before) it does its work."""

    def install(owner, name, *patterns, first=False):
        real, left = getattr(owner, name), [True]

        def changed(self, *arguments, **named):
            def remove():
                for pattern in patterns if left and left.pop() else ():
                    for path in (tmp_path / "outputs").glob(pattern):
                        shutil.rmtree(path) if path.is_dir() else path.unlink()

            if first:
                remove()
            result = real(self, *arguments, **named)
            if not first:
                remove()
            return result

        monkeypatch.setattr(owner, name, changed)

    return install


def test_outputs_removed_during_a_stage_are_written_again_completely(ltr_train, removes):
    removes(EpochLog, "on_train_epoch_end", "*")
    done = ltr_train("debug=fast")
    assert done.code == 0, done.err
    assert "was removed while the run was running: writing it again" in done.out
    assert all((done.directory / name).is_file() for name in WHOLE)
    assert "finished before" in ltr_train("debug=fast").out


@pytest.mark.parametrize("patterns", [("*",), ("stages/*",), ("stages/*/*",)])
def test_a_stage_removed_before_its_use_is_an_error(ltr_train, removes, patterns):
    removes(runner._Run, "_evaluate", *patterns)
    done = ltr_train("debug=fast")
    assert done.code == 1
    assert "removed from the stage store while the run was running" in done.err
    assert "Traceback" not in done.err
    assert done.directories == []
    again = ltr_train("debug=fast")
    assert again.code == 0, again.err
    assert all((again.directory / name).is_file() for name in WHOLE)


@pytest.mark.parametrize("name", ["config.yaml", "predictions.parquet", f"checkpoints/{FINAL}"])
def test_a_file_removed_at_the_end_is_named_and_the_run_has_no_result(ltr_train, removes, name):
    removes(runner._Run, "_draw_figures", f"digits_lt/*/*/{name}")
    done = ltr_train("debug=fast")
    assert done.code == 1
    assert f"{name} missing: files of the run were removed" in done.err
    assert done.directories == []


def test_removed_best_weights_are_not_replaced_by_the_last_ones(ltr_train, removes):
    removes(EpochLog, "on_train_epoch_end", "stages/*/state/best.ckpt")
    done = ltr_train("debug=fast", "dataset.val=train_fraction", "trainer.selection=best_val", "trainer.max_epochs=1")
    assert done.code == 1
    assert "the weights of the best epoch (1) were removed" in done.err


def test_a_training_whose_best_weights_are_missing_starts_again(ltr_train, removes):
    command = ("debug=fast", "trainer.max_epochs=3", "dataset.val=train_fraction", "trainer.selection=best_val")
    removes(EpochLog, "on_train_end", "stages/*/state/best.ckpt")
    command = (*command, "optimizer.lr=1e-9", "checkpoint.min_seconds=0")  # the first epoch stays the best one
    assert ltr_train(*command).code == 1
    again = ltr_train(*command)
    assert again.code == 0, again.err
    assert "best.ckpt, the weights of the best epoch (1), is missing" in again.out
    assert "the training starts from scratch" in again.out
