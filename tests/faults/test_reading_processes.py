"""A killed process that reads images: a clear error, no hang, and a run that resumes to the same bits."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

import trees
from ltr.runs.training import train
from resuming import acting_at, same_bits, weights
from several import ltr_train_in

pytestmark = pytest.mark.slow


ALONE = {"processes": 1, "strategy": "single", "timeout": 60}


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> tuple[str, ...]:
    """Training on image files that two processes read: an epoch of far more batches than are read ahead, or a process
    that is killed may have delivered its last batch already."""
    images = trees.folder(tmp_path_factory.mktemp("images"), each=60)
    return (
        *("dataset=folder", f"dataset.root={images}", "dataset.image_size=16", "augment=digits", "backbone=digits_net"),
        *(
            "trainer.max_epochs=2",
            "checkpoint.min_seconds=0",
            "batch_size=8",
            "trainer.num_workers=2",
            "evaluation.batch_size=8",
        ),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory, command) -> Path:
    """The outputs of an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    done = ltr_train_in(folder, *command, **ALONE)
    assert done.codes == [0], done.err
    return folder / "outputs"


class _KillsAReader:
    """Kills one of this process's children, which read images, at the end of one batch."""

    def __init__(self, at: tuple[int, int]) -> None:
        self.at = at

    def __call__(self, rank: int) -> None:
        train.StopOnSignal = acting_at(self.at, self.kill, after=True)

    @staticmethod
    def kill() -> None:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        assert len(children) == 2, children
        os.kill(int(children[0]), signal.SIGKILL)


def finished(outputs: Path) -> tuple[dict[str, torch.Tensor], list]:
    (path,) = outputs.glob("*/*/*/result.json")
    return weights(path.parent), json.loads(path.read_text())["rows"]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds children in /proc")
@pytest.mark.parametrize("at", [(0, 0), (1, 2)], ids=["before anything was saved", "in the second epoch"])
def test_a_run_with_a_killed_reader_resumes_to_the_same_bits(tmp_path, command, whole, at):
    killed = ltr_train_in(tmp_path, *command, **ALONE, hook=_KillsAReader(at))
    assert killed.codes == [1], killed.out
    assert "a process that reads images ended (DataLoader worker" in killed.err
    assert "the same command continues from the last saved state" in killed.err
    assert "Traceback" not in killed.err
    status = next((tmp_path / "outputs").glob("*/*/*/status.json"))
    assert json.loads(status.read_text()) == {"status": "failed"}
    resumed = ltr_train_in(tmp_path, *command, **ALONE)
    assert resumed.codes == [0], resumed.err
    assert ("resuming in epoch 2" in resumed.out) is (at[0] == 1)
    (actual, our_rows), (expected, their_rows) = finished(tmp_path / "outputs"), finished(whole)
    assert same_bits(actual, expected)
    assert our_rows == their_rows
