"""The loss modules: buffers from counts, deferral, mixed labels, reductions, background, joint labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ltr.errors import ConfigError, DataError
from ltr.losses import functional
from ltr.losses.base import ClassificationLoss
from ltr.losses.classification import (
    LDAM,
    VS,
    BalancedSoftmax,
    ClassBalanced,
    CrossEntropy,
    FocalSigmoid,
    FocalSoftmax,
    LogitAdjusted,
)
from ltr.losses.equalization import Equalization, EqualizationV2
from ltr.losses.seesaw import Seesaw
from ltr.losses.smoothing import LabelAwareSmoothing
from ltr.methods.weight_balancing.losses import ClassBalancedBCE

COUNTS = [60, 17, 5, 1]

# every loss, with arguments that differ from cross-entropy
BUILD = {
    "cross_entropy": lambda counts, **_: CrossEntropy(counts),
    "focal_softmax": lambda counts, **more: FocalSoftmax(counts, gamma=2.0, beta=0.9, **more),
    "focal_softmax inside": lambda counts, **more: FocalSoftmax(
        counts, gamma=2.0, beta=0.9, weight_inside=True, **more
    ),
    "focal_sigmoid": lambda counts, **_: FocalSigmoid(counts, gamma=2.0),
    "class_balanced softmax": lambda counts, **more: ClassBalanced(counts, beta=0.9, **more),
    "class_balanced sigmoid": lambda counts, **more: ClassBalanced(counts, beta=0.9, base="sigmoid", **more),
    "class_balanced focal": lambda counts, **more: ClassBalanced(counts, beta=0.9, base="focal", **more),
    "ldam": lambda counts, **more: LDAM(counts, max_margin=0.5, scale=3.0, beta=0.9, **more),
    "balanced_softmax": lambda counts, **more: BalancedSoftmax(counts, **more),
    "logit_adjusted": lambda counts, **more: LogitAdjusted(counts, tau=1.5, **more),
    "vs": lambda counts, **more: VS(counts, gamma=0.2, tau=1.5, **more),
    "label_aware_smoothing": lambda counts, **_: LabelAwareSmoothing(counts),
    "seesaw": lambda counts, **_: Seesaw(counts, counts="training"),
    "equalization": lambda counts, **_: Equalization(counts, threshold=0.1, gamma=1.0),
    "equalization_v2": lambda counts, **_: EqualizationV2(counts).eval(),
    "class_balanced_bce": lambda counts, **_: ClassBalancedBCE(counts, beta=0.9),
}
EVERY_LOSS = pytest.mark.parametrize("build", BUILD.values(), ids=BUILD.keys())
# the same losses before their deferral ends
UNDEFERRED = {
    "focal_softmax": FocalSoftmax(COUNTS, gamma=2.0),
    "focal_softmax inside": FocalSoftmax(COUNTS, gamma=2.0),
    "class_balanced softmax": CrossEntropy(COUNTS),
    "class_balanced sigmoid": ClassBalanced(COUNTS, beta=0.0, base="sigmoid"),
    "class_balanced focal": FocalSigmoid(COUNTS, gamma=1.0),
    "ldam": LDAM(COUNTS, max_margin=0.5, scale=3.0),
    "balanced_softmax": CrossEntropy(COUNTS),
    "logit_adjusted": CrossEntropy(COUNTS),
    "vs": CrossEntropy(COUNTS),
}


def a_batch(classes: int = 4, images: int = 10, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 logits [B, C], labels [B]."""
    numbers = np.random.default_rng(seed).normal(0.0, 2.0, (images, classes))
    return torch.from_numpy(numbers).float(), torch.arange(images) % classes


@EVERY_LOSS
def test_forward_is_a_scalar_with_a_finite_gradient(build):
    logits, labels = a_batch()
    loss = build(COUNTS)(logits.requires_grad_(), labels)
    loss.backward()
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0


@EVERY_LOSS
def test_per_image_is_one_number_per_image_whose_mean_is_the_batch_reduction(build):
    logits, labels = a_batch()
    loss = build(COUNTS)
    loss.reduction = "batch"
    losses = loss.per_image(logits, labels)
    assert losses.shape == (10,)
    assert torch.equal(losses.mean(), loss(logits, labels))


