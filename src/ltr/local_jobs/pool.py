"""Processes that keep running between the jobs of a sweep, and the server that they are forked from."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import connection as pipes
from multiprocessing import forkserver, resource_tracker, util
from typing import Any

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ltr.errors import TrainingError
from ltr.local_jobs.division import visible_gpus
from ltr.local_jobs.worker import SIGNALS, JobSpec, WorkerSpec, count_gpus, run_jobs

_PRELOAD = "ltr.local_jobs.preload"
_FIGURES = ("matplotlib.figure", "matplotlib.backends.backend_agg")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")
_END = 10  # seconds that an idle process has to end


def start_server(has_figures: bool) -> None:
    """Start the server that imports what the jobs need; a no-op if it runs.

    Args:
        has_figures: import matplotlib, too.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload([_PRELOAD, *(_FIGURES if has_figures else ())])
    with _starting():
        forkserver.ensure_running()


def visible_gpus_of_jobs() -> tuple[str, ...]:
    """Return the GPUs that CUDA shows to a process; this process does not initialise CUDA."""
    server = multiprocessing.get_context("forkserver")
    ours, theirs = server.Pipe()
    process = server.Process(target=count_gpus, args=(theirs,), daemon=True)
    with _starting():
        process.start()
    theirs.close()
    try:
        count = ours.recv()
    except EOFError:
        raise TrainingError(
            "the process that counts the GPUs has ended without an answer. Look at the error above; "
            "without +launcher=local the jobs run one after another"
        ) from None
    process.join()
    return visible_gpus(count)


@dataclass(eq=False)
class Worker:
    """A process that runs one job at a time.

    Attributes:
        process: the process, of `multiprocessing`.
        pipe: this end of its pipe.
        gpu: the GPU that it sees; None: all.
        threads: threads of its jobs.
    """

    process: Any
    pipe: pipes.Connection
    gpu: str | None
    threads: int

    def signal(self, number: int) -> None:
        """Send a signal; a process that has ended gets none."""
        if self.process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def close(self) -> None:
        """Let the idle process end, and wait for that."""
        self.pipe.close()
        self.process.join(_END)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()


class WorkerPool:
    """The processes of a sweep that wait for a job.

    Args:
        context, task, config: what Hydra gives a launcher.
    """

    def __init__(self, context: HydraContext, task: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = context, task, config
        self._idle: list[Worker] = []
        # multiprocessing waits for all processes when the interpreter exits; they have to be told before
        util.Finalize(self, _close_all, args=(self._idle,), exitpriority=_END)

    def start(self, job: JobSpec, gpu: str | None, threads: int, is_fresh: bool = False) -> Worker:
        """Start a job in an idle process, or in a new one.

        Args:
            gpu: the only GPU that the job sees; None: all.
            threads: threads of the job.
            is_fresh: the job needs a new process.
        """
        for worker in [one for one in self._idle if (one.gpu, one.threads) == (gpu, threads) and not is_fresh]:
            self._idle.remove(worker)
            if worker.process.exitcode is None:
                with contextlib.suppress(OSError):
                    worker.pipe.send(job)
                    return worker
            worker.close()  # killed while it waited
        worker = self._new(gpu, threads)
        with contextlib.suppress(OSError):  # it has ended at once, which its pipe tells next
            worker.pipe.send(job)
        return worker

    def keep(self, worker: Worker) -> None:
        """Keep the process of a job that has ended for a further job."""
        self._idle.append(worker)

    def keep_at_most(self, number: int) -> None:
        """End all but this number of idle processes; those that have waited longest end."""
        while len(self._idle) > number:
            self._idle.pop(0).close()

    def close(self) -> None:
        """End all idle processes."""
        _close_all(self._idle)

    def _new(self, gpu: str | None, threads: int) -> Worker:
        ignored = tuple(one for one in (signal.SIGHUP,) if signal.getsignal(one) is signal.SIG_IGN)
        server = multiprocessing.get_context("forkserver")
        ours, theirs = server.Pipe()
        spec = WorkerSpec(self.context, self.config, self.task, ignored, threads)
        process = server.Process(target=run_jobs, args=(theirs, spec), name="ltr-worker")
        with _starting():
            process.start()
        theirs.close()
        return Worker(process, ours, gpu, threads)


def _close_all(idle: list[Worker]) -> None:
    for worker in idle:
        worker.pipe.close()  # all of them end at the same time
    for worker in idle:
        worker.close()
    idle.clear()


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Set what the server inherits when it starts with its first process.

    The server, and each process that it forks, would import the launching process's main module again: a script
    without ``if __name__ == "__main__"`` would start the sweep anew. An empty module takes its place.
    The server takes no part in the signals of a terminal or a queue: they are blocked, and each job unblocks them.
    """
    resource_tracker.ensure_running()  # starting it would unblock the signals
    names = {**dict.fromkeys(THREADS, "1"), "PYTHONSAFEPATH": "1"}  # the server computes nothing
    before = {name: os.environ.get(name) for name in names}
    main = sys.modules["__main__"]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        os.environ.update(names)
        sys.modules["__main__"] = types.ModuleType("__main__")
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
