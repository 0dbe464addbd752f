"""No loss and no gradient is NaN for any finite input: huge, tiny, equal or zero numbers, one class, one image."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ltr.losses import classification, distillation, equalization, functional, relational, seesaw, smoothing, triplet
from ltr.losses.prototypical import Prototypical
from ltr.losses.triplet import Triplet
from ltr.methods.herbs import losses as herbs
from ltr.methods.reciprocal_points import losses as open_set
from ltr.methods.weight_balancing.losses import ClassBalancedBCE

COUNTS = [1000, 10, 1]
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])
PRIOR = torch.tensor([0.9, 0.09, 0.01]).log()
WEIGHT = torch.tensor([0.1, 1.0, 1.9])
Loss = Callable[[Tensor, Tensor], Tensor]  # of numbers [B, 3] and labels [B]


def points(function: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """A loss of squared distances [B, C, 1], which are not below 0."""
    return lambda x, y: function(x.abs()[:, :, None], y)


def maps(x: Tensor) -> Tensor:
    return x[:, :, None, None].expand(-1, -1, 2, 2)


def built(name: str, **options) -> Loss:
    return getattr(classification, name)(COUNTS, **options)


LOSSES: dict[str, Loss] = {
    "cross_entropy": lambda x, y: functional.cross_entropy(x, y, WEIGHT),
    "focal_softmax 0": lambda x, y: functional.focal_softmax(x, y, 0.0),
    "focal_softmax 0.5": lambda x, y: functional.focal_softmax(x, y, 0.5, WEIGHT),
    "focal_softmax 2": lambda x, y: functional.focal_softmax(x, y, 2.0, WEIGHT, True),
    "sigmoid_cross_entropy": lambda x, y: functional.sigmoid_cross_entropy(x, y, WEIGHT, 0),
    "focal_sigmoid 0": lambda x, y: functional.focal_sigmoid(x, y, 0.0),
    "focal_sigmoid 0.5": lambda x, y: functional.focal_sigmoid(x, y, 0.5, WEIGHT),
    "focal_sigmoid 2": lambda x, y: functional.focal_sigmoid(x, y, 2.0),
    "focal_sigmoid inside": lambda x, y: functional.focal_sigmoid(x, y, 0.5, WEIGHT, True),
    "ldam": lambda x, y: functional.ldam(x, y, torch.tensor([0.1, 0.3, 0.5]), 30.0, WEIGHT),
    "balanced_softmax": lambda x, y: functional.balanced_softmax(x, y, PRIOR),
    "logit_adjusted": lambda x, y: functional.logit_adjusted(x, y, PRIOR, 1.5),
    "vs": lambda x, y: functional.vs(x, y, PRIOR, 0.3, 1.0),
    "CrossEntropy": built("CrossEntropy"),
    "FocalSoftmax": built("FocalSoftmax", beta=0.99, reduction="weight_sum"),
    "FocalSigmoid": built("FocalSigmoid"),
    "ClassBalanced": built("ClassBalanced", beta=0.99, base="focal"),
    "LDAM": built("LDAM", scale=30.0, beta=0.99),
    "BalancedSoftmax": built("BalancedSoftmax"),
    "LogitAdjusted": built("LogitAdjusted"),
    "VS": built("VS"),
    "label_aware_smoothing": smoothing.LabelAwareSmoothing(COUNTS),
    "label_aware_smoothing others": smoothing.LabelAwareSmoothing(COUNTS, spread="others"),
    "seesaw": seesaw.Seesaw(COUNTS),
    "seesaw training": seesaw.Seesaw(COUNTS, counts="training"),
    "equalization": equalization.Equalization(COUNTS, threshold=0.1),
    "equalization_v2": equalization.EqualizationV2(COUNTS),
    "class_balanced_bce": ClassBalancedBCE(COUNTS),
    "kl_to_teacher": lambda x, y: distillation.kl_to_teacher(x, x.detach().flip(0), 4.0),
    "hint": lambda x, y: distillation.hint_loss(maps(x), maps(x.detach().flip(0))),
    "attention": lambda x, y: distillation.attention_transfer(maps(x), maps(x.detach().flip(0))),
    "rkd_distance": lambda x, y: relational.rkd_distance(x, x.detach().flip(1, 0)),
    "rkd_distance to zeros": lambda x, y: relational.rkd_distance(x, torch.zeros_like(x)),
    "rkd_distance from ones": lambda x, y: relational.rkd_distance(x, torch.eye(len(x), dtype=x.dtype), "valid"),
    "rkd_angle": lambda x, y: relational.rkd_angle(x, x.detach().flip(0)[:, :2]),
    "rkd_angle to ones": lambda x, y: relational.rkd_angle(x, torch.eye(len(x), dtype=x.dtype), "valid"),
    "triplet": Triplet(COUNTS),
    "triplet all": Triplet(COUNTS, mining="all"),
    "negative_weights": lambda x, y: triplet.negative_weights(x, y, 0.5, 1.4) + 0 * x.sum(),
    "prototypical": Prototypical(COUNTS),
    "layer": lambda x, y: herbs.layer_loss([x, x], y),
    "dropped": lambda x, y: herbs.dropped_loss([x[:, None]], [torch.ones(len(x), 1, dtype=torch.bool)]),
    "dropped none": lambda x, y: herbs.dropped_loss([x[:, None]], [torch.zeros(len(x), 1, dtype=torch.bool)]),
    "refinement": lambda x, y: herbs.refinement_loss([x[:, None]], [x.flip(0)[:, None]], 0.5),
    "reciprocal_class": points(lambda d, y: open_set.reciprocal_class(d, y, 1.0)),
    "open_space": points(lambda d, y: open_set.open_space(open_set.label_distances(d, y), torch.ones(len(y)))),
    "margin": points(lambda d, y: open_set.adversarial_margin(open_set.label_distances(d, y), torch.ones(len(y)))),
    "prototype_class": points(lambda d, y: open_set.prototype_class(d, y, 1.0)),
    "prototype_pull": points(lambda d, y: open_set.prototype_pull(open_set.label_distances(d, y))),
    "confusion": lambda x, y: open_set.confusion(x),
}

RANDOM = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
INPUTS: dict[str, tuple[Tensor, Tensor]] = {
    **{f"{scale:g}": (RANDOM * scale, LABELS) for scale in (1.0, 1e300, 1e30, 1e20, 1e12, 1e-12, 1e-25, 1e-30)},
    "zeros": (torch.zeros(6, 3, dtype=torch.float64), LABELS),
    "equal": (torch.full((6, 3), 0.3, dtype=torch.float64), LABELS),
    "huge and equal": (torch.full((6, 3), 1e30, dtype=torch.float64), LABELS),
    "huge beside tiny": (RANDOM * torch.tensor([[1e30], [1e-30], [1.0], [1e30], [1e-30], [0.0]]).double(), LABELS),
    "twins": (RANDOM[[0, 0, 0, 3, 3, 3]], LABELS),
    "one class": (RANDOM, torch.zeros(6, dtype=torch.int64)),
    "one image": (RANDOM[:1], LABELS[:1]),
    "two images": (RANDOM[:2], LABELS[:2]),
}
DTYPES = (torch.float32, torch.bfloat16, torch.float64)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_no_loss_and_no_gradient_is_nan(loss):
    for name, (numbers, labels) in INPUTS.items():
        for dtype in DTYPES:
            x = numbers.to(dtype).requires_grad_()
            if not x.isfinite().all():
                continue
            value = loss(x, labels)
            assert not value.isnan().any(), (name, dtype, value)
            (gradient,) = torch.autograd.grad(value.sum(), x)
            assert not gradient.isnan().any(), (name, dtype, gradient)


@pytest.mark.parametrize("name", [name for name in LOSSES if name.startswith("rkd")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_relational_losses_are_finite_and_scale_invariant(name, dtype):
    expected = float(LOSSES[name](RANDOM.to(dtype), LABELS).detach())
    largest = torch.finfo(dtype).max / 16
    for scale in (1e30, 1e20, 1e-12, 1e-25, 1e-30, largest, torch.finfo(dtype).tiny * 1e4):
        x = (RANDOM * scale).to(dtype).requires_grad_()
        value = LOSSES[name](x, LABELS)
        (gradient,) = torch.autograd.grad(value, x)
        assert math.isfinite(float(value.detach())), scale
        assert gradient.isfinite().all(), scale
        assert float(value.detach()) == pytest.approx(expected, rel=0.02 if dtype == torch.bfloat16 else 1e-4), scale
