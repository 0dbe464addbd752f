"""Process that runs jobs of a sweep one after another, and talks to the launching process through a pipe."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ltr.local_jobs.server import SIGNALS


@dataclass(frozen=True)
class WorkerSpec:
    """Settings that all jobs of a worker share.

    Attributes:
        ignored: signals that the launching process ignores (``nohup``).
        threads: threads of a job.
    """

    context: HydraContext
    config: DictConfig
    task: TaskFunction
    ignored: tuple[int, ...]
    threads: int


@dataclass(frozen=True)
class JobSpec:
    """One job of a worker.

    Attributes:
        number: number of the job in the sweep.
        overrides: overrides of the job, as the sweeper gives them.
        environment: variables of the process while the job runs, all of them.
        log: file that takes the output of the job.
    """

    number: int
    overrides: list[str]
    environment: Mapping[str, str]
    log: Path


class Channel:
    """The job's end of the pipe; the core slot of the job."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def ask(self, *message: Any) -> Any:
        """Send a message and return its answer."""
        self.connection.send(message)
        return self.connection.recv()

    def lend(self) -> None:
        """Let another job use the core."""
        self.connection.send(("lend",))

    def take_back(self) -> None:
        """Wait until a core is free."""
        self.ask("take back")


def count_gpus(connection: Connection) -> None:
    """Send the number of GPUs that CUDA shows; CUDA is not initialised by that."""
    import torch

    connection.send(torch.cuda.device_count())


def run_jobs(connection: Connection, spec: WorkerSpec) -> None:
    """Run jobs until the pipe closes, in a process that the server has forked."""
    _separate(spec)
    gc.freeze()  # a collection skips what the server has imported; it would take a quarter of a second and copy it
    worker = _Worker(Channel(connection), spec)
    while True:
        try:
            release_memory()
            job = connection.recv()
        except (EOFError, OSError, KeyboardInterrupt):  # the sweep has ended, or is being stopped
            return
        worker.run(job)


class _Worker:
    """The jobs of this process.

    Attributes:
        lasting: settings of the jobs so far that the process cannot take back, see `lasting_settings`.
    """

    def __init__(self, channel: Channel, spec: WorkerSpec) -> None:
        self.channel, self.spec = channel, spec
        self.lasting: tuple[Any, ...] | None = None

    def run(self, job: JobSpec) -> None:
        """Run a job and send its result; a signal ends the process."""
        from ltr.runs.processes.interrupt import Stopped, stopped_by_signals

        _write_to(job.log)
        os.environ.clear()
        os.environ.update(job.environment)
        code = 0
        with stopped_by_signals():
            try:
                message = self._carry_out(job)
            except (KeyboardInterrupt, Stopped) as stopped:
                code = getattr(stopped.__cause__, "exit_code", 128 + signal.SIGINT)
        sys.stdout.flush()
        sys.stderr.flush()
        if code:
            sys.exit(code)
        self.channel.connection.send(message)

    def _carry_out(self, job: JobSpec) -> tuple[Any, ...]:
        """Return the message about a job that has ended, or that needs another process."""
        from hydra.core.utils import run_job as run_hydra_job

        config = self._compose(job)
        lasting = lasting_settings(config)
        if self.lasting not in (None, lasting):
            return ("needs a new process",)
        self.lasting = lasting
        result: JobReturn = run_hydra_job(
            hydra_context=self.spec.context,
            task_function=self.spec.task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        return ("result", result)

    def _compose(self, job: JobSpec) -> DictConfig:
        """Return the configuration of a job, after what Hydra's own launcher does before each job."""
        import torch
        from hydra import version
        from hydra.core.hydra_config import HydraConfig
        from hydra.core.utils import JobRuntime, setup_globals
        from omegaconf import open_dict

        from ltr.cli import HYDRA_VERSION
        from ltr.configuration.former_keys import forget_notices
        from ltr.configuration.resolvers import register
        from ltr.runs.processes.core_slot import set_core_slot

        torch.set_num_threads(self.spec.threads)
        set_core_slot(self.channel)
        self._set_source_reader()
        version.setbase(HYDRA_VERSION)
        JobRuntime.instance().set("name", self.spec.config.hydra.job.name)
        setup_globals()
        register()
        forget_notices()  # the log of each job has them
        config = self.spec.context.config_loader.load_sweep_config(self.spec.config, list(job.overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = job.number
        HydraConfig.instance().set_config(config)
        return config

    def _set_source_reader(self) -> None:
        import ltr.commands.train
        from ltr.configuration.targets import instantiate
        from ltr.local_jobs.sources import SourceReader

        if self.lasting is None:  # the first job; the later ones have the data set that it has read
            ltr.commands.train.set_source_reader(SourceReader(self.channel.ask, instantiate))


def lasting_settings(config: DictConfig) -> tuple[Any, ...]:
    """Return the settings that CUDA's libraries and the compiler read only once in a process.

    Jobs that differ in them do not share a process.
    """
    return tuple(OmegaConf.select(config, key) for key in ("compile", "trainer.deterministic", "trainer.accelerator"))


def release_memory() -> None:
    """Free what the last job has left: objects in cycles, and memory of the GPU that torch keeps."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _separate(spec: WorkerSpec) -> None:
    """Give the process its own session and signals; it ends with the launching process."""
    os.setsid()  # a Ctrl-C reaches the job once, through the launching process
    for number in SIGNALS:
        is_ignored = number in spec.ignored
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if is_ignored else usual)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # see `ltr.local_jobs.server`
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True, name="end-with-parent").start()


def _write_to(log: Path) -> None:
    """Let the output of this process go to a file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
