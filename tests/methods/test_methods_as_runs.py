"""The decoupled methods through the commands: shared stages, evaluation again, interruptions, foreign checkpoints."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import ltr
from resuming import metric_rows, weights

# two epochs of the representation; the signal of the tests below comes in the third epoch, which only classifiers have
SHORT = ["trainer.max_epochs=2", "trainer.precision=fp32", "optimizer.lr=0.05"]
CACHED = ["method.freeze_bn_stats=true", "method.features=cached"]
FOUR = "method.classifier.epochs=4"
COMMANDS = {
    "crt": ["method=crt", FOUR],
    "crt-cached": ["method=crt", FOUR, *CACHED],
    "crt-all": ["method=crt", FOUR, "method.trainable=all"],
    "lws": ["method=lws", FOUR],
    "tau_norm": ["method=tau_norm"],
    "tau_norm-auto": ["method=tau_norm", "method.tau=auto", "dataset.val=test_fraction"],
    "posthoc_la": ["method=posthoc_la"],
    "ncm": ["method=ncm"],
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A stage store for tests that do not depend on which of them trained the representation."""
    return tmp_path_factory.mktemp("stages")


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_a_final_checkpoint_is_evaluated_to_the_rows_of_its_run(ltr_train, ltr_eval, tmp_path, store, command):
    done = ltr_train(*SHORT, *command, f"paths.stages={store}")
    assert done.code == 0, done.err
    on_test = [row for row in done.result["rows"] if row["split"] == "test"]
    assert sum(row["headline"] for row in on_test) == 1
    code, _, err = ltr_eval(done.directory, "--json", tmp_path / "again.json", "trainer.precision=fp32")
    assert code == 0, err
    assert json.loads((tmp_path / "again.json").read_text())["rows"] == on_test
    alone = tmp_path / "alone" / "weights.ckpt"  # without its run and its store
    alone.parent.mkdir()
    shutil.copy(done.directory / "checkpoints" / "final.ckpt", alone)
    images = np.random.default_rng(0).integers(0, 255, (5, 8, 8, 1), dtype=np.uint8)
    assert ltr.load(alone).predict(images).sum(1) == pytest.approx(np.ones(5), abs=1e-4)


def test_one_representation_serves_all_methods(ltr_train, tmp_path):
    for method in ("erm", "crt", "lws", "tau_norm", "ncm", "posthoc_la"):
        more = [FOUR] if method in ("crt", "lws") else []
        done = ltr_train(*SHORT, f"method={method}", *more)
        assert done.code == 0, done.err
    results = {d.parent.name: json.loads((d / "result.json").read_text()) for d in done.directories}
    first = {method: result["stages"][0] for method, result in results.items()}
    assert len({stage["key"] for stage in first.values()}) == 1
    assert {m: s["status"] for m, s in first.items()} == {m: "trained" if m == "erm" else "reused" for m in results}
    headline = {m: next(r for r in result["rows"] if r["headline"])["metrics"] for m, result in results.items()}
    assert len({metrics["nll"] for metrics in headline.values()}) == len(results)


def test_posthoc_adjustment_with_tau_zero_is_erm_to_the_bit(ltr_train, store, tmp_path):
    erm = ltr_train(*SHORT, f"paths.stages={store}", outputs=tmp_path / "a")
    posthoc = ltr_train(*SHORT, "method=posthoc_la", "method.tau=0", f"paths.stages={store}", outputs=tmp_path / "b")
    assert posthoc.headline == erm.headline


