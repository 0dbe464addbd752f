"""Stored features of a run: the stage ``features``, which methods, seeds, splits and sweeps share.

The backbone's weights, the precision, the source and the preprocessing of images determine a table. Its rows are
indexed by source index, and added when a split first needs them.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ltr.configuration.configs import digest, read_config, without_private
from ltr.configuration.own_code import own_code
from ltr.configuration.targets import instantiate
from ltr.data.loaders.feature_table import FeatureTable, fill
from ltr.data.loaders.features import StoredFeatures
from ltr.data.module import DataModule
from ltr.data.source import ImageFiles
from ltr.errors import ConfigError, TrainingError
from ltr.files import write_json
from ltr.identity import with_names
from ltr.methods.core.delta import tensors_digest
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import NetworkSpec, Stage
from ltr.models.backbone_output import VECTOR, BackboneOutput, local_features
from ltr.randomness import derive_seed
from ltr.runs.feature_files import copy_shared_rows, file_identities, write_files
from ltr.runs.keys import input_spec
from ltr.runs.processes.device import autocast
from ltr.runs.store import RECORD, StageStore, check_record

NUMERICS_VERSION = 1  # raise it when a change alters features: stored tables are then not reused
NAME = "features"
_CPU_BATCH = 64  # images per batch on a CPU; the last batch is padded to it
# settings that determine initial weights, and nothing else once the weights are known
_NOT_IDENTITY_BACKBONE = ("weights", "weights_map", "strict_weights", "pretrained", "trainable")
_OF_RANDOM_CROPS = ("random", "window", "scale", "ratio", "reduced")  # contained in the config of a view's augmentation


def backbone_digest(backbone: nn.Module) -> str:
    """Return the SHA-256 in hex of a backbone's parameters and buffers, with their names, kinds and shapes."""
    state = backbone.state_dict()
    return tensors_digest(state, tuple(sorted(state)))


def feature_network(settings: Settings, dataset_info: DatasetInfo, seed: int, role: str) -> ImageClassifier:
    """Return the network of a stage in eval mode, with a plain head and loss, to compute features."""
    plain = settings.replaced(
        head=without_private(read_config("head/linear")),
        loss=without_private(read_config("loss/cross_entropy")),
        extras=(),
        features=None,
    )
    return ImageClassifier(NetworkSpec(plain, dataset_info, seed, role)).eval()


def table_spec(
    network: ImageClassifier,
    weights: str,
    source: str,
    crop: Any,
    augment: Mapping[str, Any] | None = None,
    view: int = 0,
    precision: str | None = None,
    output: BackboneOutput = VECTOR,
) -> dict[str, Any]:
    """Return everything that determines the features in a table, as plain data.

    Args:
        network: network from `feature_network`.
        weights: digest of its backbone, from `backbone_digest`.
        source: fingerprint of the source.
        crop: `ltr.data.images.crop.FileCrop` of image files; None for arrays.
        augment: config of the augmentation of a view; None without augmentation.
        view: number of the view.
        precision: precision of the computation; None: that of the network's settings.
        output: what of the backbone is stored.
    """
    backbone = {k: v for k, v in network.settings.backbone.items() if k not in _NOT_IDENTITY_BACKBONE}
    spec: dict[str, Any] = {
        "target": f"computation/{NAME}",
        "numerics_version": NUMERICS_VERSION,
        "backbone": with_names(without_private(backbone)),
        "weights": weights,
        "precision": precision or network.settings.precision,
        "source": source,
        "input": input_spec(network.dataset_info),
        "settings": {},  # settings of a training; a table has none
        **output.spec(),
    }
    if crop is not None:
        spec["crop"] = {key: value for key, value in vars(crop).items() if key not in _OF_RANDOM_CROPS}
    if augment is not None:
        spec["view"] = {"augment": with_names(without_private(augment)), "number": view}
    code = own_code([backbone, augment or {}])
    return spec | ({"code": code} if code else {})


def spec_key(spec: Mapping[str, Any]) -> str:
    """Return the key of a table."""
    return digest(spec)


def extraction_batch_size(eval_batch_size: int, device: torch.device) -> int:
    """Return the batch size of an extraction, at most that of evaluation."""
    return min(eval_batch_size, _CPU_BATCH) if device.type == "cpu" else eval_batch_size


