"""Running out of memory: the message, and trainer.auto_accumulate, which trains in micro-batches."""

from __future__ import annotations

import contextlib
import json

import pytest
import torch

from ltr.configuration.configs import config_names
from ltr.data.batch import Batch, Mix
from ltr.methods.core.network import ImageClassifier
from ltr.runs.failures import is_out_of_memory
from ltr.runs.training.micro_batch import micro_batches_of
from resuming import metric_rows, same_bits, signal_at, weights

pytestmark = pytest.mark.slow
ON_CPU = (
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
)
ERRORS = {"GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "CPU": RuntimeError(ON_CPU)}
SHORT = ("trainer.max_epochs=2", "trainer.precision=fp32", "trainer.accelerator=cpu", "batch_size=60")
AUTO = "trainer.auto_accumulate=true"


@contextlib.contextmanager
def room_for(monkeypatch, images: int, *, error: str = "GPU", from_step: int = 0, evaluation: bool = False):
    """Inside, more images at once than this raise what torch raises where there is no memory; sizes tried are noted."""
    tried: list[int] = []
    pixels_to_unit = ImageClassifier.to_unit

    def checked(self, batch):
        if self.training != evaluation and (self._trainer is None or self.trainer.global_step >= from_step):
            tried.append(len(batch))
            if len(batch) > images:
                raise ERRORS[error]
        return pixels_to_unit(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(ImageClassifier, "to_unit", checked)
        yield tried


def provenance(done) -> dict:
    return json.loads((done.directory / "provenance.json").read_text())


@pytest.mark.parametrize("error", ERRORS)
def test_out_of_memory_in_training_names_the_batch_size_and_remedies(ltr_train, monkeypatch, error):
    with room_for(monkeypatch, 32, error=error):
        done = ltr_train(*SHORT)
    assert done.code == 1
    assert "out of memory in a training step at batch_size=60. Lower batch_size; or halve it" in done.err
    assert "trainer.accumulate=2" in done.err
    assert "trainer.precision=bf16" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("more", [(), ("dataset.val=train_fraction",), ("method=ncm",)])
def test_out_of_memory_in_evaluation_names_the_evaluation_batch_size(ltr_train, monkeypatch, more):
    with room_for(monkeypatch, 32, evaluation=True):
        done = ltr_train(*SHORT, "trainer.max_epochs=1", "evaluation.batch_size=100", *more)
    assert done.code == 1
    assert "Lower evaluation.batch_size" in done.err
    assert "evaluation.batch_size=100" in done.err


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ERRORS["GPU"], True),
        (ERRORS["CPU"], True),
        (MemoryError(), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("size mismatch"), False),
        (OSError(28, "No space left on device"), False),
    ],
)
def test_out_of_memory_errors_are_recognised(error, expected):
    assert is_out_of_memory(error) is expected


