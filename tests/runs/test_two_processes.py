"""Runs of two processes (gloo on the CPU): the same numbers as one, whoever starts them; and no hang, whoever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from ltr.configuration.configs import config_names
from ltr.runs.training import train
from resuming import acting_at, metric_rows, same_bits, weights
from several import Processes, ltr_train_command, ltr_train_in

pytestmark = pytest.mark.slow
SHORT = ("trainer.max_epochs=2", "batch_size=50")
COMMON = ("figures=none", "strategy=ddp", "trainer.accelerator=cpu", *SHORT)


def result_of(outputs: Path) -> dict:
    (path,) = outputs.glob("*/*/*/result.json")
    return json.loads(path.read_text())


def directory_of(outputs: Path) -> Path:
    (path,) = outputs.glob("*/*/*/result.json")
    return path.parent


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """The outputs of a run of two processes with batch normalisation and validation images."""
    folder = tmp_path_factory.mktemp("two")
    done = ltr_train_in(folder, *SHORT, "dataset.val=train_fraction", "trainer.selection=best_val")
    assert done.codes == [0, 0], done.err
    return folder / "outputs"


def test_only_the_first_process_prints_and_writes(two):
    assert (two.parent / "1.out").read_text() == (two.parent / "1.err").read_text() == ""
    assert "2 processes" in (two.parent / "0.out").read_text()
    assert json.loads((directory_of(two) / "provenance.json").read_text())["processes"] == 2


def test_every_image_is_evaluated_once_with_any_number_of_processes(two, ltr_eval, tmp_path):
    assert ltr_eval(directory_of(two), "--json", tmp_path / "alone.json")[0] == 0
    alone = json.loads((tmp_path / "alone.json").read_text())["rows"][0]["metrics"]
    together = next(row for row in result_of(two)["rows"] if row["headline"])["metrics"]
    for name, value in together.items():
        assert value == (pytest.approx(alone[name], rel=1e-6) if name in ("nll", "ece") else alone[name]), name
    import pyarrow.parquet as pq

    predictions = pq.read_table(directory_of(two) / "predictions.parquet")
    with np.load(directory_of(two) / "split.npz", allow_pickle=False) as split:
        assert sorted(predictions["id"].to_pylist()) == split["test"].tolist()


def test_the_monitored_metric_of_the_best_epoch_equals_its_evaluation(two):
    watched = max(float(row["val/balanced_accuracy"]) for row in metric_rows(directory_of(two)))
    evaluated = [row for row in result_of(two)["rows"] if row["split"] == "val" and row["checkpoint"] == "best"]
    assert evaluated[0]["metrics"]["balanced_accuracy"] == pytest.approx(watched, abs=1e-12)


# losses with a denominator, random numbers or memory of earlier images, and one of each other kind
LOSSES = {
    "ldam": ("loss=ldam", "sampler=class_balanced", "trainer.ema_decay=0.9"),
    "weight_sum": ("loss=class_balanced", "loss.reduction=weight_sum"),
    "equalization": ("loss=equalization", "loss.threshold=0.1", "loss.gamma=0.5"),
    "equalization_v2": ("loss=equalization_v2",),
    "seesaw": ("loss=seesaw",),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_network_without_batch_statistics_has_the_weights_of_one_process(tmp_path, plain, ltr_train, loss):
    command = [*SHORT, *plain, *LOSSES[loss]]
    several = ltr_train_in(tmp_path / "two", *command)
    assert several.codes == [0, 0], several.err
    alone = ltr_train("trainer.accelerator=cpu", "trainer.precision=fp32", *command, outputs=tmp_path / "one")
    assert alone.code == 0, alone.err
    one, other = weights(directory_of(tmp_path / "one")), weights(directory_of(tmp_path / "two" / "outputs"))
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=1e-6)
    for actual, expected in zip(
        metric_rows(directory_of(tmp_path / "one")),
        metric_rows(directory_of(tmp_path / "two" / "outputs")),
        strict=True,
    ):
        assert actual["step"] == expected["step"]
        assert float(actual["train/loss"]) == pytest.approx(float(expected["train/loss"]), rel=1e-4)
        assert float(actual["train/accuracy"]) == pytest.approx(float(expected["train/accuracy"]), abs=0.005)


OF_METHODS = {
    **{name: ("dataset=digits_open",) for name in config_names("method") if name.startswith(("arpl", "gcpl", "rpl"))},
    **dict.fromkeys(("herbs", "herbs_released", "pim"), ("method.dropout=0",)),  # masks differ between processes
    **dict.fromkeys(("ride", "ride_distill", "sade"), ("backbone=resnet20",)),
    "background_splitting": ("dataset=digits_bg",),
    "m2m": ("method.beta=0.9",),
    "non_robust_features": ("method.steps=2",),
    "prototypical": ("dataset=digits_retrieval", "sampler.images_per_class=10"),
    "rkd": ("dataset=digits_retrieval", "method.teacher.loss.mining=all"),
    "triplet": ("dataset=digits_retrieval", "loss.mining=all"),
}
OF_METHODS["rpl_confirmed"] += ("optimizer.lr=1e-5",)  # a loss of sums
OF_METHODS["ride_distill"] += (
    "trainer.gradient_clip=0.1",
)  # without normalisation, gradients of 1e7 multiply rounding
UNDETERMINED = {"rkd": ("head.projection.bias",)}  # relations do not depend on it, and Adam scales what rounding leaves


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", config_names("method"))
def test_a_method_has_the_weights_of_one_process_where_its_documentation_does_not_exclude_it(
    tmp_path, monkeypatch, plain, ltr_train, method
):
    frozen = functional.batch_norm  # statistics of each process's share would differ

    def batch_norm(images, mean, variance, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
        return frozen(images, mean, variance, weight, bias, False, momentum, eps)

    monkeypatch.setattr(functional, "batch_norm", batch_norm)
    short = ("trainer.max_epochs=2", "batch_size=50", "trainer.limit_train_batches=2", "optimizer.lr=0.001")
    command = [*plain, *short, f"method={method}", *OF_METHODS.get(method, ())]
    several = ltr_train_in(tmp_path / "two", *command)
    if method == "arpl_cs":
        assert several.codes == [2, 2]
        assert "trained in one process" in several.err
        return
    assert several.codes == [0, 0], several.err
    alone = ltr_train("trainer.accelerator=cpu", "trainer.precision=fp32", *command, outputs=tmp_path / "one")
    assert alone.code == 0, alone.err
    one, other = weights(directory_of(tmp_path / "one")), weights(directory_of(tmp_path / "two" / "outputs"))
    compared = [name for name in one if name not in UNDETERMINED.get(method, ())]
    differing = [name for name in compared if not torch.allclose(other[name], one[name], rtol=1e-4, atol=1e-6)]
    assert bool(differing) == (method == "cc_sam"), differing  # it perturbs by the images of each process


def test_the_number_of_processes_changes_the_key_of_a_stage(two, tmp_path, ltr_train):
    alone = ltr_train(*SHORT, "stages=plan", "dataset.val=train_fraction", "trainer.selection=best_val")
    assert result_of(two)["stages"][0]["key"][:40] not in alone.out
    planned = ltr_train(
        *SHORT,
        *("stages=plan", "dataset.val=train_fraction", "trainer.selection=best_val"),
        *("strategy=ddp", "trainer.devices=2", "trainer.precision=fp32"),
    )
    assert result_of(two)["stages"][0]["key"] in planned.out


@pytest.mark.filterwarnings("ignore:.*of a random backbone.*")
@pytest.mark.parametrize("solver", ["minibatch", "lbfgs"])
def test_stored_features_are_extracted_once_and_train_the_head_of_one_process(tmp_path, ltr_train, solver):
    command = [*SHORT, "features=stored", f"features.solver={solver}"]
    command += ["features.l2=0.01", "features.max_iterations=20"] if solver == "lbfgs" else []
    several = ltr_train_in(tmp_path / "two", *command)
    assert several.codes == [0, 0], several.err
    assert several.out.count("900 images to compute") == 1
    alone = ltr_train("trainer.accelerator=cpu", "trainer.precision=fp32", *command, outputs=tmp_path / "one")
    assert alone.code == 0, alone.err
    tables = [sorted((tmp_path / name).glob("**/features-*.f32")) for name in ("one", "two")]
    assert [path.read_bytes() for path in tables[0]] == [path.read_bytes() for path in tables[1]]
    one, other = weights(directory_of(tmp_path / "one")), weights(directory_of(tmp_path / "two" / "outputs"))
    for name, tensor in one.items():
        if solver == "lbfgs":  # each process solves the whole problem
            assert torch.equal(other[name], tensor), name
        else:
            torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=1e-6)


def test_a_computed_stage_is_computed_once_and_shared_by_all_processes(tmp_path):
    done = ltr_train_in(tmp_path, *SHORT, "method=ncm")
    assert done.codes == [0, 0], done.err
    assert [stage["status"] for stage in result_of(tmp_path / "outputs")["stages"]] == ["trained", "trained"]
    again = ltr_train_in(tmp_path, *SHORT, "method=ncm", "evaluation.many_above=50")
    assert again.codes == [0, 0], again.err
    assert again.out.count("cached stage") == 2


class _SignalIn:
    """Lets one process get a signal at the end of one batch."""

    def __init__(self, rank: int, at: tuple[int, int], number: int) -> None:
        self.rank, self.at, self.number = rank, at, number

    def __call__(self, rank: int) -> None:
        if rank == self.rank:
            train.StopOnSignal = acting_at(self.at, lambda: os.kill(os.getpid(), self.number))


@pytest.mark.parametrize("at", [(0, 3), (0, 9)], ids=["mid-epoch", "last batch of an epoch"])
def test_a_signal_to_one_process_stops_all_and_resuming_gives_the_same_weights(tmp_path, at):
    whole = ltr_train_in(tmp_path / "whole", *SHORT)
    stopped = ltr_train_in(tmp_path / "stopped", *SHORT, hook=_SignalIn(1, at, signal.SIGTERM))
    assert stopped.codes == [143, 143], stopped.err
    resumed = ltr_train_in(tmp_path / "stopped", *SHORT)
    assert whole.codes == resumed.codes == [0, 0], resumed.err
    assert "resuming in epoch" in resumed.out
    actual, expected = (weights(directory_of(tmp_path / name / "outputs")) for name in ("whole", "stopped"))
    assert same_bits(actual, expected)
    assert result_of(tmp_path / "whole" / "outputs")["rows"] == result_of(tmp_path / "stopped" / "outputs")["rows"]
    assert metric_rows(directory_of(tmp_path / "whole" / "outputs")) == metric_rows(
        directory_of(tmp_path / "stopped" / "outputs")
    )


def test_no_process_waits_for_one_that_died(tmp_path):
    done = ltr_train_in(tmp_path, *SHORT, hook=_SignalIn(1, (0, 3), signal.SIGKILL), timeout=30)
    assert done.codes == [120, -9]
    assert "another process of this run has ended" in done.err


def test_a_non_finite_loss_in_one_process_ends_all(tmp_path):
    done = ltr_train_in(tmp_path, *SHORT, "optimizer.lr=1e18", "optimizer.weight_decay=0", timeout=30)
    assert done.codes == [1, 1]
    assert "not finite" in done.err


@pytest.fixture
def command(tmp_path, monkeypatch):
    """``ltr-train strategy=ddp`` as a command that starts its processes, itself forked from the test's."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(*overrides: str) -> Processes:
        return ltr_train_command(tmp_path, *COMMON, f"paths.outputs={tmp_path / 'outputs'}", *overrides)

    return run