def backbone_features(
    network: ImageClassifier, images: Tensor, size: int, output: BackboneOutput = VECTOR
) -> np.ndarray:
    """Return the features float32 [b, *shape] of uint8 images [b, C, H, W], b <= size.

    Smaller batches are padded to ``size`` images, because the features of an image must not depend on the batch size.
    """
    filled = images
    if len(images) < size:
        filled = torch.cat([images, images[:1].expand(size - len(images), -1, -1, -1)])
        filled = filled.contiguous(memory_format=torch.channels_last)
    features = output(network.backbone, network.normalise(network.to_unit(filled)))[: len(images)]
    return features.float().cpu().contiguous().numpy()


def network_input(stored: Tensor) -> Tensor:
    """Return stored features in the form that a network takes them: [B, D], or [B, N, D] of maps and tokens."""
    return local_features(stored)


def table_record(store: StageStore, spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the record of a table; {} if there is no readable record."""
    try:
        record = json.loads((store.folder(spec_key(spec)) / RECORD).read_text(encoding="utf-8"))
        check_record(record)
    except (OSError, ValueError, RecursionError):
        return {}
    return record


def write_table_record(store: StageStore, spec: Mapping[str, Any], table: FeatureTable, seconds: float) -> None:
    """Write the record by which ``ltr-stages`` lists a table.

    Args:
        spec: specification from `table_spec`.
        table: the table, whose blocks have separate digests.
        seconds: total time of this and all earlier extractions.
    """
    key = spec_key(spec)
    record = {"key": key, "name": NAME, "spec": dict(spec), "seconds": seconds, "files": {}}
    write_json(store.folder(key) / RECORD, {**record, "images": len(table), "width": table.width})


def _megabytes(number: int) -> str:
    return f"{number / 1e6:,.{2 if number < 1e7 else 0}f} MB"


def check_disk_space(table: FeatureTable, images: int) -> None:
    """Refuse an extraction that the disk has no room for, before anything is computed.

    Args:
        table: with its images so far.
        images: number of images to add.

    Raises:
        TrainingError: fewer bytes are free than the images need.
    """
    folder = next(path for path in (table.folder, *table.folder.parents) if path.exists())
    needed, free = images * table.row_bytes, shutil.disk_usage(folder).free
    if needed > free:
        smaller = "" if len(table.shape) == 1 else ", features.output=vector"
        raise TrainingError(
            f"{NAME}: {images:,} images of {_megabytes(table.row_bytes)} need {_megabytes(needed)}, and {folder} has "
            f"{_megabytes(free)} free. Free some (ltr-stages lists what is stored), name another folder with "
            f"paths.stages=FOLDER, or use fewer pixels{smaller}"
        )


class FeatureStage:
    """Provider of the stored features of a run's source, which computes missing features.

    Args:
        stage: first stage that trains on the features.
        data: images of the run, with its augmentation.
    """

    def __init__(
        self,
        stage: Stage,
        dataset_info: DatasetInfo,
        seed: int,
        data: DataModule,
        store: StageStore,
        device: torch.device,
        print_line: Callable[[str], None],
    ) -> None:
        self.settings = stage.settings
        self.data = data
        self.store = store
        self.device = device
        self.print_line = print_line
        self.network = feature_network(stage.settings, dataset_info, seed, stage.role)
        assert stage.settings.features is not None
        self.views = int(stage.settings.features["views"])
        crop = data.file_crop if isinstance(data.source.images, ImageFiles) else None
        fingerprint = data.source.fingerprint
        self.weights = backbone_digest(self.network.backbone)
        self.output = BackboneOutput.of(stage.settings.features)
        self.shape = self.output.shape(self.network.backbone, dataset_info.image_shape)
        if not self.output.is_vector:  # a pool that does not fit is refused before anything is computed
            width = self.output.width(self.network.backbone, dataset_info.image_shape)
            instantiate(stage.settings.features["pool"], width)
        self.plain_spec = table_spec(self.network, self.weights, fingerprint, crop, output=self.output)
        self.view_specs = [
            table_spec(self.network, self.weights, fingerprint, crop, stage.settings.augment, view, output=self.output)
            for view in range(self.views)
        ]

    def stored(self) -> StoredFeatures:
        """Return the tables of the run, without computing features."""
        return StoredFeatures(self.open(self.plain_spec), tuple(self.open(spec) for spec in self.view_specs))

    def open(self, spec: Mapping[str, Any]) -> FeatureTable:
        """Return the table of a specification with the rows stored so far."""
        return FeatureTable(self.store.folder(spec_key(spec)), len(self.data.source), self.shape, self.print_line)

    def obtain(
        self,
        parts: Sequence[np.ndarray],
        train: np.ndarray,
        progress: Callable[[int], Any],
        stopped: Callable[[], None] = lambda: None,
    ) -> StoredFeatures:
        """Compute the missing features of a split, and return its tables.

        Args:
            parts: source indices of the images without augmentation.
            train: source indices of the images in augmented views.
            progress: number of images -> a context manager whose value is a function to advance by.
            stopped: raises if a signal stops the run; called between blocks.
        """
        plain = self._filled(self.plain_spec, np.concatenate(parts), None, progress, stopped)
        views = [self._filled(spec, train, view, progress, stopped) for view, spec in enumerate(self.view_specs)]
        self.network.cpu()  # frees GPU memory for the training
        return StoredFeatures(plain, tuple(views))

    def check(self, backbone: nn.Module, name: str) -> None:
        """Check that the features come from a network's backbone.

        Raises:
            ConfigError: the backbone has other weights.
        """
        if backbone_digest(backbone) != self.weights:
            raise ConfigError(
                f"stage '{name}' has other weights in its backbone than the stored features come from. Give all of the "
                "backbone's weights (backbone.weights=FILE, backbone.strict_weights=true), or use features=images"
            )

    def _filled(
        self,
        spec: Mapping[str, Any],
        indices: np.ndarray,
        view: int | None,
        progress: Callable[[int], Any],
        stopped: Callable[[], None],
    ) -> FeatureTable:
        key = spec_key(spec)
        with self.store.locked(key, NAME):
            table = self.open(spec)
            number = len(table.missing(indices))
            if not number:
                record = table_record(self.store, spec)
                is_current = (record.get("images"), record.get("width")) == (len(table), table.width)
                if not is_current:  # the process was killed between block and record, or an earlier version wrote it
                    write_table_record(self.store, spec, table, float(record.get("seconds", 0.0)))
                self.print_line(f"{NAME}: cached stage {key[:12]}, {len(np.unique(indices)):,} images")
                return table
            began = time.perf_counter()
            what = "" if view is None else f", view {view + 1} of {self.views}"
            stored = f", {len(table):,} are stored" if len(table) else ""
            size = _megabytes(number * table.row_bytes)
            self.print_line(f"{NAME}: {number:,} images to compute{stored}{what} ({key[:12]}), {size}")
            check_disk_space(table, number)
            batch = self._batch_size()

            def advance(done: int) -> None:
                bar(done)
                write_table_record(self.store, spec, table, earlier + time.perf_counter() - began)
                stopped()

            with progress(number) as bar:
                # before the first block, so that ltr-stages lists unfinished tables too
                earlier = float(table_record(self.store, spec).get("seconds", 0.0))
                write_table_record(self.store, spec, table, earlier)
                if view is None and (copied := self._copied(spec, table, indices)):
                    self.print_line(f"{NAME}: {copied:,} images have stored features in tables of other data")
                    advance(copied)
                fill(table, indices, lambda block: self._batches(block, view), batch, advance)
            return table

    def _copied(self, spec: Mapping[str, Any], table: FeatureTable, indices: np.ndarray) -> int:
        """Copy rows of the same image files from other tables; return their number."""
        identities = file_identities(self.data.source.images)
        if identities is None:
            return 0
        write_files(table, identities)
        return copy_shared_rows(table, identities, table.missing(indices), spec, self.store)

    def _batch_size(self) -> int:
        return extraction_batch_size(self.data.eval_batch_size, self.device)

    def _batches(self, indices: np.ndarray, view: int | None) -> Iterator[np.ndarray]:
        """Yield features float32 [b, *shape] of source indices, in order.

        All batches have the same number of images, because features may depend on the batch size.
        """
        size = self._batch_size()
        seed = None if view is None else derive_seed(NAME, "view", view)
        network = self.network.to(self.device)
        with torch.inference_mode(), autocast(self.device, self.settings.precision):
            for batch in self.data.ordered_loader(indices, size, seed):
                yield backbone_features(network, batch.images, size, self.output)
