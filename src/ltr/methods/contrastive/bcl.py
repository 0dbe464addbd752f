"""BCL (Zhu et al., CVPR 2022): balanced contrastive learning beside a logit-adjusted classifier."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ltr.identity import named
from ltr.losses.gathering import gather_with_gradient
from ltr.methods.contrastive.losses import balanced_contrastive
from ltr.methods.contrastive.network import ContrastiveClassifier, ContrastiveMethod, unit_length
from ltr.methods.contrastive.options import BCLNetworkOptions, BCLOptions
from ltr.methods.core.stage import NetworkSpec


@named("network/bcl")
class BCLNetwork(ContrastiveClassifier):
    """The network of BCL; a second projection maps the classifier's weight vectors to the centres of the classes.

    The batches of all processes are compared together.

    Args:
        spec: see `NetworkSpec`.
        options: the fields of `BCLNetworkOptions`.
    """

    declaration = BCLNetworkOptions
    options: BCLNetworkOptions

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        super().__init__(spec, **options)
        self.classification_weight = self.options.classification_weight
        self.contrastive_weight = self.options.contrastive_weight
        self.centre_projection: nn.Sequential | None = None
        if self.options.class_complement:
            self.centre_projection = self.build_projection("centre projection")

    def centres(self) -> Tensor | None:
        """Return the centre of each class, of unit length, [C, D]; None without class complement."""
        return None if self.centre_projection is None else unit_length(self.centre_projection(self.head.weight))

    def contrastive_loss(self, projections: Tensor, labels: Tensor) -> Tensor:
        views = gather_with_gradient(projections.transpose(0, 1))
        labels = gather_with_gradient(labels)
        return balanced_contrastive(
            views.flatten(0, 1),
            labels.repeat_interleave(views.shape[1]),
            self.centres(),
            self.options.temperature,
            self.options.class_averaging,
        ).mean()

    def parameter_modules(self) -> dict[str, nn.Module]:
        modules = super().parameter_modules()
        return modules if self.centre_projection is None else {**modules, "centre_projection": self.centre_projection}


@named("method/bcl")
class BCL(ContrastiveMethod):
    """BCL: the classifier's loss, which the paper adjusts for the class prior, plus the balanced contrastive loss.

    Args:
        options: the fields of `BCLOptions`.

    Raises:
        ConfigError: the head has no weight vector of each class, or the contrastive views are mixed.
    """

    Options = BCLOptions
    options: BCLOptions
    module = BCLNetwork
    head_kinds = ("linear", "cosine")
