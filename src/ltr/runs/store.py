"""Cache of finished stages on disk, by key: a stage is trained once and then read from here.

Each stage has a folder ``<root>/<key>/``. During training it holds ``state/`` (to resume from) and ``metrics.csv``. A
finished stage has ``weights.ckpt``, ``last.ckpt`` if an earlier epoch was selected, and ``stage.json``. That file is
written last: its presence means that the stage is finished, and it holds the digests of the other files.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ltr.errors import LtrError, TrainingError
from ltr.files import file_digest, is_regular, write_json
from ltr.runs.processes.core_slot import core_lent

RECORD = "stage.json"
STATE = "state"  # folder of the training state in that of a stage
REMOVED = "removed from the stage store while the run was running. The same command makes it again"


def check_record(record: Any) -> None:
    """Raise ValueError if the content of a ``stage.json`` differs from the form that `StageStore.finish` writes."""

    def is_number(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15

    if not isinstance(record, dict):
        raise ValueError("it holds no mapping")
    spec = record.get("spec")
    settings = spec.get("settings", {}) if isinstance(spec, dict) else None
    wrong = [
        key
        for key, good in (
            ("spec", isinstance(spec, dict) and isinstance(settings, dict)),
            ("spec.target", isinstance(spec, dict) and isinstance(spec.get("target", ""), str)),
            ("seconds", is_number(record.get("seconds"))),
            ("name", isinstance(record.get("name", ""), str)),
        )
        if not good
    ]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} has a wrong type or value")


class StageStore:
    """Store of stages in the folder ``root``; its constructor does not touch the disk."""

    def __init__(self, root: Path, print_line: Callable[[str], None] = print) -> None:
        self.root = root
        self.print_line = print_line

    def folder(self, key: str) -> Path:
        """Return the folder of the stage with this key."""
        return self.root / key

    def record(self, key: str) -> dict[str, Any] | None:
        """Return the record of a finished stage, or None; a damaged stage is moved aside with a message."""
        path = self.folder(key) / RECORD
        if not path.is_file():
            return None
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            wrong = [name for name, digest in record["files"].items() if self._digest(key, name) != digest]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            wrong, record = [f"{RECORD} ({error})"], {}
        if not wrong:
            return record
        aside = self.root / f"damaged-{key[:12]}-{int(time.time())}"
        self.folder(key).rename(aside)
        self.print_line(
            f"cached stage {key[:12]} is damaged ({', '.join(wrong)}): set aside as {aside}, training it again"
        )
        return None

    def finished(self) -> list[dict[str, Any]]:
        """Return the records of all finished stages, newest first, each with ``age`` in seconds and ``bytes``.

        This checks no digests; a record that cannot be read is skipped with a message.
        """
        records = []
        for path in self.root.glob(f"*/{RECORD}"):
            try:
                if not is_regular(path):  # reading a pipe could block
                    raise ValueError("it is not a regular file")
                record = json.loads(path.read_text(encoding="utf-8"))
                check_record(record)
                size = sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())
                records.append(
                    {**record, "key": path.parent.name, "age": time.time() - path.stat().st_mtime, "bytes": size}
                )
            except (OSError, ValueError, TypeError, RecursionError) as error:
                self.print_line(f"{path} cannot be read and is skipped: {error or type(error).__name__}")
        return sorted(records, key=lambda record: record["age"])

    def remove(self, key: str) -> bool:
        """Delete a stage unless a run holds its lock; return whether it was deleted.

        Runs keep separate links to the weights.
        """
        with self.locked_if_free(key) as is_free:
            if is_free:
                self.discard(key)
            return is_free

    def discard(self, key: str) -> None:
        """Delete a stage whose lock is held."""
        (self.folder(key) / RECORD).unlink(missing_ok=True)  # first: without its record a stage is unfinished
        shutil.rmtree(self.folder(key), ignore_errors=True)

    def remove_state(self, key: str) -> None:
        """Delete the training state of an unfinished stage, whose lock is held."""
        shutil.rmtree(self.folder(key) / STATE, ignore_errors=True)

    def _digest(self, key: str, name: str) -> str | None:
        path = self.folder(key) / name
        return file_digest(path) if path.is_file() else None

    def finish(
        self, key: str, spec: Mapping[str, Any], seconds: float, more: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Write the record of the stage, delete its training state, and return the record."""
        folder = self.folder(key)
        if not folder.is_dir():
            raise TrainingError(f"{folder}: {REMOVED}")
        names = sorted(p.name for p in folder.iterdir() if p.is_file() and p.suffix in (".ckpt", ".npz", ".csv"))
        files = {name: file_digest(folder / name) for name in names}
        record = {"key": key, "spec": spec, "seconds": seconds, "files": files, **(more or {})}
        write_json(folder / RECORD, record)
        self.remove_state(key)
        return record

    @contextlib.contextmanager
    def locked_if_free(self, key: str) -> Iterator[bool]:
        """Hold the stage's lock during a block; yield False if another process holds it."""
        lock = FileLock(self.root / f".{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    @contextlib.contextmanager
    def locked(self, key: str, what: str) -> Iterator[None]:
        """Hold the stage's lock during a block, so that two runs never train the same stage at the same time.

        A message names the stage while the lock is held elsewhere. The system releases the lock when its process ends.
        """
        lock = FileLock(self.root / f".{key}.lock")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            self.print_line(f"waiting for stage '{what}' ({key[:12]}): another run is training it")
            with core_lent():
                lock.acquire()
        except OSError as error:
            raise LtrError(
                f"the stage store {self.root} cannot be written: {error}. Set paths.stages to a folder that can be"
            ) from error
        try:
            yield
        finally:
            lock.release()
