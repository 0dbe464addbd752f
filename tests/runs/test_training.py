"""Training through the command: same bits again, the same after an interruption, selection, averaging, guards."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from ltr.evaluation.closed_set import ClosedSet
from ltr.runs.store import StageStore
from resuming import metric_rows, same_bits, signal_at, weights

SHORT = ["trainer.max_epochs=3", "trainer.precision=fp32", "figures=none"]
pytestmark = pytest.mark.slow


def test_weights_depend_on_the_seed_only(ltr_train, tmp_path):
    once = ltr_train(*SHORT, outputs=tmp_path / "a")
    again = ltr_train(*SHORT, outputs=tmp_path / "b")
    other = ltr_train(*SHORT, "seed=1", outputs=tmp_path / "c")
    assert same_bits(weights(once.directory), weights(again.directory))
    assert once.result["rows"] == again.result["rows"]
    assert not same_bits(weights(once.directory), weights(other.directory))


def test_evaluation_batches_and_workers_do_not_change_the_result(ltr_train, tmp_path):
    once = ltr_train(*SHORT, outputs=tmp_path / "a")
    again = ltr_train(*SHORT, "evaluation.batch_size=7", "trainer.num_workers=0", outputs=tmp_path / "b")
    assert once.directory.name == again.directory.name
    actual, expected = once.headline, again.headline
    assert actual["accuracy"] == expected["accuracy"]
    assert actual["nll"] == pytest.approx(expected["nll"], abs=1e-5)


OPTIONS = {
    "plain": [],
    "EMA": ["trainer.ema_decay=0.9"],
    "EMA of constant decay": ["trainer.ema_decay=0.9", "trainer.ema_warmup=false"],
    "dropout and mixup": [
        *("backbone=classifier32", "dataset=cifar10_lt", "augment=cifar_mixup", "scheduler=cosine"),
        *("batch_size=8", "trainer.limit_train_batches=8"),
    ],
    "deferred weights": ["loss=class_balanced", "loss.defer_from=0.5", "trainer.max_epochs=4"],
    "progressive and clipped": ["sampler=progressive", "trainer.gradient_clip=0.5", "trainer.accumulate=2"],
    "best epoch": ["dataset.val=train_fraction", "trainer.selection=best_val"],
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("at", [(1, 2), (0, 0), (1, 7)], ids=["mid-epoch", "first batch", "last batch of an epoch"])
def test_resuming_an_interrupted_run_gives_the_same_weights(
    ltr_train, tmp_path, monkeypatch, small_sources, options, at
):
    command = [*SHORT, *options]
    whole = ltr_train(*command, outputs=tmp_path / "whole")
    assert whole.code == 0, whole.err
    with signal_at(monkeypatch, at):
        stopped = ltr_train(*command, outputs=tmp_path / "stopped")
    assert stopped.code == 143
    assert "SIGTERM" in stopped.err
    assert "Traceback" not in stopped.err
    status = next(stopped.outputs.glob("*/*/*/status.json"))
    assert json.loads(status.read_text()) == {"status": "preempted"}
    resumed = ltr_train(*command, outputs=tmp_path / "stopped")
    assert resumed.code == 0, resumed.err
    assert "resuming in epoch" in resumed.out
    assert same_bits(weights(whole.directory), weights(resumed.directory))
    assert whole.result["rows"] == resumed.result["rows"]
    assert metric_rows(whole.directory) == metric_rows(resumed.directory)


def test_ctrl_c_exits_with_130(ltr_train, monkeypatch):
    with signal_at(monkeypatch, (0, 1), signal.SIGINT):
        stopped = ltr_train(*SHORT)
    assert stopped.code == 130
    assert "Ctrl-C" in stopped.err
    assert stopped.directories == []


def test_a_truncated_state_is_set_aside_for_the_one_before(ltr_train, tmp_path, monkeypatch):
    whole = ltr_train(*SHORT, outputs=tmp_path / "whole")
    with signal_at(monkeypatch, (2, 1)):
        ltr_train(*SHORT, "checkpoint.min_seconds=0", outputs=tmp_path / "torn")
    last = next((tmp_path / "torn").glob("stages/*/state/last.ckpt"))
    last.write_bytes(last.read_bytes()[:1000])
    resumed = ltr_train(*SHORT, outputs=tmp_path / "torn")
    assert resumed.code == 0
    assert "set aside" in resumed.out
    assert same_bits(weights(whole.directory), weights(resumed.directory))


def test_resume_must_continues_and_resume_never_starts_again(ltr_train, monkeypatch):
    with signal_at(monkeypatch, (1, 1)):
        assert ltr_train(*SHORT).code == 143
    assert "resuming in epoch 2" in ltr_train(*SHORT, "resume=must", "stages=auto").out
    assert "finished before" in ltr_train(*SHORT, "resume=must").out
    anew = ltr_train(*SHORT, "resume=never")
    assert anew.code == 0
    assert "finished before" not in anew.out


def test_resume_never_leaves_the_training_state_of_a_running_stage(ltr_train, tmp_path, monkeypatch):
    with signal_at(monkeypatch, (1, 1)):
        stopped = ltr_train(*SHORT)
    assert stopped.code == 143
    (last,) = tmp_path.glob("outputs/stages/*/state/last.ckpt")
    seen: list[bool] = []
    locked = StageStore.locked

    def wait(store, key, what):
        seen.append(last.is_file())  # it may be another run's as long as this one has no lock
        return locked(store, key, what)

    monkeypatch.setattr(StageStore, "locked", wait)
    anew = ltr_train(*SHORT, "resume=never")
    assert anew.code == 0, anew.err
    assert seen == [True]
    assert "continuing in epoch" not in anew.out


def test_a_finished_stage_is_reused_by_another_run(ltr_train):
    first = ltr_train(*SHORT)
    second = ltr_train(*SHORT, "evaluation.many_above=50")
    assert second.code == 0
    results = [json.loads((d / "result.json").read_text()) for d in second.directories]
    assert sorted(r["stages"][0]["status"] for r in results) == ["reused", "trained"]
    assert first.code == 0


def test_stages_plan_lists_the_stages_without_training(ltr_train):
    planned = ltr_train(*SHORT, "stages=plan")
    assert planned.code == 0
    assert "to train" in planned.out
    assert not list(planned.outputs.glob("*/*/*"))
    ltr_train(*SHORT)
    assert "cached" in ltr_train(*SHORT, "stages=plan").out


def test_best_val_stores_both_checkpoints_and_evaluates_the_best_one(ltr_train):
    done = ltr_train(*SHORT, "dataset.val=train_fraction", "trainer.selection=best_val", "optimizer.lr=0.3")
    by_checkpoint = {row["checkpoint"]: row for row in done.result["rows"] if row["split"] == "test"}
    assert by_checkpoint["best"]["headline"]
    assert by_checkpoint["best"]["selection"] == "best_val"
    assert not by_checkpoint["final"]["headline"]
    assert by_checkpoint["final"]["selection"] == "last"
    watched = [float(row["val/balanced_accuracy"]) for row in metric_rows(done.directory)]
    on_val = next(row for row in done.result["rows"] if row["split"] == "val")
    assert on_val["metrics"]["balanced_accuracy"] == pytest.approx(max(watched))


@pytest.mark.parametrize(
    "short",
    [["trainer.max_epochs=2"], ["method=crt", "method.classifier.epochs=2", "method.classifier.selection=best_val"]],
)
def test_a_training_without_an_evaluation_cannot_select_an_epoch(ltr_train, short):
    select = ["dataset.val=train_fraction", "trainer.selection=best_val", "evaluation.every_n_epochs=3"]
    done = ltr_train("stages=plan", *select, *short)
    assert done.code == 2
    assert "has 2 epochs, so that none of them is evaluated, and best_val cannot select one" in done.err
    assert ltr_train("stages=plan", *select, *short, "evaluation.every_n_epochs=2").code == 0


def test_a_metric_that_is_never_a_number_selects_no_epoch(ltr_train, monkeypatch):
    compute = ClosedSet.compute

    def without_accuracy(protocol):
        measured = compute(protocol)
        return replace(measured, metrics={**measured.metrics, "balanced_accuracy": float("nan")})

    monkeypatch.setattr(ClosedSet, "compute", without_accuracy)
    done = ltr_train(*SHORT, "dataset.val=train_fraction", "trainer.selection=best_val")
    assert done.code == 1
    assert "balanced_accuracy of the val images was not a number (NaN) in every evaluation" in done.err
    assert "Traceback" not in done.err


def test_best_test_is_flagged_in_the_table(ltr_train):
    done = ltr_train(*SHORT, "trainer.selection=best_test")
    assert done.code == 0
    assert "selected on test" in done.out
    assert "test/accuracy" in metric_rows(done.directory)[0]


def test_monitoring_the_test_split_selects_nothing(ltr_train, tmp_path):
    plain = ltr_train(*SHORT, outputs=tmp_path / "a")
    watched = ltr_train(*SHORT, "evaluation.monitor_split=test", outputs=tmp_path / "b")
    assert same_bits(weights(plain.directory), weights(watched.directory))
    assert float(metric_rows(watched.directory)[-1]["test/accuracy"]) == watched.headline["accuracy"]


def test_averaged_weights_are_passed_to_the_next_stage(ltr_train, tmp_path):
    plain = ltr_train(*SHORT, outputs=tmp_path / "a")
    averaged = ltr_train(*SHORT, "trainer.ema_decay=0.99", outputs=tmp_path / "b")
    assert averaged.code == 0, averaged.err
    assert not same_bits(weights(plain.directory), weights(averaged.directory))
    assert [r["train/loss"] for r in metric_rows(plain.directory)] == [
        r["train/loss"] for r in metric_rows(averaged.directory)
    ]


def test_accumulated_batches_give_the_loss_per_image(ltr_train, tmp_path):
    plain = ltr_train(*SHORT, "optimizer.lr=1e-12", outputs=tmp_path / "a")
    accumulated = ltr_train(*SHORT, "optimizer.lr=1e-12", "trainer.accumulate=4", outputs=tmp_path / "b")
    actual, expected = (float(metric_rows(d.directory)[0]["train/loss"]) for d in (plain, accumulated))
    assert actual == pytest.approx(expected, rel=1e-4)


def test_a_non_finite_loss_stops_the_run_and_is_located(ltr_train):
    stopped = ltr_train(*SHORT, "optimizer.lr=1e18", "optimizer.weight_decay=0")
    assert stopped.code == 1
    for part in ("not finite", "epoch 1", "source indices", "learning rate", "gradient norm"):
        assert part in stopped.err
    assert "Traceback" not in stopped.err
    assert stopped.directories == []
    assert not list(stopped.outputs.glob("stages/*/stage.json"))


def test_a_full_disk_stops_the_run_without_partial_files(ltr_train, monkeypatch):
    import errno

    real = torch.save
    calls = []

    def full(content, path, *more, **named):
        calls.append(path)
        if len(calls) > 1:
            with open(path, "wb") as file:
                file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(content, path, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        stopped = ltr_train(*SHORT, "checkpoint.min_seconds=0")
    assert stopped.code == 1
    assert "No space left" in stopped.err
    assert "same command" in stopped.err
    assert not list(stopped.outputs.rglob("*.part"))
    assert ltr_train(*SHORT).code == 0


def test_every_checkpoint_loads_without_pickled_code(ltr_train, monkeypatch):
    with signal_at(monkeypatch, (1, 1)):
        stopped = ltr_train(*SHORT, "trainer.ema_decay=0.9", "dataset.val=train_fraction", "trainer.selection=best_val")
    states = list(stopped.outputs.rglob("*.ckpt"))
    assert len(states) >= 2
    for path in states:
        torch.load(path, weights_only=True)
    finished = ltr_train(*SHORT)
    for path in finished.outputs.rglob("*.ckpt"):
        torch.load(path, weights_only=True)


def test_the_run_directory_is_complete_and_a_pruned_store_breaks_nothing(ltr_train, ltr_eval):
    import shutil

    done = ltr_train(*SHORT, "figures=two")
    names = {str(p.relative_to(done.directory)) for p in done.directory.rglob("*") if p.is_file()}
    assert names == {
        "config.yaml", "overrides.yaml", "split.npz", "provenance.json", "metrics.csv", "per_class.parquet",
        "predictions.parquet", "result.json", "status.json", "checkpoints/final.ckpt",
        "figures/accuracy_by_frequency.png", "figures/training_curves.png",
        "artifacts/draws.npz", "artifacts/class_weights.npz",
    }  # fmt: skip
    with np.load(done.directory / "split.npz", allow_pickle=False) as split:
        assert {"train", "val", "test", "unknown"} <= set(split.files)
    shutil.rmtree(done.outputs / "stages")
    assert ltr_eval(done.directory)[0] == 0


def test_the_time_of_an_interrupted_run_includes_earlier_training(ltr_train, tmp_path, monkeypatch):
    with signal_at(monkeypatch, (1, 4)):
        stopped = ltr_train(*SHORT)
    state = torch.load(next(stopped.outputs.glob("stages/*/state/last.ckpt")), weights_only=True)
    log = next(value for name, value in state["callbacks"].items() if name.startswith("EpochLog"))
    assert 0 < log["seconds"] < log["spent"]
    resumed = ltr_train(*SHORT)
    assert resumed.result["stages"][0]["seconds"] > log["spent"]
