"""Choice of how the threads of one operation wait for each other, made before torch loads OpenMP.

Between operations OpenMP's threads wait in a loop, which is quick as long as each has a core. On a busy machine a
thread then waits, at every operation, for one that the system does not run, and keeps a core from it. Threads that
sleep while they wait avoid most of that. The number of threads, and so the bits of a result, stay the same.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

POLICY = "OMP_WAIT_POLICY"
_CHOICES = (POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # of the user; any of them wins
_notices: list[str] = []


@dataclass(frozen=True)
class Machine:
    """Cores and load of a machine.

    Attributes:
        cores: of the machine, at least 1.
        usable: cores that this process may use, at least 1.
        load: average number of threads that ran or waited for a core in the last minute, on all cores.
        running: threads that run or wait for a core now, this one included.
        quota: cores whose time the control group may use; None: no limit.
    """

    cores: int
    usable: int
    load: float
    running: int
    quota: float | None = None

    @classmethod
    def now(cls) -> Machine:
        """Read the state of this machine."""
        cores = os.cpu_count() or 1
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
        try:
            load = os.getloadavg()[0]
        except OSError:
            load = 0.0
        return cls(cores, usable, load, _running(), _quota())


def is_busy(machine: Machine, threads: int) -> bool:
    """Return whether some of the threads of an operation would have no core.

    Args:
        threads: threads of this process.
    """
    free = machine.usable if machine.quota is None else min(machine.usable, machine.quota)
    # the average also counts what has ended, such as the command before this one; the current number is a sample
    other_threads = min(machine.load, machine.running - 1) * machine.usable / machine.cores
    return threads > 1 and threads + other_threads > free + 0.5


def threads_of(environment: Mapping[str, str], usable: int) -> int:
    """Return the threads that torch will use: OMP_NUM_THREADS, or one for each core."""
    text = environment.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(text) if text.isdecimal() and int(text) else usable


def wait_policy(environment: Mapping[str, str], machine: Machine) -> str | None:
    """Return the value for OMP_WAIT_POLICY; None leaves OpenMP its default, or the user's choice."""
    if any(name in environment for name in _CHOICES):
        return None
    return "passive" if is_busy(machine, threads_of(environment, machine.usable)) else None


def choose_wait_policy(environment: MutableMapping[str, str] = os.environ, machine: Machine | None = None) -> None:
    """Set OMP_WAIT_POLICY where the machine is busy; call it before torch is imported."""
    machine = Machine.now() if machine is None else machine
    policy = wait_policy(environment, machine)
    if policy is not None:
        environment[POLICY] = policy
        cores = f"{machine.usable} usable of {machine.cores} cores"
        _notices[:] = [
            f"this machine is busy (load {machine.load:.1f}, {cores}): threads sleep while they wait for each other "
            f"({POLICY}={policy}). OMP_NUM_THREADS=1 may be faster; it rounds differently"
        ]


def pop_notice() -> str | None:
    """Return the line about the choice once; None without a choice."""
    return _notices.pop() if _notices else None


def _running() -> int:
    """Return the number of threads that run or wait for a core, at least 1."""
    try:
        return max(1, int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]))
    except (OSError, ValueError, IndexError):
        return os.cpu_count() or 1  # unknown: the average decides


def _quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    """Return the cores of a control group's limit (version 2); None without one."""
    try:
        time, period = path.read_text().split()
        return None if time == "max" else max(1.0, math.ceil(int(time) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return None
