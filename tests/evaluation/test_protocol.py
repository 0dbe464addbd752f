"""Protocols from a few numbers of each image: batches and processes are joined, in the images' order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from ltr.evaluation.protocol import PerImageProtocol
from ltr.evaluation.scores import Scores

PROCESSES = 2


class Hits(PerImageProtocol):
    """The share of correct predictions, and the images in the order of evaluation."""

    name = "hits"
    headline = "share"

    def numbers_of(self, scores, labels):
        return {"right": scores.logits.argmax(1) == labels, "logits": scores.logits}

    def metrics_of(self, numbers):
        self.numbers = numbers
        return {"share": numbers["right"].mean() if numbers else float("nan")}


def synthetic() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(32, 4, generator=generator), torch.randint(0, 4, (32,), generator=generator)


def updated(*shares: list[int]) -> Hits:
    protocol, (logits, labels) = Hits(), synthetic()
    for share in map(torch.tensor, shares):
        protocol.update(Scores(logits[share]), labels[share], share)
    return protocol


def test_metrics_are_of_all_images_in_their_order():
    logits, labels = synthetic()
    protocol = updated([*range(16, 32)], [*range(16)])
    assert protocol.compute().metrics == {"share": float((logits.argmax(1) == labels).double().mean())}
    assert np.array_equal(protocol.numbers["logits"], logits.numpy())


def test_recorded_arrays_are_copies():
    protocol, (logits, labels) = Hits(), synthetic()
    changed = logits.clone()
    protocol.update(Scores(changed), labels)
    changed.zero_()
    protocol.compute()
    assert np.array_equal(protocol.numbers["logits"], logits.numpy())


def test_a_protocol_computes_its_metrics_without_images():
    protocol = Hits()
    protocol.reduce()
    assert np.isnan(protocol.compute().metrics["share"])


def test_a_protocol_returns_metrics_only():
    result = updated([0, 1]).compute()
    assert (result.per_class, result.predictions, result.curves) == ({}, {}, {})


def evaluate_share(rank: int, folder: str, shares: list[list[int]]) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", PROCESSES)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=PROCESSES)
    protocol = updated(*([shares[rank]] if shares[rank] else []))
    protocol.reduce()
    protocol.reduce()  # a second call must not count twice
    torch.save(protocol.compute().metrics, f"{folder}/{rank}")
    distributed.destroy_process_group()


def test_processes_with_unequal_shares_have_the_metrics_of_one_process(tmp_path: Path):
    shares: list[list[int]] = [[*range(31, -1, -1)], []]  # one process without any image
    multiprocessing.start_processes(evaluate_share, (str(tmp_path), shares), nprocs=PROCESSES, start_method="fork")
    for rank in range(PROCESSES):
        assert torch.load(tmp_path / str(rank)) == updated([*range(32)]).compute().metrics


@pytest.mark.parametrize("method", ["update", "reduce", "compute"])
def test_the_base_class_declares_the_methods_of_a_protocol(method):
    assert getattr(PerImageProtocol, method).__doc__