NEUTRAL = {
    "class_balanced, beta 0": ClassBalanced(COUNTS, beta=0.0),
    "class_balanced, beta 0, weight_sum": ClassBalanced(COUNTS, beta=0.0, reduction="weight_sum"),
    "focal_softmax, gamma 0": FocalSoftmax(COUNTS, gamma=0.0),
    "focal_softmax, gamma 0, beta 0 inside": FocalSoftmax(COUNTS, gamma=0.0, beta=0.0, weight_inside=True),
    "ldam, margin 0, scale 1": LDAM(COUNTS, max_margin=0.0, scale=1.0),
    "ldam, margin 0, scale 1, beta 0": LDAM(COUNTS, max_margin=0.0, scale=1.0, beta=0.0),
    "logit_adjusted, tau 0": LogitAdjusted(COUNTS, tau=0.0),
    "vs, gamma 0, tau 0": VS(COUNTS, gamma=0.0, tau=0.0),
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_the_neutral_setting_is_cross_entropy_to_the_bit(name):
    logits, labels = a_batch()
    assert torch.equal(NEUTRAL[name](logits, labels), CrossEntropy(COUNTS)(logits, labels))


def test_cross_entropy_equals_torch():
    logits, labels = a_batch()
    torch.testing.assert_close(CrossEntropy(COUNTS)(logits, labels), torch.nn.functional.cross_entropy(logits, labels))


@pytest.mark.parametrize("name", UNDEFERRED)
def test_before_its_epoch_a_deferred_loss_is_the_unweighted_one_to_the_bit(name):
    logits, labels = a_batch()
    loss = BUILD[name](COUNTS, defer_from=0.8)
    loss.start_epoch(159, 200)
    assert torch.equal(loss(logits, labels), UNDEFERRED[name](logits, labels))


@pytest.mark.parametrize("name", UNDEFERRED)
def test_from_its_epoch_on_a_deferred_loss_is_the_one_without_deferral(name):
    logits, labels = a_batch()
    loss, whole = BUILD[name](COUNTS, defer_from=0.8), BUILD[name](COUNTS)
    loss.start_epoch(160, 200)
    assert torch.equal(loss(logits, labels), whole(logits, labels))
    assert not torch.equal(loss(logits, labels), UNDEFERRED[name](logits, labels))


@EVERY_LOSS
def test_mixed_labels_give_the_weighted_mean_of_both_losses(build):
    logits, first = a_batch()
    second, share = first.roll(1), torch.linspace(0, 1, 10)
    loss = build(COUNTS)
    expected = share * loss.per_image(logits, first) + (1 - share) * loss.per_image(logits, second)
    torch.testing.assert_close(loss.per_image(logits, first, (second, share)), expected)


@EVERY_LOSS
def test_mixing_an_image_with_its_own_label_changes_nothing(build):
    logits, labels = a_batch()
    loss = build(COUNTS)
    mixed = loss(logits, labels, (labels, torch.full((10,), 0.3)))
    torch.testing.assert_close(mixed, loss(logits, labels))


def test_weight_sum_of_mixed_labels_is_a_weighted_mean():
    loss = ClassBalanced(COUNTS, beta=0.9, reduction="weight_sum")
    first, share = torch.arange(10) % 4, torch.linspace(0, 1, 10)
    # all logits equal: every loss is log 4, and so is any weighted mean of them
    assert loss(torch.zeros(10, 4), first, (first.roll(1), share)).item() == pytest.approx(math.log(4), rel=1e-6)


@pytest.mark.parametrize(("reduction", "divisor"), [("batch", "images"), ("weight_sum", "weights")])
def test_the_reduction_names_the_divisor(reduction, divisor):
    logits, labels = a_batch()
    loss = ClassBalanced(COUNTS, beta=0.9, reduction=reduction)
    total = loss.per_image(logits, labels).sum()
    expected = total / (10 if divisor == "images" else loss.weights[labels].sum())
    torch.testing.assert_close(loss(logits, labels), expected)


def test_ldam_divides_by_the_sum_of_the_weights_by_default():
    assert LDAM(COUNTS, scale=1.0, beta=0.9).reduction == "weight_sum"


def test_processes_share_the_denominator_in_training_only(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    monkeypatch.setattr(torch.distributed, "all_reduce", calls.append)
    loss = ClassBalanced(COUNTS, beta=0.9, reduction="weight_sum")
    loss.eval()(*a_batch())
    assert not calls
    loss.train()(*a_batch())
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["focal_softmax", "class_balanced softmax", "class_balanced focal", "ldam", "vs"])
def test_bfloat16_logits_give_a_float32_loss(name):
    logits, labels = a_batch()
    loss = BUILD[name](COUNTS)(logits.bfloat16(), labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, BUILD[name](COUNTS)(logits.bfloat16().float(), labels))


@pytest.mark.filterwarnings("ignore:1 of 4 classes")
@EVERY_LOSS
def test_loss_and_gradient_are_finite_with_a_class_without_training_images(build):
    logits, labels = a_batch()  # the empty class is a label too, as it may be in validation
    loss = build([60, 17, 0, 1])(logits.requires_grad_(), labels)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@EVERY_LOSS
def test_a_step_does_not_synchronise_with_the_device(build):
    # tensors of the meta device have no values: reading one (item, cpu, an if) raises
    loss = build(COUNTS).to("meta")
    logits, labels = (part.to("meta") for part in a_batch())
    loss(logits.requires_grad_(), labels, (labels, torch.rand(10, device="meta"))).backward()
    assert logits.grad.shape == (10, 4)


@EVERY_LOSS
def test_counts_weights_margins_and_priors_are_in_the_checkpoint(build):
    state = build(COUNTS).state_dict()
    assert state["class_counts"].tolist() == COUNTS
    assert set(state) == {name for name, _ in build(COUNTS).named_buffers()}


def test_a_checkpoint_restores_its_class_weights():
    trained, fresh = LDAM(COUNTS, scale=1.0, beta=0.9), LDAM([1, 1, 1, 1], scale=1.0, beta=0.9)
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(*a_batch()), trained(*a_batch()))


