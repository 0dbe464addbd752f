"""Test-time aggregation of SADE: expert weights that are learned on the unlabelled test images.

Zhang et al. (NeurIPS 2022, section 4.2) maximise the stability of predictions, the cosine similarity of the aggregated
predictions for two augmented views of an image. The experts stay as they are: K numbers are learned for each
composition of the test set, so that the logits of all views are computed once.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ltr.configuration.targets import instantiate
from ltr.data.split import Split
from ltr.errors import ConfigError
from ltr.evaluation.averages import mean, ratio
from ltr.evaluation.gather import is_distributed
from ltr.evaluation.groups import GROUPS, shot_groups
from ltr.evaluation.label_shift import COMPOSITIONS
from ltr.evaluation.priors import long_tail_prior, subsample
from ltr.evaluation.protocol import Measurements, Protocol
from ltr.evaluation.rows import Rows
from ltr.evaluation.scores import Scores, class_labels, top_classes
from ltr.methods.multi_expert.losses import prediction_stability
from ltr.methods.multi_expert.network import ExpertClassifier
from ltr.methods.multi_expert.options import AggregationOptions
from ltr.randomness import derive_seed, generator

_MOMENTUM, _WEIGHT_DECAY = 0.9, 5e-4
_IN_MEMORY = 2**30  # bytes of views; more are written to a temporary file


def learned_weights(views: np.ndarray | Views, options: AggregationOptions, seed: int) -> tuple[np.ndarray, int]:
    """Return the experts' weights after test-time training, float64 [K], and how many epochs it took.

    Weights are a softmax of K numbers, which start equal, as in the official code. They sum to 1. The images are the
    test images, as in the paper and the official code for ImageNet-LT; that for CIFAR takes images of CIFAR's training
    split in the test distribution, which are five times as many.

    Args:
        views: logits of pairs of views, float32 [N, V, 2, K, C]; epoch e takes pair e mod V.
        options: options of the training.
        seed: orders the images.
    """
    experts = views.shape[3]
    numbers = torch.full((experts,), 1 / experts, requires_grad=True)
    optimizer = torch.optim.SGD([numbers], lr=options.lr, momentum=_MOMENTUM, nesterov=True, weight_decay=_WEIGHT_DECAY)
    for epoch in range(options.epochs):
        order = generator(seed, "test-time order", epoch).permutation(len(views))
        for start in range(0, len(order), options.batch_size):
            rows = order[start : start + options.batch_size]
            first, second = torch.from_numpy(views[rows, epoch % views.shape[1]]).unbind(1)
            optimizer.zero_grad()
            (-prediction_stability(first, second, numbers.softmax(0)).mean()).backward()
            optimizer.step()
        weights = numbers.detach().double().softmax(0).numpy()
        if weights.round(2).min() < options.least_weight:
            break
    return weights, epoch + 1


class Views:
    """Logits of pairs of views of some images, read from an array or a file by the rows that are asked for.

    Args:
        array: logits of the pairs of all images, float32 [M, V, 2, K, C].
        order: the images' places in it, int64 [N].
    """

    def __init__(self, array: np.ndarray, order: np.ndarray) -> None:
        self._array = array
        self._order = order
        self.shape = (len(order), *array.shape[1:])

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: tuple[np.ndarray, int]) -> np.ndarray:
        """Return the logits of one pair of views of some images, [n, 2, K, C]."""
        rows, pair = index
        return np.asarray(self._array[self._order[rows], pair])

    def of(self, rows: np.ndarray) -> Views:
        """Return the views of some of the images."""
        return Views(self._array, self._order[rows])


class ViewFile:
    """Temporary file of logits of views, which takes no memory and is removed with this object.

    Args:
        shape: shape of an image's entry, (V, 2, K, C).
        images: number of images to come.

    Raises:
        ConfigError: the folder of temporary files has too little space.
    """

    def __init__(self, shape: tuple[int, ...], images: int) -> None:
        folder = tempfile.gettempdir()
        needed, free = 4 * images * int(np.prod(shape)), shutil.disk_usage(folder).free
        if needed > free:
            raise ConfigError(
                f"method.aggregation.views={shape[0]}: the logits of the views take {needed / 1e9:.1f} GB, and "
                f"{folder} has {free / 1e9:.1f} GB left. Set TMPDIR to a folder with more space, or lower "
                f"method.aggregation.views (1 takes {needed / shape[0] / 1e9:.1f} GB)"
            )
        self._shape = shape
        self._images = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115

    def add(self, views: Tensor) -> None:
        """Write a batch [B, V, 2, K, C]."""
        views.float().cpu().contiguous().numpy().tofile(self._file)
        self._images += len(views)

    def array(self) -> np.ndarray:
        """Return all batches as an array that is read from the file, float32 [N, V, 2, K, C]."""
        self._file.flush()
        return np.memmap(self._file, dtype=np.float32, mode="r", shape=(self._images, *self._shape))


class ViewTable:
    """The experts' logits for all test images and their views, which the rows of `TestTimeAggregation` share.

    The views of an image take 8 K C V bytes. With a single process more than a gibibyte of them is in a temporary file.

    Args:
        network: network of the experts.
        options: options of the aggregation.
        device: that of the scores.
        images: number of test images.
    """

    def __init__(
        self, network: ExpertClassifier, options: AggregationOptions, device: torch.device, images: int = 0
    ) -> None:
        shape = (network.experts, network.dataset_info.num_classes)
        of_views = (options.views, 2, *shape)
        is_large = 4 * images * int(np.prod(of_views)) > _IN_MEMORY and not is_distributed()
        self._file = ViewFile(of_views, images) if is_large else None
        self.network = network
        self.options = options
        self.augment = augmentation(options, network.dataset_info.image_shape)
        columns: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            **({} if self._file else {"views": (torch.float32, of_views)}),
            "logits": (torch.float32, shape),
            "label": (torch.int32, ()),
            "id": (torch.int64, ()),
        }
        self._rows = Rows(columns, device)
        self._sorted: tuple[Views, np.ndarray, np.ndarray] | None = None

    @torch.no_grad()
    def add(self, images: Tensor, labels: Tensor, indices: Tensor) -> None:
        """Add a batch of uint8 images [B, C, H, W], labels and places in the source, int64 [B]."""
        positions = indices.cpu().numpy()
        views = torch.stack(
            [
                torch.stack([self._logits(self._view(images, labels, positions, pair, side)) for side in (0, 1)], 1)
                for pair in range(self.options.views)
            ],
            dim=1,
        )
        labels = class_labels(labels)
        if self._file is not None:
            self._file.add(views)
        self._rows.add(views=views, logits=self._logits(images), label=labels, id=indices)
        self._sorted = None

    def join(self) -> None:
        """Join the images of all processes; a no-op with a single process or when called again."""
        self._rows.join()
        self._sorted = None

    def all(self) -> tuple[Views, np.ndarray, np.ndarray]:
        """Return views, logits [N, K, C] and labels int64 [N] in the order of the ids."""
        if self._sorted is None:
            order = np.argsort(self._rows["id"], kind="stable")
            label = self._rows["label"][order].astype(np.int64)
            views = self._rows["views"] if self._file is None else self._file.array()
            self._sorted = Views(views, order), self._rows["logits"][order], label
        return self._sorted

    def _logits(self, images: Tensor) -> Tensor:
        return self.network.head.each(self.network.features(self.network.to_unit(images)))

    def _view(self, images: Tensor, labels: Tensor, positions: np.ndarray, pair: int, side: int) -> Tensor:
        seed = derive_seed(self.network.seed, "test-time view", pair, side)
        return self.augment(images, labels, seed=seed, positions=positions)[0]


class TestTimeAggregation(Protocol):
    """Accuracy on one composition of the test set, with expert weights that are learned on its unlabelled images.

    Args:
        class_counts: int64 [C], training images.
        composition: a key of `ltr.evaluation.label_shift.COMPOSITIONS`.
        table: table of the images; the rows of one evaluation share it, and the first of them fills it.
        fills: this object is that first one.
        many_above, few_below: see `ltr.evaluation.groups.shot_groups`.
    """

    __test__ = False  # pytest collects classes called Test...
    name: ClassVar[str] = "test_time_aggregation"
    headline: ClassVar[str] = "accuracy"

    def __init__(
        self,
        class_counts: np.ndarray,
        composition: str,
        table: ViewTable,
        *,
        fills: bool,
        many_above: int = 100,
        few_below: int = 20,
    ) -> None:
        self.class_counts = np.asarray(class_counts)
        self.groups = shot_groups(self.class_counts, many_above, few_below)
        self.scorer = composition
        self.table = table
        self.reads_images = fills
        self._images: Tensor | None = None

    def update_images(self, images: Tensor, indices: Tensor | None) -> None:
        self._images = images

    def update(self, scores: Scores, labels: Tensor, indices: Tensor | None = None) -> None:
        if self.reads_images:
            assert self._images is not None  # images come before their scores
            assert indices is not None
            self.table.add(self._images, labels, indices)

    def reduce(self) -> None:
        self.table.join()

    def compute(self) -> Measurements:
        """Return ``accuracy``, ``balanced_accuracy`` and the groups' with learned weights.

        ``equal_weights_accuracy`` is that of the experts' mean, ``weight_1`` to ``weight_K`` the weights, ``epochs``
        the epochs that were needed, ``images`` the size of the composition.
        """
        views, logits, labels = self.table.all()
        shape = COMPOSITIONS[str(self.scorer)]
        if shape is not None:
            rows = subsample(labels, long_tail_prior(self.class_counts, *shape))
            views, logits, labels = views.of(rows), logits[rows], labels[rows]
        weights, epochs = learned_weights(views, self.table.options, self.table.network.seed)
        correct = _hits(logits, labels, weights)
        counts = np.bincount(labels, minlength=len(self.class_counts))
        recall = ratio(np.bincount(labels, weights=correct, minlength=len(counts)), counts)
        present = counts > 0
        equal = np.full(len(weights), 1 / len(weights))
        return Measurements(
            {
                "accuracy": float(correct.mean()),
                **{name: mean(recall[present & self.groups[name]]) for name in GROUPS},
                "balanced_accuracy": mean(recall[present]),
                "equal_weights_accuracy": float(_hits(logits, labels, equal).mean()),
                **{f"weight_{number}": float(weight) for number, weight in enumerate(weights, start=1)},
                "epochs": float(epochs),
                "images": float(len(labels)),
            }
        )


def aggregation_rows(
    network: ExpertClassifier,
    options: AggregationOptions,
    split: Split,
    evaluation: Mapping[str, Any],
    device: torch.device,
) -> list[Protocol]:
    """Return a protocol object for each of `COMPOSITIONS`, which share one table; none if classes are not predicted."""
    if "closed_set" not in split.protocols:
        return []
    table = ViewTable(network, options, device, images=len(split.test))
    bounds = {key: evaluation[key] for key in ("many_above", "few_below")}
    return [
        TestTimeAggregation(split.class_counts, composition, table, fills=position == 0, **bounds)
        for position, composition in enumerate(COMPOSITIONS)
    ]


def augmentation(options: AggregationOptions, image_shape: tuple[int, int, int]) -> Any:
    """Return the augmentation of the views.

    Raises:
        ConfigError: it mixes images, or reads image files.
    """
    augment = instantiate(options.augment, image_shape)
    if augment.mix is not None or augment.file_crop is not None:
        raise ConfigError(
            "method.aggregation.augment: the views of a test image are made from its pixels alone, so that it takes "
            "neither mix nor files. Use method.aggregation.augment=test_time"
        )
    return augment


def _hits(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return whether the class of the highest weighted logit is the label's, bool [N]."""
    aggregated = torch.einsum("nkc,k->nc", torch.from_numpy(logits), torch.from_numpy(weights).float())
    return np.asarray(top_classes(aggregated, 1)[1][:, 0].numpy() == labels)
