"""Processes that keep running between the jobs of a sweep."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from dataclasses import dataclass
from multiprocessing import connection as pipes
from multiprocessing import util
from typing import Any

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ltr.errors import TrainingError
from ltr.local_jobs.division import visible_gpus
from ltr.local_jobs.server import starting
from ltr.local_jobs.worker import JobSpec, WorkerSpec, count_gpus, run_jobs

_END = 10  # seconds that an idle process has to end


def visible_gpus_of_jobs() -> tuple[str, ...]:
    """Return the GPUs that CUDA shows to a process; this process does not initialise CUDA."""
    server = multiprocessing.get_context("forkserver")
    ours, theirs = server.Pipe()
    process = server.Process(target=count_gpus, args=(theirs,), daemon=True)
    with starting():
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
        # at exit multiprocessing waits for all processes; an idle worker ends only once its pipe is closed
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
        with starting():
            process.start()
        theirs.close()
        return Worker(process, ours, gpu, threads)


def _close_all(idle: list[Worker]) -> None:
    for worker in idle:
        worker.pipe.close()  # all of them end at the same time
    for worker in idle:
        worker.close()
    idle.clear()
