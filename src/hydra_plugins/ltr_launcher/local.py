"""Hydra's launcher of ``+launcher=local``: several jobs of a sweep at a time on this machine."""

# no annotations as text: Hydra runs the module before Python can look them up in it
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ltr.local_jobs.options import LocalOptions


@dataclass
class ParallelLauncherConf:
    """Options of `ParallelLauncher`."""

    _target_: str = "hydra_plugins.ltr_launcher.local.ParallelLauncher"
    n_jobs: Any = LocalOptions.n_jobs
    threads: Any = LocalOptions.threads
    jobs_per_gpu: Any = LocalOptions.jobs_per_gpu


ConfigStore.instance().store(group="hydra/launcher", name="local", node=ParallelLauncherConf, provider="ltr")


class ParallelLauncher(Launcher):
    """Launcher that divides the cores and GPUs of this machine among the jobs, see `ltr.local_jobs`.

    Args:
        options: see `ltr.local_jobs.options.LocalOptions`.
    """

    def __init__(self, **options: Any) -> None:
        self.options = LocalOptions(**options)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives a launcher before its first jobs."""
        from ltr.local_jobs.launch import LocalJobs

        self.jobs = LocalJobs(hydra_context, task_function, config, self.options)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and return their results in the same order."""
        return self.jobs.run([list(overrides) for overrides in job_overrides], initial_job_idx)
