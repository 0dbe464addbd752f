"""compile=graph with a recorder of the CPU: the bits of usual training, resuming, new recordings, obstacles."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ltr.runs.training import train
from ltr.runs.training.graph_loop import CudaRecorder, GraphEpochLoop
from recorded_steps import CpuRecorder
from resuming import same_bits, signal_at, weights

SHORT = ("trainer.max_epochs=3", "trainer.precision=fp32")
pytestmark = pytest.mark.slow


@pytest.fixture
def loops(monkeypatch) -> list[GraphEpochLoop]:
    """Record steps on the CPU; return the loop of each training."""
    loops: list[GraphEpochLoop] = []

    def loop(*arguments):
        loops.append(GraphEpochLoop(*arguments))
        return loops[-1]

    monkeypatch.setattr(train, "GraphEpochLoop", loop)
    monkeypatch.setattr(train, "recorder_of", lambda device: CpuRecorder())
    return loops


def test_replayed_steps_give_the_weights_of_eager_ones_also_after_an_interruption(
    ltr_train, tmp_path, monkeypatch, loops
):
    usual = ltr_train(*SHORT, outputs=tmp_path / "usual")
    replayed = ltr_train(*SHORT, "compile=graph", outputs=tmp_path / "replayed")
    # 3 epochs of 7 full batches and a smaller one, without those that warm up
    assert [loop.replayed for loop in loops] == [3 * 7 - 3]
    assert loops[0].recorder.recordings == 1
    assert loops[0].trainer.train_dataloader.defers_images  # the recorded step takes and augments them
    assert replayed.directory.name == usual.directory.name
    assert same_bits(weights(usual.directory), weights(replayed.directory))
    assert usual.result["rows"] == replayed.result["rows"]
    with signal_at(monkeypatch, (1, 2)):
        stopped = ltr_train(*SHORT, "compile=graph", outputs=tmp_path / "stopped")
    assert stopped.code == 143
    resumed = ltr_train(*SHORT, "compile=graph", outputs=tmp_path / "stopped")
    assert loops[-1].replayed > 0
    assert same_bits(weights(usual.directory), weights(resumed.directory))


def test_a_loss_that_changes_with_the_epoch_is_recorded_again(ltr_train, tmp_path, loops):
    options = (*SHORT, "loss=class_balanced", "loss.beta=0.99", "loss.defer_from=0.34")
    usual = ltr_train(*options, outputs=tmp_path / "usual")
    replayed = ltr_train(*options, "compile=graph", outputs=tmp_path / "replayed")
    assert loops[0].recorder.recordings == 2
    assert same_bits(weights(usual.directory), weights(replayed.directory))


REASONS = {
    "trainer.on_nonfinite=skip": "decides on the host within a step",
    "trainer.accumulate=2": "run code on the host in every step",
    "optimizer.fused=false": "the optimiser has no fused form",
}


@pytest.mark.parametrize(("option", "reason"), REASONS.items(), ids=REASONS.keys())
def test_a_training_that_cannot_be_recorded_is_reported_once_and_runs_eagerly(ltr_train, loops, option, reason):
    run = ltr_train("trainer.max_epochs=2", "trainer.limit_train_batches=2", "compile=graph", option)
    assert run.code == 0, run.err
    assert loops[0].replayed == 0
    assert run.out.count("the steps run one by one") == 1
    assert f"representation: compile=graph: {reason}" in run.out.replace("\n", " ") or reason in run.out


def test_without_a_gpu_steps_run_one_by_one(ltr_train):
    run = ltr_train("trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer=cpu", "compile=graph")
    assert run.code == 0, run.err
    assert run.out.count("compile=graph: no CUDA device is used; the steps run one by one") == 1


def test_an_operation_that_cannot_be_recorded_is_an_error_with_the_remedy(ltr_train, monkeypatch, loops):
    def refuse(self, function):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(CpuRecorder, "record", refuse)
    run = ltr_train("trainer.max_epochs=1", "compile=graph")
    assert run.code != 0
    assert "cannot be recorded (CUDA error: operation not permitted when stream is capturing)" in run.err
    assert "Use compile=false" in run.err
    assert "Traceback" not in run.err


def test_the_recorder_of_a_gpu_replays_what_it_has_captured(monkeypatch):
    calls: list[str] = []

    class Stream:
        def wait_stream(self, other):
            calls.append("wait")

    class Graph:
        def replay(self):
            calls.append("replay")

    def noting(name):
        @contextlib.contextmanager
        def block(*arguments, **named):
            calls.append(f"enter {name}")
            yield
            calls.append(f"leave {name}")

        return block

    monkeypatch.setattr(
        torch,
        "cuda",
        SimpleNamespace(
            Stream=lambda device: Stream(),
            current_stream=Stream,
            stream=noting("stream"),
            CUDAGraph=Graph,
            graph=noting("graph"),
        ),
    )
    recorder = CudaRecorder(torch.device("cuda", 0))
    assert recorder.warm_up(lambda: calls.append("step") or 1) == 1
    assert calls == ["wait", "enter stream", "step", "leave stream", "wait"]
    calls.clear()
    replay, result = recorder.record(lambda: calls.append("step") or 2)
    assert (result, calls) == (2, ["enter graph", "step", "leave graph", "replay"])
    replay()
    assert calls[-1] == "replay"


LABELS = [1, 0]
OF_THE_HOST = {
    "a number that it reads": lambda images: images * images.sum().item(),
    "a branch": lambda images: images if images.sum() > 0 else -images,
    "a list": lambda images: images * images.tolist()[0],
    "a copy": lambda images: images.cpu(),
    "an array": lambda images: torch.from_numpy(np.ones(3)) * images,
    "a constant": lambda images: torch.tensor([1.0, 2.0, 3.0]) * images,
    "a mask": lambda images: images[images > 1],
    "a mask that is written": lambda images: images.clone().index_put_((images > 1,), torch.zeros(())),
    "positions": lambda images: images.nonzero(),
    "different values": lambda images: images.unique(),
}


@pytest.mark.parametrize("function", OF_THE_HOST.values(), ids=OF_THE_HOST.keys())
def test_the_test_recorder_notes_host_operations_in_a_step(function):
    recorder = CpuRecorder()
    recorder.record(lambda: function(torch.arange(3.0)))
    assert recorder.waiting


def test_the_test_recorder_allows_label_checks_on_the_cpu():
    recorder = CpuRecorder()
    _, rows = recorder.record(lambda: torch.nn.functional.one_hot(torch.tensor(LABELS), 3))
    assert rows.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert recorder.waiting == ["lift_fresh"]  # the labels themselves


def test_the_test_recorder_repeats_operations_on_the_same_memory():
    images, weight, number = torch.arange(3.0), torch.ones(3, requires_grad=True), [1.0]

    def step():
        (images * weight * number[0]).sum().backward()
        return images * 2

    recorder = CpuRecorder()
    replay, result = recorder.record(step)
    assert recorder.waiting == []
    images.fill_(5)
    number[0] = 7.0  # of the host: the recording keeps 1
    replay()
    assert result.tolist() == [10, 10, 10]
    assert weight.grad.tolist() == [5, 5, 5]
