"""Pseudo-labels: a partition of the training images by a pretrained classifier, by k-means, or by a taxonomy.

They are computed once for a (source, teacher, transform), for every training image of the source, and know neither
the split nor the seed; `ltr.methods.background_splitting.partition` then looks at those that a split trains on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltr.configuration.targets import instantiate
from ltr.data.source import Source
from ltr.errors import ConfigError, nearest
from ltr.identity import named
from ltr.methods.core.stage import Computation
from ltr.randomness import derive_seed

NONE = -1  # an image that has no pseudo-label, such as one that is never trained on
_FULL_KMEANS = 100_000  # images above which k-means goes over samples


def training_images(source: Source) -> np.ndarray:
    """Source indices int64 [n] of the images that any split may train on: the part ``train``, or all where it lacks."""
    batches = source.parts.get("train", range(len(source)))
    return np.arange(batches.start, batches.stop)


@named("computation/pseudo_labels_of_a_teacher")
def by_teacher(
    computation: Computation, *, exclude_classes: Sequence[int], top_k: int, outputs: int | None = None
) -> dict[str, np.ndarray]:
    """Pseudo-labels from a classifier's outputs; the official code's are the arg max of an ImageNet ResNet-50.

    The images are un-augmented. The teacher is the config in the place of the stage's backbone, or the parent's
    network.

    Args:
        exclude_classes: outputs that are left out before anything is chosen (classes that give the task away).
        top_k: 1 for the arg max; more for that many probabilities per image.
        outputs: how many the teacher must have for ``exclude_classes`` to mean what they say; None: any number.

    Returns:
        ``labels`` int32 [source], or [source, top_k] with ``shares`` float16 of the same shape (they sum to 1);
        ``classes`` int32 [G]: the teacher's output behind each pseudo-class; ``weight`` float32 [G, D] and ``bias``
        [G] of its last layer, where it has a linear one.

    Raises:
        ConfigError: an excluded class that there is not, nothing left, or a top_k above what is left.
    """
    ask, last = _teacher(computation)
    source = computation.source
    indices = training_images(source)
    batches: list[tuple[Tensor, ...]] = []
    keep: Tensor | None = None
    expected, outputs = outputs, 0
    with torch.inference_mode(), computation.autocast():
        for batch in computation.loader(indices):
            logits = ask(batch.images)[0].float()
            if keep is None:
                outputs = logits.shape[1]
                if expected is not None and outputs != expected:
                    raise ConfigError(
                        f"method.aux.exclude_classes=[foreground]: the teacher has {outputs} outputs, and ImageNet's "
                        f"{expected} classes are what is known by name. Give the numbers of its outputs instead"
                    )
                keep = _kept(outputs, exclude_classes, top_k).to(logits.device)
            if exclude_classes:
                logits = logits[:, keep]
            if top_k == 1:
                batches.append((logits.argmax(1).int(),))
            else:
                values, ids = logits.topk(top_k, dim=1)
                batches.append((ids.int(), values.softmax(1).half()))
    assert keep is not None
    arrays = {
        name: _over_source(source, indices, torch.cat(column).cpu().numpy(), fill)
        for name, fill, column in zip(("labels", "shares"), (NONE, 0), zip(*batches))
    }
    kept = keep.cpu()
    arrays["classes"] = kept.int().numpy()
    if last is not None and len(last[0]) == outputs:
        arrays |= {name: tensor.cpu()[kept].float().numpy() for name, tensor in zip(("weight", "bias"), last)}
    return arrays


@named("computation/pseudo_labels_by_kmeans")
def by_kmeans(computation: Computation, *, features: str, groups: int) -> dict[str, np.ndarray]:
    """Pseudo-labels from k-means, with the seed of nothing but the number of groups.

    All features are held in memory at once, as float32.

    Args:
        features: ``pixels``, or the features of the ``teacher`` or of the ``representation``.
        groups: G; at most as many as there are images.

    Returns:
        ``labels`` int32 [source] and ``classes`` int32 [G].

    Raises:
        ConfigError: more groups than images.
    """
    source = computation.source
    indices = training_images(source)
    if groups > len(indices):
        raise ConfigError(f"method.aux.groups={groups}: {source.name} has {len(indices)} training images to group")
    if features == "pixels":

        def read(images: Tensor) -> Tensor:
            return images.flatten(1).float() / 255

    else:
        ask = _teacher(computation)[0]

        def read(images: Tensor) -> Tensor:
            return ask(images)[1].float()

    with torch.inference_mode(), computation.autocast():
        feature_batches = [read(batch.images).cpu() for batch in computation.loader(indices)]
    labels = kmeans(torch.cat(feature_batches).numpy(), groups)
    return {"labels": _over_source(source, indices, labels, NONE), "classes": np.arange(groups, dtype=np.int32)}


def kmeans(features: np.ndarray, groups: int) -> np.ndarray:
    """Groups int32 [N] of features float32 [N, D]: k-means++ and Lloyd's algorithm, over samples where N is large."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    state = derive_seed("kmeans", groups) % 2**32
    if len(features) <= _FULL_KMEANS:
        cluster_labels = KMeans(groups, n_init=1, max_iter=50, random_state=state).fit_predict(features)
    else:
        cluster_labels = MiniBatchKMeans(groups, n_init=1, batch_size=4096, random_state=state).fit_predict(features)
    return cluster_labels.astype(np.int32)


