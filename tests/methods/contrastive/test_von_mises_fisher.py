"""Von Mises-Fisher distributions against mpmath, closed forms in three dimensions, and scipy's samples."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.special import ive
from scipy.stats import vonmises_fisher

from ltr.methods.contrastive.losses import expected_contrastive
from ltr.methods.contrastive.von_mises_fisher import (
    concentration,
    log_bessel,
    log_expected_exponential,
    mean_length,
)

ARGUMENTS = (0.0, 1e-6, 0.1, 1.0, 10.0, 300.0, 606.0, 5000.0, 1e5)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("width", [2, 3, 8, 33, 128, 2048])
def test_the_logarithm_of_the_bessel_function_equals_mpmath(width):
    order = width / 2 - 1

    def exact(x: float) -> float:
        with mpmath.workdps(40):
            if x == 0:
                return float(-order * mpmath.log(2) - mpmath.loggamma(order + 1))
            return float(mpmath.log(mpmath.besseli(order, x)) - order * mpmath.log(x))

    actual = log_bessel(order, tensor(*ARGUMENTS) ** 2)
    assert actual.tolist() == pytest.approx([exact(x) for x in ARGUMENTS], rel=1e-14, abs=1e-10)


@pytest.mark.parametrize("width", [3, 16, 128])
def test_its_derivative_is_the_ratio_of_two_orders(width):
    order, x = width / 2 - 1, tensor(0.5, 20.0, 400.0).requires_grad_()
    (slope,) = torch.autograd.grad(log_bessel(order, x**2).sum(), x)
    points = x.detach()
    expected = ive(order + 1, points.numpy()) / ive(order, points.numpy())
    assert slope.tolist() == pytest.approx(expected.tolist(), rel=1e-8)
    assert mean_length(points, width).tolist() == pytest.approx(expected.tolist(), rel=1e-8)


def test_gradients_are_finite_where_the_argument_is_zero():
    cosines = tensor(-1.0).requires_grad_()
    log_expected_exponential(cosines.unsqueeze(1), tensor(10.0), 10.0, 128).sum().backward()  # k m + t z = 0
    assert torch.isfinite(cosines.grad).all()


def test_in_three_dimensions_expectations_are_those_of_the_hyperbolic_sine():
    cosines, kappa, scale = np.array([[-0.9, 0.2], [0.5, 1.0]]), np.array([2.0, 30.0]), 10.0
    turned = np.sqrt(kappa**2 + 2 * scale * kappa * cosines + scale**2)
    expected = np.log(kappa / np.sinh(kappa) * np.sinh(turned) / turned)
    actual = log_expected_exponential(torch.tensor(cosines), torch.tensor(kappa), scale, 3)
    np.testing.assert_allclose(actual, expected, rtol=1e-9)


@pytest.mark.parametrize(("width", "kappa"), [(5, 4.0), (16, 60.0)])
def test_expectations_equal_those_of_samples(width, kappa):
    random = np.random.default_rng(0)
    direction, z = random.normal(size=(2, width))
    direction, z = direction / np.linalg.norm(direction), z / np.linalg.norm(z)
    samples = vonmises_fisher(direction, kappa).rvs(40_000, random_state=random)
    terms = np.exp(3.0 * samples @ z)
    error = terms.std() / math.sqrt(len(terms))
    cosine = torch.tensor([[z @ direction]])
    actual = log_expected_exponential(cosine, tensor(kappa), 3.0, width).exp().item()
    assert abs(terms.mean() - actual) < 4 * error
    length = np.linalg.norm(samples.mean(0))
    assert mean_length(tensor(kappa), width).item() == pytest.approx(length, abs=0.01)


def test_the_concentration_has_the_mean_that_it_is_estimated_from():
    norms = tensor(0.1, 0.5, 0.9, 0.99)
    banerjee = concentration(norms, 64, "banerjee")
    np.testing.assert_allclose(mean_length(banerjee, 64), norms, rtol=2e-3)
    torch.testing.assert_close(concentration(norms, 64, "official"), 64 * norms / (1 - norms**2))
    assert (concentration(norms, 64, "official") > banerjee).all()


@pytest.mark.parametrize("rule", ["official", "banerjee"])
def test_equal_directions_have_the_largest_concentration(rule):
    assert concentration(tensor(0.0, 0.999999, 1.0, 1.0000001), 128, rule).tolist() == [0.0, 1e5, 1e5, 1e5]


# -- the loss -------------------------------------------------------------------------------------------------------

WIDTH, CLASSES, T = 6, 3, 0.5


def example(seed: int = 0) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(seed)
    z, directions = random.normal(size=(7, WIDTH)), random.normal(size=(CLASSES, WIDTH))
    return {
        "projections": torch.tensor(z / np.linalg.norm(z, axis=1, keepdims=True)),
        "labels": torch.tensor([0, 1, 2, 0, 1, 2, 0]),
        "directions": torch.tensor(directions / np.linalg.norm(directions, axis=1, keepdims=True)),
        "kappa": tensor(5.0, 20.0, 1.0),
        "log_prior": tensor(0.7, 0.2, 0.1).log(),
    }


def loss(form: str = "in", **changes) -> torch.Tensor:
    return expected_contrastive(**{**example(), **changes}, temperature=T, form=form)


@pytest.mark.parametrize("form", ["in", "out"])
def test_the_loss_is_the_contrastive_loss_of_many_samples(form):
    """Of each class, samples in the share of its prior; their number goes to infinity in the closed form."""
    batch, random, samples = example(), np.random.default_rng(1), 60_000
    exponentials, similarities = [], []
    for direction, kappa in zip(batch["directions"], batch["kappa"]):
        drawn = vonmises_fisher(direction.numpy(), float(kappa)).rvs(samples, random_state=random)
        similarity = batch["projections"].numpy() @ drawn.T / T
        exponentials.append(np.exp(similarity).mean(1))
        similarities.append(similarity.mean(1))
    prior, labels, rows = batch["log_prior"].exp().numpy(), batch["labels"].numpy(), np.arange(7)
    denominator = (np.stack(exponentials, 1) * prior).sum(1)
    if form == "in":
        expected = -np.log(prior[labels] * np.stack(exponentials, 1)[rows, labels] / denominator)
    else:
        expected = np.log(denominator) - np.log(prior[labels]) - np.stack(similarities, 1)[rows, labels]
    np.testing.assert_allclose(loss(form), expected, atol=0.02)


def test_the_form_in_is_at_most_the_form_out():
    """Jensen's inequality: the logarithm of a mean is at least the mean of the logarithm."""
    assert (loss("in") < loss("out")).all()


@pytest.mark.parametrize("form", ["in", "out"])
def test_certain_classes_are_prototypes(form):
    batch = example()
    logits = batch["projections"] @ batch["directions"].T / T + batch["log_prior"]
    expected = torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none")
    certain = torch.full((CLASSES,), 1e5, dtype=torch.float64)
    torch.testing.assert_close(loss(form, kappa=certain), expected, atol=1e-3, rtol=0)


def test_classes_without_a_direction_have_the_loss_of_their_prior():
    batch = example()
    prior = -batch["log_prior"][batch["labels"]]
    torch.testing.assert_close(loss(kappa=torch.zeros(CLASSES, dtype=torch.float64)), prior)


@pytest.mark.parametrize("form", ["in", "out"])
def test_gradients_equal_finite_differences(form):
    z = example()["projections"].requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: loss(form, projections=rows), z)


def test_the_loss_is_computed_in_float64_from_float32_under_autocast():
    z = example()["projections"].float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(projections=z)
    assert inside.dtype == torch.float64
    assert torch.equal(inside, loss(projections=z))