@pytest.mark.parametrize("method", ["tau_norm", "posthoc_la"])
def test_the_curve_of_tau_is_in_the_rows_and_its_best_on_validation_is_the_headline(ltr_train, store, method):
    auto = ["method.tau=auto", "dataset.val=train_fraction", f"paths.stages={store}"]
    done = ltr_train(*SHORT, f"method={method}", *auto)
    rows = done.result["rows"]
    on_val = {r["variant"]: r["metrics"]["balanced_accuracy"] for r in rows if r["split"] == "val"}
    assert list(on_val) == [f"tau={i / 20:g}" for i in range(21)]
    assert [r["variant"] for r in rows if r["split"] == "test"] == list(on_val)
    (chosen,) = (row["variant"] for row in rows if row["headline"])
    assert chosen == max(on_val, key=on_val.__getitem__)
    key = done.result["stages"][1]["key"]
    with np.load(store / key / "arrays.npz", allow_pickle=False) as arrays:
        assert arrays["balanced_accuracy"] == pytest.approx(list(on_val.values()))
        assert f"tau={arrays['taus'][arrays['chosen']]:g}" == chosen
    pruned = done.directory / "artifacts" / "tau.npz"
    assert pruned.read_bytes() == (store / key / "arrays.npz").read_bytes()
    with open(done.directory / "curve.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(line["tau"]) for line in table] == 2 * [i / 20 for i in range(21)]
    assert [line["tau"] for line in table if line["headline"] == "1"] == [chosen.removeprefix("tau=")]
    assert done.out.count("tau=") == 2  # in the terminal, validation and test at the value that was chosen
    assert "20 more variants in curve.csv" in done.out
    predictions = pq.read_table(done.directory / "predictions.parquet")
    assert set(predictions["variant"].to_pylist()) == {chosen}


def test_crt_and_lws_write_the_epochs_of_both_stages(ltr_train, store):
    done = ltr_train(*SHORT, *COMMANDS["crt"], f"paths.stages={store}")
    assert [(r["stage"], r["epoch"]) for r in metric_rows(done.directory)] == [
        *(("representation", str(e)) for e in (1, 2)),
        *(("classifier", str(e)) for e in (1, 2, 3, 4)),
    ]


@pytest.mark.parametrize("name", ["crt", "crt-cached", "lws"])
def test_the_second_stage_changes_only_the_running_statistics_of_the_backbone(ltr_train, tmp_path, store, name):
    erm = weights(ltr_train(*SHORT, f"paths.stages={store}", outputs=tmp_path / "erm").directory)
    done = weights(ltr_train(*SHORT, *COMMANDS[name], f"paths.stages={store}", outputs=tmp_path / "done").directory)
    changed = {key for key in erm if key.startswith("backbone.") and not torch.equal(erm[key], done[key])}
    drifting = {key for key in erm if key.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert changed == (set() if name == "crt-cached" else drifting)


def test_the_best_epoch_of_the_second_stage_is_evaluated(ltr_train, store):
    best = ["method.classifier.selection=best_val", "dataset.val=train_fraction", f"paths.stages={store}"]
    done = ltr_train(*SHORT, *COMMANDS["crt"], *best)
    assert done.code == 0, done.err
    assert {row["selection"] for row in done.result["rows"] if row["headline"]} == {"best_val"}
    assert (done.directory / "checkpoints" / "best.ckpt").is_file()


def test_double_balancing_in_the_second_stage_warns(ltr_train, store):
    twice = ["loss@method.classifier.loss=balanced_softmax", f"paths.stages={store}"]
    done = ltr_train(*SHORT, "method=lws", "method.classifier.epochs=1", *twice)
    assert "over-correct" in done.err


def test_a_run_too_short_for_its_warm_up_is_reported_once(ltr_train):
    done = ltr_train(*SHORT, "trainer.max_epochs=5", "scheduler=ldam", "scheduler.warmup_epochs=5")
    assert done.code == 0, done.err
    assert done.err.count("should fall after epoch 4 of 5") == 1


def test_a_warm_up_is_shortened_with_the_run_and_printed(ltr_train):
    done = ltr_train(*SHORT, "trainer.max_epochs=5", "scheduler=ldam", "stages=plan")
    assert done.code == 0, done.err
    assert "scheduler.warmup_epochs=0.5 (at every step): of this run's 5 epochs; 5 of 200 are published" in done.out


# -- starting from a finished run or a checkpoint -------------------------------------------------------------------


@pytest.mark.parametrize(("command", "as_file"), [("crt", False), ("crt", True), ("tau_norm", False), ("ncm", False)])
def test_a_finished_run_serves_as_the_representation(ltr_train, tmp_path, store, command, as_file):
    erm = ltr_train(*SHORT, f"paths.stages={store}", outputs=tmp_path / "erm")
    checkpoint = erm.directory / "checkpoints/final.ckpt" if as_file else erm.directory
    whole = ltr_train(*SHORT, *COMMANDS[command], f"paths.stages={store}", outputs=tmp_path / "whole")
    taken = ltr_train(*COMMANDS[command], *SHORT[1:], f"method.start_from={checkpoint}", outputs=tmp_path / "taken")
    assert taken.code == 0, taken.err
    assert taken.headline == whole.headline
    assert taken.result["stages"][0]["status"] == "reused"
    assert [row["stage"] for row in metric_rows(taken.directory) if row["stage"] == "representation"] == []


def test_a_reused_representation_is_identified_by_its_content(ltr_train, tmp_path, store):
    erm = ltr_train(*SHORT, f"paths.stages={store}", outputs=tmp_path / "erm")
    moved = tmp_path / "moved.ckpt"
    shutil.copy(erm.directory / "checkpoints/final.ckpt", moved)
    plans = [
        ltr_train(*SHORT, "method=ncm", f"method.start_from={checkpoint}", "stages=plan").out.splitlines()
        for checkpoint in (erm.directory, moved)
    ]
    keys = [[line.split()[1] for line in plan] for plan in plans]
    assert keys[0] == keys[1]
    assert str(moved) in plans[1][0]


def changed(path, target, change):
    """A copy of a checkpoint with something changed in its weights."""
    content = torch.load(path, weights_only=True)
    change(content["state_dict"])
    torch.save(content, target)
    return target


def test_checkpoints_that_do_not_fit_are_refused_with_a_reason(ltr_train, tmp_path, store):
    def refused(checkpoint, *overrides):
        actual = ltr_train(
            *SHORT, "method=crt", f"method.start_from={checkpoint}", *overrides, outputs=tmp_path / "refused"
        )
        assert actual.code in (1, 2)
        assert "Traceback" not in actual.err
        assert not list(actual.outputs.rglob("*.ckpt"))
        return actual.err

    erm = ltr_train(*SHORT, f"paths.stages={store}", outputs=tmp_path / "erm").directory
    checkpoint = erm / "checkpoints/final.ckpt"
    assert "head is LinearHead(bias=True), this run's is CosineHead" in refused(erm, "head=cosine")
    # the same names and shapes of weights, and another meaning
    plain = ltr_train("head.bias=false", *SHORT, f"paths.stages={store}", outputs=tmp_path / "plain").directory
    assert "head is LinearHead(bias=False), this run's is CosineHead" in refused(plain, "head=cosine")
    assert "class_names: 10 classes, this run's data has 6" in refused(erm, "dataset.num_classes=6")
    assert "mean: (0.3057,), this run's data has (0.5,)" in refused(erm, "dataset.mean=[0.5]")
    other = refused(erm, "backbone=resnet20")
    assert "backbone is DigitsNet(), this run's is CifarResNet" in other
    transposed = changed(checkpoint, tmp_path / "t.ckpt", lambda s: s.update({"head.weight": s["head.weight"].T}))
    assert "head.weight is [64, 10], needs [10, 64] (transposed)" in refused(transposed)
    lacking = changed(checkpoint, tmp_path / "l.ckpt", lambda s: s.pop("head.bias"))
    assert "missing in the file (1): head.bias" in refused(lacking)
    torn = tmp_path / "torn.ckpt"
    torn.write_bytes(checkpoint.read_bytes()[:2000])
    assert "damaged" in refused(torn)
    assert "nor a checkpoint file. Give a finished run" in refused(tmp_path / "nowhere")
    ncm = ltr_train(*SHORT, "method=ncm", f"paths.stages={store}", outputs=tmp_path / "ncm").directory
    assert "its head was replaced after training (by a head of kind 'means')" in refused(ncm)


def test_a_class_balanced_checkpoint_warns(ltr_train, tmp_path, store):
    balanced = ltr_train(*SHORT, "sampler=class_balanced", f"paths.stages={store}", outputs=tmp_path / "balanced")
    assert "costs decoupled methods" not in balanced.err
    done = ltr_train(*SHORT, "method=ncm", f"method.start_from={balanced.directory}")
    assert done.code == 0, done.err
    assert "costs decoupled methods" in done.err
