"""Checks of the requirements of a sweep's launcher, before Hydra instantiates it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from ltr.configuration.allowed import as_text, find_problem
from ltr.configuration.declarations import fields_of
from ltr.errors import ConfigError

_SLURM = "hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
_OWN = "ltr_launcher.local.ParallelLauncher"
LOCAL_OPTIONS = "ltr.local_jobs.options.LocalOptions"
_COMMANDS = ("srun", "sbatch")
_LOCAL = (
    "hydra/launcher=submitit_local does the same with processes of this machine, +launcher=local runs several jobs at "
    "a time, and without a launcher jobs run one after another"
)


def check_launcher(launcher: Any) -> list[str]:
    """Return a message for a launcher that this machine does not support.

    Args:
        launcher: the node ``hydra.launcher``.
    """
    target = str(launcher.get("_target_", "")) if isinstance(launcher, Mapping) else ""
    if target.endswith(_OWN):
        return _wrong_values(launcher)
    missing = [name for name in _COMMANDS if shutil.which(name) is None]
    if not target.endswith(_SLURM) or not missing:
        return []
    return [
        f"hydra/launcher=submitit_slurm: {' and '.join(missing)} not found: this machine submits no jobs to SLURM. "
        f"Start the sweep on a login node; {_LOCAL}"
    ]


def _wrong_values(launcher: Mapping[str, Any]) -> list[str]:
    rules = {key: option.rule for key, option in fields_of(LOCAL_OPTIONS).items() if key in launcher}
    reasons = {key: find_problem(launcher[key], rule) for key, rule in rules.items() if rule is not None}
    return [f"hydra.launcher.{key}={as_text(launcher[key])}: {reason}" for key, reason in reasons.items() if reason]


def refused_by_queue(error: BaseException) -> ConfigError | None:
    """Return the error for jobs that a launcher could not submit or lost, if submitit raised it; else None."""
    if not type(error).__module__.startswith("submitit"):
        return None
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return ConfigError(
        f"the launcher could not carry out the jobs: {reason[:300]}. hydra.launcher.* sets what the queue is asked for "
        f"(partition, timeout_min, gpus_per_node, ...); {_LOCAL}"
    )
