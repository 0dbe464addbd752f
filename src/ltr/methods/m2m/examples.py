"""Arrays of M2m's picture sheet: some images that a finished network would be given for the rarest classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltr.data.batch import to_device
from ltr.methods.m2m.seeds import pick, seed_distribution
from ltr.randomness import generator

_CLASSES = 4
_IMAGES = 6  # of each class
_CANDIDATES = 12  # they are chosen from


@torch.no_grad()
def picture_sheet(network: Any, data: Any) -> dict[str, np.ndarray]:
    """Seeds, perturbations and results for a few of the rarest classes; images that g accepts come first.

    Seeds are un-augmented training images, drawn as the paper says, without noise. The draws follow from the run's
    seed and the stage's role.

    Args:
        network: an M2mClassifier whose training has ended.
        data: its DataModule.

    Returns:
        ``seed`` and ``result`` uint8 [R, P, H, W, C], ``perturbation`` float16 of the same shape in [-1, 1], ``label``
        int64 [R] (the class that a row is made for), ``seed_label`` int64 [R, P], ``accepted`` bool [R, P] (by g),
        ``class_names`` [C]. Nothing where no class is larger than another, or several processes read image files.
    """
    counts = np.asarray(network.dataset_info.class_counts)
    sources = seed_distribution(counts, network.options["beta"])
    rarest = [k for k in np.argsort(counts, kind="stable") if counts[k] and sources[k].any()][:_CLASSES]
    if not rarest or (data.images is None and data.world_size > 1):
        return {}
    was_training, was_on = network.training, network.device
    network.to(data.device).eval()  # a trainer leaves its network on the CPU
    rows = [_row(network, data, int(label), sources[label]) for label in rarest]
    network.to(was_on).train(was_training)
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return {**columns, "label": np.asarray(rarest), "class_names": np.asarray(network.dataset_info.class_names)}


def _row(network: Any, data: Any, label: int, sources: np.ndarray) -> dict[str, np.ndarray]:
    """Return the pictures of one class."""
    draws = generator(network.seed, network.role, "sheet", label).random((_CANDIDATES, 2))
    classes = pick(np.broadcast_to(sources, (_CANDIDATES, len(sources))), draws[:, 0])
    index = data.class_index
    within = (draws[:, 1] * index.counts[classes]).astype(np.int64)
    images = _images(data, data.split.train[index.order[index.starts[classes] + within]])
    start = network.to_unit(images)
    of_seeds = torch.from_numpy(classes).to(start.device)
    results, sure = network.generate(start, torch.full_like(of_seeds, label), of_seeds)
    first = sure.int().argsort(descending=True, stable=True)[:_IMAGES]
    return {
        "seed": _as_pictures(images[first]),
        "perturbation": _as_pictures((results - start)[first].half()),
        "result": _as_pictures((results[first] * 255).round().to(torch.uint8)),
        "seed_label": of_seeds[first].cpu().numpy(),
        "accepted": sure[first].cpu().numpy(),
    }


def _images(data: Any, indices: np.ndarray) -> Tensor:
    """Un-augmented images uint8 [n, C, H, W] of the source."""
    if data.images is not None:
        return data.images.take(to_device(indices, data.device))
    return torch.cat([batch.images for batch in data.evaluation_loader(indices)])


def _as_pictures(images: Tensor) -> np.ndarray:
    """[n, C, H, W] on a device to [n, H, W, C] on the host."""
    return images.permute(0, 2, 3, 1).cpu().numpy()
