"""Distances and angles between embeddings against loops over pairs and triples, and what they must not depend on."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import distributed, multiprocessing
from torch.nn import functional

from ltr.errors import ConfigError
from ltr.losses import relational
from ltr.losses.gathering import gather_with_gradient
from ltr.losses.relational import rkd_angle, rkd_distance, squared_distances

LOSSES = pytest.mark.parametrize("loss", [rkd_distance, rkd_angle])
DOUBLE = torch.float64


def embeddings(seed: int, images: int = 6, width: int = 4, dtype: torch.dtype = DOUBLE) -> torch.Tensor:
    return torch.randn(images, width, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE).to(dtype)


def huber(first: float, second: float) -> float:
    gap = abs(first - second)
    return 0.5 * gap**2 if gap <= 1 else gap - 0.5


def loop_over_pairs(student: torch.Tensor, teacher: torch.Tensor) -> list[float]:
    pairs = list(itertools.permutations(range(len(student)), 2))

    def relative(points: torch.Tensor) -> list[float]:
        distances = [float((points[i] - points[j]).norm()) for i, j in pairs]
        return [distance / (sum(distances) / len(distances)) for distance in distances]

    return [huber(s, t) for s, t in zip(relative(student), relative(teacher))]


def loop_over_triples(student: torch.Tensor, teacher: torch.Tensor) -> list[float]:
    def angle(points: torch.Tensor, i: int, j: int, k: int) -> float:
        return float(functional.cosine_similarity(points[i] - points[j], points[k] - points[j], dim=0))

    triples = itertools.permutations(range(len(student)), 3)
    return [huber(angle(student, *triple), angle(teacher, *triple)) for triple in triples]


def direct_angle(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The form that builds the N x N x D tensor of differences."""

    def angles(points: torch.Tensor) -> torch.Tensor:
        arms = functional.normalize(points[None] - points[:, None], dim=2)
        return torch.bmm(arms, arms.transpose(1, 2))

    return functional.smooth_l1_loss(angles(student), angles(teacher))


def spread_out(seed: int, images: int = 6) -> torch.Tensor:
    """Few directions and far outliers, so that both branches of Huber's loss are met."""
    return embeddings(seed, images, 2) ** 3


@pytest.mark.parametrize(("reduction", "divisor"), [("all", 6**2), ("valid", 6 * 5)])
def test_distances_equal_a_loop_over_pairs(reduction, divisor):
    student, teacher = spread_out(1), embeddings(2)
    expected = sum(loop_over_pairs(student, teacher)) / divisor
    assert float(rkd_distance(student, teacher, reduction)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("reduction", "divisor"), [("all", 6**3), ("valid", 6 * 5 * 4)])
def test_angles_equal_a_loop_over_triples(reduction, divisor):
    student, teacher = spread_out(1), embeddings(2)
    expected = sum(loop_over_triples(student, teacher)) / divisor
    assert float(rkd_angle(student, teacher, reduction)) == pytest.approx(expected, rel=1e-12)


def test_the_reference_loops_reach_both_branches_of_the_huber_loss():
    for differences in (loop_over_pairs(spread_out(1), embeddings(2)), loop_over_triples(spread_out(1), embeddings(2))):
        assert min(differences) < 0.5 < max(differences)


def test_angles_and_their_gradient_equal_the_direct_form():
    student, teacher = embeddings(3, 20, 7).requires_grad_(), embeddings(4, 20, 9)
    actual, direct = rkd_angle(student, teacher), direct_angle(student, teacher)
    assert actual.item() == pytest.approx(direct.item(), rel=1e-13)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in (actual, direct)))


@LOSSES
def test_the_gradient_equals_finite_differences(loss):
    teacher = embeddings(6, 5)
    assert torch.autograd.gradcheck(lambda student: loss(student, teacher), embeddings(5, 5).requires_grad_())


@LOSSES
def test_the_loss_does_not_depend_on_the_chunk_size(loss, monkeypatch):
    student, teacher = embeddings(1, 11), embeddings(2, 11)
    whole = loss(student, teacher)
    monkeypatch.setattr(relational, "_CHUNK", 3 * 11**2)
    assert float(loss(student, teacher)) == pytest.approx(float(whole), rel=1e-13)


@LOSSES
def test_a_scaled_rotated_and_shifted_copy_of_the_teacher_has_zero_loss(loss):
    teacher = embeddings(7, 10)
    rotation = torch.linalg.qr(embeddings(8, 4))[0]
    assert float(loss(3.5 * teacher @ rotation + 2.0, teacher)) == pytest.approx(0, abs=1e-15)
    assert float(loss(embeddings(9, 10), teacher)) > 1e-3