@named("computation/pseudo_labels_by_taxonomy")
def by_taxonomy(computation: Computation, *, rank: str) -> dict[str, np.ndarray]:
    """Pseudo-labels from the data set's own taxonomy: each image gets the name of its class at a rank.

    Returns:
        ``labels`` int32 [source] and ``classes`` int32 [G], in the order of the names.

    Raises:
        ConfigError: the data set has no such rank.
    """
    source = computation.source
    check_rank(source, rank)
    names = sorted(set(source.taxonomy[rank]))
    of_class = np.array([names.index(name) for name in source.taxonomy[rank]], dtype=np.int32)
    indices = training_images(source)
    labels = of_class[source.labels[indices]]
    return {"labels": _over_source(source, indices, labels, NONE), "classes": np.arange(len(names), dtype=np.int32)}


def check_rank(source: Source, rank: str) -> None:
    """Return the ConfigError for a data set whose classes have no names at this rank."""
    if rank not in source.taxonomy:
        known = ", ".join(source.taxonomy)
        raise ConfigError(
            f"method.aux.rank={rank}: {source.name} "
            + (f"has {known}{nearest(rank, source.taxonomy)}" if known else "has no taxonomy")
            + ". Choose another rank, or method.aux.partition=teacher or kmeans"
        )


def _teacher(computation: Computation) -> tuple[Any, tuple[Tensor, Tensor] | None]:
    """Return a function of images that gives logits and features, and weight and bias of the last layer."""
    parent = next(iter(computation.parents.values()), None)
    if parent is None:
        teacher = instantiate(computation.settings.backbone)
        teacher.check_size(computation.dataset_info.image_shape)
        teacher = teacher.to(computation.device)
        return lambda images: teacher(_unit(images)), teacher.last_layer()
    network = parent.load().to(computation.device).eval()
    channels = network.dataset_info.image_shape[0]
    if channels != computation.dataset_info.image_shape[0]:
        raise ConfigError(
            f"method.aux.run: its network takes {channels} channels, and the images have "
            f"{computation.dataset_info.image_shape[0]}. Choose a run on images of the same kind"
        )

    def ask(images: Tensor) -> tuple[Tensor, Tensor]:
        scores = network.predict(images)[network.headline]
        return scores.logits, scores.features

    head = network.head
    if getattr(head, "head_kind", None) != "linear":
        return ask, None
    weight = head.weight.detach()
    return ask, (weight, weight.new_zeros(len(weight)) if head.bias is None else head.bias.detach())


def _unit(images: Tensor) -> Tensor:
    return images.float().mul_(1 / 255)


def _kept(outputs: int, exclude_classes: Sequence[int], top_k: int) -> Tensor:
    """Return the teacher's outputs that stay, int64 [G]."""
    unknown = [number for number in exclude_classes if not 0 <= number < outputs]
    if unknown:
        raise ConfigError(
            f"method.aux.exclude_classes: {', '.join(map(str, unknown[:5]))}: the teacher has {outputs} outputs, 0 to "
            f"{outputs - 1}"
        )
    mask = torch.ones(outputs, dtype=torch.bool)
    mask[list(exclude_classes)] = False
    left = int(mask.sum())
    if left < max(2, top_k):
        raise ConfigError(
            f"method.aux.exclude_classes leaves {left} of the teacher's {outputs} outputs, and at least {max(2, top_k)}"
            " are needed" + (" (method.aux.top_k)" if top_k > 2 else "")
        )
    return mask.nonzero().flatten()


def _over_source(source: Source, indices: np.ndarray, values: np.ndarray, fill: int) -> np.ndarray:
    """Return an array over the whole source with ``values`` at ``indices``."""
    whole = np.full((len(source), *values.shape[1:]), fill, dtype=values.dtype)
    whole[indices] = values
    return whole
