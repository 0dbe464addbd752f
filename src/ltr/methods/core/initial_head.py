"""Initial class vectors of a cosine head: means of the training features, or embeddings from a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ltr.errors import CheckpointError, ConfigError
from ltr.models.heads import CLASS_MEANS, GLOROT, ZEROS
from ltr.models.state_file import read_state
from ltr.names import canonical


def initial_file(head: Mapping[str, Any]) -> Path | None:
    """Return the file of class embeddings in a head's config, or None.

    Raises:
        CheckpointError: the file does not exist.
    """
    initial = head.get("initial")
    if initial in (None, CLASS_MEANS, ZEROS, GLOROT):
        return None
    path = Path(str(initial))
    if not path.is_file():
        raise CheckpointError(
            f"head.initial={initial}: there is no such file. Allowed are {CLASS_MEANS}, null for random vectors, or a "
            "file with a tensor for each class, as scripts/class_embeddings.py writes it"
        )
    return path


def check_initial_head(network: Any) -> None:
    """Check before training that a network's head can be initialised as its config says.

    Raises:
        ConfigError: the head's rows are not the classes.
        CheckpointError: see `class_embeddings`.
    """
    head, config = network.head, network.settings.head
    if config.get("initial") is None or not hasattr(head, "start_from"):
        return
    classes = network.dataset_info.num_classes
    if head.num_classes != classes:
        raise ConfigError(
            f"head.initial={config['initial']}: the head of {type(network).__name__} has {head.num_classes} rows for "
            f"{classes} classes, so class vectors cannot start it. Set head.initial=null"
        )
    path = initial_file(config)
    if path is not None:
        class_embeddings(path, network.dataset_info.class_names, head.num_features)


def start_head(network: Any, data: Any, device: torch.device, autocast: Callable[[], AbstractContextManager]) -> None:
    """Initialise the class vectors of a network's head, if its config says so.

    Args:
        network: the network before its first step.
        data: the stage's DataModule; training images are not augmented.
        device: device on which features are computed.
        autocast: the run's precision.
    """
    head, config = network.head, network.settings.head
    if config.get("initial") is None or not hasattr(head, "start_from"):
        return
    path = initial_file(config)
    if path is not None:
        vectors = class_embeddings(path, network.dataset_info.class_names, head.num_features)
    else:
        vectors = _class_means(network.to(device), data, autocast)
    head.start_from(vectors)


def class_embeddings(path: Path, class_names: tuple[str, ...], width: int) -> Tensor:
    """Return class embeddings, float32 [C, D], from a file with a tensor [D] under each class name.

    Raises:
        CheckpointError: the file cannot be read, lacks a class, or has vectors of another width.
    """
    vectors = {canonical(name): vector for name, vector in read_state(path).items()}
    missing = [name for name in class_names if name not in vectors]
    if missing:
        raise CheckpointError(
            f"head.initial={path}: it has no vector for {len(missing)} of {len(class_names)} classes "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}). Write one for each class, by its name"
        )
    wrong = next((name for name in class_names if tuple(vectors[name].shape) != (width,)), None)
    if wrong is not None:
        raise CheckpointError(
            f"head.initial={path}: the vector of '{wrong}' has the shape {list(vectors[wrong].shape)}, and the "
            f"backbone's features have {width} numbers. Embed the classes by the text tower of this backbone"
        )
    stacked = torch.stack([vectors[name].float() for name in class_names])
    if not bool(stacked.isfinite().all()) or not bool((stacked.norm(dim=1) > 0).all()):
        raise CheckpointError(f"head.initial={path}: a vector is zero or not finite. Write the file again")
    return stacked


@torch.no_grad()
def _class_means(network: Any, data: Any, autocast: Callable[[], AbstractContextManager]) -> Tensor:
    """Return the mean of each class's L2-normalised features, [C, D]; a class without images keeps its current row."""
    training = network.training
    network.eval()
    sums = torch.zeros(network.head.weight.shape, dtype=torch.float64)
    with autocast():
        for batch in data.evaluation_loader(data.split.train):
            features = network.features(network.to_unit(batch.images)).double().cpu()
            sums.index_add_(0, batch.labels.cpu(), functional.normalize(features, dim=1))
    network.train(training)
    initial_rows = network.head.weight.detach().cpu().double()
    return torch.where(sums.norm(dim=1, keepdim=True) > 0, sums, initial_rows).float()
