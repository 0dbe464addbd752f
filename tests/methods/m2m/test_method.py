"""M2m's network and stages: what a step replaces, what it leaves alone, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from method_plans import planned, state

from ltr.data.batch import Batch
from ltr.errors import CheckpointError, ConfigError
from ltr.methods.core import generation
from ltr.methods.core.stage import StageOutput
from ltr.methods.core.step_data import Step, gather_images, step_of
from ltr.methods.m2m.network import LOGS, M2mClassifier
from resuming import metric_rows, same_bits

# long steps and a low bar, so that an untrained network accepts some
EASY = ["method=m2m", "method.beta=0.98", "method.step_size=1", "method.gamma=0.15", "method.steps=3"]


def networks(*overrides: str, seed: int = 0) -> M2mClassifier:
    """f at the start of its deferred part, with a g with non-initial BatchNorm statistics."""
    plan = planned(*EASY, *overrides)
    stage = plan.stages["generator"]
    g = stage.network(plan.dataset_info, seed)
    with torch.no_grad():
        for batch in plan.data.evaluation_loader("train"):
            g.train()(g.to_unit(batch.images))
    stage = plan.stages["classifier"]
    parents = {"generator": StageOutput("generator", "key", lambda: g)}
    f = stage.network(plan.dataset_info, seed, parents)
    f.start_epoch(stage.settings.epochs - 1)
    return f.train()


def balanced_batch(number: int = 60) -> Batch:
    """Training digits, all classes equally often."""
    data = planned().data
    index = data.class_index
    places = np.concatenate([index.order[s + np.arange(number // 10) % n] for s, n in zip(index.starts, index.counts)])
    order = np.random.default_rng(0).permutation(len(places))
    chosen = torch.from_numpy(data.split.train[places[order]])
    return Batch(data.images.take(chosen), torch.from_numpy(data.split.labels(data.source))[chosen], chosen)


def made(network: M2mClassifier, batch: Batch, step: Step | None = None) -> tuple[torch.Tensor, dict[str, float]]:
    """The batch with its generated images, and the numbers that are logged."""
    unit = network.to_unit(batch.images)
    mixed, numbers = network.with_generated(unit, step or step_of(None, 0, 0, batch))
    return mixed, dict(zip(LOGS, numbers.tolist()))


def unit_of(batch: Batch) -> torch.Tensor:
    return batch.images.float().mul_(1 / 255)


def changed(batch: Batch, mixed: torch.Tensor) -> torch.Tensor:
    return (mixed != unit_of(batch)).flatten(1).any(1)


# -- stages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["loss=ldam"],
        ["sampler=effective_number"],
        ["sampler=class_balanced"],
        ["loss=focal_sigmoid"],
        ["head=cosine"],
    ],
)
def test_the_generator_is_the_representation_of_erm(more):
    assert planned("method=m2m", *more).keys["generator"] == planned().keys["representation"]


def test_the_generator_follows_the_length_the_schedule_and_the_head_of_the_run():
    more = ("trainer.max_epochs=7", "optimizer.lr=0.05", "seed=3", "head.bias=false")
    assert planned("method=m2m", *more).keys["generator"] == planned(*more).keys["representation"]


@pytest.mark.parametrize("option", ["beta=0.99", "lam=0", "seed_source=dataset", "noise=none", "insert=seed"])
def test_an_option_changes_the_key_of_the_classifier_and_not_of_the_generator(option):
    plain, other = planned("method=m2m"), planned("method=m2m", f"method.{option}")
    assert plain.keys["classifier"] != other.keys["classifier"]
    assert plain.keys["generator"] == other.keys["generator"]


def test_classifier_and_generator_start_from_different_weights():
    f = networks()
    g = planned("method=m2m").stages["generator"]
    fresh = g.network(f.dataset_info, 0)
    assert not torch.equal(f.backbone.stage1[0].weight, fresh.backbone.stage1[0].weight)


def test_in_the_last_fifth_batches_are_class_balanced_and_images_are_generated():
    sampler = planned("method=m2m").stages["classifier"].settings.sampler
    assert sampler["_target_"].endswith("ClassBalanced")
    assert sampler["defer_from"] == 0.8
    f = networks("trainer.max_epochs=10")
    active = []
    for epoch in range(10):
        f.start_epoch(epoch)
        active.append(f.generating)
    assert active == [False] * 8 + [True] * 2


# -- one step --------------------------------------------------------------------------------------------------------


def test_before_the_start_a_step_is_that_of_erm_and_logs_the_same_names():
    f, batch = networks(), balanced_batch()
    f.start_epoch(0)
    actual = f.training_step(batch, 0)
    with torch.no_grad():
        assert actual["loss"].item() == f.loss(f(f.to_unit(batch.images)), batch.labels).item()
    assert {name: value.item() for name, value in actual["logs"].items()} == dict.fromkeys(LOGS, 0.0)
    f.start_epoch(39)
    assert tuple(f.training_step(batch, 0)["logs"]) == LOGS


def test_only_accepted_slots_are_replaced():
    f, batch = networks(), balanced_batch()
    mixed, numbers = made(f, batch)
    replaced = changed(batch, mixed)
    assert 0 < replaced.sum() < 60
    assert replaced.float().mean().item() == pytest.approx(numbers["accepted"])
    assert not replaced[batch.labels == 0].any()  # the largest class
    assert mixed.min() >= 0
    assert mixed.max() <= 1
    assert mixed.is_contiguous(memory_format=torch.channels_last)


def test_the_generator_is_confident_in_accepted_images():
    f, batch = networks("method.gamma=0.2"), balanced_batch()
    mixed, _ = made(f, batch)
    replaced = changed(batch, mixed)
    with torch.no_grad():
        probability = f.generator(mixed).softmax(1).gather(1, batch.labels[:, None])[:, 0]
    assert replaced.any()
    assert (probability[replaced] >= 0.2 - 1e-5).all()


def test_the_logged_shares_add_up():
    _, numbers = made(networks("method.gamma=0.2"), balanced_batch())
    parts = [numbers[name] for name in ("accepted", "rejected_by_confidence", "rejected_by_chance")]
    assert sum(parts) == pytest.approx(numbers["slots"])
    assert all(part > 0 for part in parts)
    assert 1 < numbers["perturbation_norm"] < 3.5


@pytest.mark.parametrize(
    ("rejection", "missing"),
    [("none", {"rejected_by_confidence", "rejected_by_chance"}), ("chance", {"rejected_by_confidence"})],
)
def test_a_disabled_rejection_test_accepts_everything(rejection, missing):
    both = made(networks("method.gamma=0.2"), balanced_batch())[1]
    fewer = made(networks("method.gamma=0.2", f"method.rejection={rejection}"), balanced_batch())[1]
    assert fewer["slots"] == both["slots"]
    assert fewer["accepted"] > both["accepted"]
    if rejection == "none":
        assert fewer["accepted"] == fewer["slots"]


def test_the_papers_threshold_is_on_the_loss():
    probability = networks("method.gamma=0.2")
    loss = networks(f"method.gamma={-np.log(0.2)}", "method.accept_on=loss")
    assert torch.equal(made(probability, balanced_batch())[0], made(loss, balanced_batch())[0])


def test_a_seed_may_come_from_the_whole_training_set(monkeypatch):
    f, batch = networks("method.seed_source=dataset", "method.insert=seed", "method.rejection=none"), balanced_batch()
    monkeypatch.setattr(M2mClassifier, "_data", planned().data)
    mixed, _ = made(f, batch)
    data = planned().data
    train = data.images.take(torch.from_numpy(data.split.train)).float().mul_(1 / 255)
    labels = data.split.labels(data.source)[data.split.train]
    counts = np.asarray(f.dataset_info.class_counts)
    rows = changed(batch, mixed).nonzero()[:, 0]
    assert len(rows) > 20
    in_batch = 0
    for row in rows:
        index = (train == mixed[row]).flatten(1).all(1).nonzero()[0, 0]
        assert counts[labels[index]] > counts[batch.labels[row]]
        in_batch += int(data.split.train[index] in batch.indices)
    assert in_batch < len(rows) / 2


def test_the_control_puts_unchanged_seeds_into_the_same_slots():
    batch = balanced_batch()
    generated, seeds = (made(networks(f"method.insert={kind}"), batch) for kind in ("generated", "seed"))
    assert generated[1] == seeds[1]
    rows = changed(batch, seeds[0])
    assert torch.equal(rows, changed(batch, generated[0]))
    of_batch = unit_of(batch)
    assert all((of_batch == image).flatten(1).all(1).any() for image in seeds[0][rows])


def test_the_noise_control_has_perturbations_of_the_same_norm():
    batch = balanced_batch()
    seeds, noise, generated = (made(networks(f"method.insert={k}"), batch)[0] for k in ("seed", "noise", "generated"))
    rows = changed(batch, seeds)
    lengths = [generation.norms(actual[rows] - seeds[rows]) for actual in (noise, generated)]
    assert torch.allclose(*lengths, rtol=0.02)
    assert not torch.allclose(noise[rows], generated[rows], atol=0.05)


def test_random_targets_generate_other_images_than_the_slots_class():
    batch = balanced_batch()
    one, other = (made(networks(f"method.target={t}", "method.rejection=none"), batch)[0] for t in ("slot", "random"))
    assert torch.equal(changed(batch, one), changed(batch, other))
    assert not torch.allclose(one, other, atol=0.05)


def test_lambda_changes_the_generated_images():
    one, other = (made(networks(f"method.lam={lam}", "method.rejection=none"), balanced_batch())[0] for lam in (0, 5))
    assert not torch.allclose(one, other, atol=0.05)


def test_under_a_cosine_head_lambda_weighs_the_cosine():
    f = networks("loss=ldam")
    unit, target, source = torch.rand(2, 1, 8, 8), torch.tensor([8, 9]), torch.tensor([0, 1])
    images, _ = f.generate(unit, target, source)
    objective = generation.towards_and_away(f.generator, lambda x: f(x) / 30, target, source, 0.5)
    with generation.frozen(f.backbone, f.head):
        expected = generation.translate(objective, unit, steps=3, step_size=1.0)
    assert torch.allclose(images, expected, atol=1e-5)


@pytest.mark.parametrize("more", [[], ["loss=ldam"]])
def test_generating_images_changes_neither_network(more):
    f, batch = networks(*more), balanced_batch()
    f.head.eval()
    before, of_g = state(f), state(f.generator)
    made(f, batch)
    assert same_bits(before, state(f))
    assert same_bits(of_g, state(f.generator))
    assert all(p.grad is None for p in (*f.parameters(), *f.generator.parameters()))
    assert f.backbone.training
    assert not f.head.training
    assert not f.generator.training
    assert all(p.requires_grad for p in f.parameters())


def test_only_the_classifier_learns_from_the_mixed_batch():
    f, batch = networks(), balanced_batch()
    f.training_step(batch, 0)["loss"].backward()
    assert all(p.grad is not None for p in f.parameters())
    assert all(p.grad is None for p in f.generator.parameters())


def test_the_gradient_is_that_of_the_mixed_batch_only():
    f, batch = networks(), balanced_batch()
    f.training_step(batch, 0)["loss"].backward()
    actual = [p.grad.clone() for p in f.parameters()]
    other = networks()
    mixed, _ = made(other, batch)
    other.loss(other(mixed), batch.labels).backward()
    assert all(torch.allclose(a, p.grad, atol=1e-6) for a, p in zip(actual, other.parameters()))


def test_a_step_is_a_function_of_the_seed():
    batch = balanced_batch()
    torch.manual_seed(1)
    first = made(networks(), batch)
    torch.manual_seed(2)
    assert torch.equal(first[0], made(networks(), batch)[0])
    assert not torch.equal(first[0], made(networks(seed=1), batch)[0])


def test_each_step_of_an_epoch_has_different_random_numbers():
    f, batch = networks("method.rejection=none", "method.insert=seed"), balanced_batch()
    labels = batch.labels.numpy()
    one, other = (made(f, batch, Step(labels, np.arange(first, first + 60)))[0] for first in (0, 60))
    assert not torch.equal(changed(batch, one), changed(batch, other))


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [9, 9, 9, 9]])
def test_a_batch_without_seeds_is_unchanged(labels):
    f, batch = networks(), balanced_batch()
    batch = batch._replace(images=batch.images[:4], labels=torch.tensor(labels), indices=batch.indices[:4])
    mixed, numbers = made(f, batch)
    assert torch.equal(mixed, unit_of(batch))
    assert numbers["accepted"] == 0
    assert (numbers["slots"] > 0) == (labels[0] == 9)


def test_generation_is_of_single_precision_under_autocast():
    f, batch = networks(), balanced_batch()
    plain = made(f, batch)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = made(f, batch)[0]
    assert under.dtype == torch.float32
    assert torch.equal(plain, under)


def test_two_processes_generate_the_images_of_one(monkeypatch):
    f, batch = networks("method.noise=official"), balanced_batch()
    labels, positions = batch.labels.numpy(), np.arange(60)
    whole, _ = made(f, batch)
    gathered = f.to_unit(batch.images)
    monkeypatch.setattr("ltr.methods.m2m.network.gather_images", lambda unit, world_size: gathered)
    for rank in (0, 1):
        share = Batch(batch.images[rank::2], batch.labels[rank::2], batch.indices[rank::2])
        mixed, _ = made(f, share, Step(labels, positions, rank, 2))
        assert torch.allclose(mixed, whole[rank::2], atol=1e-5)


def test_images_of_processes_are_gathered_in_the_order_of_the_batch(monkeypatch):
    whole = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 2, 3, 3).contiguous()

    def all_gather(parts, own):
        for rank, part in enumerate(parts):
            part.copy_(whole[rank::2].permute(0, 2, 3, 1))

    monkeypatch.setattr("torch.distributed.all_gather", all_gather)
    assert torch.equal(gather_images(whole[1::2], 2), whole)


def test_a_network_without_its_generator_generates_no_image():
    stage = planned("method=m2m").stages["classifier"]
    f = stage.network(planned("method=m2m").dataset_info, 0)
    with pytest.raises(CheckpointError, match="network of its stage 'generator'"):
        _ = f.generator


# -- refusals --------------------------------------------------------------------------------------------------------


def test_joint_labels_as_a_further_term_are_refused_with_the_reason():
    plan = planned("method=m2m")
    settings = plan.stages["classifier"].settings.replaced(extras=({"_target_": "ltr.methods.sla.method.SLA"},))
    with pytest.raises(ConfigError, match=r"method\.extras: SLA does not combine with method=m2m.*plain classes"):
        plan.method.stages(settings, plan.dataset_info)


@pytest.mark.parametrize(("name", "reason"), [("sla", "SLA does not combine"), ("erm", r"method\.start_from")])
def test_another_method_below_is_refused_with_the_reason(name, reason):
    with pytest.raises(ConfigError, match=rf"method\.representation: .*{reason}"):
        planned("method=m2m", f"+method@method.representation={name}")


def test_mixed_images_are_refused_with_the_reason():
    with pytest.raises(ConfigError, match=r"augment\.mix=mixup: a mixed image has two classes"):
        planned("method=m2m", "augment=cifar_mixup")


def test_a_probability_above_1_is_refused():
    with pytest.raises(ConfigError, match=r"method\.gamma=2.*accept_on=loss"):
        planned("method=m2m", "method.gamma=2")
    planned("method=m2m", "method.gamma=2", "method.accept_on=loss")


def test_seeds_of_image_files_come_from_the_batch_only():
    with pytest.raises(ConfigError, match=r"method\.seed_source=batch"):
        planned("method=m2m", "method.seed_source=dataset", "augment=imagenet")


def test_equal_class_counts_warn():
    dataset_info = dataclasses.replace(planned().dataset_info, class_counts=(50,) * 10)
    with pytest.warns(UserWarning, match="no more frequent class for seeds"):
        planned("method=m2m").method.check(dataset_info)


# -- runs ------------------------------------------------------------------------------------------------------------

RUN = [*EASY, "method.noise=official", "trainer.max_epochs=4", "sampler.defer_from=0.5", "trainer.precision=fp32"]


@pytest.mark.slow
def test_a_run_logs_its_slots_and_stores_examples_of_generated_images(ltr_train):
    whole = ltr_train(*RUN)
    assert whole.code == 0, whole.err
    rows = [row for row in metric_rows(whole.directory) if row["stage"] == "classifier"]
    assert [float(row["train/slots"]) > 0 for row in rows] == [False, False, True, True]
    assert all(float(row["train/accepted"]) > 0 for row in rows[2:])
    with np.load(whole.directory / "artifacts" / "classifier.npz") as sheet:
        assert sheet["result"].shape == sheet["seed"].shape == (4, 6, 8, 8, 1)
        assert sheet["label"].tolist() == [9, 8, 7, 6]
        moved = sheet["result"].astype(float) / 255 - sheet["seed"].astype(float) / 255
        assert np.abs(moved - sheet["perturbation"].astype(float)).max() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [["method.seed_source=dataset", "loss=ldam", "augment=digits"], ["dataset=digits_bg"], ["dataset=digits_open"]],
)
def test_other_protocols_train_with_ldam_and_seeds_of_the_whole_set(ltr_train, more):
    done = ltr_train(*RUN, "trainer.max_epochs=2", "trainer.limit_train_batches=2", *more)
    assert done.code == 0, done.err
    assert float(metric_rows(done.directory)[-1]["train/slots"]) > 0