@EVERY_LOSS
def test_joint_labels_need_only_repeated_counts(build):
    transforms = 3
    labels = torch.arange(12) % 4
    # logits that are equal for all transforms: the joint loss exceeds the plain one by log 3 for softmax losses
    plain_logits, _ = a_batch(images=12)
    joint = build(np.repeat(COUNTS, transforms))
    plain = build(COUNTS)
    joint_logits, joint_labels = plain_logits.repeat_interleave(transforms, 1), labels * transforms + 1
    if joint.weights is not None:
        torch.testing.assert_close(joint.weights, plain.weights.repeat_interleave(transforms))
        assert joint.weights.mean().item() == pytest.approx(1.0)
    if isinstance(joint, LDAM):
        assert torch.equal(joint.margins, plain.margins.repeat_interleave(transforms))
    if type(joint) in (CrossEntropy, BalancedSoftmax, LogitAdjusted, VS):
        torch.testing.assert_close(
            joint.per_image(joint_logits, joint_labels), plain.per_image(plain_logits, labels) + math.log(transforms)
        )
    assert joint(joint_logits, joint_labels).isfinite()


@EVERY_LOSS
def test_logits_of_another_number_of_classes_are_an_error(build):
    with pytest.raises(ValueError, match="built for 4 classes"):
        build(COUNTS)(*a_batch(classes=5))


@pytest.mark.parametrize("label", [4, -1, -100])
@EVERY_LOSS
def test_a_label_out_of_range_is_an_error_on_cpu(build, label):
    logits, labels = a_batch()
    labels[3] = label
    with pytest.raises((IndexError, RuntimeError)):
        build(COUNTS)(logits, labels)


