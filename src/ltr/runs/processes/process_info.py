"""Rank and world size of a process, from the environment that torchrun, SLURM or `ltr-train` sets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ltr.errors import ConfigError

SEVERAL = ("ddp", "fsdp")  # strategies with several processes
DDP = "Use strategy=ddp"
RENDEZVOUS = "LTR_RENDEZVOUS"  # URL of the rendezvous file of processes that ltr-train started


@dataclass(frozen=True)
class ProcessInfo:
    """Rank of a process in its run.

    Attributes:
        rank: rank, from 0; rank 0 writes and prints.
        world_size: number of processes of the run on all machines.
        local_rank: rank on this machine, from 0, which is the number of its GPU.
        local_world_size: number of processes of the run on this machine.
        rendezvous: URL for `torch.distributed.init_process_group`.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    rendezvous: str


def from_environment(environment: Mapping[str, str]) -> ProcessInfo | None:
    """Return the rank and world size that the environment sets for this process; None for a single process.

    Raises:
        ConfigError: the environment is incomplete or holds impossible numbers.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        rendezvous = environment.get(RENDEZVOUS, "env://")
        return _possible(
            rank=_number(environment, "RANK"),
            world_size=_number(environment, "WORLD_SIZE"),
            local_rank=_number(environment, "LOCAL_RANK", "RANK"),
            local_world_size=_number(environment, "LOCAL_WORLD_SIZE", "WORLD_SIZE"),
            rendezvous=rendezvous,
        )
    # srun sets these variables; a batch script without srun is one process, even if the job has more tasks
    if "SLURM_PROCID" in environment and _number(environment, "SLURM_STEP_NUM_TASKS", default=1) > 1:
        world = _number(environment, "SLURM_STEP_NUM_TASKS")
        nodes = max(1, _number(environment, "SLURM_STEP_NUM_NODES", default=1))
        host = first_host(environment.get("SLURM_STEP_NODELIST", "localhost"))
        # the same port in all processes of a job
        port = 20_000 + _number(environment, "SLURM_JOB_ID", default=0) % 20_000
        return _possible(
            rank=_number(environment, "SLURM_PROCID"),
            world_size=world,
            local_rank=_number(environment, "SLURM_LOCALID"),
            local_world_size=max(1, world // nodes),
            rendezvous=f"tcp://{host}:{port}",
        )
    return None


def _possible(**numbers: Any) -> ProcessInfo:
    """Return a ProcessInfo after checking its numbers: a process with an invalid rank would wait forever."""
    process = ProcessInfo(**numbers)
    for description, rank, size in (
        ("process", process.rank, process.world_size),
        ("process of this machine", process.local_rank, process.local_world_size),
    ):
        if not 0 <= rank < size:
            raise ConfigError(
                f"the environment says that this is {description} {rank} of {size}; ranks are 0 to the number of "
                "processes minus one. Start the processes with torchrun or srun, or unset RANK and WORLD_SIZE for a "
                "run of one process"
            )
    return process


def _check_rendezvous(process: ProcessInfo, environment: Mapping[str, str]) -> None:
    """Refuse an environment that sets several processes and no address of their rendezvous."""
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
    if process.world_size > 1 and process.rendezvous == "env://" and missing:
        raise ConfigError(
            f"RANK={process.rank} and WORLD_SIZE={process.world_size} are set and {' and '.join(missing)} not: the "
            "processes have no address for their rendezvous. Start them with torchrun or srun, let ltr-train start "
            "them (trainer.devices=N), or unset RANK and WORLD_SIZE for a run of one process"
        )


def _number(environment: Mapping[str, str], *names: str, default: int | None = None) -> int:
    for name in names:
        if name in environment:
            try:
                return int(environment[name])
            except ValueError as error:
                raise ConfigError(
                    f"the environment's {name}={environment[name]} is not a number. Start the processes with torchrun "
                    f"or srun, or unset {name}"
                ) from error
    if default is not None:
        return default
    raise ConfigError(f"the environment does not say {names[0]}: start the processes with torchrun or srun")


def first_host(nodes: str) -> str:
    """Return the first machine of a SLURM node list, e.g. ``node07`` for ``node[07-09,12],other3``."""
    parts = re.match(r"([^,\[]*)(?:\[([^\],-]*)[^\]]*\])?([^,]*)", nodes)
    assert parts is not None  # every group of the pattern may be empty
    return "".join(part or "" for part in parts.groups())


def with_processes(config: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return the configuration with the actual number of processes as ``trainer.devices``.

    The identity of a run of two processes does not depend on the program that starts them.

    Raises:
        ConfigError: several processes need a strategy for them, their number differs from the configured one, or an
            option does not support several processes.
    """
    strategy, devices = config["strategy"]["name"], config["trainer"]["devices"]
    process = from_environment(environment)
    world_size = process.world_size if process is not None else devices
    if strategy not in SEVERAL:
        if world_size > 1:
            if process is None:
                raise ConfigError(f"trainer.devices={devices}: strategy=single is one process. Add strategy=ddp")
            raise ConfigError(
                f"started as one of {world_size} processes (by torchrun, srun, or RANK and WORLD_SIZE in the "
                "environment): strategy=single is one process, and each of them would train the same. Add "
                "strategy=ddp, or start ltr-train by itself"
            )
        return dict(config)
    if process is not None:
        _check_rendezvous(process, environment)
    if devices not in (1, world_size):
        raise ConfigError(
            f"trainer.devices={devices}: this was started as one of {world_size} processes. Leave trainer.devices out, "
            f"or start {devices}"
        )
    if strategy == "fsdp" and config["trainer"]["accelerator"] == "cpu":
        raise ConfigError("strategy=fsdp shares out the memory of GPUs, and trainer.accelerator=cpu has none. " + DDP)
    if world_size > 1 and config["trainer"]["auto_accumulate"]:
        raise ConfigError(
            f"trainer.auto_accumulate=true: memory may run out in only one of {world_size} processes, and the others "
            "would not notice. Lower batch_size, or set trainer.accumulate"
        )
    if config["strategy"]["sync_batchnorm"] and config["trainer"]["accelerator"] == "cpu":
        raise ConfigError("strategy.sync_batchnorm=true: torch synchronises batch normalisation on GPUs only")
    if config["batch_size"] % world_size:
        raise ConfigError(
            f"batch_size={config['batch_size']} is shared by {world_size} processes and does not divide. Use a "
            f"multiple of {world_size}, such as {max(1, config['batch_size'] // world_size) * world_size}"
        )
    return {**config, "trainer": {**config["trainer"], "devices": world_size}}


def needs_launch(config: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process has to launch the configured processes, because it is not one of them."""
    return config["trainer"]["devices"] > 1 and from_environment(environment) is None
