"""Evaluation by several processes: the joined numbers are those of one process."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from ltr.evaluation.closed_set import ClosedSet
from ltr.evaluation.scores import Scores

COUNTS = np.array([300, 50, 5, 3])
SHARES = ([0, 3, 4, 7, 8], [], [1, 2, 5, 6, 9, 10])  # three processes with unequal shares, one without any image


def synthetic() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(11, 4, generator=generator), torch.randint(0, 4, (11,), generator=generator)


def evaluate_share(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", len(SHARES))
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=len(SHARES))
    protocol = ClosedSet(COUNTS)
    logits, labels = synthetic()
    share = torch.tensor(SHARES[rank], dtype=torch.int64)
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
    torch.save(
        (result.metrics, result.per_class["correct"].tolist(), result.predictions["id"].tolist()), f"{folder}/{rank}"
    )
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> list[tuple]:
    folder: Path = tmp_path_factory.mktemp("processes")
    multiprocessing.start_processes(evaluate_share, (str(folder),), nprocs=len(SHARES), start_method="fork")
    return [torch.load(folder / str(rank), weights_only=True) for rank in range(len(SHARES))]


def test_every_process_has_the_metrics_of_a_single_process(joined):
    protocol = ClosedSet(COUNTS)
    logits, labels = synthetic()
    protocol.update(Scores(logits), labels)
    alone = protocol.compute()
    for metrics, correct, _ in joined:
        assert correct == alone.per_class["correct"].tolist()
        assert metrics == pytest.approx(alone.metrics, rel=1e-12, nan_ok=True)


def test_every_process_has_all_predictions(joined):
    assert all(ids == list(range(11)) for _, _, ids in joined)


def test_reduce_is_a_no_op_with_one_process():
    protocol = ClosedSet(COUNTS)
    protocol.update(Scores(torch.eye(4)), torch.arange(4))
    protocol.reduce()
    assert protocol.compute().metrics["accuracy"] == 1.0
