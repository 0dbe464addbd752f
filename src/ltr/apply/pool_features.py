"""Stored features of a pool: a frozen backbone computes them once, for all rounds of mining."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from ltr.apply.model import Model
from ltr.apply.reading import PoolBatch, ReadPool, UnreadableImage, batches
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
    """Table of the features of a pool's images, which computes and stores missing ones.

    The key of a table contains the backbone's weights, the precision, the preprocessing and the files (real path, size,
    modification time). Features of files that are also in another table, such as that of the run's data set or of an
    earlier state of the pool, are copied from it.

    Args:
        model: model whose network was trained on stored features.
        files: images of the pool.
        store: store of the tables.
        print_line: function that prints a line.
    """

    def __init__(self, model: Model, files: ImageFiles, store: StageStore, print_line: Callable[[str], None]) -> None:
        self.model = model
        self.store = store
        self.print_line = print_line
        self.files = replace(files, decoding=model.decoding_of(files))
        identities = file_identities(self.files)
        assert identities is not None  # pools are image files
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
        """Lock the table during the block, and yield the function that reads it (`batches`).

        Features of other tables are copied first, and the number of stored images is printed.

        Args:
            places: int64 [n], indices of the images to be read.
        """
        with self.store.locked(spec_key(self.spec), NAME):
            self.table = FeatureTable(self.table.folder, len(self.files), self.table.shape, self.print_line)
            missing, copied = self.table.missing(places), 0
            if len(missing):
                write_files(self.table, self.identities)
                self._record(0.0)
                copied = copy_shared_rows(self.table, self.identities, missing, self.spec, self.store)
                self._record(0.0)
                missing = self.table.missing(missing)
                check_disk_space(self.table, len(missing))
            from_others = f", {copied:,} of them in tables of other images" if copied else ""
            self.print_line(
                f"{NAME}: {len(places) - len(missing):,} of {len(places):,} images are stored{from_others} "
                f"({spec_key(self.spec)[:12]}){'' if len(missing) else '; the backbone is not run'}"
            )
            yield self.batches

    def batches(self, places: np.ndarray, tally: Tally) -> Iterator[PoolBatch]:
        """Yield the features of images in order, in batches of the model's size; compute and store missing ones.

        Args:
            places: int64 [n], indices of the images in the pool.
            tally: counter of remarks on the images that are read.
        """
        size = self.model.batch_size
        parts = [places[first : first + size] for first in range(0, len(places), size)]
        computed = self._computed(parts, tally)
        for part in parts:
            broken: list[UnreadableImage] = []
            missing = int((~self.table.has(part)).sum())
            if missing:
                broken = self._store(computed, missing)
            stored = part[self.table.has(part)]
            features = network_input(torch.from_numpy(self.table.take(stored)).to(self.model.device))
            yield PoolBatch(stored, features, broken)

    def _store(self, computed: Iterator[tuple[PoolBatch, np.ndarray]], number: int) -> list[UnreadableImage]:
        """Compute and store the features of the next ``number`` images; return the unreadable ones."""
        began = time.perf_counter()
        places: list[np.ndarray] = []
        rows: list[np.ndarray] = []
        broken: list[UnreadableImage] = []
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
        """Yield batches of the images without stored features, in order, with their features."""
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
