"""Protocols that keep numbers of each image, by several processes: the joined numbers are those of one process."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from ltr.evaluation.background import Background
from ltr.evaluation.open_set import OpenSet
from ltr.evaluation.scores import Scores

COUNTS = np.array([300, 50, 5, 3])
PROCESSES = 2
# one process without any image, and unequal shares
SHARES = {
    "background": ([*range(32)], []),
    "open_set": ([*range(0, 30, 3)], [*range(1, 30, 3), *range(2, 30, 3), 30, 31]),
}
PROTOCOLS = {"background": Background, "open_set": OpenSet}


def synthetic(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0 if name == "background" else -1, 4, (32,), generator=generator)
    return torch.randn(32, 4, generator=generator), labels


def evaluate_share(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", PROCESSES)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=PROCESSES)
    for name, make in PROTOCOLS.items():
        protocol, (logits, labels) = make(COUNTS), synthetic(name)
        share = torch.tensor(SHARES[name][rank], dtype=torch.int64)
        if len(share):
            protocol.update(Scores(logits[share]), labels[share], share)
        try:
            protocol.compute()
        except RuntimeError as error:
            assert "reduce()" in str(error)  # noqa: PT017
        else:
            raise AssertionError("a share of the images was taken for the whole")
        protocol.reduce()
        protocol.reduce()  # a second call must not count twice
        result = protocol.compute()
        torch.save((result.metrics, result.predictions["id"].tolist()), f"{folder}/{name}{rank}")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    multiprocessing.start_processes(evaluate_share, (str(folder),), nprocs=PROCESSES, start_method="fork")
    return folder


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_process_has_the_metrics_and_predictions_of_a_single_process(folder, name):
    alone, (logits, labels) = PROTOCOLS[name](COUNTS), synthetic(name)
    alone.update(Scores(logits), labels)
    expected = alone.compute().metrics
    for rank in range(PROCESSES):
        metrics, ids = torch.load(folder / f"{name}{rank}", weights_only=True)
        assert metrics == pytest.approx(expected, rel=1e-12, nan_ok=True)
        assert ids == list(range(32))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_reduce_is_a_no_op_with_one_process(name):
    protocol, (logits, labels) = PROTOCOLS[name](COUNTS), synthetic(name)
    protocol.update(Scores(logits), labels)
    before = protocol.compute().metrics
    protocol.reduce()
    protocol.update(Scores(logits), labels, torch.arange(32, 64))
    assert protocol.compute().metrics["accuracy"] == pytest.approx(before["accuracy"])
