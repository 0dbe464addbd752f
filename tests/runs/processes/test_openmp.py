"""Waiting of OpenMP's threads for each other, by the load of the machine."""

from __future__ import annotations

import pytest

from ltr.runs.processes import openmp
from ltr.runs.processes.openmp import Machine, choose_wait_policy, pop_notice, threads_of, wait_policy


def machine(**values) -> Machine:
    return Machine(**{"cores": 2, "usable": 2, "load": 0.1, "running": 1, **values})


@pytest.mark.parametrize(
    ("environment", "state", "policy"),
    [
        ({}, machine(), None),
        ({}, machine(load=1.0, running=2), "passive"),  # another program with one thread
        ({}, machine(load=2.0, running=1), None),  # a command that has just ended
        ({}, machine(load=0.1, running=3), None),  # a sample of something short
        ({}, machine(load=13.0, running=12), "passive"),
        ({"OMP_NUM_THREADS": "1"}, machine(load=13.0, running=12), None),
        ({"OMP_WAIT_POLICY": "active"}, machine(load=13.0, running=12), None),
        ({"GOMP_SPINCOUNT": "1000"}, machine(load=13.0, running=12), None),
        ({"KMP_BLOCKTIME": "0"}, machine(load=13.0, running=12), None),
        ({"OMP_NUM_THREADS": "4"}, machine(cores=8, usable=8, load=3.0, running=4), None),  # four cores are free
        ({"OMP_NUM_THREADS": "4"}, machine(cores=8, usable=8, load=6.0, running=7), "passive"),
        ({}, machine(cores=64, usable=4, load=4.0, running=5), None),  # a quarter of a thread on these cores
        ({}, machine(cores=64, usable=4, load=60.0, running=61), "passive"),
        ({}, machine(cores=64, usable=64, quota=4.0), "passive"),  # a container's limit, with a thread for each core
    ],
)
def test_threads_sleep_while_they_wait_only_on_a_busy_machine(environment, state, policy):
    assert wait_policy(environment, state) == policy


def test_the_choice_is_set_and_printed_once():
    environment = {}
    choose_wait_policy(environment, machine(load=1.0, running=2))
    assert environment == {"OMP_WAIT_POLICY": "passive"}
    assert "load 1.0, 2 usable of 2 cores" in pop_notice()
    assert pop_notice() is None


def test_an_idle_machine_keeps_the_default_of_openmp():
    environment = {}
    choose_wait_policy(environment, machine())
    assert environment == {}
    assert pop_notice() is None


@pytest.mark.parametrize(("text", "threads"), [("", 8), ("3", 3), ("3,2", 3), ("0", 8), ("many", 8)])
def test_threads_follow_the_environment(text, threads):
    assert threads_of({"OMP_NUM_THREADS": text}, 8) == threads


@pytest.mark.parametrize(
    ("text", "quota"), [("max 100000", None), ("150000 100000", 2), ("50000 100000", 1), ("wrong", None), (None, None)]
)
def test_the_limit_of_a_control_group_is_read(tmp_path, text, quota):
    path = tmp_path / "cpu.max"
    if text is not None:
        path.write_text(text)
    assert openmp._quota(path) == quota


def test_this_machine_has_a_core():
    now = Machine.now()
    assert 1 <= now.usable <= now.cores
    assert now.running >= 1
