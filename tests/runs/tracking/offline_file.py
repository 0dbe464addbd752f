"""Reads what W&B writes offline: a log of LevelDB's kind that holds the client's own messages."""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = 1 << 15
_HEADER = 7  # of the file, and of each chunk: checksum, length, and whether it is whole (1), first, middle or last


def messages(path: Path) -> Iterator[Any]:
    """The messages of a ``.wandb`` file, as the client's own class reads them."""
    from wandb.proto import wandb_internal_pb2

    data, index, parts = path.read_bytes(), _HEADER, b""
    assert data[:4] == b":W&B"
    while index < len(data):
        if _BLOCK - index % _BLOCK < _HEADER:  # no chunk begins so close to the end of a block
            index += _BLOCK - index % _BLOCK
            continue
        checksum, length, kind = struct.unpack("<IHB", data[index : index + _HEADER])
        content = data[index + _HEADER : index + _HEADER + length]
        assert zlib.crc32(bytes([kind]) + content) == checksum
        parts += content
        index += _HEADER + length
        if kind in (1, 4):
            message = wandb_internal_pb2.Record()
            message.ParseFromString(parts)
            yield message
            parts = b""


class Offline:
    """Contents that an offline run would send.

    Attributes:
        run: its identity: project, group, job type, tags, name.
        config: flat, key to value.
        history: a dictionary for each step.
        summary: the last value of each key.
        summaries: watched key to ``max`` or ``min``.
        files: names of the files that go with it.
        artifacts: names.
        kinds: of all messages.
        ended: the exit code was written, so the file is whole.
    """

    def __init__(self, path: Path) -> None:
        self.config: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.summaries: dict[str, str] = {}
        self.steps: dict[str, str] = {}
        self.files: list[str] = []
        self.artifacts: list[str] = []
        self.kinds: set[str] = set()
        self.ended = False
        for message in messages(path):
            kind = message.WhichOneof("record_type")
            self.kinds.add(kind)
            if kind == "run":
                self.run = message.run
                self._keep(self.config, message.run.config.update)
            elif kind == "config":
                self._keep(self.config, message.config.update)
            elif kind == "history":
                step: dict[str, Any] = {}
                self._keep(step, message.history.item)
                self.history.append(step)
            elif kind == "summary":
                self._keep(self.summary, message.summary.update)
            elif kind == "metric":
                metric = message.metric
                if metric.summary.max or metric.summary.min:
                    self.summaries[metric.name] = "max" if metric.summary.max else "min"
                if metric.step_metric:
                    self.steps[metric.name or metric.glob_name] = metric.step_metric
            elif kind == "files":
                self.files += [file.path for file in message.files.files]
            elif kind == "artifact":
                self.artifacts.append(message.artifact.name)
            self.ended |= kind == "exit"

    @staticmethod
    def _keep(into: dict[str, Any], items: Any) -> None:
        for item in items:
            into[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)


def offline(run_dir: Path) -> Offline:
    """The one offline run in a run directory; its service writes the file from another process."""
    (path,) = run_dir.glob("wandb/offline-run-*/run-*.wandb")
    end = time.monotonic() + 60
    while True:
        try:
            contents = Offline(path)
        except (AssertionError, struct.error):  # half-written
            contents = None
        if contents is not None and contents.ended:
            return contents
        assert time.monotonic() < end, path
        time.sleep(0.1)
