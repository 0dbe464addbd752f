"""The launching process of a local sweep: it starts the jobs, divides the cores among them and waits for them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import types
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection as pipes
from multiprocessing import forkserver, resource_tracker
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
from ltr.local_jobs.division import Division, available_cores, divide, least_used, visible_gpus
from ltr.local_jobs.job import SIGNALS, JobSpec, count_gpus, run_job
from ltr.local_jobs.sources import WAIT, KeptSources
from ltr.names import counted
from ltr.runs.processes.interrupt import Stopped, leave_closed_terminal, signals_handled_by

_POLL = 0.25  # seconds
_WAITING = 4  # processes for each job at a time, those that wait for a stage included
_PRELOAD = "ltr.local_jobs.preload"
_FIGURES = ("matplotlib.figure", "matplotlib.backends.backend_agg")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")


@dataclass
class _Job:
    """A job whose process runs."""

    number: int
    title: str
    overrides: list[str]
    process: Any
    pipe: pipes.Connection
    gpu: str | None
    started: float = field(default_factory=time.perf_counter)
    has_core: bool = True
    result: JobReturn | None = None


class LocalJobs:
    """The jobs of a sweep on this machine.

    Args:
        options: ``n_jobs``, ``threads`` and ``jobs_per_gpu`` of `divide`.
    """

    def __init__(self, context: HydraContext, task: TaskFunction, config: DictConfig, **options: Any) -> None:
        self.context, self.task, self.config, self.options = context, task, config, options
        self.sources = KeptSources()
        self.server = multiprocessing.get_context("forkserver")
        self._start_server()

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
        cores = available_cores()
        division = divide(len(overrides), cores, self._gpus(), **self.options)
        return _Launch(self, division, folder, overrides, first).carry_out()

    def _start_server(self) -> None:
        """Start the server, which imports what the jobs need while this process checks their configurations."""
        figures = () if self.config.get("figures") == "none" else _FIGURES
        self.server.set_forkserver_preload([_PRELOAD, *figures])
        with _starting():
            forkserver.ensure_running()

    def _gpus(self) -> tuple[str, ...]:
        if self.config.trainer.accelerator == "cpu":
            return ()
        ours, theirs = self.server.Pipe()
        process = self.server.Process(target=count_gpus, args=(theirs,), daemon=True)
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


class _Launch:
    """One call of the launcher: jobs that wait, run and have ended."""

    def __init__(
        self, jobs: LocalJobs, division: Division, folder: Path, overrides: Sequence[list[str]], first: int
    ) -> None:
        self.jobs, self.division, self.folder = jobs, division, folder
        titles = job_titles(overrides, first)
        self.waiting = deque(zip(range(first, first + len(overrides)), titles, overrides))
        self.first = first
        self.running: dict[int, _Job] = {}
        self.asking: deque[_Job] = deque()  # for a core
        self.results: dict[int, JobReturn] = {}
        self.logs: dict[str, Path] = {}
        self.signal: int | None = None
        self.display = JobsDisplay(Console(), self.logs)

    def carry_out(self) -> list[JobReturn]:
        """Run all jobs to their end."""
        total = len(self.waiting)
        self.display.print_event(f"{counted(total, 'job')}, {self.division}; output of a job: {self.folder}/NUMBER.log")
        try:
            with self._signals(), self.display:
                while self.running or (self.waiting and self.signal is None):
                    self._start_jobs()
                    self._receive()
        finally:
            for job in self.running.values():  # after an error of the launching process itself
                job.process.kill()
                job.process.join()
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
        jobs, threads = self.jobs, self.division.threads
        gpu = least_used(self.division.gpus, [job.gpu for job in self.running.values() if job.gpu is not None])
        environment = {**os.environ, **dict.fromkeys(_THREADS, str(threads))}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        ignored = tuple(one for one in (signal.SIGHUP,) if signal.getsignal(one) is signal.SIG_IGN)
        log = self.folder / f"{number:05d}.log"
        log.unlink(missing_ok=True)
        spec = JobSpec(number, overrides, jobs.context, jobs.config, jobs.task, environment, ignored, threads, log)
        ours, theirs = jobs.server.Pipe()
        process = jobs.server.Process(target=run_job, args=(theirs, spec), name=f"ltr-job-{number}")
        with _starting():
            process.start()
        theirs.close()
        self.running[number] = _Job(number, title, overrides, process, ours, gpu)
        self.logs[title] = log
        self.display.print_event(f"{title}: started{'' if gpu is None else f' on GPU {gpu}'}")

    def _receive(self) -> None:
        """Handle the messages of the jobs, and jobs that have ended."""
        by_pipe = {job.pipe: job for job in self.running.values()}
        for pipe in pipes.wait(list(by_pipe), _POLL):
            job = by_pipe[pipe]  # type: ignore[index]
            try:
                message = job.pipe.recv()
            except (EOFError, OSError):
                self._end(job)
            else:
                self._handle(job, *message)

    def _handle(self, job: _Job, kind: str, *content: Any) -> None:
        if kind == "result":
            (job.result,) = content
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
            job.pipe.send(answer)

    def _answer_all(self, answers: dict[int, Any]) -> None:
        for number, answer in answers.items():
            if number in self.running:
                self._answer(self.running[number], answer)

    # -- ends ----------------------------------------------------------------------------------------------------

    def _end(self, job: _Job) -> None:
        """Take a job off whose process has closed its pipe."""
        job.process.join()
        job.pipe.close()
        del self.running[job.number], self.logs[job.title]
        with contextlib.suppress(ValueError):
            self.asking.remove(job)
        self._answer_all(self.jobs.sources.ended(job.number))
        seconds = f"{time.perf_counter() - job.started:.1f} s"
        code = job.process.exitcode
        if job.result is not None:
            self.results[job.number] = job.result
            error = self._noted_error(job)
            if error is None:
                self.display.print_event(f"{job.title}: finished in {seconds}")
            else:
                self._print_error(job, error)
        elif self.signal is not None:
            self.display.print_event(f"{job.title}: stopped after {seconds}")
        else:
            self._fail(job, code)

    def _fail(self, job: _Job, code: int | None) -> None:
        """Note a job whose process ended without a result."""
        from ltr.sweeps import chooses_by, note

        number = -code if code is not None and code < 0 else (code or 0) - 128
        how = f"ended by {signal.Signals(number).name}" if number in set(signal.Signals) else f"ended with code {code}"
        error = f"its process {how}. Its output is in {self.folder / f'{job.number:05d}.log'}; " + (
            "the memory of the machine may not suffice for so many jobs: set hydra.launcher.n_jobs"
            if number == signal.SIGKILL
            else "the same command goes on from its last saved state"
        )
        note(job.number, [as_written(text) for text in job.overrides], None, error)
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
                if job.process.pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(job.process.pid, signal.SIGKILL if is_second else number)

        with signals_handled_by(stop):
            yield


def job_titles(overrides: Sequence[list[str]], first: int) -> list[str]:
    """Return the titles of jobs: the number, and the overrides that not all of them have."""
    texts = [[as_written(text) for text in one if not text.startswith("hydra.")] for one in overrides]
    common = set.intersection(*map(set, texts)) if len(texts) > 1 else set()
    titles = []
    for number, one in enumerate(texts, first):
        swept = " ".join(text for text in one if text not in common)
        titles.append(f"job {number} ({swept})" if swept else f"job {number}")
    return titles


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Set what the server inherits when it starts with its first process.

    The server, and each process that it forks, would import the launching process's main module again: a script
    without ``if __name__ == "__main__"`` would start the sweep anew. An empty module takes its place.
    The server takes no part in the signals of a terminal or a queue: they are blocked, and each job unblocks them.
    """
    resource_tracker.ensure_running()  # starting it would unblock the signals
    names = {**dict.fromkeys(_THREADS, "1"), "PYTHONSAFEPATH": "1"}  # the server computes nothing
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
