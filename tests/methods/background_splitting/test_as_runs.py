"""Background splitting through the commands: reuse over sweeps, evaluation again, interruptions, bad input."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import torchvision

import ltr
from ltr.methods.background_splitting.network import BackgroundClassifier
from ltr.models.weights import seeded_construction

SPLITTING = ["method=background_splitting", "dataset=digits_bg", "trainer.precision=fp32", "optimizer.lr=0.05"]
SHORT = [*SPLITTING, "trainer.max_epochs=2"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("stages")


def statuses(directory) -> dict[str, str]:
    stages = json.loads((directory / "result.json").read_text())["stages"]
    return {stage["name"]: stage["status"] for stage in stages}


def test_a_run_reports_its_partition_and_its_checkpoint_gives_the_same_rows(ltr_train, ltr_eval, tmp_path, store):
    done = ltr_train(*SHORT, f"paths.stages={store}")
    assert done.code == 0, done.err
    assert "partition: the background falls into " in done.out
    assert " of 10 pseudo-classes, largest share" in done.out
    with np.load(done.directory / "artifacts" / "partition.npz") as report:
        assert report["background_counts"].sum() == 1117
        assert 0 < report["background_largest_share"] < 0.5
    header = (done.directory / "metrics.csv").read_text().splitlines()[0]
    assert "train/main_loss,train/aux_loss,train/aux_accuracy" in header
    on_test = [row for row in done.result["rows"] if row["split"] == "test"]
    code, _, err = ltr_eval(done.directory, "--json", tmp_path / "again.json", "trainer.precision=fp32")
    assert code == 0, err
    assert json.loads((tmp_path / "again.json").read_text())["rows"] == on_test
    alone = tmp_path / "alone" / "weights.ckpt"  # without its run and its store
    alone.parent.mkdir()
    shutil.copy(done.directory / "checkpoints" / "final.ckpt", alone)
    images = np.random.default_rng(0).integers(0, 255, (5, 8, 8, 1), dtype=np.uint8)
    assert ltr.load(alone).predict(images).shape == (5, 3)


def test_a_sweep_over_b0_computes_its_pseudo_labels_once(ltr_train, tmp_path):
    done = ltr_train("+sweep=b0", *SHORT, "method.b0=0,0.1,null", "trainer.limit_train_batches=2")
    assert done.code == 0, done.err
    actual = sorted((statuses(directory) for directory in done.directories), key=str)
    assert [status["representation"] for status in actual] == ["trained"] * 3
    for name in ("pseudo_labels", "partition"):
        assert sorted(status[name] for status in actual) == ["reused"] * 2 + ["trained"]


def test_seeds_and_numbers_of_classes_share_pseudo_labels(ltr_train, store):
    short = [*SHORT, "trainer.limit_train_batches=2", f"paths.stages={store}"]
    ltr_train(*short)
    for change in (["seed=1"], ["dataset.n_foreground=1"]):
        done = ltr_train(*short, *change)
        directory = max(done.directories, key=lambda actual: (actual / "result.json").stat().st_mtime_ns)
        assert statuses(directory)["pseudo_labels"] == "reused", done.err


def test_a_finished_run_on_other_classes_serves_as_the_teacher(ltr_train, tmp_path, store):
    teacher = ltr_train("dataset=digits", *SHORT[2:], f"paths.stages={store}", outputs=tmp_path / "teacher")
    asked = ["method.aux.partition=teacher", f"method.aux.run={teacher.directory}", "method.aux.init=teacher"]
    done = ltr_train(*SHORT, *asked, f"paths.stages={store}")
    assert done.code == 0, done.err
    assert list(statuses(done.directory)) == ["teacher", "pseudo_labels", "partition", "representation"]


def test_a_teacher_from_a_file_gives_soft_labels(ltr_train, tmp_path, store):
    with seeded_construction(0):
        torch.save(torchvision.models.squeezenet1_1(num_classes=12).state_dict(), tmp_path / "teacher.pth")
    teacher = [
        "method.aux.partition=teacher", "method.aux.labels=soft", "method.aux.top_k=4",
        "method.aux.teacher.name=squeezenet1_1", "method.aux.teacher.image_size=32",
        f"method.aux.teacher.weights={tmp_path / 'teacher.pth'}",
    ]  # fmt: skip
    done = ltr_train(*SHORT, *teacher, f"paths.stages={store}")
    assert done.code == 0, done.err


def test_a_run_with_a_deferred_loss_and_few_labels_succeeds(ltr_train, store):
    more = ["loss=ldam", "loss.beta=0.999", "loss.defer_from=0.5", "method.labelled_fraction=0.2"]
    done = ltr_train(*SHORT, *more, "method.background_weight=0.5", f"paths.stages={store}")
    assert done.code == 0, done.err


@pytest.mark.parametrize("base", ["crt", "lws", "ncm", "posthoc_la"])
def test_decoupled_methods_start_from_it(ltr_train, store, base):
    done = ltr_train(
        f"method={base}", "+method@method.representation=background_splitting", "dataset=digits_bg",
        "method.representation.aux.weight=0", *SHORT[2:], f"paths.stages={store}",
    )  # fmt: skip
    assert done.code == 0, done.err


REFUSED = {
    "b0 of inf": (["method.b0=.inf"], "method.b0"),
    "too many classes": (["dataset.n_foreground=10"], "dataset.n_foreground=10"),
    "an id that is not there": (
        ["dataset.foreground=ids", "dataset.n_foreground=null", "dataset.ids=[3,77]"],
        "77",
    ),
    "no background": (["dataset=digits_lt", "method.aux.partition=kmeans"], "needs data with a background class"),
    "no teacher": (["method.aux.partition=teacher"], "has no weights yet"),
    "no such run": (["method.aux.partition=teacher", "method.aux.run=/nowhere"], "/nowhere"),
    "no taxonomy": (["method.aux.partition=supercategories"], "digits has no taxonomy"),
    "a head of the teacher's that is none": (["method.aux.init=teacher"], "method.aux.init=teacher"),
    "an unknown key": (["method.aux.wieght=0"], "method.aux.wieght"),
}


@pytest.mark.parametrize(("overrides", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_is_refused_before_any_training(ltr_train, monkeypatch, overrides, message):
    def never(*arguments):
        raise AssertionError("trained")

    monkeypatch.setattr(BackgroundClassifier, "training_step", never)
    actual = ltr_train(*SHORT, *overrides)
    assert actual.code in (1, 2)
    assert message in actual.err
    assert "Traceback" not in actual.err
    assert not list(actual.outputs.rglob("*.ckpt"))


def test_a_teacher_with_other_outputs_than_declared_is_refused(ltr_train, tmp_path):
    with seeded_construction(0):
        torch.save(torchvision.models.squeezenet1_1(num_classes=12).state_dict(), tmp_path / "teacher.pth")
    actual = ltr_train(
        *SHORT, "method.aux.partition=teacher", "method.aux.teacher.name=squeezenet1_1",
        f"method.aux.teacher.weights={tmp_path / 'teacher.pth'}", "method.aux.teacher.num_classes=1000",
    )  # fmt: skip
    assert actual.code == 2
    assert "method.aux.teacher.num_classes=1000" in actual.err
    assert "has 12 outputs" in actual.err
