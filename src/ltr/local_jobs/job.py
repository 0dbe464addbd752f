"""One job of a sweep in its own process, which talks to the launching process through a pipe."""

from __future__ import annotations

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
from omegaconf import DictConfig

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@dataclass(frozen=True)
class JobSpec:
    """What a job needs.

    Attributes:
        number: number of the job in the sweep.
        overrides: overrides of the job, as the sweeper gives them.
        environment: variables of the job's process, all of them.
        ignored: signals that the launching process ignores (``nohup``).
        threads: threads of the job.
        log: file that takes the output of the job.
    """

    number: int
    overrides: list[str]
    context: HydraContext
    config: DictConfig
    task: TaskFunction
    environment: Mapping[str, str]
    ignored: tuple[int, ...]
    threads: int
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


def run_job(connection: Connection, spec: JobSpec) -> None:
    """Run a job in a process that the server has forked."""
    _separate(spec)
    from ltr.runs.processes.interrupt import Stopped, stopped_by_signals

    code = 0
    with stopped_by_signals():
        try:
            connection.send(("result", _carry_out(Channel(connection), spec)))
        except (KeyboardInterrupt, Stopped) as stopped:
            code = getattr(stopped.__cause__, "exit_code", 128 + signal.SIGINT)
    sys.stdout.flush()
    sys.exit(code)


def _separate(spec: JobSpec) -> None:
    """Give the process its own session, output, environment and signals; it ends with the launching process."""
    os.setsid()  # a Ctrl-C reaches the job once, through the launching process
    for number in SIGNALS:
        is_ignored = number in spec.ignored
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if is_ignored else usual)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # see `ltr.local_jobs.launch`
    file = os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    os.environ.clear()
    os.environ.update(spec.environment)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True, name="end-with-parent").start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _carry_out(channel: Channel, spec: JobSpec) -> JobReturn:
    import torch
    from hydra import version
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import JobRuntime, setup_globals
    from hydra.core.utils import run_job as run_hydra_job
    from omegaconf import open_dict

    import ltr.commands.train
    from ltr.cli import HYDRA_VERSION
    from ltr.configuration.resolvers import register
    from ltr.configuration.targets import instantiate
    from ltr.local_jobs.sources import SourceReader
    from ltr.runs.processes.core_slot import set_core_slot

    torch.set_num_threads(spec.threads)
    set_core_slot(channel)
    ltr.commands.train.set_source_reader(SourceReader(channel.ask, instantiate))
    version.setbase(HYDRA_VERSION)
    JobRuntime.instance().set("name", spec.config.hydra.job.name)
    setup_globals()
    register()
    config = spec.context.config_loader.load_sweep_config(spec.config, list(spec.overrides))
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = spec.number
    HydraConfig.instance().set_config(config)
    return run_hydra_job(
        hydra_context=spec.context,
        task_function=spec.task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