def test_micro_batches_cover_the_batch():
    labels = torch.arange(7)
    batch = Batch(torch.rand(7, 3, 2, 2), labels, labels + 10, Mix(labels.flip(0), torch.rand(7)))
    parts = list(micro_batches_of(batch, 3))
    assert [len(part.labels) for part in parts] == [3, 3, 1]
    for name in ("images", "labels", "indices"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
    for number in (0, 1):
        assert torch.equal(torch.cat([part.mix[number] for part in parts]), batch.mix[number])


@pytest.mark.parametrize("error", ERRORS)
def test_micro_batches_train_like_the_whole_batch(ltr_train, tmp_path, monkeypatch, plain, error):
    command = (*plain, *SHORT, AUTO, "augment=cifar_mixup", "trainer.ema_decay=0.9", "trainer.gradient_clip=0.5")
    whole = ltr_train(*command, outputs=tmp_path / "whole")
    assert whole.code == 0, whole.err
    assert "micro_batch" not in provenance(whole)
    with room_for(monkeypatch, 15, error=error) as tried:
        parts = ltr_train(*command, outputs=tmp_path / "parts")
    assert parts.code == 0, parts.err
    assert tried[:7] == [60, 30, 15, 15, 15, 15, 15]
    assert "out of memory with 60 images at once in epoch 1, batch 1; continuing in parts of 30" in parts.out
    assert "in parts of 15, the optimiser's batch_size stays 60" in parts.out
    assert provenance(parts)["micro_batch"] == {"representation": 15}
    for name, tensor in weights(whole.directory).items():
        torch.testing.assert_close(weights(parts.directory)[name], tensor, rtol=1e-4, atol=1e-6)
    for actual, expected in zip(metric_rows(parts.directory), metric_rows(whole.directory), strict=True):
        assert actual["step"] == expected["step"]
        assert float(actual["train/loss"]) == pytest.approx(float(expected["train/loss"]), rel=1e-4)
    again = ltr_train(*command, "evaluation.many_above=50", outputs=tmp_path / "parts")
    assert "cached stage" in again.out
    assert len(again.directories) == 2
    for directory in again.directories:
        assert json.loads((directory / "provenance.json").read_text())["micro_batch"] == {"representation": 15}


def test_automatic_micro_batches_without_memory_errors_do_not_change_the_weights(ltr_train, tmp_path, plain):
    asked = ltr_train(*plain, *SHORT, AUTO, outputs=tmp_path / "asked")
    did_not = ltr_train(*plain, *SHORT, outputs=tmp_path / "did not")
    assert same_bits(weights(asked.directory), weights(did_not.directory))
    assert asked.result["stages"][0]["key"] != did_not.result["stages"][0]["key"]


def test_the_size_of_micro_batches_is_restored_after_an_interruption(ltr_train, tmp_path, monkeypatch, plain):
    command = (*plain, *SHORT, AUTO, "backbone.dropout=0.3")
    with room_for(monkeypatch, 30, from_step=5):
        whole = ltr_train(*command, outputs=tmp_path / "whole")
    with signal_at(monkeypatch, (1, 3)), room_for(monkeypatch, 30, from_step=5):
        stopped = ltr_train(*command, outputs=tmp_path / "stopped")
    assert stopped.code == 143, stopped.err
    resumed = ltr_train(*command, outputs=tmp_path / "stopped")  # with room for a whole batch again
    assert resumed.code == 0, resumed.err
    assert "batches in parts of 30 images, as before" in resumed.out
    assert same_bits(weights(whole.directory), weights(resumed.directory))
    assert whole.result["rows"] == resumed.result["rows"]
    assert metric_rows(whole.directory) == metric_rows(resumed.directory)
    assert provenance(resumed)["micro_batch"] == {"representation": 30}


def test_one_image_that_does_not_fit_is_an_error(ltr_train, monkeypatch, plain):
    with room_for(monkeypatch, 0) as tried:
        done = ltr_train(*plain, *SHORT, AUTO)
    assert done.code == 1
    assert tried == [60, 30, 15, 7, 3, 1]
    assert "batch_size=60, in parts of 1 (auto_accumulate)" in done.err


REFUSED = {
    "batch normalisation": ((), "stage 'representation' trains with batch normalisation (3 layers"),
    "two optimisers": (("method=arpl_cs", "dataset=digits_open"), "several optimisers"),
    "generated images": (("method=m2m",), "a custom training step"),
    "distances in a batch": (("method=rkd", "dataset=digits_retrieval"), "a custom training step"),
    "weights of the batch": (("loss=ldam", "loss.beta=0.99"), "loss.reduction=batch does not"),
    "accumulation": (("trainer.accumulate=2",), "trainer.accumulate=2 sets it"),
    "processes": (("strategy=ddp", "trainer.devices=2"), "memory may run out in only one of 2 processes"),
}


@pytest.mark.parametrize(("more", "message"), REFUSED.values(), ids=REFUSED)
def test_options_that_would_change_the_gradients_are_refused_by_name(ltr_train, more, message):
    done = ltr_train(*SHORT, AUTO, *more)
    assert done.code == 2
    assert "trainer.auto_accumulate=true: " in done.err
    assert message in done.err
    assert not done.outputs.exists() or not any(done.outputs.rglob("metrics.csv"))


OF_METHODS = {
    **{name: ("dataset=digits_open",) for name in config_names("method") if name.startswith(("arpl", "gcpl", "rpl"))},
    **dict.fromkeys(("rkd", "triplet"), ("dataset=digits_retrieval",)),
    "prototypical": ("dataset=digits_retrieval", "batch_size=48"),
    "background_splitting": ("dataset=digits_bg",),
}


@pytest.mark.parametrize("method", config_names("method"))
def test_a_method_trains_in_parts_as_in_whole_batches_or_is_refused(ltr_train, tmp_path, monkeypatch, plain, method):
    command = (*plain, *SHORT, AUTO, f"method={method}", *OF_METHODS.get(method, ()), "trainer.limit_train_batches=4")
    whole = ltr_train(*command, outputs=tmp_path / "whole")
    if whole.code:
        assert "trainer.auto_accumulate=true: " in whole.err
        assert "custom training step" in whole.err
        return
    with room_for(monkeypatch, 15):
        parts = ltr_train(*command, outputs=tmp_path / "parts")
    assert set(provenance(parts)["micro_batch"].values()) == {15}
    for name, tensor in weights(whole.directory).items():
        torch.testing.assert_close(weights(parts.directory)[name], tensor, rtol=1e-4, atol=1e-6)


def test_frozen_batch_normalisation_is_accepted(ltr_train, tmp_path, monkeypatch):
    first = ltr_train(*SHORT, outputs=tmp_path / "erm")
    command = (*SHORT, AUTO, "method=crt", "method.classifier.epochs=1", f"method.start_from={first.directory}")
    drifting = ltr_train(*command)
    assert drifting.code == 2
    assert "stage 'classifier' trains with batch normalisation" in drifting.err
    with room_for(monkeypatch, 30):
        frozen = ltr_train(*command, "method.freeze_bn_stats=true")
    assert frozen.code == 0, frozen.err
    assert provenance(frozen)["micro_batch"] == {"classifier": 30}
