"""The launching process of a local sweep: it starts the jobs, divides the cores among them and waits for them."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
import types
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection as pipes
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from rich.console import Console

from ltr.configuration.swept_configs import as_written
from ltr.errors import Interrupted, TrainingError
from ltr.escaping import rich_text
from ltr.local_jobs.display import JobsDisplay
from ltr.local_jobs.division import Division, available_cores, divide, least_used
from ltr.local_jobs.options import LocalOptions
from ltr.local_jobs.pool import Worker, WorkerPool, visible_gpus_of_jobs
from ltr.local_jobs.server import THREADS, start_server
from ltr.local_jobs.sources import WAIT, KeptSources
from ltr.local_jobs.worker import JobSpec
from ltr.names import counted
from ltr.runs.processes.interrupt import Stopped, leave_closed_terminal, signals_handled_by
from ltr.runs.processes.openmp import pop_notice
from ltr.sweeps import at_sweep_end, chooses_by, job_titles, record_job

_POLL = 0.25  # seconds
_WAITING = 4  # processes for each job at a time, those that wait for a stage included


@dataclass
class _Job:
    """A job that is running."""

    number: int
    title: str
    overrides: list[str]
    worker: Worker
    started: float = field(default_factory=time.perf_counter)
    has_core: bool = True


class LocalJobs:
    """The jobs of a sweep on this machine.

    Args:
        context, task, config: what Hydra gives a launcher.
    """

    def __init__(self, context: HydraContext, task: TaskFunction, config: DictConfig, options: LocalOptions) -> None:
        self.config, self.options = config, options
        self.sources = KeptSources()
        self.most_jobs = 0  # of one call of `run`
        self.announced: Division | None = None
        self.pool = WorkerPool(context, task, config)
        at_sweep_end(self.close)
        # it imports while this process checks the jobs' configurations
        start_server(has_figures=config.get("figures") != "none")

    def run(self, overrides: Sequence[list[str]], first: int) -> list[JobReturn]:
        """Run jobs and return their results in order; a job that ended without one has failed.

        Args:
            overrides: overrides of each job.
            first: number of the first job.

        Raises:
            Stopped: a signal; all jobs have saved their state and ended.
        """
        folder = Path(str(self.config.hydra.sweep.dir)).absolute() / "jobs"
        folder.mkdir(parents=True, exist_ok=True)
        # a search calls this for a few trials at a time: all of them have the same threads, the last ones, too
        self.most_jobs = max(self.most_jobs, len(overrides))
        division = divide(self.most_jobs, available_cores(), self._gpus, self.options)
        return _Launch(self, division, folder, overrides, first).carry_out()

    def close(self) -> None:
        """End the idle processes and release the memory of the pixels."""
        self.pool.close()
        self.sources.close()

    @functools.cached_property
    def _gpus(self) -> tuple[str, ...]:
        return () if self.config.trainer.accelerator == "cpu" else visible_gpus_of_jobs()

    def announcement(self, jobs: int, division: Division, folder: Path) -> list[str]:
        """Return the lines that say how the jobs run; [] for further trials of a search."""
        if self.announced == division:
            return []
        self.announced = division
        sweeper = self.config.hydra.sweeper
        lines = [f"{counted(jobs, 'job')}, {division}; output of a job: {folder}/NUMBER.log"]
        if chooses_by(sweeper) and sweeper.get("n_jobs") == 1:
            lines = [f"one trial at a time; output of a trial: {folder}/NUMBER.log"]
            if division.cores > 1:
                lines.append(f"hydra.sweeper.n_jobs={division.cores} tries {division.cores} at a time")
        if division.threads > 1 and (notice := pop_notice()):
            lines.append(notice)
        return lines


class _Launch:
    """One call of the launcher: jobs that wait, run and have ended."""

    def __init__(
        self, jobs: LocalJobs, division: Division, folder: Path, overrides: Sequence[list[str]], first: int
    ) -> None:
        self.jobs, self.division, self.folder = jobs, division, folder
        titles = job_titles(overrides, first, jobs.config.hydra.overrides.task)
        self.waiting = deque(zip(range(first, first + len(overrides)), titles, overrides))
        self.first = first
        self.running: dict[int, _Job] = {}
        self.asking: deque[_Job] = deque()  # for a core
        self.fresh: set[int] = set()  # jobs that need a new process
        self.results: dict[int, JobReturn] = {}
        self.logs: dict[str, Path] = {}
        self.signal: int | None = None
        self.display = JobsDisplay(Console(), self.logs)

    def carry_out(self) -> list[JobReturn]:
        """Run all jobs to their end."""
        total = len(self.waiting)
        for line in self.jobs.announcement(total, self.division, self.folder):
            self.display.print_event(line)
        try:
            with self._signals(), self.display:
                while self.running or (self.waiting and self.signal is None):
                    self._start_jobs()
                    self._receive()
        finally:
            for job in self.running.values():  # after an error of the launching process itself
                job.worker.process.kill()
                job.worker.process.join()
        if self.signal is not None:
            name = signal.Signals(self.signal)
            ended = f"{len(self.results)} of {counted(total, 'job')} had ended"
            word = "Ctrl-C" if name == signal.SIGINT else name.name
            raise Stopped from Interrupted(
                self.signal, f"stopped by {word}: {ended}; the same command goes on from there"
            )
        return [self.results[number] for number in sorted(self.results)]

    # -- jobs and cores ------------------------------------------------------------------------------------------

    def _busy(self) -> int:
        return sum(job.has_core for job in self.running.values())

    def _start_jobs(self) -> None:
        """Give free cores to jobs that have waited for a stage, then to new jobs."""
        limit = self.division.at_a_time
        while self.asking and self._busy() < limit:
            job = self.asking.popleft()
            job.has_core = True
            self._answer(job, None)
        while self.waiting and self.signal is None and self._busy() < limit and len(self.running) < _WAITING * limit:
            self._start(*self.waiting.popleft())

    def _start(self, number: int, title: str, overrides: list[str]) -> None:
        threads = self.division.threads
        in_use = [job.worker.gpu for job in self.running.values() if job.worker.gpu is not None]
        gpu = least_used(self.division.gpus, in_use)
        environment = {**os.environ, **dict.fromkeys(THREADS, str(threads))}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        log = self.folder / f"{number:05d}.log"
        log.unlink(missing_ok=True)
        spec = JobSpec(number, overrides, environment, log)
        worker = self.jobs.pool.start(spec, gpu, threads, is_fresh=number in self.fresh)
        self.running[number] = _Job(number, title, overrides, worker)
        if self.signal is not None:  # it arrived while the job was started, before `stop` could see it
            worker.signal(self.signal)
        self.logs[title] = log
        if number not in self.fresh:
            self.display.print_event(f"{title}: started{'' if gpu is None else f' on GPU {gpu}'}")

    def _receive(self) -> None:
        """Handle the messages of the jobs, and jobs that have ended."""
        by_pipe = {job.worker.pipe: job for job in self.running.values()}
        for pipe in pipes.wait(list(by_pipe), _POLL):
            job = by_pipe[pipe]  # type: ignore[index]
            try:
                message = job.worker.pipe.recv()
            except (EOFError, OSError):
                self._end(job)
            else:
                self._handle(job, *message)

    def _handle(self, job: _Job, kind: str, *content: Any) -> None:
        if kind == "result":
            self._finish(job, *content)
        elif kind == "needs a new process":
            self._remove(job)
            job.worker.close()
            self.fresh.add(job.number)
            self.waiting.appendleft((job.number, job.title, job.overrides))
        elif kind == "lend":
            job.has_core = False
            self.display.print_event(f"{job.title}: waits for a stage that another job trains")
        elif kind == "take back":
            self.asking.append(job)
        elif kind == "source":
            answer = self.jobs.sources.wanted(content[0], job.number)
            if answer is not WAIT:
                self._answer(job, answer)
        elif kind == "have source":
            kept, answers = self.jobs.sources.read(*content)
            self._answer(job, kept)
            self._answer_all(answers)

    def _answer(self, job: _Job, answer: Any) -> None:
        with contextlib.suppress(OSError):  # it has ended, which its pipe tells next
            job.worker.pipe.send(answer)

    def _answer_all(self, answers: dict[int, Any]) -> None:
        for number, answer in answers.items():
            if number in self.running:
                self._answer(self.running[number], answer)

    # -- ends ----------------------------------------------------------------------------------------------------

    def _finish(self, job: _Job, result: JobReturn) -> None:
        """Note the result of a job; its process is kept for the next one, unless the job has failed."""
        self._remove(job)
        self.results[job.number] = result
        error = self._noted_error(job)
        if error is None and result.status is JobStatus.COMPLETED:
            self.jobs.pool.keep(job.worker)
            self.jobs.pool.keep_at_most(self.division.at_a_time)
        else:
            job.worker.close()  # an error may leave anything behind
        if error is None:
            self.display.print_event(f"{job.title}: finished in {_seconds_of(job)}")
        else:
            self._print_error(job, error)

    def _end(self, job: _Job) -> None:
        """Take a job off whose process has ended without a result."""
        job.worker.process.join()
        job.worker.pipe.close()
        self._remove(job)
        if self.signal is not None:
            self.display.print_event(f"{job.title}: stopped after {_seconds_of(job)}")
        else:
            self._fail(job, job.worker.process.exitcode)

    def _remove(self, job: _Job) -> None:
        del self.running[job.number], self.logs[job.title]
        with contextlib.suppress(ValueError):
            self.asking.remove(job)
        self._answer_all(self.jobs.sources.ended(job.number))

    def _fail(self, job: _Job, code: int | None) -> None:
        """Note a job whose process ended without a result."""
        number = -code if code is not None and code < 0 else (code or 0) - 128
        how = f"ended by {signal.Signals(number).name}" if number in set(signal.Signals) else f"ended with code {code}"
        error = f"its process {how}. Its output is in {self.folder / f'{job.number:05d}.log'}; " + (
            "the memory of the machine may not suffice for so many jobs: set hydra.launcher.n_jobs"
            if number == signal.SIGKILL
            else "the same command goes on from its last saved state"
        )
        record_job(job.number, [as_written(text) for text in job.overrides], None, error)
        self._print_error(job, error)
        result = JobReturn(overrides=job.overrides)
        if chooses_by(self.jobs.config.hydra.sweeper):
            result.return_value, result.status = TrainingError(error), JobStatus.FAILED
        else:
            result.return_value, result.status = None, JobStatus.COMPLETED
        self.results[job.number] = result

    def _noted_error(self, job: _Job) -> str | None:
        from ltr.results import read_json

        path = self.folder / f"{job.number:05d}.json"
        return read_json(path).get("error") if path.is_file() else None

    def _print_error(self, job: _Job, error: str) -> None:
        Console(stderr=True).print(rich_text(f"{job.title}: error: {error}"), soft_wrap=True)

    # -- signals -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Forward a stop signal to the jobs, which save their state; a second one kills them."""

        def stop(number: int, frame: types.FrameType | None) -> None:
            leave_closed_terminal()
            is_second, self.signal = self.signal is not None, number
            for job in self.running.values():
                job.worker.signal(signal.SIGKILL if is_second else number)

        with signals_handled_by(stop):
            yield


def _seconds_of(job: _Job) -> str:
    return f"{time.perf_counter() - job.started:.1f} s"
