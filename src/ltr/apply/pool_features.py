"""Stored features of a pool: its images pass through a frozen backbone once, for all rounds of mining."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ltr.apply.model import Model
from ltr.apply.reading import Broken, PoolBatch, ReadPool, batches
from ltr.data.images.tally import Tally
from ltr.data.loaders.feature_table import FeatureTable
from ltr.data.source import ImageFiles
from ltr.runs.feature_files import copy_shared_rows, file_identities, write_files
from ltr.runs.features import (
    NAME,
    backbone_digest,
    backbone_features,
    check_disk_space,
    extraction_batch_size,
    network_input,
    spec_key,
    table_record,
    table_spec,
    write_table_record,
)
from ltr.runs.processes.device import autocast
from ltr.runs.store import StageStore


class PoolFeatures:
    """Provider of the stored features of a pool's images, which computes missing features.

    The backbone's weights, the precision, the preprocessing and the files (real path, size, modification time)
    determine a table. Rows of files that another table has, such as that of the run's data set or of an earlier state
    of the pool, are copied from it.

    Args:
        model: model whose network was trained on stored features.
        files: files of the pool.
        store: store of the tables.
        print_line: prints a line.
    """

    def __init__(self, model: Model, files: ImageFiles, store: StageStore, print_line: Callable[[str], None]) -> None:
        self.model = model
        self.store = store
        self.print_line = print_line
        self.files = replace(files, decoding=model.decoding_of(files))
        identities = file_identities(self.files)
        assert identities is not None  # a pool is whole image files
        self.identities = identities
        source = f"pool {hashlib.sha256(identities.tobytes()).hexdigest()}"
        backbone, self.output = model.network.backbone, model.network.output
        self.spec = table_spec(
            model.network, backbone_digest(backbone), source, model.crop, precision=model.precision, output=self.output
        )
        shape = self.output.shape(backbone, model.network.dataset_info.image_shape)
        self.table = FeatureTable(store.folder(spec_key(self.spec)), len(files), shape, print_line)

    @contextmanager
    def reading(self, places: np.ndarray) -> Iterator[ReadPool]:
        """Yield `batches`, the function that reads features, and hold the table's lock during the block.

        It first copies rows of other tables, and prints the number of stored images.

        Args:
            places: int64 [n], indices of the images whose features are needed.
        """
        with self.store.locked(spec_key(self.spec), NAME):
            self.table = FeatureTable(self.table.folder, len(self.files), self.table.shape, self.print_line)
            missing = self.table.missing(places)
            if len(missing):
                write_files(self.table, self.identities)
                self._record(0.0)
                copied = copy_shared_rows(self.table, self.identities, missing, self.spec, self.store)
                self._record(0.0)
                missing = self.table.missing(missing)
                check_disk_space(self.table, len(missing))
                of_others = f", {copied:,} of them in tables of other images" if copied else ""
            else:
                of_others = ""
            self.print_line(
                f"{NAME}: {len(places) - len(missing):,} of {len(places):,} images are stored{of_others} "
                f"({spec_key(self.spec)[:12]}){'' if len(missing) else '; the backbone is not run'}"
            )
            yield self.batches

    def batches(self, places: np.ndarray, tally: Tally) -> Iterator[PoolBatch]:
        """Yield the features of a pool's images in order, in batches of the model's size; compute and store what is
        missing.

        Args:
            places: int64 [n], in the pool.
            tally: counts peculiarities of the images that are read.
        """
        size = self.model.batch_size
        parts = [places[first : first + size] for first in range(0, len(places), size)]
        computed = self._computed(parts, tally)
        for part in parts:
            broken: list[Broken] = []
            missing = int((~self.table.has(part)).sum())
            if missing:
                broken = self._store(computed, missing)
            stored = part[self.table.has(part)]
            features = network_input(torch.from_numpy(self.table.take(stored)).to(self.model.device))
            yield PoolBatch(stored, features, broken)

    def _store(self, computed: Iterator[tuple[PoolBatch, np.ndarray]], number: int) -> list[Broken]:
        """Store the features of the next ``number`` images that are computed; return those that cannot be read."""
        began = time.perf_counter()
        places: list[np.ndarray] = []
        rows: list[np.ndarray] = []
        broken: list[Broken] = []
        while number:
            batch, features = next(computed)
            number -= len(batch.indices) + len(batch.broken)
            broken += batch.broken
            places.append(batch.indices)
            rows.append(features)
        if sum(map(len, places)):
            self.table.append(np.concatenate(places), np.concatenate(rows))
            self._record(time.perf_counter() - began)
        return broken

    def _computed(self, parts: list[np.ndarray], tally: Tally) -> Iterator[tuple[PoolBatch, np.ndarray]]:
        """Yield the images that are missing in each part, in batches of an extraction, with their features."""
        model, network = self.model, self.model.network
        size = extraction_batch_size(model.batch_size, model.device)
        tasks = []
        for part in parts:
            missing = part[~self.table.has(part)]
            tasks += [missing[first : first + size] for first in range(0, len(missing), size)]
        empty = np.empty((0, *self.table.shape), dtype=np.float32)
        for batch in batches(self.files, model, tally=tally, tasks=tasks):
            with torch.inference_mode(), autocast(model.device, model.precision):
                has_images = len(batch.indices) > 0
                yield batch, backbone_features(network, batch.images, size, self.output) if has_images else empty

    def _record(self, seconds: float) -> None:
        earlier = float(table_record(self.store, self.spec).get("seconds", 0.0))
        write_table_record(self.store, self.spec, self.table, earlier + seconds)


def trained_on_features(network: Any) -> bool:
    """Return whether a network was trained on stored features of a frozen backbone."""
    settings = getattr(network, "settings", None)
    return settings is not None and settings.features is not None
