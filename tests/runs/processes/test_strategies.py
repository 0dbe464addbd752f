"""Devices and strategy arguments of a run's processes; GPUs are made up here."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.strategies import FSDPStrategy

from ltr.errors import ConfigError
from ltr.losses.equalization import Equalization
from ltr.runs.processes import distributed, strategies
from ltr.runs.processes.device import check_strategy
from ltr.runs.processes.process_info import ProcessInfo

OF_TWO = ProcessInfo(rank=3, world_size=4, local_rank=1, local_world_size=2, rendezvous="env://")


@pytest.fixture
def gpus(monkeypatch):
    """``gpus(2)`` makes torch say that there are so many; returns the list of those that were chosen."""

    def there_are(count: int) -> list[int]:
        chosen: list[int] = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
        return chosen

    return there_are


@pytest.mark.parametrize(
    ("count", "accelerator", "backend", "device"),
    [
        (0, "auto", "gloo", []),
        (0, "cpu", "gloo", []),
        (2, "cpu", "gloo", []),
        (2, "auto", "cpu:gloo,cuda:nccl", [1]),
        (8, "gpu", "cpu:gloo,cuda:nccl", [1]),
    ],
)
def test_gpus_use_nccl_with_one_device_per_process(gpus, count, accelerator, backend, device):
    chosen = gpus(count)
    assert distributed.backend_of(OF_TWO, accelerator) == backend
    assert chosen == device


def test_more_processes_than_gpus_are_refused_in_every_one_of_them(gpus):
    gpus(1)
    for local_rank in (0, 1):
        with pytest.raises(ConfigError, match="2 processes on this machine and 1 GPUs"):
            distributed.backend_of(ProcessInfo(local_rank, 2, local_rank, 2, "env://"), "auto")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.accelerator=cpu"], "trainer.accelerator=cpu has none. Use strategy=ddp"),
        (["trainer.accelerator=auto"], "no CUDA device is visible. Use strategy=ddp"),
        (["trainer.accelerator=cpu", "trainer.devices=2"], "trainer.accelerator=cpu has none. Use strategy=ddp"),
    ],
)
def test_fsdp_on_a_cpu_is_refused_before_anything_is_read_or_written(ltr_train, gpus, overrides, message):
    gpus(0)
    done = ltr_train("strategy=fsdp", "dataset=cifar10_lt", "paths.data=nowhere", *overrides)
    assert done.code == 2
    assert message in done.err
    assert not done.outputs.exists()


def test_fsdp_is_used_with_a_gpu(monkeypatch):
    check_strategy({"name": "fsdp"}, torch.device("cuda"))
    monkeypatch.setattr(strategies, "from_environment", lambda environment: OF_TWO)
    arguments = strategies.in_processes({"name": "fsdp", "sync_batchnorm": True})
    assert isinstance(arguments["strategy"], FSDPStrategy)
    assert (arguments["devices"], arguments["num_nodes"], arguments["sync_batchnorm"]) == (2, 2, True)


@pytest.mark.parametrize(("config", "several"), [({"name": "auto"}, False), ({"name": "ddp"}, False)])
def test_one_process_needs_no_strategy(config, several):
    assert distributed.is_distributed() is several
    arguments = strategies.in_processes(config)
    assert (arguments["devices"], arguments["strategy"]) == (1, "auto")


def test_processes_have_global_local_and_node_ranks():
    started = strategies.StartedProcesses(OF_TWO)
    assert (started.global_rank(), started.local_rank(), started.world_size()) == (3, 1, 4)
    assert started.node_rank() == 1


class _Step:
    """A network that seeds torch's generator as all do, and a strategy that seeds it by process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
        monkeypatch.setattr(distributed, "rank", lambda: rank)
        self.network = SimpleNamespace(
            on_train_batch_start=lambda batch, number: torch.manual_seed(100 + number),
            loss=Equalization([600, 4, 1], threshold=1.0, gamma=0.5),
            rows_per_image=1,
        )
        self.strategy = strategies._SeedPerRank()
        self.strategy.lightning_module = self.network
        self.strategy.root_device = torch.device("cpu")

    def mask(self) -> list[float]:
        return torch.rand(4).tolist()

    def restart(self, number: int = 0) -> _Step:
        strategies.restart_batch(SimpleNamespace(strategy=self.strategy), self.network, None, number)
        return self


def test_a_batch_that_is_started_again_draws_the_masks_of_its_process_again(monkeypatch):
    first = _Step(monkeypatch, 0).restart().mask()
    step = _Step(monkeypatch, 1)
    second = step.restart().mask()
    assert second == step.restart().mask()
    assert first != second
    assert second != step.restart(1).mask()


def test_a_loss_gets_the_same_seed_in_every_process(monkeypatch):
    seeds = [_Step(monkeypatch, rank).restart(3).network.loss.numbers.seed for rank in (0, 1)]
    assert seeds == [103, 103]


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0"},
        {"LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "x", "JSM_NAMESPACE_LOCAL_RANK": "0", "JSM_NAMESPACE_SIZE": "1"},
    ],
)
def test_one_process_trains_inside_the_allocation_of_a_cluster(ltr_train, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    finished = ltr_train("trainer.max_epochs=1", "trainer.limit_train_batches=1")
    assert finished.code == 0, finished.err
