"""The balanced contrastive loss against a float64 formula, and by the identities that its terms promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ltr.methods.contrastive.losses import balanced_contrastive

T = 0.1


def unit(*shape: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


Z, LABELS, CENTRES = unit(12, 6), np.array([0, 0, 1, 2, 2, 2, 0, 0, 1, 2, 2, 2]), unit(5, 6, seed=1)


def loss(z, labels, centres, averaging=True, dtype=torch.float64) -> torch.Tensor:
    centres = None if centres is None else torch.as_tensor(np.asarray(centres)).to(dtype)
    return balanced_contrastive(torch.as_tensor(np.asarray(z)).to(dtype), torch.tensor(labels), centres, T, averaging)


def formula(z, labels, centres, averaging) -> list[float]:
    """The loss of each projection as the paper writes it, class by class."""
    losses = []
    centre_of = {} if centres is None else dict(enumerate(centres))
    classes = sorted({*labels.tolist(), *centre_of})
    for i in range(len(z)):
        of_class = {
            j: [z[k] for k in range(len(z)) if k != i and labels[k] == j] + ([centre_of[j]] if j in centre_of else [])
            for j in classes
        }
        denominator = 0.0
        for members in of_class.values():
            terms = [math.exp(z[i] @ member / T) for member in members]
            denominator += (sum(terms) / len(terms) if averaging else sum(terms)) if terms else 0.0
        positives = of_class[labels[i]]
        losses.append(-np.mean([z[i] @ p / T - math.log(denominator) for p in positives]) if positives else 0.0)
    return losses


@pytest.mark.parametrize("averaging", [True, False])
@pytest.mark.parametrize("centres", [CENTRES, None], ids=["centres", "none"])
def test_the_loss_follows_its_formula(averaging, centres):
    assert loss(Z, LABELS, centres, averaging).tolist() == pytest.approx(formula(Z, LABELS, centres, averaging))


def test_without_its_two_parts_the_loss_is_the_supervised_contrastive_loss():
    similar = torch.tensor(Z @ Z.T / T)
    others = ~torch.eye(12, dtype=torch.bool)
    log_p = similar - similar.masked_fill(~others, -torch.inf).logsumexp(1, keepdim=True)
    positive = torch.tensor(LABELS[:, None] == LABELS) & others
    torch.testing.assert_close(loss(Z, LABELS, None, False), -(log_p * positive).sum(1) / positive.sum(1))


def test_images_of_equal_counts_are_weighted_as_supervised_contrastive_learning_weights_prototypes():
    """With n keys of each class, averaging divides the other classes by n and the own one, without i, by n - 1."""
    labels = np.repeat(np.arange(5), 3)
    z = unit(15, 6, seed=3)
    keys, key_labels = np.concatenate([z, CENTRES]), np.concatenate([labels, np.arange(5)])
    similar = np.exp(z @ keys.T / T) * ~np.eye(15, 20, dtype=bool)
    own = labels[:, None] == key_labels
    balanced, supervised = loss(z, labels, CENTRES), loss(z, labels, CENTRES, False)
    ratio = (similar * own).sum(1) / 3 + (similar * ~own).sum(1) / 4
    np.testing.assert_allclose(balanced - supervised, np.log(ratio / similar.sum(1)), atol=1e-12)


def test_the_loss_is_invariant_to_copies_of_images_of_another_class():
    """Class averaging: the large class of a batch pushes no harder than a small one."""
    copies = np.concatenate([Z, *[Z[LABELS == 2]] * 3])
    labels = np.concatenate([LABELS, np.full(3 * (LABELS == 2).sum(), 2)])
    kept = LABELS != 2
    without_centres = [loss(Z, LABELS, None)[kept], loss(copies, labels, None)[: len(Z)][kept]]
    torch.testing.assert_close(*without_centres)
    assert (loss(copies, labels, None, False)[: len(Z)][kept] > loss(Z, LABELS, None, False)[kept]).all()


def test_a_class_without_images_is_in_the_loss_by_its_centre():
    centres = torch.tensor(CENTRES, requires_grad=True)
    balanced_contrastive(torch.tensor(Z), torch.tensor(LABELS), centres, T).mean().backward()
    assert (centres.grad.norm(dim=1) > 0).all()  # classes 3 and 4 have no image


@pytest.mark.parametrize("counts", [[3, 3, 3, 3], [9, 4, 2, 1]])
def test_the_loss_of_a_regular_simplex_does_not_depend_on_class_counts(counts):
    """All images of a class at its vertex: the configuration that the paper aims at, log(1 + (C-1) e^(-C/(C-1)/t))."""
    corners = np.eye(4) - 1 / 4
    corners /= np.linalg.norm(corners, axis=1, keepdims=True)
    labels = np.repeat(np.arange(4), counts)
    expected = math.log1p(3 * math.exp(-(4 / 3) / T))
    np.testing.assert_allclose(loss(corners[labels], labels, corners), expected, atol=1e-12)
    for seed in range(3):  # it is a minimum
        moved = corners[labels] + np.random.default_rng(seed).normal(0, 0.05, (len(labels), 4))
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        assert loss(moved, labels, corners).mean() > expected


def test_a_projection_without_a_positive_has_no_loss():
    assert loss(Z[:3], np.array([0, 0, 1]), None)[2] == 0
    assert loss(Z[:3], np.array([0, 0, 1]), CENTRES)[2] > 0


def test_the_loss_is_computed_in_float32_under_autocast():
    z, centres = torch.tensor(Z).float(), torch.tensor(CENTRES).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = balanced_contrastive(z, torch.tensor(LABELS), centres, T)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, balanced_contrastive(z, torch.tensor(LABELS), centres, T))


def test_gradients_equal_those_of_the_formula():
    z = torch.tensor(Z, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda rows: balanced_contrastive(rows, torch.tensor(LABELS), torch.tensor(CENTRES), T), z
    )
