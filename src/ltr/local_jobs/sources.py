"""Pixels that the jobs of a sweep share: one job reads a data set, the others map its memory."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ltr.configuration.configs import canonical_json
from ltr.data.source import Source, set_field
from ltr.runs.pixels import copy_to_memory_file, map_file

READ, WAIT = "read", "wait"


@dataclass(frozen=True)
class SharedSource:
    """A source whose pixels lie in memory that several processes map.

    Attributes:
        rest: the pickled source without its pixels.
        shape: shape of the pixels.
        path: path of the memory, as other processes open it.
    """

    rest: bytes
    shape: tuple[int, ...]
    path: str

    @classmethod
    def of(cls, source: Source, file: int) -> SharedSource:
        """Describe a source whose pixels have been copied to the open file ``file``."""
        rest = copy.copy(source)
        set_field(rest, "images", np.empty((0, 1, 1, 1), dtype=np.uint8))
        return cls(pickle.dumps(rest), source.images.shape, f"/proc/{os.getpid()}/fd/{file}")  # type: ignore[union-attr]

    def open(self) -> Source:
        """Return the source; raise OSError where the memory cannot be mapped."""
        images = map_file(self.path, self.shape)
        rest = pickle.loads(self.rest)
        set_field(rest, "images", images)
        return replace(rest)  # with the checks and the read-only views of a new source


class SourceReader:
    """Reader of data sets in a job.

    Args:
        ask: sends a message to the launching process and returns its answer.
        read: reads a data set from its files.
    """

    def __init__(self, ask: Callable[..., Any], read: Callable[[Mapping[str, Any]], Source]) -> None:
        self.ask = ask
        self.read = read
        self._sources: dict[str, Source] = {}

    def __call__(self, config: Mapping[str, Any]) -> Source:
        """Return the source of a config: its pixels in shared memory, where another job has read them."""
        key = canonical_json(config)
        if key not in self._sources:
            self._sources.clear()  # before the next one is read: two may not fit
            self._sources[key] = self._obtain(key, config)
        return self._sources[key]

    def _obtain(self, key: str, config: Mapping[str, Any]) -> Source:
        answer = self.ask("source", key)
        if isinstance(answer, SharedSource):
            with contextlib.suppress(OSError):
                return answer.open()
            return self.read(config)
        shared, file = None, -1
        try:
            source = self.read(config)
            if isinstance(source.images, np.ndarray):  # files and packed pixels lie in the system's page cache
                file = copy_to_memory_file(source.images)
                shared = SharedSource.of(source, file) if file >= 0 else None
        finally:
            # also where reading has failed: another job may be waiting
            kept = self.ask("have source", key, shared)
            if file >= 0:
                os.close(file)
        if kept is None:
            return source
        with contextlib.suppress(OSError):
            return kept.open()
        return source


class KeptSources:
    """Sources that jobs have read, in the launching process: it keeps the memory while the sweep runs."""

    def __init__(self) -> None:
        self._kept: dict[str, SharedSource | None] = {}  # None: cannot be shared, each job reads it
        self._reading: dict[str, int] = {}  # the job that reads it
        self._waiting: dict[str, list[int]] = {}
        self._files: list[int] = []

    def wanted(self, key: str, job: int) -> Any:
        """Return the answer to a job that needs a source; `WAIT` where it has to wait for the job that reads it."""
        if key in self._kept:
            return self._kept[key] or READ
        if key in self._reading and self._reading[key] != job:
            self._waiting.setdefault(key, []).append(job)
            return WAIT
        self._reading[key] = job
        return READ

    def read(self, key: str, shared: SharedSource | None) -> tuple[SharedSource | None, dict[int, Any]]:
        """Keep what a job has read; return it as this process shares it, and the answers to the waiting jobs."""
        self._reading.pop(key, None)
        kept = None
        if shared is not None:
            with contextlib.suppress(OSError):
                file = os.open(shared.path, os.O_RDONLY)
                self._files.append(file)
                kept = replace(shared, path=f"/proc/{os.getpid()}/fd/{file}")
        self._kept.setdefault(key, kept)
        return kept, dict.fromkeys(self._waiting.pop(key, []), kept or READ)

    def ended(self, job: int) -> dict[int, Any]:
        """Return the answers to jobs that waited for a source that this job, now ended, was reading."""
        answers: dict[int, Any] = {}
        for jobs in self._waiting.values():
            jobs[:] = [other for other in jobs if other != job]
        for key in [key for key, reader in self._reading.items() if reader == job]:
            del self._reading[key]
            waiting = self._waiting.pop(key, [])
            if waiting:  # the next one reads it
                self._reading[key], self._waiting[key] = waiting[0], waiting[1:]
                answers[waiting[0]] = READ
        return answers

    def close(self) -> None:
        """Release the memory."""
        for file in self._files:
            os.close(file)
        self._files.clear()
        self._kept.clear()
