"""Data, weights, folders and combinations that do not fit are refused with advice and without partial files."""

from __future__ import annotations

import os
import pickle

import pytest
import torch

BATCHES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch", "batches.meta"]


class Trap:
    """Object that creates a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def run_directories(done) -> list[str]:
    return [path for path in done.left if not path.startswith("stages")]


def test_a_missing_data_folder_is_refused_with_file_location_and_download(refused, tmp_path):
    done = refused("dataset=cifar10_lt", f"paths.data={tmp_path / 'nowhere'}")
    assert done.code == 1
    for words in ("data_batch_1", str(tmp_path / "nowhere"), "dataset.download=true", "LTR_DATA", "paths.data="):
        assert words in done.err
    assert done.left == []


def test_a_file_that_is_missing_is_named(refused, tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in BATCHES[:3] + BATCHES[4:]:
        (folder / name).write_bytes(b"")
    done = refused("dataset=cifar10_lt", f"paths.data={tmp_path}")
    assert "it lacks data_batch_4" in done.err


@pytest.mark.parametrize("content", [b"half of a file", pickle.dumps({"data": 1})])
def test_a_truncated_or_corrupt_file_is_named_and_never_unpickled(refused, tmp_path, content):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in BATCHES:
        (folder / name).write_bytes(content)
    done = refused("dataset=cifar10_lt", f"paths.data={tmp_path}")
    assert "is damaged or only half downloaded" in done.err
    assert str(folder) in done.err
    assert done.left == []


def test_a_pickle_instead_of_the_data_is_not_executed(refused, tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in BATCHES:
        (folder / name).write_bytes(pickle.dumps(Trap(str(tmp_path / "sprung"))))
    refused("dataset=cifar10_lt", f"paths.data={tmp_path}")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["dataset.num_classes=11"], "dataset.num_classes=11: digits has 10 classes. Use 1 to 10"),
        (["dataset.imbalance_factor=5000"], "dataset.imbalance_factor=5000 leaves"),
        (["dataset.mean=[0.1,0.2]"], "need 1 numbers each"),
        (["trainer.selection=best_val"], "trainer.selection=best_val: the split 'digits-exp15-cao' has no validation"),
        (["resume=must"], "resume=must: there is nothing to resume"),
        (["evaluation.few_below=200"], "evaluation.few_below=200 and evaluation.many_above=100 overlap"),
        (["augment=cifar_cutout"], "augment.cutout=16: images have 8 pixels a side"),
        (["scheduler.warmup_epochs=100"], "scheduler.warmup_epochs is 100 and the run has 40 epochs"),
        (["backbone=torchvision", "backbone.name=resnet1000"], "Did you mean 'resnet101'?"),
        (["trainer.devices=2"], "trainer.devices=2: strategy=single is one process"),
    ],
)
def test_options_that_do_not_fit_the_data_are_refused_and_create_no_run(refused, overrides, words):
    done = refused(*overrides)
    assert words in done.err
    assert run_directories(done) == []
    assert not [path for path in done.left if path.endswith((".ckpt", ".json", ".csv", ".part"))]


@pytest.mark.parametrize("overrides", [["scheduler.warmup_epochs=100"], ["augment=cifar_cutout"]])
def test_a_refused_stage_leaves_no_file(refused, overrides):
    assert refused(*overrides).left == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("override", ["trainer=gpu", "trainer.precision=fp16"])
def test_a_missing_gpu_is_named(refused, override):
    done = refused(override)
    assert done.code == 2
    assert "no CUDA device is visible" in done.err or "needs a GPU" in done.err
    assert done.left == []


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["nothing.pt", "weights.txt", "half.pt", "other.pt", "trap.pt", "trap.ckpt"])
def test_weights_that_cannot_be_used_are_refused_and_never_executed(refused, tmp_path, name):
    trap = Trap(str(tmp_path / "sprung"))
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"state_dict": {"conv.weight": trap}}, tmp_path / "trap.pt")
    (tmp_path / "trap.ckpt").write_bytes(pickle.dumps(trap))
    (tmp_path / "half.pt").write_bytes((tmp_path / "other.pt").read_bytes()[:300])
    (tmp_path / "weights.txt").write_text("hello")
    done = refused(f"backbone.weights={tmp_path / name}")
    assert done.code == 1
    assert str(tmp_path / name) in done.err
    assert run_directories(done) == []
    assert not (tmp_path / "sprung").exists()


def test_weights_of_another_architecture_are_refused_with_the_mismatching_tensors(refused, finished_run):
    done = refused("backbone=resnet20", f"backbone.weights={finished_run / 'checkpoints' / 'final.ckpt'}")
    assert "another architecture" in done.err
    assert "missing" in done.err


@pytest.mark.parametrize("key", ["outputs", "stages"])
def test_a_file_instead_of_a_folder_is_named(refused, tmp_path, key):
    (tmp_path / "file").write_text("")
    done = refused(f"paths.{key}={tmp_path / 'file' / 'below'}")
    assert done.mistakes == [f"paths.{key}={tmp_path / 'file' / 'below'}: a folder is needed, "
                             f"and {tmp_path / 'file'} is a file"]  # fmt: skip


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs a folder in which not even root can write")
def test_outputs_that_cannot_be_written_are_named(ltr_train):
    done = ltr_train("paths.outputs=/proc/outputs", "debug=fast")
    assert done.code == 1
    assert "/proc/outputs" in done.err
    assert "Traceback" not in done.err


def test_a_damaged_result_is_named(ltr_train, refused):
    first = ltr_train("debug=fast")
    (first.directory / "result.json").write_text("{")
    done = refused("debug=fast")
    assert f"{first.directory / 'result.json'} cannot be read" in done.err
    assert "Move the run's result.json elsewhere and repeat the run's command" in done.err
