"""Arrays of M2m's figure of examples: images generated for the rarest classes by the trained networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltr.data.batch import to_device
from ltr.methods.m2m.seeds import sample_columns, seed_distribution
from ltr.randomness import generator

_CLASSES = 4
_IMAGES = 6  # of each class
_CANDIDATES = 12  # of each class


@torch.no_grad()
def example_arrays(network: Any, data: Any) -> dict[str, np.ndarray]:
    """Return seeds, perturbations and generated images of the rarest classes, those that g accepts first.

    Seeds are un-augmented training images, sampled as in the paper, without noise; the sampling is a function of the
    run's seed and the stage's role.

    Args:
        network: an M2mClassifier after its training.

    Returns:
        ``seed`` and ``result`` uint8 [R, P, H, W, C], ``perturbation`` float16 of the same shape in [-1, 1], ``label``
        int64 [R] (the target class of each row), ``seed_label`` int64 [R, P], ``accepted`` bool [R, P] (by g),
        ``class_names`` [C]. Empty if all classes have equal counts, or if several processes read image files.
    """
    counts = np.asarray(network.dataset_info.class_counts)
    sources = seed_distribution(counts, network.options["beta"])
    rarest = [k for k in np.argsort(counts, kind="stable") if counts[k] and sources[k].any()][:_CLASSES]
    if not rarest or (data.images is None and data.world_size > 1):
        return {}
    was_training, device = network.training, network.device
    network.to(data.device).eval()  # a trainer leaves its network on the CPU
    rows = [_row(network, data, int(label), sources[label]) for label in rarest]
    network.to(device).train(was_training)
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return {**columns, "label": np.asarray(rarest), "class_names": np.asarray(network.dataset_info.class_names)}


def _row(network: Any, data: Any, label: int, sources: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays of one class."""
    draws = generator(network.seed, network.role, "sheet", label).random((_CANDIDATES, 2))
    classes = sample_columns(np.broadcast_to(sources, (_CANDIDATES, len(sources))), draws[:, 0])
    index = data.class_index
    offsets = (draws[:, 1] * index.counts[classes]).astype(np.int64)
    images = _images(data, data.split.train[index.order[index.starts[classes] + offsets]])
    start = network.to_unit(images)
    seed_classes = torch.from_numpy(classes).to(start.device)
    results, confident = network.generate(start, torch.full_like(seed_classes, label), seed_classes)
    best = confident.int().argsort(descending=True, stable=True)[:_IMAGES]
    return {
        "seed": _channels_last(images[best]),
        "perturbation": _channels_last((results - start)[best].half()),
        "result": _channels_last((results[best] * 255).round().to(torch.uint8)),
        "seed_label": seed_classes[best].cpu().numpy(),
        "accepted": confident[best].cpu().numpy(),
    }


def _images(data: Any, indices: np.ndarray) -> Tensor:
    """Return un-augmented images uint8 [n, C, H, W] of the source."""
    if data.images is not None:
        return data.images.take(to_device(indices, data.device))
    return torch.cat([batch.images for batch in data.evaluation_loader(indices)])


def _channels_last(images: Tensor) -> np.ndarray:
    """Return images [n, C, H, W] of any device as [n, H, W, C] on the host."""
    return images.permute(0, 2, 3, 1).cpu().numpy()
