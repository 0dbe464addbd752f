"""The point at which training resumes: `ResumePoint` from Lightning's loops, and the newest readable state."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ltr.errors import CheckpointError
from ltr.runs.training.state import ResumePoint, SaveState, TrainingState

NETWORK = nn.Linear(2, 2)


def state(processed: int, started: int, batches: int, is_last_batch: bool) -> dict:
    """Return a training state after ``batches`` batches of the epoch that was started last."""
    return {
        "loops": {
            "fit_loop": {
                "epoch_progress": {"current": {"processed": processed, "started": started}},
                "epoch_loop.batch_progress": {"current": {"processed": batches}, "is_last_batch": is_last_batch},
            }
        },
        "global_step": 9,
        "optimizer_states": [{"state": {}, "param_groups": []}],
        "lr_schedulers": [],
        "callbacks": {},
        "state_dict": dict(NETWORK.state_dict()),
        "code": {"commit": "abc"},
    }


@pytest.mark.parametrize(
    ("saved", "epoch", "batch"),
    [
        (state(1, 2, 6, False), 1, 6),  # in the middle of the second epoch
        (state(2, 2, 8, True), 2, 0),  # after it
        (state(1, 2, 8, True), 1, 0),  # its last batch is done, its end is not
        (state(0, 0, 0, False), 0, 0),
    ],
)
def test_a_training_resumes_after_the_last_finished_batch(tmp_path, saved, epoch, batch):
    torch.save(saved, tmp_path / "last.ckpt")
    point = ResumePoint.read(tmp_path / "last.ckpt", NETWORK)
    assert (point.epoch, point.batch) == (epoch, batch)
    assert point.code == {"commit": "abc"}


def test_a_training_without_a_state_starts_at_the_beginning(tmp_path):
    assert TrainingState(tmp_path, print).resume_point(NETWORK) is None


def test_a_damaged_state_is_set_aside_for_the_one_before_it(tmp_path):
    lines: list[str] = []
    torch.save(state(1, 1, 0, False), tmp_path / "previous.ckpt")
    damaged = copy.deepcopy(state(2, 2, 0, False))
    del damaged["loops"]["fit_loop"]["epoch_progress"]
    torch.save(damaged, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="loops does not hold the position of the training"):
        ResumePoint.read(tmp_path / "last.ckpt")
    point = TrainingState(tmp_path, lines.append).resume_point(NETWORK)
    assert point is not None
    assert (point.path.name, point.epoch) == ("previous.ckpt", 1)
    assert "set aside as last.damaged-" in lines[0]
    assert "continuing from the previous checkpoint" in lines[0]
    assert not (tmp_path / "last.ckpt").exists()


def test_a_state_of_another_network_is_set_aside(tmp_path):
    lines: list[str] = []
    torch.save(state(1, 1, 0, False), tmp_path / "last.ckpt")
    assert TrainingState(tmp_path, lines.append).resume_point(nn.Linear(3, 2)) is None
    assert len(lines) == 1
    assert "the training starts from scratch" in lines[0]


@pytest.fixture
def epochs_saved(monkeypatch):
    """Return a function that ends epochs at given seconds, of 6, and returns those whose state is saved."""

    def ends(at: list[float], **options) -> list[int]:
        saved = []
        clock = iter([0.0, *at])
        now = [0.0]
        monkeypatch.setattr("ltr.runs.training.state.time", SimpleNamespace(monotonic=lambda: now[0]))
        trainer = SimpleNamespace(current_epoch=0, max_epochs=6)

        def save(trainer) -> None:
            saved.append(trainer.current_epoch + 1)
            callback.on_save_checkpoint(trainer, NETWORK, {})

        callback = SaveState(SimpleNamespace(save=save), **options)
        now[0] = next(clock)
        callback.on_train_start(trainer, NETWORK)
        for epoch, now[0] in enumerate(clock):
            trainer.current_epoch = epoch
            callback.on_train_epoch_end(trainer, NETWORK)
        return saved

    return ends


def test_short_epochs_save_their_state_by_time(epochs_saved):
    assert epochs_saved([1, 4, 5, 9, 20, 30], every_n_epochs=1, min_seconds=5) == [3, 5]
    assert epochs_saved([1, 4, 5, 9, 20, 30], every_n_epochs=2, min_seconds=5) == [4]
    assert epochs_saved([0, 0, 0, 0, 0, 0], every_n_epochs=1, min_seconds=0) == [1, 2, 3, 4, 5]


@pytest.fixture
def selecting(tmp_path):
    """Return a folder with two training states, the later of which refers to weights of a best epoch."""
    for name, best in (("previous", None), ("last", 2)):
        one = state(1, 1, 8, True) | {"callbacks": {"Validation": {"best": 0.5, "best_epoch": best}, "Other": {}}}
        torch.save(one, tmp_path / f"{name}.ckpt")
    torch.save(dict(NETWORK.state_dict()), tmp_path / "best.ckpt")
    return tmp_path


def test_a_state_with_the_weights_of_its_best_epoch_is_resumed(selecting):
    lines: list[str] = []
    point = TrainingState(selecting, lines.append).resume_point(NETWORK)
    assert point is not None
    assert (point.path.name, lines) == ("last.ckpt", [])


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_state_without_the_weights_of_its_best_epoch_is_set_aside(selecting, harm):
    best = selecting / "best.ckpt"
    best.unlink() if harm == "missing" else best.write_bytes(best.read_bytes()[:40])
    lines: list[str] = []
    point = TrainingState(selecting, lines.append).resume_point(NETWORK)
    assert point is not None
    assert point.path.name == "previous.ckpt"  # from before the first evaluation
    assert "best.ckpt" in lines[0]
    assert "continuing from the previous checkpoint" in lines[0]
    (selecting / "previous.ckpt").unlink()
    assert TrainingState(selecting, lines.append).resume_point(NETWORK) is None
