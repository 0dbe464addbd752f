"""Losses of the gathered batch: several processes compute what one does."""

from __future__ import annotations

import pytest
import torch
from torch import distributed, multiprocessing

from ltr.losses.gathering import _interleave, broadcast_from_rank_zero
from ltr.losses.prototypical import Prototypical
from ltr.losses.triplet import Triplet

LOSSES = {"prototypical": Prototypical(), "distance_weighted": Triplet(margin=1.0), "all": Triplet(mining="all")}


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Return embeddings [8, 3] whose first image of each class is its support, and labels int64 [8]."""
    embeddings = torch.randn(8, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return embeddings.requires_grad_(), torch.tensor([0, 1, 1, 0, 0, 1, 1, 0])


def losses_of_share(rank: int, world_size: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the loss of a process's share and its gradient for the whole batch, by name of the loss."""
    results = {}
    for name, loss in LOSSES.items():
        embeddings, labels = batch()
        torch.manual_seed(7 + rank)  # dropout masks differ between processes
        value = loss(embeddings[rank::world_size], labels[rank::world_size])
        value.backward()
        results[name] = (value.detach(), embeddings.grad)
    return results


def share_of_a_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.save(losses_of_share(rank, 2), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_have_the_losses_and_the_gradients_of_one(tmp_path):
    multiprocessing.start_processes(share_of_a_process, args=(str(tmp_path),), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, (value, gradient) in losses_of_share(0, 1).items():
        torch.testing.assert_close(first[name][0], value)
        torch.testing.assert_close(second[name][0], value)
        # DistributedDataParallel averages the gradients of the processes
        torch.testing.assert_close((first[name][1] + second[name][1]) / 2, gradient)


def test_rows_come_back_in_the_order_of_the_global_batch():
    rows = torch.arange(12).view(6, 2)
    assert torch.equal(_interleave([rows[rank::3] for rank in range(3)]), rows)


@pytest.mark.parametrize("values", [torch.rand(2, 2), torch.tensor(3)])
def test_one_process_broadcasts_nothing(values):
    assert broadcast_from_rank_zero(values) is values
