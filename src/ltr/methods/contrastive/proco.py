"""ProCo (Du et al., TPAMI 2024): contrastive learning with distributions of the classes, estimated over the epochs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ltr.identity import named
from ltr.losses.base import to_float32
from ltr.losses.gathering import gather_with_gradient
from ltr.losses.weights import log_prior
from ltr.methods.contrastive.losses import expected_contrastive
from ltr.methods.contrastive.network import ContrastiveClassifier, ContrastiveMethod
from ltr.methods.contrastive.options import ProCoNetworkOptions, ProCoOptions
from ltr.methods.contrastive.von_mises_fisher import concentration
from ltr.methods.core.stage import NetworkSpec
from ltr.randomness import derive_seed

_START_LENGTH = 0.9  # of the random means of classes that had no image yet; official code


@named("network/proco")
class ProCoNetwork(ContrastiveClassifier):
    """The network of ProCo, with a von Mises-Fisher distribution of each class's projections.

    The mean projection of a class follows the images as they come: each view is added before its loss is computed, as
    in the official code. An epoch starts from the mean of the epoch before. The means are buffers, so that a resumed
    training has them.

    Args:
        spec: see `NetworkSpec`.
        options: the fields of `ProCoNetworkOptions`.
    """

    declaration = ProCoNetworkOptions
    options: ProCoNetworkOptions
    log_prior: Tensor
    means: Tensor  # [C, D], of the projections that describe a class in this epoch
    counts: Tensor  # [C], how many they are
    epoch_means: Tensor  # [C, D], of this epoch's projections
    epoch_counts: Tensor

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        super().__init__(spec, **options)
        self.contrastive_weight = self.options.contrastive_weight
        class_counts = spec.dataset_info.class_counts
        self.register_buffer("log_prior", to_float32(log_prior(class_counts)), persistent=False)
        for name in ("means", "epoch_means"):
            self.register_buffer(name, self._random_means(-1))
        for name in ("counts", "epoch_counts"):
            self.register_buffer(name, torch.zeros(len(class_counts)))

    def _random_means(self, epoch: int) -> Tensor:
        """Return random means of the classes before their first image, [C, D]."""
        random = torch.Generator().manual_seed(derive_seed(self.seed, self.role, "class means", epoch))
        rows = torch.randn(self.dataset_info.num_classes, self.options.feature_dim, generator=random)
        return _START_LENGTH * functional.normalize(rows, dim=1)

    def on_train_batch_start(self, batch: Any, batch_index: int) -> None:
        super().on_train_batch_start(batch, batch_index)
        if batch_index == 0:  # not in a training that resumes within an epoch
            self.next_epoch(self.current_epoch)

    def next_epoch(self, epoch: int) -> None:
        """Describe the classes by the epoch that ended, and begin the means of another one."""
        self.means.copy_(self.epoch_means)
        self.counts.copy_(self.epoch_counts)
        self.epoch_means.copy_(self._random_means(epoch))
        self.epoch_counts.zero_()

    def contrastive_loss(self, projections: Tensor, labels: Tensor) -> Tensor:
        losses = []
        for view in projections:
            self.observe(view.detach(), labels)
            kappa = concentration(self.means.norm(dim=1), self.options.feature_dim, self.options.concentration)
            directions = functional.normalize(self.means, dim=1)
            loss = expected_contrastive(
                view, labels, directions, kappa, self.log_prior, self.options.temperature, self.options.form
            )
            losses.append(loss.mean())
        return torch.stack(losses).mean().float()

    @torch.no_grad()
    def observe(self, projections: Tensor, labels: Tensor) -> None:
        """Add projections [B, D] of all processes to the means of their classes."""
        with torch.autocast(projections.device.type, enabled=False):
            rows, row_labels = gather_with_gradient(projections), gather_with_gradient(labels)
            classes = torch.arange(len(self.counts), device=labels.device)
            of_class = (classes.unsqueeze(1) == row_labels).to(rows.dtype)  # [C, B]
            added = of_class.sum(1)
            added_means = of_class @ rows / added.clamp(min=1).unsqueeze(1)
            pairs = [(self.epoch_means, self.epoch_counts)]
            if self.options.sample == "two_epochs":
                pairs.append((self.means, self.counts))
            for means, counts in pairs:
                share = added / (added + counts).clamp(min=1)
                means.lerp_(added_means, share.unsqueeze(1))
                counts.add_(added)


@named("method/proco")
class ProCo(ContrastiveMethod):
    """ProCo: the classifier's loss, which the paper adjusts for the class prior, plus the expected contrastive loss.

    Args:
        options: the fields of `ProCoOptions`.

    Raises:
        ConfigError: the contrastive views are mixed.
    """

    Options = ProCoOptions
    options: ProCoOptions
    module = ProCoNetwork