@LOSSES
@pytest.mark.parametrize("factor", [1e-3, 20.0])
def test_the_scale_of_the_student_does_not_matter(loss, factor):
    student, teacher = embeddings(1, 9), embeddings(2, 9)
    assert float(loss(factor * student, teacher)) == pytest.approx(float(loss(student, teacher)), rel=1e-10)


@LOSSES
def test_the_order_of_the_images_does_not_matter(loss):
    student, teacher = embeddings(1, 9), embeddings(2, 9, 3)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert float(loss(student[order], teacher[order])) == pytest.approx(float(loss(student, teacher)), rel=1e-12)


@LOSSES
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("reduction", ["all", "valid"])
def test_one_or_two_images_have_zero_loss(loss, images, reduction):
    student = embeddings(1, images).requires_grad_()
    cost = loss(student, embeddings(2, images), reduction)
    cost.backward()
    assert float(cost.detach()) == 0
    assert torch.isfinite(student.grad).all()


@LOSSES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("equal", [2, 8])
def test_the_gradient_is_finite_and_small_with_duplicate_embeddings(loss, dtype, equal):
    teacher = embeddings(2, 8)
    student = embeddings(1, 8, dtype=dtype)
    student[:equal] = student[0]
    student.requires_grad_()
    loss(student, teacher).backward()
    assert torch.isfinite(student.grad).all()
    assert student.grad.norm() < 10


@LOSSES
def test_duplicates_have_the_loss_of_the_direct_form(loss):
    student, teacher = embeddings(1, 6), embeddings(2, 6)
    student[1] = student[0]
    if loss is rkd_angle:
        expected = float(direct_angle(student, teacher))
    else:
        expected = sum(loop_over_pairs(student, teacher)) / 36
    assert float(loss(student, teacher)) == pytest.approx(expected, rel=1e-9)


@LOSSES
def test_close_points_far_from_the_origin_are_accurate_in_float32(loss):
    student = embeddings(1, 16, 32)
    student[8:] = student[:8] + 1e-3 * embeddings(3, 8, 32)  # a Gram matrix in float32 has these distances 10 % wrong
    student = (student + 10.0).float()
    teacher = embeddings(2, 16, 32)
    expected = float(loss(student.double(), teacher))
    assert float(loss(student, teacher.float())) == pytest.approx(expected, rel=2e-5)


@LOSSES
def test_autocast_does_not_affect_the_loss(loss):
    student, teacher = embeddings(1, 9, dtype=torch.float32), embeddings(2, 9, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cost = loss(student, teacher)
    assert cost.dtype == torch.float32
    assert torch.equal(cost, loss(student, teacher))


@LOSSES
def test_the_teacher_gets_no_gradient(loss):
    student, teacher = embeddings(1).requires_grad_(), embeddings(2).requires_grad_()
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().max() > 0


@LOSSES
def test_another_reduction_is_refused(loss):
    with pytest.raises(ConfigError, match=r"reduction=mean.*all, valid"):
        loss(embeddings(1), embeddings(2), "mean")


def test_squared_distances_equal_cdist():
    points = embeddings(1, 7)
    torch.testing.assert_close(squared_distances(points), torch.cdist(points, points).square(), atol=1e-12, rtol=1e-9)


# --- several processes


def share_of_a_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    weight = embeddings(5, 4, 3).requires_grad_()
    student, teacher = embeddings(1, 8)[rank::2] @ weight, embeddings(2, 8)[rank::2]
    loss = rkd_distance(gather_with_gradient(student), gather_with_gradient(teacher)) + rkd_angle(
        gather_with_gradient(student), gather_with_gradient(teacher)
    )
    loss.backward()
    assert weight.grad is not None
    distributed.all_reduce(weight.grad)
    torch.save((loss.detach(), weight.grad / 2), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_loss_and_the_gradient_of_one(tmp_path):
    multiprocessing.start_processes(share_of_a_process, args=(str(tmp_path),), nprocs=2, start_method="fork")
    weight = embeddings(5, 4, 3).requires_grad_()
    student, teacher = embeddings(1, 8) @ weight, embeddings(2, 8)
    loss = rkd_distance(student, teacher) + rkd_angle(student, teacher)
    loss.backward()
    for rank in (0, 1):
        cost, gradient = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(cost, loss.detach())
        torch.testing.assert_close(gradient, weight.grad)


def test_one_process_has_all_rows_already():
    rows = embeddings(1)
    assert gather_with_gradient(rows) is rows
