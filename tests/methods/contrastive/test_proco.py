"""ProCo: the distributions that its network estimates, its loss, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from method_plans import planned, state, step
from view_batches import three_views

from ltr.methods.contrastive.losses import expected_contrastive
from ltr.methods.contrastive.network import unit_length
from ltr.methods.contrastive.von_mises_fisher import concentration

PROCO = ("method=proco", "augment=digits", "method.contrast_augment.flip=false", "method.feature_dim=16")


@pytest.fixture(scope="module")
def plan():
    return planned(*PROCO)


def started(*overrides: str, plan=None):
    """A network at the beginning of its first epoch."""
    plan = plan or planned(*PROCO, *overrides)
    network = plan.stages["representation"].network(plan.dataset_info, 0).train()
    network.next_epoch(0)
    return network


def rows(seed: int, count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return unit_length(torch.randn(count, 16, generator=random)), torch.randint(0, 9, (count,), generator=random)


def class_means(*batches: tuple[torch.Tensor, torch.Tensor]) -> dict[int, torch.Tensor]:
    projections, labels = (torch.cat(parts) for parts in zip(*batches))
    return {int(label): projections[labels == label].mean(0) for label in labels.unique()}


def test_means_are_those_of_the_projections_so_far():
    network, batches = started(), [rows(1), rows(2)]
    unseen = network.means[9].clone()
    for batch in batches:
        network.observe(*batch)
    for label, mean in class_means(*batches).items():
        torch.testing.assert_close(network.means[label], mean)
        torch.testing.assert_close(network.epoch_means[label], mean)
    assert torch.equal(network.means[9], unseen)
    assert unseen.norm().item() == pytest.approx(0.9)
    assert network.counts.sum() == 80


def test_an_epoch_starts_from_the_images_of_the_one_before():
    network, batches = started(), [rows(seed) for seed in (1, 2, 3)]
    for number, batch in enumerate(batches):
        network.observe(*batch)
        if number < 2:
            network.next_epoch(number + 1)
    for label, mean in class_means(*batches[1:]).items():  # the last epoch and this one: not the first
        torch.testing.assert_close(network.means[label], mean)
    for label, mean in class_means(batches[2]).items():
        torch.testing.assert_close(network.epoch_means[label], mean)


def test_the_last_epoch_alone_may_describe_the_classes():
    network = started("method.sample=last_epoch")
    network.observe(*rows(1))
    network.next_epoch(1)
    network.observe(*rows(2))
    for label, mean in class_means(rows(1)).items():
        torch.testing.assert_close(network.means[label], mean)


def test_epochs_change_at_their_first_batch_only(plan):
    network = started(plan=plan)
    network.observe(*rows(1))
    before = network.means.clone()
    network.on_train_batch_start(None, 3)  # as in a training that resumes there
    assert torch.equal(network.means, before)
    network.on_train_batch_start(None, 0)
    assert network.epoch_counts.sum() == 0
    assert network.counts.sum() == 40


def test_the_state_dict_contains_the_means(plan):
    network, other = started(plan=plan), started(plan=plan)
    network.observe(*rows(1))
    other.load_state_dict(network.state_dict())
    for name in ("means", "counts", "epoch_means", "epoch_counts"):
        assert torch.equal(getattr(other, name), getattr(network, name))


def test_each_view_is_added_before_its_loss_is_computed(plan):
    network = started(plan=plan)
    projections = torch.stack([rows(1)[0], rows(2)[0]])
    labels = rows(1)[1]
    actual = network.contrastive_loss(projections, labels)
    losses, mirror = [], started(plan=plan)
    for view in projections:
        mirror.observe(view, labels)
        kappa = concentration(mirror.means.norm(dim=1), 16, "official")
        losses.append(
            expected_contrastive(view, labels, unit_length(mirror.means), kappa, mirror.log_prior, 0.1).mean()
        )
    assert actual.item() == pytest.approx((losses[0] + losses[1]).item() / 2, rel=1e-5)


def test_the_loss_is_the_sum_of_both_branches():
    network, batch = started("method.contrastive_weight=0.5"), three_views(planned(*PROCO))
    outcome = network.training_step(batch, 0)
    parts = outcome["logs"]
    torch.testing.assert_close(outcome["loss"].detach(), parts["class_loss"] + 0.5 * parts["contrastive_loss"])


@pytest.mark.parametrize("option", ["form=out", "concentration=banerjee", "sample=last_epoch"])
def test_options_change_the_loss(plan, option):
    first, second, changed = three_views(plan), three_views(plan, epoch=1), started(f"method.{option}")
    network = started(plan=plan)
    losses = []
    for one in (network, changed):
        for batch in (first, second):
            outcome = one.training_step(batch, 0)
        losses.append(outcome["logs"]["contrastive_loss"])
    assert torch.isfinite(torch.stack(losses)).all()
    assert losses[0] != losses[1]


def test_a_step_trains_every_part_and_reduces_the_loss(plan):
    network, batch = started(plan=plan), three_views(plan)
    before, first = state(network), float(network.training_step(batch, 0)["loss"].detach())
    step(network, batch, steps=5)
    after = state(network)
    for part in ("backbone", "head", "projection"):
        names = [name for name in before if name.startswith(f"{part}.") and name.endswith("weight")]
        assert names
        assert all(not torch.equal(before[name], after[name]) for name in names), part
    assert float(network.training_step(batch, 0)["loss"].detach()) < first
