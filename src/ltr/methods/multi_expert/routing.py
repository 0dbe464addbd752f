"""Routers of RIDE (Wang et al., ICLR 2021, section 3.2): after each expert one of them decides whether to ask the next.

A router reads the expert's normalised features through a hidden layer of 16 units, and the largest of the mean logits
so far. It is trained on frozen experts, to ask on where the mean so far is wrong and that of more experts is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as nn_functional
from torch.utils.flop_counter import FlopCounterMode

from ltr.data.batch import Batch
from ltr.evaluation.protocol import PerImageProtocol, Protocol
from ltr.evaluation.scores import Scores
from ltr.identity import named
from ltr.losses import functional
from ltr.methods.core.stage import NetworkSpec
from ltr.methods.multi_expert.losses import routing_losses, routing_targets, running_means
from ltr.methods.multi_expert.network import ExpertClassifier
from ltr.methods.multi_expert.options import RoutersOptions
from ltr.models.weights import seeded_construction
from ltr.randomness import derive_seed

_HIDDEN = 16


class Routers(nn.Module):
    """K - 1 routers, whose last layer may be shared.

    Args:
        width: D, features of an expert.
        count: K - 1.
        top_choices: largest logits that a router reads.
        shared: one last layer for all.
    """

    def __init__(self, width: int, count: int, top_choices: int, *, shared: bool) -> None:
        super().__init__()
        self.top_choices = top_choices
        self.hidden = nn.ModuleList(nn.Linear(width, _HIDDEN) for _ in range(count))
        self.last = nn.ModuleList(nn.Linear(_HIDDEN + top_choices, 1) for _ in range(1 if shared else count))
        for layer in [*self.hidden, *self.last]:
            nn.init.kaiming_normal_(layer.weight)

    def score(self, number: int, features: Tensor, mean_logits: Tensor) -> Tensor:
        """Return the logit of "another expert helps" after expert ``number`` (from 0), float32 [B].

        Args:
            features: features of that expert, [B, D].
            mean_logits: mean logits of the experts so far, [B, C].
        """
        units = nn_functional.normalize(functional.at_least_float32(features), dim=1)
        hidden = nn_functional.relu(self.hidden[number](units))
        largest = mean_logits.topk(self.top_choices, dim=1).values
        last = self.last[number % len(self.last)]
        return functional.at_least_float32(last(torch.cat([largest, hidden.to(largest.dtype)], dim=1))[:, 0])


def experts_used(scores: Tensor) -> Tensor:
    """Return how many experts each image asks, int64 [B], from the routers' logits [B, K - 1]."""
    return 1 + (scores > 0).long().cumprod(1).sum(1)


