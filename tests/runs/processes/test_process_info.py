"""Rank and world size from the environment, and environments that do not state them."""

from __future__ import annotations

import pytest

from ltr.errors import ConfigError
from ltr.runs.processes.process_info import from_environment, with_processes

TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}
SRUN = {
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_JOB_ID": "12",
}


def config(strategy: str) -> dict:
    return {
        "strategy": {"name": strategy, "sync_batchnorm": False},
        "trainer": {"devices": 1, "accelerator": "cpu", "auto_accumulate": False},
        "batch_size": 8,
    }


def test_rank_and_world_size_are_read_from_torchrun_and_srun():
    assert from_environment({}) is None
    assert (from_environment(TORCHRUN).rank, from_environment(TORCHRUN).rendezvous) == (1, "env://")
    assert (from_environment(SRUN).rank, from_environment(SRUN).rendezvous) == (3, "tcp://node07:20012")
    assert with_processes(config("ddp"), TORCHRUN)["trainer"]["devices"] == 2


@pytest.mark.parametrize("environment", [TORCHRUN, SRUN])
def test_several_processes_without_a_strategy_are_refused_with_the_override(environment):
    with pytest.raises(
        ConfigError, match=r"started as one of \d processes.*Add strategy=ddp, or start ltr-train by"
    ) as error:
        with_processes(config("single"), environment)
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"MASTER_ADDR": None}, "MASTER_ADDR not: the processes have no address for their rendezvous"),
        ({"MASTER_ADDR": None, "MASTER_PORT": ""}, "MASTER_ADDR and MASTER_PORT not"),
        ({"RANK": "2"}, "this is process 2 of 2"),
        ({"RANK": "-1"}, "this is process -1 of 2"),
        ({"WORLD_SIZE": "0"}, "this is process 1 of 0"),
        ({"LOCAL_RANK": "5"}, "process of this machine 5 of 2"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two is not a number"),
    ],
)
def test_a_contradictory_environment_is_refused(changes, words):
    environment = {name: value for name, value in {**TORCHRUN, **changes}.items() if value is not None}
    with pytest.raises(ConfigError, match=words):
        with_processes(config("ddp"), environment)


@pytest.mark.parametrize("name", ["SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_JOB_ID", "SLURM_PROCID"])
def test_an_invalid_number_of_slurm_is_named(name):
    with pytest.raises(ConfigError, match=f"{name}=x is not a number.*or unset {name}"):
        from_environment({**SRUN, name: "x"})
