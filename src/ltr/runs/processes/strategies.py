"""Lightning strategies for processes that have joined their group before Lightning runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy

from ltr.losses.base import ClassificationLoss
from ltr.losses.gathering import BatchNumbers
from ltr.methods.core.step_data import seed_step
from ltr.randomness import derive_seed
from ltr.runs.processes import distributed
from ltr.runs.processes.process_info import ProcessInfo, from_environment


class StartedProcesses(ClusterEnvironment):
    """Cluster environment of processes that are running and have joined their group."""

    def __init__(self, process: ProcessInfo) -> None:
        super().__init__()
        self.process = process

    creates_processes_externally = True
    main_address = "127.0.0.1"  # unused: the processes have joined
    main_port = 0

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.process.world_size

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self.process.rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self.process.local_rank

    def node_rank(self) -> int:
        return (self.process.rank - self.process.local_rank) // self.process.local_world_size


class _SeedPerRank:
    """Mixin that seeds torch differently in each process, for different dropout masks.

    A network seeds torch's generator with (seed, role, epoch, batch) before each batch, the same in every process. The
    loss gets that seed, for numbers that do not depend on the process.
    """

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        seed, network = torch.initial_seed(), self.lightning_module  # type: ignore[attr-defined]
        if isinstance(getattr(network, "loss", None), ClassificationLoss):
            network.loss.numbers = BatchNumbers(seed, network.rows_per_image)
        if distributed.rank():
            rank_seed = derive_seed(seed, "rank", distributed.rank())
            seed_step(rank_seed, self.root_device)  # type: ignore[attr-defined]


def restart_batch(trainer: pl.Trainer, network: pl.LightningModule, batch: Any, batch_idx: int) -> None:
    """Restore the random numbers with which a batch starts, as Lightning does before a step.

    The network seeds them, and the strategy makes them differ between processes.
    """
    network.on_train_batch_start(batch, batch_idx)
    trainer.strategy.on_train_batch_start(batch, batch_idx)


class Ddp(_SeedPerRank, DDPStrategy):
    """Data-parallel training whose processes may evaluate different numbers of batches.

    Checkpoints and evaluation use the running statistics of batch normalisation of rank 0. The other ranks copy them
    before an evaluation and not at every step, because training does not read them.
    """

    def validation_step(self, *arguments: Any, **named: Any) -> Any:
        # not through the DDP wrapper, whose collectives would wait for a batch that another process does not have
        assert self.lightning_module is not None
        with self.precision_plugin.val_step_context():
            return self.lightning_module.validation_step(*arguments, **named)

    def on_validation_start(self) -> None:
        assert self.lightning_module is not None
        distributed.broadcast_tensors(iter(list(self.lightning_module.buffers())))


class Fsdp(_SeedPerRank, FSDPStrategy):
    """Training with parameters, gradients and optimiser state sharded over GPUs; checkpoints are not sharded."""


def in_processes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Trainer's arguments of the config ``strategy`` for the processes of this run.

    The environment of one process is given as well: Lightning would look for a cluster, and refuse that of SLURM.
    """
    if not distributed.is_distributed() and config["name"] != "fsdp":
        return {"devices": 1, "strategy": "auto", "plugins": [StartedProcesses(ProcessInfo(0, 1, 0, 1, "env://"))]}
    process = from_environment(os.environ) or ProcessInfo(0, 1, 0, 1, "env://")
    if config["name"] == "fsdp":
        strategy: Any = Fsdp(cluster_environment=StartedProcesses(process), state_dict_type="full")
    else:
        strategy = Ddp(
            cluster_environment=StartedProcesses(process),
            find_unused_parameters=config["find_unused_parameters"],
            broadcast_buffers=False,
            gradient_as_bucket_view=True,  # gradients are views of the averaged buckets, without copies at every step
        )
    return {
        "devices": process.local_world_size,
        "num_nodes": max(1, process.world_size // process.local_world_size),
        "strategy": strategy,
        "sync_batchnorm": config["sync_batchnorm"],
    }
