"""Folder of one run while it runs: creating, filling and checking it, and writing the result."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ltr.data.source import Source
from ltr.data.split import Split, save_split
from ltr.errors import TrainingError
from ltr.files import link_or_copy, write_json
from ltr.methods.core.checkpoint import network_checkpoint, write_checkpoint
from ltr.methods.core.stage import StageOutput
from ltr.runs.evaluation.network import ProtocolResult
from ltr.runs.evaluation.overlap import Overlap
from ltr.runs.evaluation.protocols import declared_metrics, headline_metric
from ltr.runs.named_files import named_files
from ltr.runs.processes import distributed
from ltr.runs.provenance import provenance
from ltr.runs.result import (
    AT_THE_END,
    AT_THE_START,
    FINAL,
    RESULT,
    data_entry,
    write_curve,
    write_metrics,
    write_result,
    write_start,
    write_status,
    write_tables,
)
from ltr.runs.stages import ARRAYS
from ltr.runs.store import StageStore
from ltr.runs.training.incidents import INCIDENTS


@dataclass
class RunFolder:
    """Writer of a run's folder; `ltr.runs.result` defines the files.

    Attributes:
        is_begun: True once this process has created the folder.
        optional: written tables and arrays that not every run has.
        files: digests of the files that the configuration names, as they were when the run began.
        overlap: test images that a named checkpoint was trained on; None if there are none.
    """

    path: Path
    config: Mapping[str, Any]
    overrides: Sequence[str]
    source: Source
    split: Split
    store: StageStore
    print_line: Callable[[str], None]
    is_begun: bool = field(default=False, init=False)
    optional: list[str] = field(default_factory=list, init=False)
    files: Mapping[str, str] | None = field(default=None, init=False)
    overlap: Overlap | None = field(default=None, init=False)

    def begin(self) -> None:
        """Create the folder on rank 0, without an earlier result; called once all checks have passed."""
        if not self.is_begun and distributed.is_rank_zero():
            self.files = named_files(self.config) if self.files is None else self.files
            (self.path / RESULT).unlink(missing_ok=True)
            write_start(self.path, self.config, self.overrides)
            save_split(self.split, self.path / "split.npz")
            self.is_begun = True

    def note(self, status: str) -> None:
        """Write the status of the run; a failure to write it (on a full disk) does not hide the original error."""
        if self.is_begun:
            with contextlib.suppress(OSError):
                write_status(self.path, status)

    def missing_files(self) -> list[str]:
        """Return the missing files among those that every finished run's folder has."""
        needed = [*AT_THE_START, *AT_THE_END, f"checkpoints/{FINAL}", *self.optional]
        return [name for name in needed if not (self.path / name).is_file()]

    def check_whole(self) -> None:
        """Refuse an incomplete folder and delete its result, so that the same command writes it again.

        Raises:
            TrainingError: files are missing; the message names them.
        """
        missing = self.missing_files()
        if missing:
            (self.path / RESULT).unlink(missing_ok=True)
            if self.path.is_dir():
                self.note("failed")
            raise TrainingError(
                f"{self.path}: {', '.join(missing)} missing: files of the run were removed while it was running. The "
                "same command writes them again from the cached stages"
            )

    def write_weights(self, predictor: Any, last: StageOutput) -> None:
        """Write ``checkpoints/``: links to the stored files, which may be pruned, or the method's final network.

        Args:
            last: output of the last stage.
        """
        stored = self.store.folder(last.key)
        checkpoints = self.path / "checkpoints"
        if (stored / "last.ckpt").is_file():
            link_or_copy(stored / "last.ckpt", checkpoints / FINAL)
            link_or_copy(stored / "weights.ckpt", checkpoints / "best.ckpt")
        elif (stored / "weights.ckpt").is_file():
            link_or_copy(stored / "weights.ckpt", checkpoints / FINAL)
        else:
            whole = self.config["checkpoint"].get("tuned") == "whole"
            write_checkpoint(checkpoints / FINAL, network_checkpoint(predictor, self.config["dataset"], whole=whole))

    def finish(
        self,
        outputs: Mapping[str, StageOutput],
        rows: Sequence[Mapping[str, Any]],
        on_test: Sequence[ProtocolResult],
        run_info: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Write tables, provenance and finally ``result.json``; return its content.

        Args:
            outputs: outputs of all stages, by name.
            on_test: results of the selected weights on the test split, for the tables.
            run_info: entries of ``provenance.json`` about this run: device, precision, seconds, ...
        """
        if any(not (self.path / name).is_file() for name in AT_THE_START):
            self.print_line(f"{self.path} was removed while the run was running: writing it again")
            self.is_begun = False
            self.begin()
        folders = [self.store.folder(output.key) for output in outputs.values()]
        write_metrics(self.path, [folder / "metrics.csv" for folder in folders])
        write_tables(self.path, on_test, self.split.class_names)
        write_curve(self.path, rows)
        for output, folder in zip(outputs.values(), folders):
            if output.arrays:
                link_or_copy(folder / ARRAYS, self.path / "artifacts" / f"{output.name}.npz")
        optional = [*self.path.glob("*.parquet"), *self.path.glob("artifacts/*.npz")]
        self.optional = sorted(str(path.relative_to(self.path)) for path in optional)
        self._write_provenance(outputs, run_info)
        result = write_result(
            self.path,
            self.config,
            [_stage_entry(output) for output in outputs.values()],
            rows,
            data_entry(self.split, self.source.fingerprint, self.source.metadata_digests(), self.files)
            | (self.overlap.to_dict() if self.overlap else {}),
            headline_metric(self.split),
            declared_metrics(self.split, self.config["evaluation"]),
            run_info["precision"],
        )
        write_status(self.path, "finished")
        return result

    def _write_provenance(self, outputs: Mapping[str, StageOutput], run_info: Mapping[str, Any]) -> None:
        entries = provenance(run_info["device"], run_info["precision"])
        entries["code"] = {**entries["code"], "own": self.config.get("code", {})}
        entries |= {"stored_stages": run_info["stored_stages"]} if run_info["stored_stages"] else {}
        entries |= {"processes": distributed.world_size()}
        micro_batches = {output.name: output.micro_batch for output in outputs.values() if output.micro_batch}
        entries |= {"micro_batch": micro_batches} if micro_batches else {}
        entries |= {
            "data": self.source.fingerprint,
            "seed": self.config["seed"],
            "split": self.split.name,
            "split_digest": self.split.digest(),
        }
        write_json(self.path / "provenance.json", {**entries, "seconds": round(run_info["seconds"], 3)})


def _stage_entry(output: StageOutput) -> dict[str, Any]:
    status = "reused" if output.reused else "trained"
    entry = {"name": output.name, "key": output.key, "status": status, "seconds": output.seconds}
    incidents = output.incidents.get(output.name)
    return entry | ({INCIDENTS: dict(incidents)} if incidents else {})
