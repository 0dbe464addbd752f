"""NCM: the nearest class mean of a trained network's features (Kang et al., ICLR 2020)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltr.identity import named
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Computation, NetworkSpec, Stage, StageOutput
from ltr.methods.decoupling.options import Distance, FeaturesNorm, MeansOptions, NCMOptions
from ltr.methods.decoupling.representation import FromRepresentation, network_of


@named("head/class_means")
class MeansHead(nn.Module):
    """Logits from class means [C, D]: minus the squared Euclidean distance, or the cosine.

    Means and centre are buffers, so that a checkpoint holds them. Classes of ``is_empty`` (bool [C]), which have no
    training images, get -inf.

    Args:
        num_features: width D.
        num_classes: C.
        features_norm: normalisation of features: ``none``, ``l2`` (unit length) or ``centred_l2`` (subtract the mean
            over the training images, then unit length); the official un, l2n and cl2n.
        distance: ``euclidean`` or ``cosine``.
    """

    head_kind = "means"
    bias = None
    means: Tensor
    centre: Tensor
    is_empty: Tensor

    def __init__(self, num_features: int, num_classes: int, features_norm: FeaturesNorm, distance: Distance) -> None:
        super().__init__()
        self.features_norm = features_norm
        self.distance = distance
        self.register_buffer("means", torch.zeros(num_classes, num_features))
        self.register_buffer("centre", torch.zeros(num_features))
        self.register_buffer("is_empty", torch.zeros(num_classes, dtype=torch.bool), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):  # avoids cancellation
            x = normalise_features(features.float(), self.centre, self.features_norm)
            if self.distance == "cosine":
                logits = F.linear(F.normalize(x, dim=1), F.normalize(self.means, dim=1))
            else:
                squares = x.square().sum(1, keepdim=True) + self.means.square().sum(1)
                logits = 2 * F.linear(x, self.means) - squares
            return logits.masked_fill(self.is_empty, -torch.inf)


def normalise_features(features: Tensor, centre: Tensor, features_norm: FeaturesNorm) -> Tensor:
    """Normalise features [B, D] as ``features_norm`` says."""
    if features_norm == "none":
        return features
    return F.normalize(features - centre if features_norm == "centred_l2" else features, dim=1)


@named("network/nearest_mean")
class NearestMean(ImageClassifier):
    """A network whose head is replaced by class means.

    Args:
        features_norm, distance: see `MeansHead`.
    """

    def __init__(self, spec: NetworkSpec, *, features_norm: FeaturesNorm, distance: Distance) -> None:
        super().__init__(spec)
        self.options = {"features_norm": features_norm, "distance": distance}
        self.head = MeansHead(self.num_features, spec.dataset_info.num_classes, features_norm, distance)
        is_empty = np.asarray(spec.dataset_info.class_counts) == 0
        if is_empty.any():
            warnings.warn(
                f"{int(is_empty.sum())} of {len(is_empty)} classes have no training images, and so no mean: ncm never "
                "predicts them.",
                stacklevel=2,
            )
            self.head.is_empty.copy_(torch.from_numpy(is_empty))

    @property
    def link(self) -> str:
        return "softmax"  # also if the network was trained with a sigmoid loss


@named("computation/class_means")
def class_means(computation: Computation, *, features_norm: FeaturesNorm) -> dict[str, np.ndarray]:
    """Compute class means of un-augmented training features, as the stage ``means``.

    As in the official code, the centre is the mean over images, so frequent classes have more weight in it, and means
    of unit-length features are not normalised again.

    Returns:
        ``means`` float32 [C, D], ``centre`` float32 [D] (zero if unused).
    """
    network = network_of(computation.parents).to(computation.device)
    feature_batches, labels = [], []
    with torch.inference_mode(), computation.autocast():
        for batch in computation.loader("train"):
            feature_batches.append(network.features(network.to_unit(batch.images)).float())
            labels.append(batch.labels)
    classes = computation.dataset_info.num_classes
    arrays = means_of(torch.cat(feature_batches), torch.cat(labels), classes, features_norm)
    return {key: value.cpu().numpy() for key, value in arrays.items()}


def means_of(features: Tensor, labels: Tensor, classes: int, features_norm: FeaturesNorm) -> dict[str, Tensor]:
    """Compute ``means`` [C, D] and ``centre`` [D] of features [N, D] with labels int64 [N], in double precision."""
    wide = features.double() if features.device.type != "mps" else features
    centre = wide.mean(0) if features_norm == "centred_l2" else torch.zeros_like(wide[0])
    x = normalise_features(wide, centre, features_norm)
    sums = x.new_zeros(classes, x.shape[1]).index_add_(0, labels, x)
    counts = torch.bincount(labels, minlength=classes).clamp_min(1)
    return {"means": (sums / counts.unsqueeze(1)).float(), "centre": centre.float()}


@named("method/ncm")
class NCM(FromRepresentation):
    """Nearest class mean: stage ``representation``, then ``means``; an image gets the class of the nearest mean."""

    Options = NCMOptions
    options: NCMOptions

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        # without the distance, so that both distances share the stage
        options = {"features_norm": self.options.features_norm}
        return [
            *self.representation(settings, dataset_info),
            Stage("means", "means", settings, compute=class_means, parents=("representation",), options=options),
        ]

    def predictor(self, outputs: Mapping[str, StageOutput]) -> NearestMean:
        network, arrays = network_of(outputs), outputs["means"].arrays
        nearest = NearestMean(network.spec, **self.options.part(MeansOptions))
        nearest.take_backbone(network)
        nearest.head.load_state_dict({key: torch.from_numpy(arrays[key]) for key in ("means", "centre")})
        return nearest.eval()
