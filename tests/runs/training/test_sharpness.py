"""Perturbations of sharpness-aware minimisation against their definitions, and the gradients that come of them."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

import ltr
from ltr.configuration.check import check_config
from ltr.configuration.overrides import compose_config
from ltr.data.batch import Batch
from ltr.errors import ConfigError
from ltr.optim.sharpness import SAM, ImbSAM, perturbations
from ltr.runs.plan import RunPlan, plan_of
from ltr.runs.training.sharpness import SharpnessAware

COUNTS = (60, 17, 3)
TRAINER = SimpleNamespace(
    precision_plugin=SimpleNamespace(train_step_context=nullcontext),
    strategy=SimpleNamespace(on_train_batch_start=lambda *_: None),
)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("adaptive", [False, True])
def test_perturbations_follow_their_definition(adaptive):
    weights, gradients = [numbers(3, 2), numbers(4, seed=1)], [numbers(3, 2, seed=2), numbers(4, seed=3)]
    factors = [weight**2 if adaptive else np.ones_like(weight) for weight in weights]
    norm = np.sqrt(sum((f * g * g).sum() for f, g in zip(factors, gradients, strict=True)))
    expected = [0.3 * f * g / norm for f, g in zip(factors, gradients, strict=True)]
    actual = perturbations(
        [torch.from_numpy(w) for w in weights], [torch.from_numpy(g) for g in gradients], 0.3, adaptive
    )
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-9)


def test_a_perturbation_has_length_rho_and_is_zero_for_a_zero_gradient():
    parameters, gradients = [torch.ones(5), torch.ones(2)], [torch.from_numpy(numbers(5)).float(), torch.ones(2)]
    step = torch.cat(perturbations(parameters, gradients, 0.05))
    assert step.norm().item() == pytest.approx(0.05, rel=1e-5)
    assert torch.cat(perturbations(parameters, [torch.zeros(5), torch.zeros(2)], 0.05)).tolist() == [0.0] * 7


def a_network(seed: int = 0, loss: str = "cross_entropy"):
    network = ltr.build(
        "erm", num_classes=3, class_counts=COUNTS, backbone="digits_net", image_size=8, channels=1, seed=seed, loss=loss
    )
    return network.train().double()


def a_batch(size: int = 12) -> Batch:
    images = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (size, 1, 8, 8), dtype=np.uint8))
    return Batch(images, torch.arange(size) % 3, torch.arange(size))


def gradients_of(network, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(network.parameters())))


def step_with(sharpness: SAM, network, batch: Batch) -> list[Tensor]:
    """Return the gradients that an optimiser would get."""
    network.zero_grad()
    network.on_train_batch_start = lambda *_: None  # which asks a trainer for the epoch
    callback = SharpnessAware(sharpness)
    callback.on_train_start(TRAINER, network)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    callback.on_train_batch_start(TRAINER, network, batch, 0)
    assert any(not torch.equal(one, two) for one, two in zip(network.parameters(), before, strict=True))
    network.training_step(batch, 0)["loss"].backward()
    callback.on_after_backward(TRAINER, network)
    callback.on_train_end(TRAINER, network)
    assert all(torch.equal(one, two) for one, two in zip(network.parameters(), before, strict=True))
    return [parameter.grad for parameter in network.parameters()]


def moved(network, steps: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, step in zip(network.parameters(), steps, strict=True):
            parameter.add_(step)


def scaled(gradients: list[Tensor], rho: float) -> list[Tensor]:
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    return [rho / norm * gradient for gradient in gradients]


def test_the_gradient_of_sam_is_that_at_the_perturbed_weights():
    batch, rho = a_batch(), 0.2
    actual = step_with(SAM(rho=rho), a_network(), batch)
    other = a_network()
    moved(other, scaled(gradients_of(other, other.training_step(batch, 0)["loss"]), rho))
    expected = gradients_of(other, other.training_step(batch, 0)["loss"])
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(("tail_weight", "loss"), [(1.0, "cross_entropy"), (2.0, "balanced_softmax")])
def test_the_gradient_of_imbsam_perturbs_the_losses_of_the_tail_only(tail_weight, loss):
    batch, rho = a_batch(), 0.2
    actual = step_with(ImbSAM(rho=rho, eta=20, tail_weight=tail_weight), a_network(loss=loss), batch)

    other = a_network(loss=loss)
    is_tail = batch.labels > 0  # classes of 17 and 3 images

    def part(mask: Tensor) -> Tensor:
        losses = other.loss.per_image(other(other.to_unit(batch.images)), batch.labels)
        return losses[mask].sum() / len(losses)

    head = gradients_of(other, part(~is_tail))
    moved(other, scaled(gradients_of(other, tail_weight * part(is_tail)), rho))
    tail = gradients_of(other, tail_weight * part(is_tail))
    torch.testing.assert_close(actual, [one + two for one, two in zip(head, tail, strict=True)])


def test_imbsam_without_tail_classes_uses_the_plain_gradient():
    batch = a_batch()
    network = a_network()
    plain = gradients_of(network, network.training_step(batch, 0)["loss"])
    network.on_train_batch_start = lambda *_: None
    callback = SharpnessAware(ImbSAM(eta=1))
    network.zero_grad()
    callback.on_train_start(TRAINER, network)
    callback.on_train_batch_start(TRAINER, network, batch, 0)
    network.training_step(batch, 0)["loss"].backward()
    callback.on_after_backward(TRAINER, network)
    torch.testing.assert_close([parameter.grad for parameter in network.parameters()], plain)


@pytest.mark.parametrize(("batch_norm", "updates"), [("both", 2), ("first", 1)])
def test_batch_norm_sets_the_passes_that_update_running_statistics(batch_norm, updates):
    batch, rho = a_batch(), 1e-9  # so that both passes see the same features
    network, plain = a_network(), a_network()
    step_with(SAM(rho=rho, batch_norm=batch_norm), network, batch)
    for _ in range(updates):
        plain.training_step(batch, 0)
    for (name, actual), expected in zip(network.named_buffers(), dict(plain.named_buffers()).values(), strict=True):
        if name.endswith(("running_mean", "running_var")):
            torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["method=m2m"], "a custom training step"),
        (["trainer.precision=fp16"], "fp16"),
        (["trainer.auto_accumulate=true", "backbone=digits_net"], "auto_accumulate"),
        (["sharpness=imbsam", "trainer.accumulate=2"], "one whole batch"),
    ],
)
def test_trainings_that_sam_does_not_support_are_refused_before_training(ltr_train, tmp_path, overrides, reason):
    done = ltr_train("sharpness=sam", *overrides, outputs=tmp_path)
    assert done.code != 0
    assert reason in done.err
    assert not list(tmp_path.glob("stages/*"))


ON_DIGITS = ("dataset=digits_lt", "trainer.precision=fp32", "trainer.accelerator=cpu")


def planned(*overrides: str) -> RunPlan:
    return plan_of(check_config(compose_config([*ON_DIGITS, *overrides])))


def sizes() -> tuple[int, int]:
    counts = planned().dataset_info.class_counts
    return min(counts), max(counts)


@pytest.mark.parametrize("method", ["erm", "crt"])
def test_imbsam_without_a_tail_class_is_refused(method):
    smallest, _ = sizes()
    command = (f"method={method}", "sharpness=imbsam")
    with pytest.raises(ConfigError, match=rf"sharpness\.eta={smallest}: no class .*the smallest has {smallest}\)"):
        planned(*command, f"sharpness.eta={smallest}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        planned(*command, f"sharpness.eta={smallest + 1}")


def test_imbsam_with_all_classes_in_the_tail_is_reported():
    _, largest = sizes()
    with pytest.warns(UserWarning, match=rf"eta={largest + 1}: all classes .*the largest has {largest}\)"):
        planned("sharpness=imbsam", f"sharpness.eta={largest + 1}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        planned("sharpness=imbsam", f"sharpness.eta={largest}")


def test_options_out_of_range_are_refused():
    for options in ({"rho": 0.0}, {"batch_norm": "second"}):
        with pytest.raises(ConfigError, match="sharpness"):
            SAM(**options)
    with pytest.raises(ConfigError, match=r"sharpness\.eta"):
        ImbSAM(eta=0)
