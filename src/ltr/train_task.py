"""The task of ``ltr-train`` that Hydra calls for each job; a launcher may carry it to another process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ltr.configuration.command_line import CommandLine


class TrainTask:
    """Task function of a command line.

    Args:
        line: the command line.
        full_error: value of HYDRA_FULL_ERROR that the user set, or None.
        codes: takes the exit code of a failed single run.
    """

    def __init__(self, line: CommandLine, full_error: str | None, codes: list[int]) -> None:
        self.line = line
        self.full_error = full_error
        self.codes = codes

    def __call__(self, config: DictConfig) -> float | None:
        """Run one job; return the value that a choosing sweeper maximises."""
        from ltr.cli import FULL_ERROR, environment_variable, run_job
        from ltr.configuration.targets import allow_packages

        with environment_variable(FULL_ERROR, self.full_error), allow_packages(self.line.allowed):
            return run_job(config, self.codes, self.line)