@pytest.mark.parametrize(
    ("loss", "link"),
    [
        (CrossEntropy(COUNTS), "softmax"),
        (FocalSoftmax(COUNTS, gamma=1.0), "softmax"),
        (FocalSigmoid(COUNTS, gamma=1.0), "sigmoid"),
        (ClassBalanced(COUNTS, beta=0.9, base="softmax"), "softmax"),
        (ClassBalanced(COUNTS, beta=0.9, base="sigmoid"), "sigmoid"),
        (ClassBalanced(COUNTS, beta=0.9, base="focal"), "sigmoid"),
        (LDAM(COUNTS, scale=30.0), "softmax"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_link_is_sigmoid_exactly_where_the_last_bias_starts_at_the_prior(loss, link):
    assert loss.link == link
    assert loss.prior_bias == (pytest.approx(-math.log(3)) if link == "sigmoid" else None)


def test_with_the_prior_bias_every_sigmoid_starts_at_one_over_the_class_count():
    bias = FocalSigmoid([5] * 100, gamma=1.0).prior_bias
    assert 1 / (1 + math.exp(-bias)) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("loss", "adjusts"),
    [
        (CrossEntropy(COUNTS), False),
        (FocalSoftmax(COUNTS, gamma=1.0), False),
        (FocalSoftmax(COUNTS, gamma=1.0, beta=0.9), True),
        (FocalSigmoid(COUNTS, gamma=1.0), False),
        (ClassBalanced(COUNTS, beta=0.9), True),
        (ClassBalanced(COUNTS, beta=0.0), False),
        (LDAM(COUNTS, scale=30.0), False),
        (LDAM(COUNTS, scale=30.0, beta=0.9), True),
        (BalancedSoftmax(COUNTS), True),
        (LogitAdjusted(COUNTS, tau=1.0), True),
        (LogitAdjusted(COUNTS, tau=0.0), False),
        (VS(COUNTS, gamma=0.1, tau=0.0), True),
        (VS(COUNTS, gamma=0.0, tau=0.0), False),
    ],
    ids=lambda value: str(value) if isinstance(value, bool) else type(value).__name__,
)
def test_adjusts_prior_is_true_for_losses_that_correct_the_imbalance(loss, adjusts):
    assert loss.adjusts_prior is adjusts


def test_ldam_excludes_the_background_logit_from_margins_and_their_scale():
    loss = LDAM([100_000, 16, 1], 0, max_margin=0.4, scale=1.0)
    torch.testing.assert_close(loss.margins, torch.tensor([0.0, 0.2, 0.4]))


@pytest.mark.parametrize(
    "loss",
    [
        FocalSigmoid(COUNTS, 0, gamma=1.0),
        ClassBalanced(COUNTS, 0, beta=0.9, base="sigmoid"),
        ClassBalanced(COUNTS, 0, beta=0.9, base="focal"),
    ],
    ids=["focal_sigmoid", "sigmoid", "focal"],
)
def test_the_background_logit_is_excluded_from_the_sigmoid_sum(loss):
    logits, labels = a_batch()
    moved = logits + torch.tensor([5.0, 0.0, 0.0, 0.0])
    assert torch.equal(loss(moved, labels), loss(logits, labels))


def test_the_background_weight_follows_from_its_count():
    assert torch.equal(ClassBalanced(COUNTS, 0, beta=0.9).weights, ClassBalanced(COUNTS, beta=0.9).weights)


@pytest.mark.parametrize("kind", [BalancedSoftmax, LogitAdjusted, VS])
def test_losses_that_shift_every_logit_by_the_prior_refuse_a_background(kind):
    with pytest.raises(ConfigError, match=f"{kind.__name__}.*background"):
        kind(COUNTS, 0)


WRONG = {
    "gamma": lambda: FocalSoftmax(COUNTS, gamma=-1.0),
    "tau": lambda: LogitAdjusted(COUNTS, tau=float("nan")),
    "beta": lambda: ClassBalanced(COUNTS, beta=1.5),
    "base": lambda: ClassBalanced(COUNTS, beta=0.9, base="hinge"),
    "reduction": lambda: ClassBalanced(COUNTS, beta=0.9, reduction="mean"),
    "max_margin": lambda: LDAM(COUNTS, scale=1.0, max_margin=-0.5),
    "scale": lambda: LDAM(COUNTS, scale=0.0),
    "defer_from": lambda: BalancedSoftmax(COUNTS, defer_from=160),
    "background": lambda: CrossEntropy(COUNTS, 4),
}


@pytest.mark.parametrize("key", WRONG)
def test_a_value_outside_its_range_is_an_error_that_names_the_key(key):
    with pytest.raises(ConfigError, match=rf"{key}( = |=)"):
        WRONG[key]()


def test_invalid_counts_are_an_error():
    with pytest.raises(DataError, match="class_counts"):
        CrossEntropy([1, -1])


@EVERY_LOSS
def test_the_module_equals_its_pure_function_in_float64(build):
    logits, labels = a_batch()
    loss = build(COUNTS).double()
    single = build(COUNTS)
    torch.testing.assert_close(single(logits, labels).double(), loss(logits.double(), labels), rtol=1e-5, atol=1e-6)


def test_ldam_on_scaled_cosines_is_the_published_loss_on_cosines():
    logits, labels = a_batch()
    cosines = (logits / 10).clamp(-1, 1)
    loss = LDAM(COUNTS, max_margin=0.5, scale=30.0)
    margins = torch.nn.functional.one_hot(labels, 4) * loss.margins[labels][:, None]
    published = torch.nn.functional.cross_entropy(30.0 * (cosines - margins), labels)
    torch.testing.assert_close(loss(30.0 * cosines, labels), published)


def test_every_loss_module_is_tested_in_this_file():
    def below(kind: type) -> set[type]:
        return {kind} | {descendant for child in kind.__subclasses__() for descendant in below(child)}

    apart = ("ltr.losses.base", "ltr.losses.prototypical", "ltr.losses.triplet")  # of embeddings: their own tests
    named = {
        kind
        for kind in below(ClassificationLoss)
        if kind.__module__.startswith("ltr.") and kind.__module__ not in apart
    }
    assert {type(build(COUNTS)) for build in BUILD.values()} == {k for k in named if not k.__name__.startswith("_")}


def test_class_balanced_softmax_divides_by_the_batch_as_the_paper_does():
    logits, labels = a_batch()
    loss = ClassBalanced(COUNTS, beta=0.9)
    expected = functional.cross_entropy(logits, labels, loss.weights).sum() / 10
    torch.testing.assert_close(loss(logits, labels), expected)
