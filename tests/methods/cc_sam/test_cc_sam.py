"""CC-SAM: its perturbations and losses against their formulas in float64, its stages and options."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_plans import planned, state, step
from torch.nn import functional as nn_functional

from ltr.data.batch import Batch, Mix
from ltr.errors import ConfigError
from ltr.methods.cc_sam.perturbations import class_scales, class_strengths, feature_steps, parameter_steps
from ltr.methods.core.network import ImageClassifier
from resuming import same_bits

COUNTS = (60, 17, 2, 1)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_scales_and_strengths_of_classes_follow_their_formulas():
    expected = [1 / (np.sqrt(2) * (n - 1) ** 0.25) for n in (60, 17, 2)]
    np.testing.assert_allclose(class_scales(COUNTS), [*expected, expected[-1]])
    expected = [np.log(60 / n + 0.01) / 2 for n in COUNTS]
    np.testing.assert_allclose(class_strengths(COUNTS, 2.0), expected)


def test_steps_of_parameters_follow_their_formula():
    weights, gradients = [numbers(4, 3), numbers(4, seed=1)], [numbers(4, 3, seed=2), numbers(4, seed=3)]
    norm = np.sqrt(sum((weight**2).sum() for weight in weights))
    actual = parameter_steps(
        [torch.from_numpy(w) for w in weights], [torch.from_numpy(g) for g in gradients], 0.7, 1e-3
    )
    for one, gradient in zip(actual, gradients, strict=True):
        own = np.linalg.norm(gradient)
        rho = 1e-3 * np.sqrt(norm) / np.sqrt(own) * 0.7 / 16**0.25
        np.testing.assert_allclose(one.numpy(), rho * np.sqrt(16) * gradient / own, rtol=1e-9)


def test_steps_are_zero_for_zero_gradients():
    assert parameter_steps([torch.ones(3)], [torch.zeros(3)], 1.0, 1.0)[0].tolist() == [0.0] * 3
    assert feature_steps(torch.zeros(2, 3), torch.tensor([0, 1]), torch.ones(2), 1.0).tolist() == [[0.0] * 3] * 2


def test_steps_of_features_have_the_strength_of_their_class():
    gradients, labels, strengths = numbers(6, 3), np.array([0, 1, 0, 2, 1, 0]), np.array([0.1, 0.8, 2.0])
    actual = feature_steps(*(torch.from_numpy(array) for array in (gradients, labels, strengths)), 1.5).numpy()
    for label, strength in enumerate(strengths):
        rows = labels == label
        expected = 1.5 * strength * gradients[rows] / np.linalg.norm(gradients[rows])
        np.testing.assert_allclose(actual[rows], expected, rtol=1e-9)


def network(stage: str, *overrides: str):
    """The network of a stage in float64, in training mode, and a batch of digits."""
    plan = planned("method=cc_sam", "augment=digits", *overrides)
    built = plan.representation() if stage == "representation" else plan.second(plan.representation())
    batch = plan.batch()
    return plan, built.double().train(), Batch(batch.images[:24], batch.labels[:24], batch.indices[:24])


def mixed(batch: Batch) -> Batch:
    order = torch.arange(len(batch.labels)).flip(0)
    weight = torch.linspace(0.5, 0.9, len(order), dtype=torch.float64)
    return Batch(batch.images, batch.labels, batch.indices, Mix(batch.labels[order], weight))


@pytest.mark.parametrize("flat_labels", ["first", "mixed"])
def test_the_loss_of_the_first_stage_follows_its_formula(flat_labels):
    overrides = ("method.radius=0.05", "method.flat_share=0.3", f"method.flat_labels={flat_labels}")
    plan, actual, batch = network("representation", *overrides)
    batch = mixed(batch)
    unit = actual.to_unit(batch.images)
    loss = actual.training_step(batch, 0)["loss"]
    with torch.no_grad():
        features = actual.features(unit)
    weight, bias = (
        actual.head.weight.detach().clone().requires_grad_(),
        actual.head.bias.detach().clone().requires_grad_(),
    )

    def losses(w, b, rows, mix: bool = True):
        logits = features[rows] @ w.T + b
        first = nn_functional.cross_entropy(logits, batch.labels[rows], reduction="none")
        second = nn_functional.cross_entropy(logits, batch.mix.labels[rows], reduction="none")
        share = batch.mix.weight[rows] if mix else torch.ones(len(first))
        return share * first + (1 - share) * second

    flat = []
    size = torch.sqrt((weight**2).sum() + (bias**2).sum()).sqrt() * 0.05 * (weight.numel() + bias.numel()) ** 0.25
    for label in batch.labels.unique():
        rows = batch.labels == label
        scale = (plan.dataset_info.class_counts[label] - 1) ** -0.25 / 2**0.5
        gradients = torch.autograd.grad(losses(weight, bias, rows).mean(), (weight, bias))
        moved = [p + size * scale * g / g.norm() ** 1.5 for p, g in zip((weight, bias), gradients)]
        flat.append(losses(*moved, rows, mix=flat_labels == "mixed"))
    expected = 0.7 * losses(weight, bias, slice(None)).mean() + 0.3 * torch.cat(flat).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)


def test_the_perturbed_network_raises_the_loss_of_its_class_and_keeps_weights_and_statistics():
    _, actual, batch = network("representation", "method.perturb=network", "method.radius=0.01", "method.flat_share=1")
    plain = network("representation")[1]
    before = ImageClassifier.training_step(plain, batch, 0)["loss"]
    loss = actual.training_step(batch, 0)["loss"]
    assert loss > before
    assert same_bits(state(actual), state(plain)), "one pass updates the running statistics"
    loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in actual.parameters())


def test_without_a_share_the_first_stage_is_plain_training():
    _, actual, batch = network("representation", "method.flat_share=0")
    assert torch.equal(
        actual.training_step(batch, 0)["loss"],
        ImageClassifier.training_step(network("representation")[1], batch, 0)["loss"],
    )
    assert actual.graph_obstacle is None
    assert "number changes" in network("representation")[1].graph_obstacle


@pytest.mark.parametrize("weighted", [True, False])
def test_the_loss_of_the_second_stage_follows_its_formula(weighted):
    overrides = ("method.classifier.epochs=10", f"method.weighted={str(weighted).lower()}")
    plan, actual, batch = network("classifier", *overrides)
    actual.start_epoch(1)  # the second of ten
    strengths = torch.from_numpy(class_strengths(plan.dataset_info.class_counts, 2.0))
    features = actual.features(actual.to_unit(batch.images)).detach().requires_grad_()
    losses = nn_functional.cross_entropy(actual.head(features), batch.labels, reduction="none")
    moved = features.detach().clone()
    for label in batch.labels.unique():
        rows = batch.labels == label
        gradient = torch.autograd.grad(losses[rows].mean(), features, retain_graph=True)[0]
        moved[rows] += (strengths[label] * gradient / gradient.norm())[rows]
    adversarial = nn_functional.cross_entropy(actual.head(moved), batch.labels, reduction="none")
    adversarial = adversarial * strengths[batch.labels] if weighted else adversarial
    expected = 0.8 * losses.mean() + 0.2 * adversarial.mean()
    # strengths and steps are of float32
    torch.testing.assert_close(actual.training_step(batch, 0)["loss"], expected, rtol=1e-5, atol=1e-6)


def test_the_adversarial_share_grows_up_to_its_limit():
    actual = network("classifier", "method.classifier.epochs=10")[1]
    shares = []
    for epoch in range(5):
        actual.start_epoch(epoch)
        shares.append(round(actual._adversarial_share.item(), 6))
    assert shares == [0.1, 0.2, 0.3, 0.3, 0.3]


def test_the_second_stage_trains_only_the_classifier_of_the_first():
    plan = planned("method=cc_sam", "augment=digits")
    trained = plan.representation()
    actual = plan.second(trained)
    assert same_bits(state(actual.head), state(trained.head))
    before = {name: tensor for name, tensor in state(actual).items() if "running" not in name and "batches" not in name}
    step(actual.train(), plan.batch(), steps=2)
    changed = {name.split(".")[0] for name, tensor in before.items() if not torch.equal(tensor, state(actual)[name])}
    assert changed == {"head"}


def test_both_stages_start_as_those_of_plain_training_do():
    perturbed, plain = planned("method=cc_sam"), planned("method=erm")
    networks = [plan.stages["representation"].network(plan.dataset_info, 0) for plan in (perturbed, plain)]
    assert same_bits(*(state(one) for one in networks))
    assert perturbed.keys["representation"] != plain.keys["representation"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.radius=0", "method.radius=0"),
        ("method.flat_share=1.5", "method.flat_share=1.5"),
        ("method.perturb=backbone", "network"),
        ("method.classifier.loss=triplet", "method.classifier.loss=Triplet"),
        ("loss=seesaw", "loss=Seesaw.*changes at every evaluation"),
        ("method.classifier.loss=equalization_v2", "method.classifier.loss=EqualizationV2.*changes"),
        (("loss=ldam", "loss.beta=0.9999"), "loss.reduction=weight_sum: LDAM.*reduction=batch"),
    ],
)
def test_wrong_options_are_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        planned("method=cc_sam", *([override] if isinstance(override, str) else override))


@pytest.mark.parametrize("more", [(), ("loss.beta=0.9999", "loss.reduction=batch")])
def test_losses_that_average_over_images_are_accepted(more):
    planned("method=cc_sam", "loss=ldam", *more)
