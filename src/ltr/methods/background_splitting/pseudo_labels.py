"""Pseudo-labels: a partition of the training images by a pretrained classifier, by k-means, or by a taxonomy.

They are computed once for a (source, teacher, transform), for every training image of the source, and depend neither
on the split nor on the seed. `ltr.methods.background_splitting.partition` then selects those that a split trains on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltr.configuration.targets import instantiate
from ltr.data.source import Source
from ltr.data.split import Split
from ltr.errors import ConfigError, nearest
from ltr.identity import named
from ltr.methods.core.settings import DatasetInfo
from ltr.methods.core.stage import Computation, StageOutput
from ltr.randomness import derive_seed

NONE = -1  # pseudo-label of images without one, such as test images
_FULL_KMEANS = 100_000  # number of images above which k-means uses mini-batches


def training_images(source: Source) -> np.ndarray:
    """Return the source indices int64 [n] of possible training images: those of the part ``train``, or else all."""
    part = source.parts.get("train", range(len(source)))
    return np.arange(part.start, part.stop)


@named("computation/pseudo_labels_of_a_teacher")
def by_teacher(
    computation: Computation, *, exclude_classes: Sequence[int], top_k: int, outputs: int | None = None
) -> dict[str, np.ndarray]:
    """Compute pseudo-labels from a classifier's outputs; the official code uses the arg max of an ImageNet ResNet-50.

    The images are un-augmented. The teacher is the parent's network, or else the stage's backbone config.

    Args:
        exclude_classes: outputs that are excluded beforehand (classes that would give the task away).
        top_k: 1 for the arg max; more for that many probabilities per image.
        outputs: number of outputs of the teacher that ``exclude_classes`` refer to; None: any.

    Returns:
        ``labels`` int32 [source], or [source, top_k] with ``shares`` float16 of the same shape (they sum to 1);
        ``classes`` int32 [G]: the teacher's output of each pseudo-class; ``weight`` float32 [G, D] and ``bias`` [G] of
        its last layer, if that is linear.

    Raises:
        ConfigError: an excluded class that does not exist, or too few remaining outputs for ``top_k``.
    """
    teacher_outputs, last_layer = _teacher(computation)
    source = computation.source
    indices = training_images(source)
    batches: list[tuple[Tensor, ...]] = []
    keep: Tensor | None = None
    num_outputs = 0
    with torch.inference_mode(), computation.autocast():
        for batch in computation.loader(indices):
            logits = teacher_outputs(batch.images)[0].float()
            if keep is None:
                num_outputs = logits.shape[1]
                keep = _remaining_outputs(num_outputs, exclude_classes, top_k, outputs).to(logits.device)
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
    remaining = keep.cpu()
    arrays["classes"] = remaining.int().numpy()
    if last_layer is not None and len(last_layer[0]) == num_outputs:
        arrays |= {
            name: tensor.cpu()[remaining].float().numpy() for name, tensor in zip(("weight", "bias"), last_layer)
        }
    return arrays


@named("computation/pseudo_labels_by_kmeans")
def by_kmeans(computation: Computation, *, features: str, groups: int) -> dict[str, np.ndarray]:
    """Compute pseudo-labels by k-means; its seed depends on the number of groups only.

    All features are in memory at once, as float32.

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
    _check_groups(source, groups)
    if features == "pixels":

        def read(images: Tensor) -> Tensor:
            return images.flatten(1).float() / 255

    else:
        teacher_outputs = _teacher(computation)[0]

        def read(images: Tensor) -> Tensor:
            return teacher_outputs(images)[1].float()

    with torch.inference_mode(), computation.autocast():
        feature_batches = [read(batch.images).cpu() for batch in computation.loader(indices)]
    labels = kmeans(torch.cat(feature_batches).numpy(), groups)
    return {"labels": _over_source(source, indices, labels, NONE), "classes": np.arange(groups, dtype=np.int32)}


