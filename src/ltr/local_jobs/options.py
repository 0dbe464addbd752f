"""Options of ``+launcher=local``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal


@dataclass(frozen=True, kw_only=True)
class LocalOptions:
    """Options of ``+launcher=local``, the node ``hydra.launcher``."""

    n_jobs: Annotated[int | Literal["auto"], "[1, inf)"] = "auto"
    """jobs at a time; auto: one for each core, and at most jobs_per_gpu for each GPU"""
    threads: Annotated[int | Literal["auto"], "[1, inf)"] = "auto"
    """threads of a job; auto: the cores divided by the jobs at a time"""
    jobs_per_gpu: Annotated[int, "[1, inf)"] = 2
    """jobs at a time that share a GPU"""
