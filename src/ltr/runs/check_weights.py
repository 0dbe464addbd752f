"""Check of the weights that a run names, before its first stage: files are read and loaded into their networks."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltr.configuration.configs import canonical_json
from ltr.configuration.targets import instantiate
from ltr.files import checkpoint_file
from ltr.methods.core.checkpoint import check_fits, load_network
from ltr.methods.core.settings import DatasetInfo
from ltr.methods.core.stage import Stage, StageOutput
from ltr.methods.decoupling.representation import warn_of_balanced_representation
from ltr.models.backbones import config_for_image_size
from ltr.models.hub_weights import HUB, weights_file
from ltr.models.weights import seeded_construction


def read_checkpoints(stages: Sequence[Stage], dataset_info: DatasetInfo) -> dict[str, StageOutput]:
    """Load the networks of the stages that are checkpoints; return their outputs by name, without arrays.

    Raises:
        CheckpointError: a file is missing or damaged, or its network cannot replace the stage.
    """
    outputs = {}
    for stage in stages:
        if stage.checkpoint is None:
            continue
        path = checkpoint_file(Path(stage.checkpoint))
        network = load_network(path)
        if not stage.foreign:
            check_fits(network, stage.settings, dataset_info, path)
            warn_of_balanced_representation(network.settings, network.dataset_info)
        outputs[stage.name] = StageOutput(stage.name, "", load=functools.partial(load_network, path))
    return outputs


def check_initial_weights(backbone: Mapping[str, Any], image_shape: tuple[int, int, int]) -> None:
    """Build a backbone with the weights of its file; a process does not repeat a check that passed.

    A missing file is refused by the stage's key, and a download is left to the training.

    Args:
        backbone: config of a backbone.
        image_shape: (C, H, W).

    Raises:
        CheckpointError: the file is damaged, or its tensors do not fit.
        ConfigError: the config names two origins of weights.
    """
    weights = backbone.get("weights")
    if weights is None or str(backbone.get("name", "")).startswith(HUB):
        return
    path = weights_file(str(weights))
    if os.path.isfile(path):  # unlike Path.is_file, False for a text that cannot be a path
        status = os.stat(path)
        _load(canonical_json(backbone), image_shape, path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=256)
def _load(backbone: str, image_shape: tuple[int, int, int], path: str, changed: int, size: int) -> None:
    with seeded_construction(0):
        instantiate(config_for_image_size(json.loads(backbone), image_shape), image_shape[0])