def kmeans(features: np.ndarray, groups: int) -> np.ndarray:
    """Return the clusters int32 [N] of features float32 [N, D] by k-means++ and Lloyd's algorithm.

    A large N is clustered in mini-batches.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans

    state = derive_seed("kmeans", groups) % 2**32
    if len(features) <= _FULL_KMEANS:
        cluster_labels = KMeans(groups, n_init=1, max_iter=50, random_state=state).fit_predict(features)
    else:
        cluster_labels = MiniBatchKMeans(groups, n_init=1, batch_size=4096, random_state=state).fit_predict(features)
    return cluster_labels.astype(np.int32)


@named("computation/pseudo_labels_by_taxonomy")
def by_taxonomy(computation: Computation, *, rank: str) -> dict[str, np.ndarray]:
    """Compute pseudo-labels from the data set's taxonomy: each image gets the name of its class at a rank.

    Returns:
        ``labels`` int32 [source] and ``classes`` int32 [G], in the order of the names.

    Raises:
        ConfigError: the data set has no such rank.
    """
    source = computation.source
    check_rank(source, rank)
    names = sorted(set(source.taxonomy[rank]))
    class_groups = np.array([names.index(name) for name in source.taxonomy[rank]], dtype=np.int32)
    indices = training_images(source)
    labels = class_groups[source.labels[indices]]
    return {"labels": _over_source(source, indices, labels, NONE), "classes": np.arange(len(names), dtype=np.int32)}


def check_pseudo_labels(
    source: Source,
    split: Split,
    dataset_info: DatasetInfo,
    checkpoints: Mapping[str, StageOutput],
    *,
    teacher: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    """Refuse before the first stage what `by_teacher`, `by_kmeans` and `by_taxonomy` cannot use.

    A teacher that is to be downloaded is left to the computation.

    Args:
        checkpoints: a run as the teacher, by the name of its stage; {} for others.
        teacher: config of a published teacher; {} for others.
        options: options of the computation.

    Raises:
        ConfigError: a training image that gets no pseudo-label, more groups than images, an unknown rank, excluded
            outputs that the teacher lacks, or images that it does not accept.
        CheckpointError: weights that do not fit.
    """
    indices = training_images(source)
    if (without := int(np.count_nonzero(~np.isin(split.train, indices)))) > 0:
        raise without_pseudo_labels(without)
    if "groups" in options:
        _check_groups(source, options["groups"])
    if "rank" in options:
        check_rank(source, options["rank"])
    num_outputs: int | None = None
    if teacher.get("weights") is not None:
        published = instantiate(teacher)
        published.check_size(dataset_info.image_shape)
        num_outputs = published.num_classes
    for output in checkpoints.values():
        network = output.load()
        _check_channels(network, dataset_info)
        num_outputs = None if network.embeds else network.dataset_info.num_classes
    if num_outputs is not None and "exclude_classes" in options:
        _remaining_outputs(num_outputs, options["exclude_classes"], options["top_k"], options.get("outputs"))


def without_pseudo_labels(images: int) -> ConfigError:
    """Return the error for training images that get no pseudo-label."""
    return ConfigError(
        f"{images} training images have no pseudo-label: the split trains on images outside the source's part 'train', "
        "and pseudo-labels are of that part"
    )


def _check_groups(source: Source, groups: int) -> None:
    images = len(training_images(source))
    if groups > images:
        raise ConfigError(
            f"method.aux.groups={groups}: {source.name} has {images} training images. Set at most that many groups"
        )


def _check_channels(network: Any, dataset_info: DatasetInfo) -> None:
    channels, needed = network.dataset_info.image_shape[0], dataset_info.image_shape[0]
    if channels != needed:
        raise ConfigError(
            f"method.aux.run: its network takes {channels} channels, and the images have {needed}. Choose a run on "
            "images of the same kind"
        )


def check_rank(source: Source, rank: str) -> None:
    """Raise ConfigError if the data set's classes have no names at this rank."""
    if rank not in source.taxonomy:
        ranks = ", ".join(source.taxonomy)
        raise ConfigError(
            f"method.aux.rank={rank}: {source.name} "
            + (f"has {ranks}{nearest(rank, source.taxonomy)}" if ranks else "has no taxonomy")
            + ". Choose another rank, or method.aux.partition=teacher or kmeans"
        )


def _teacher(computation: Computation) -> tuple[Any, tuple[Tensor, Tensor] | None]:
    """Return a function from images to logits and features, and the weight and bias of a linear last layer."""
    parent = next(iter(computation.parents.values()), None)
    if parent is None:
        teacher = instantiate(computation.settings.backbone)
        teacher.check_size(computation.dataset_info.image_shape)
        teacher = teacher.to(computation.device)
        return lambda images: teacher(images.float().mul_(1 / 255)), teacher.last_layer()
    network = parent.load().to(computation.device).eval()
    _check_channels(network, computation.dataset_info)

    def outputs(images: Tensor) -> tuple[Tensor, Tensor]:
        scores = network.predict(images)[network.headline]
        return scores.logits, scores.features

    head = network.head
    if getattr(head, "head_kind", None) != "linear":
        return outputs, None
    weight = head.weight.detach()
    return outputs, (weight, weight.new_zeros(len(weight)) if head.bias is None else head.bias.detach())


def _remaining_outputs(outputs: int, exclude_classes: Sequence[int], top_k: int, needed: int | None) -> Tensor:
    """Return the teacher's outputs that are not excluded, int64 [G].

    Args:
        needed: number of outputs that ``exclude_classes`` refers to; None: any.
    """
    if needed is not None and outputs != needed:
        raise ConfigError(
            f"method.aux.exclude_classes=[foreground]: the teacher has {outputs} outputs, and only ImageNet's {needed} "
            "classes are known by name. Give the numbers of its outputs instead"
        )
    unknown = [number for number in exclude_classes if not 0 <= number < outputs]
    if unknown:
        raise ConfigError(
            f"method.aux.exclude_classes: {', '.join(map(str, unknown[:5]))}: the teacher has {outputs} outputs; "
            f"allowed are 0 to {outputs - 1}"
        )
    mask = torch.ones(outputs, dtype=torch.bool)
    mask[list(exclude_classes)] = False
    remaining = int(mask.sum())
    if remaining < max(2, top_k):
        raise ConfigError(
            f"method.aux.exclude_classes leaves {remaining} of the teacher's {outputs} outputs, and at least "
            f"{max(2, top_k)} are needed{' (method.aux.top_k)' if top_k > 2 else ''}. Exclude fewer"
        )
    return mask.nonzero().flatten()


def _over_source(source: Source, indices: np.ndarray, values: np.ndarray, fill: int) -> np.ndarray:
    """Return an array over the whole source with ``values`` at ``indices``."""
    array = np.full((len(source), *values.shape[1:]), fill, dtype=values.dtype)
    array[indices] = values
    return array
