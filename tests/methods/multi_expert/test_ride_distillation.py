"""Distilled RIDE: its loss against its formula, its teacher, its stages, and an interrupted run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_plans import planned

from ltr.errors import ConfigError
from ltr.methods.core.stage import StageOutput
from ltr.methods.multi_expert.distillation import distillation
from ltr.methods.multi_expert.ride import DiverseExperts

LDAM = ("loss=ldam", "loss.beta=0.999", "augment=digits")
DISTILLED = ("method=ride_distill", "method.teacher.experts=4", *LDAM)


def numbers(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape) * 5


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def divergence(student: np.ndarray, teacher: np.ndarray, temperature: float) -> np.ndarray:
    log_student, log_teacher = log_softmax(student / temperature), log_softmax(teacher / temperature)
    return temperature**2 * (np.exp(log_teacher) * (log_teacher - log_student)).sum(-1)


@pytest.mark.parametrize("of", ["mean", "experts"])
def test_the_divergence_follows_its_formula(of):
    student, teacher = numbers(6, 3, 10, seed=0), numbers(6, 10, seed=1)
    if of == "mean":
        expected = divergence(student.mean(1), teacher, 1.5)
    else:
        expected = np.mean([divergence(student[:, k], teacher, 1.5) for k in range(3)], axis=0)
    actual = distillation(torch.from_numpy(student), torch.from_numpy(teacher), 1.5, of)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-9)


def test_a_student_with_the_predictions_of_its_teacher_has_no_divergence_and_the_teacher_no_gradient():
    student = torch.from_numpy(numbers(4, 1, 5, seed=0)).requires_grad_()
    teacher = student.detach()[:, 0].clone().requires_grad_()
    loss = distillation(student, teacher, 2.0, "mean").sum()
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-9)
    assert teacher.grad is None


def pair(*overrides: str):
    """A student and its teacher with initial weights, and their plan."""
    plan = planned(*DISTILLED, *overrides)
    teacher = plan.stages["teacher"].network(plan.dataset_info, 0)
    student = plan.stages["representation"].network(
        plan.dataset_info, 0, {"teacher": StageOutput("teacher", "key", lambda: teacher)}
    )
    return plan, student.train(), teacher


@pytest.mark.parametrize(("per_expert", "factor"), [("true", 3), ("false", 1)])
def test_the_loss_is_that_of_ride_and_the_divergence_as_often_as_asked(per_expert, factor):
    plan, student, _ = pair(f"method.loss_per_expert={per_expert}", "method.distill_weight=0.7")
    batch = plan.batch()
    student.start_epoch(0)
    logits = student.head.each(student.features(student.to_unit(batch.images))).detach()
    loss, logs = student.expert_loss(logits, batch)
    own_loss = DiverseExperts.expert_loss(student, logits, batch)[0]
    teacher_logits = student.teacher(batch).scores
    expected = own_loss + 0.7 * distillation(logits, teacher_logits, 1.5, "mean").mean()
    torch.testing.assert_close(loss, factor * expected)
    assert logs["distillation"] > 0


@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_statistics_of_the_teacher(statistics):
    plan, student, teacher = pair(f"method.teacher_statistics={statistics}")
    batch = plan.batch()
    before = {name: buffer.clone() for name, buffer in teacher.named_buffers() if "running" in name}
    scores = student.teacher(batch).scores
    assert all(torch.equal(buffer, before[name]) for name, buffer in teacher.named_buffers() if name in before)
    other = plan.stages["teacher"].network(plan.dataset_info, 0).train(statistics == "batch")
    with torch.no_grad():
        torch.testing.assert_close(scores, other(other.to_unit(batch.images)))


def test_the_teacher_is_the_representation_of_ride_with_its_number_of_experts():
    ride = planned("method=ride", "method.experts=4", *LDAM)
    distilled = planned(*DISTILLED)
    assert distilled.keys["teacher"] == ride.keys["representation"]
    assert list(distilled.stages) == ["teacher", "representation", "assignment"]
    three = planned("method=ride", *LDAM)
    assert not set(three.keys.values()) & set(distilled.keys.values())


def test_the_teacher_may_have_another_schedule():
    plan = planned(*DISTILLED, "method.teacher.scheduler=cosine", "scheduler.warmup_epochs=7")
    assert "Cosine" in plan.stages["teacher"].settings.scheduler["_target_"]
    assert plan.stages["representation"].settings.scheduler["warmup_epochs"] == 7


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.teacher.experts=1", "method.teacher.experts=1"),
        ("method.distill_temperature=0", "method.distill_temperature=0"),
        ("method.teacher_statistics=none", "running"),
    ],
)
def test_wrong_options_are_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        planned(*DISTILLED, override)