@named("network/ride_routed")
class RoutedClassifier(ExpertClassifier):
    """The trained experts of RIDE, frozen, with routers that are trained.

    Variants: ``routed``, the mean logits of the experts that the routers ask; ``ensemble`` and ``expert_1`` to
    ``expert_K``. `routed` computes only the experts that an image asks.

    Args:
        spec: see `NetworkSpec`; its parent is ``representation``.
        options: the fields of `RoutersOptions`.
    """

    declaration = RoutersOptions
    options: RoutersOptions
    headline = "routed"

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        super().__init__(spec, **options)
        width = self.backbone.num_features // self.experts
        with seeded_construction(derive_seed(spec.seed, spec.role, "routers")):
            self.routers = Routers(width, self.experts - 1, self.options.top_choices, shared=self.options.share_router)
        if spec.parents:
            trained = spec.parents["representation"].load()
            self.backbone.load_state_dict(trained.backbone.state_dict())
            self.head.load_state_dict(trained.head.state_dict())
        self.backbone.requires_grad_(False)
        self.head.requires_grad_(False)
        self._asked: tuple[Tensor, Tensor] | None = (
            None  # the latest images of `predict`, and how many experts they ask
        )
        self.train()

    def train(self, mode: bool = True) -> RoutedClassifier:
        super().train(mode)
        self.backbone.eval()
        self.head.eval()
        return self

    def parameter_modules(self) -> dict[str, nn.Module]:
        return {"routers": self.routers}

    def router_scores(self, features: Tensor, means: Tensor) -> Tensor:
        """Return the routers' logits [B, K - 1] from features [B, K D] and the `running_means` [B, K, C]."""
        parts = self.head.parts(features)
        return torch.stack([self.routers.score(k, parts[k], means[:, k]) for k in range(self.experts - 1)], dim=1)

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        with torch.no_grad():
            features = self.batch_features(batch)
            expert_logits = self.head.each(features)
            means = running_means(expert_logits)
            targets = routing_targets(expert_logits, batch.labels)
        scores = self.router_scores(features, means)
        with torch.no_grad():
            used = experts_used(scores)
            correct = (_at(means, used).argmax(1) == batch.labels).sum()
        loss = routing_losses(scores, targets, self.options.pos_weight).mean()
        return {"loss": loss, "correct": correct, "logs": {"experts": used.float().mean()}}

    def forward(self, unit: Tensor) -> Tensor:
        features = self.features(unit)
        means = running_means(self.head.each(features))
        return _at(means, experts_used(self.router_scores(features, means)))

    @torch.no_grad()
    def predict(self, images: Tensor) -> dict[str, Scores]:
        features = self.features(self.to_unit(images))
        expert_logits = self.head.each(features)
        means = running_means(expert_logits)
        used = experts_used(self.router_scores(features, means))
        self._asked = images, used
        return {"routed": Scores(_at(means, used), features.float()), **self.scores_of(features, expert_logits)}

    def experts_asked(self, images: Tensor) -> Tensor:
        """Return how many experts each image asks, int64 [B]; no second pass for the latest images of `predict`."""
        if self._asked is not None and self._asked[0] is images:
            return self._asked[1]
        return self.routed(images)[1]

    @torch.no_grad()
    def routed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits float32 [B, C], and how many experts each image asked, int64 [B].

        Only the experts that an image asks are computed for it; their features are not returned.
        """
        shared = self.backbone.trunk(self.normalise(self.to_unit(images)))
        rows = torch.arange(len(images), device=images.device)
        used = torch.ones_like(rows)
        total = torch.zeros(len(images), self.dataset_info.num_classes, device=images.device)
        for number, (branch, head) in enumerate(zip(self.backbone.branches, self.head.experts)):
            features = branch(shared[rows])
            total = total.index_add(0, rows, functional.at_least_float32(head(features)).to(total.dtype))
            if number == self.experts - 1:
                break
            asks_on = self.routers.score(number, features, total[rows] / (number + 1)) > 0
            rows = rows[asks_on]
            if not len(rows):
                break
            used[rows] += 1
        return total / used[:, None], used

    def further_protocols(self, split: Any, evaluation: Mapping[str, Any], device: torch.device) -> list[Protocol]:
        """Return the protocol of the experts that test images ask, and of what they cost."""
        return [Routing(self)]

    def macs(self) -> list[int]:
        """Return the multiply-accumulate operations of an image that asks 1, 2, ..., K experts."""
        image = torch.zeros(1, *self.dataset_info.image_shape, device=self.device)

        def of(call: Any, *arguments: Any) -> tuple[int, Any]:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                output = call(*arguments)
            return counter.get_total_flops() // 2, output

        total, shared = of(self.backbone.trunk, self.normalise(image))
        costs = []
        for number, (branch, head) in enumerate(zip(self.backbone.branches, self.head.experts)):
            of_branch, features = of(branch, shared)
            of_head, logits = of(head, features)
            total += of_branch + of_head
            costs.append(total)
            if number < self.experts - 1:
                total += of(self.routers.score, number, features, functional.at_least_float32(logits))[0]
                costs[-1] = total  # the router has run before an image stops here
        return costs


class Routing(PerImageProtocol):
    """Protocol of the number of experts that images ask, and of the cost of an image.

    Args:
        network: decides for the images.
    """

    name: ClassVar[str] = "routing"
    headline: ClassVar[str] = "experts"
    reads_images = True

    def __init__(self, network: RoutedClassifier) -> None:
        super().__init__()
        self.network = network
        self._used: Tensor | None = None

    def update_images(self, images: Tensor, indices: Tensor | None) -> None:
        self._used = self.network.experts_asked(images)

    def numbers_of(self, scores: Scores, labels: Tensor) -> Mapping[str, Tensor]:
        assert self._used is not None  # images come before their scores
        return {"used": self._used}

    def metrics_of(self, numbers: Mapping[str, np.ndarray]) -> Mapping[str, float]:
        """Return the mean number of experts, the share of images that ask each number, and the cost of an image."""
        return routing_metrics(numbers.get("used", np.empty(0, np.int64)), self.network.macs())


def routing_metrics(used: np.ndarray, macs: Sequence[int]) -> dict[str, float]:
    """Return ``experts``, ``share_1`` to ``share_K``, and ``macs``, ``macs_of_one``, ``macs_of_all`` in millions.

    Args:
        used: experts of each image, int64 [N].
        macs: multiply-accumulate operations of an image that asks 1, ..., K experts.
    """
    if not len(used):
        return {}
    shares = np.bincount(used, minlength=len(macs) + 1)[1:] / len(used)
    costs = np.asarray(macs, dtype=np.float64) / 1e6
    return {
        "experts": float(used.mean()),
        **{f"share_{number}": float(share) for number, share in enumerate(shares, start=1)},
        "macs": float(shares @ costs),
        "macs_of_one": float(costs[0]),
        "macs_of_all": float(costs[-1]),
    }


def _at(means: Tensor, used: Tensor) -> Tensor:
    """Return the running mean [B, C] of each image after the experts that it asks."""
    return means[torch.arange(len(used), device=used.device), used - 1]
