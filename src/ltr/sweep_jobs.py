"""Check of all jobs of a grid of values before the first one: a wrong value in the last job stops the sweep at once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf, open_dict

from ltr.configuration.check import find_mistakes
from ltr.configuration.overrides import refused_overrides
from ltr.configuration.targets import allow_packages, check_arguments, packages_of_command
from ltr.console import print_line, progress
from ltr.errors import ConfigError, refuse
from ltr.sweeps import check_sweep, job_overrides, job_titles

MOST_SECONDS = 60.0  # for the check; the rest of a giant sweep's jobs are checked in their turn
_WORTH_PROGRESS = 50  # jobs, which take some seconds
_GRID = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@contextlib.contextmanager
def checked_jobs(allowed: Sequence[str] = ()) -> Iterator[None]:
    """Make Hydra's grid sweeper check every job before it starts the first one, and before it writes a file.

    A search asks for its trials one after another, so their values are checked in their turn.

    Args:
        allowed: packages whose code configs may name.
    """
    sweeper: Any = Plugins.instance().class_name_to_class[_GRID]
    sweep, validate = sweeper.sweep, sweeper.validate_batch_is_legal

    def check_and_sweep(self: Any, arguments: list[str]) -> Any:
        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=loader)
        (jobs,) = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), None)
        with allow_packages(allowed):
            check_jobs(loader, self.config, jobs)
        return sweep(self, arguments)

    sweeper.sweep = check_and_sweep
    sweeper.validate_batch_is_legal = lambda self, batch: None  # it composes each job a second time
    try:
        yield
    finally:
        sweeper.sweep, sweeper.validate_batch_is_legal = sweep, validate


def check_jobs(loader: Any, config: DictConfig, jobs: Sequence[Sequence[str]]) -> None:
    """Compose and check the configurations of jobs for at most `MOST_SECONDS`, see `new_values_first`.

    Args:
        loader: Hydra's loader of configurations.
        config: configuration of the sweep, with the node ``hydra``.
        jobs: overrides of each job.

    Raises:
        ConfigError: names every mistake, with the overrides of a job that has it.
    """
    ended = time.perf_counter() + MOST_SECONDS
    jobs_of_mistake: dict[str, list[int]] = {}
    checked = 0
    bar = progress("checking the jobs", len(jobs)) if len(jobs) >= _WORTH_PROGRESS else contextlib.nullcontext()
    before = HydraConfig.instance().cfg
    try:
        with bar as advance:
            for number in new_values_first(jobs):
                if checked and time.perf_counter() > ended:
                    break
                for mistake in _mistakes(loader, config, jobs[number], number):
                    jobs_of_mistake.setdefault(mistake, []).append(number)
                checked += 1
                if advance is not None:
                    advance(1)
    finally:
        HydraConfig.instance().cfg = before
    refuse(_messages(jobs_of_mistake, jobs, config), "the sweep cannot be carried out")
    if checked < len(jobs):
        print_line(
            f"{checked:,} of {len(jobs):,} jobs were checked in {MOST_SECONDS:.0f} s, new values first; "
            "the others are checked in their turn"
        )


def new_values_first(jobs: Sequence[Sequence[str]]) -> list[int]:
    """Return the numbers of jobs: first those with an override that no earlier job has, then the others."""
    seen: set[str] = set()
    first: list[int] = []
    rest: list[int] = []
    for number, job in enumerate(jobs):
        (rest if seen.issuperset(job) else first).append(number)
        seen.update(job)
    return first + rest


def _mistakes(loader: Any, config: DictConfig, job: Sequence[str], number: int) -> list[str]:
    """Return the mistakes of a job's configuration, which is composed as a launcher does."""
    composed = loader.load_sweep_config(config, list(job))
    with open_dict(composed):
        composed.hydra.job.id, composed.hydra.job.num = str(number), number
    HydraConfig.instance().set_config(composed)  # the checks look up the overrides of the running job
    task = OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"])
    texts = job_overrides()
    plain, mistakes = find_mistakes(task, texts)
    mistakes = [*refused_overrides(texts), *mistakes]
    if mistakes:
        return mistakes
    if any(text.startswith("+") for text in texts) or packages_of_command(plain):
        mistakes = check_arguments(plain)  # it imports the code, which other configurations are known to fit
    try:
        check_sweep(plain)
    except ConfigError as error:
        mistakes.append(str(error))
    return mistakes


def _messages(jobs_of_mistake: dict[str, list[int]], jobs: Sequence[Sequence[str]], config: DictConfig) -> list[str]:
    """Return a message for each mistake; it names the first job that has it, unless all have it."""
    command: Any = OmegaConf.to_container(config.hydra.overrides.task)
    titles = job_titles(jobs, 0, command)
    messages = []
    for mistake, numbers in jobs_of_mistake.items():
        more = f" and {len(numbers) - 1:,} more" if len(numbers) > 1 else ""
        messages.append(mistake if len(numbers) == len(jobs) else f"{titles[numbers[0]]}{more}: {mistake}")
    return messages