def test_the_command_starts_its_processes_and_reports_their_end(command, tmp_path):
    done = command("trainer.devices=2", "trainer.max_epochs=1")
    assert done.codes == [0], done.err
    assert done.out.count("erm · digits_lt") == 1
    again = command("trainer.devices=2", "trainer.max_epochs=1")
    assert "finished before" in again.out
    missing = command("trainer.devices=2", "backbone.weights=nothing.ckpt")
    assert missing.codes == [1]
    assert missing.err.count("there is no such file") == 1


def test_torchrun_starts_the_same_run(command, tmp_path):
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "ltr.cli")
    overrides = (*COMMON, f"paths.outputs={tmp_path / 'outputs'}", "trainer.max_epochs=1")
    done = subprocess.run([*torchrun, *overrides], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stdout
    assert "finished before" in command("trainer.devices=2", "trainer.max_epochs=1").out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.devices=2"], "Add strategy=ddp"),
        (["strategy=ddp", "trainer.devices=3", "batch_size=64"], "such as 63"),
        (["strategy=ddp", "trainer.devices=2", "strategy.sync_batchnorm=true", "trainer.accelerator=cpu"], "GPUs only"),
    ],
)
def test_impossible_numbers_of_processes_are_refused(ltr_train, overrides, message):
    refused = ltr_train(*overrides)
    assert refused.code == 2
    assert message in refused.err
