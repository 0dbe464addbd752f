"""ARPL+CS: what its steps train, what is counted, that a resume changes no bit, what is refused."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch
from method_plans import planned, state

from ltr.errors import ConfigError

SMALL = ("dataset=digits_open", "method=arpl_cs", "method.width=2", "method.noise_dim=8", "trainer.precision=fp32")
SHORT = (*SMALL, "trainer.max_epochs=2", "trainer.limit_train_batches=4", "optimizer.lr=0.02")


class Trainer:
    """As much of Lightning's trainer as a step of several optimisers asks for."""

    world_size = 1
    current_epoch = 0

    def __init__(self, network) -> None:
        self.steps = 0
        main, _ = network.optimisation(8)
        adam = [torch.optim.Adam(m.parameters(), lr=2e-4) for m in (network.generator, network.discriminator)]
        self.optimizers = [main, *adam]
        network._trainer = self
        network.optimizers = lambda use_pl_optimizer=True: self.optimizers
        network.lr_schedulers = lambda: self
        network.manual_backward = lambda loss: loss.backward()

    def step(self) -> None:
        self.steps += 1


def network(*overrides: str):
    plan = planned(*SMALL, *overrides)
    stage = plan.stages["representation"]
    built = stage.network(plan.dataset_info, 0)
    built.start_epoch(0)
    return built.train(), plan.batch()


def test_a_step_trains_all_three_networks_and_both_sets_of_statistics():
    built, batch = network()
    trainer = Trainer(built)
    before = state(built)
    built.training_step(batch, 0)
    after = state(built)
    for part in ("backbone", "head", "generator", "discriminator", "norms"):
        names = [name for name in before if name.startswith(part)]
        assert [name for name in names if torch.equal(before[name], after[name])] == []
    assert trainer.steps == 1  # of the schedule


def test_the_first_batch_sets_the_radius_once(monkeypatch):
    built, batch = network("method.radius_init=first_batch")
    Trainer(built)
    calls = []
    start = built.start
    monkeypatch.setattr(built, "start", lambda *arguments: calls.append(start(*arguments)))
    for step in range(2):
        built.training_step(batch, step)
    assert len(calls) == 1


def test_after_a_step_every_parameter_is_trainable_again():
    built, batch = network()
    Trainer(built)
    built.training_step(batch, 0)
    assert all(parameter.requires_grad for parameter in built.parameters())


def test_the_generators_step_gives_the_classifier_no_gradient(monkeypatch):
    built, batch = network()
    trainer = Trainer(built)
    seen = []

    def step(*_, **__):
        seen.append([name for name, p in built.backbone.named_parameters() if p.grad is not None])

    monkeypatch.setattr(trainer.optimizers[1], "step", step)
    built.training_step(batch, 0)
    assert seen == [[]]


def test_the_noise_is_a_function_of_seed_epoch_and_batch():
    built, _ = network()
    assert torch.equal(built.noise(5, 3), built.noise(5, 3))
    assert not torch.equal(built.noise(5, 3), built.noise(5, 4))
    first, second = built.noise(5, 3)
    assert not torch.equal(first, second)


def test_the_gradient_is_clipped_by_the_network_itself(monkeypatch):
    built, batch = network("trainer.gradient_clip=0.01")
    Trainer(built)
    norms = []
    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda p, limit: norms.append(limit) or clip(p, limit))
    built.training_step(batch, 0)
    assert norms == [0.01, 0.01]
    total = torch.nn.utils.get_total_norm([p.grad for p in built.backbone.parameters() if p.grad is not None])
    assert float(total) <= 0.0101


def test_predictions_are_those_of_the_statistics_of_real_images():
    built, batch = network()
    built.eval()
    before = built.predict(batch.images)["default"].logits
    with torch.no_grad():
        for tensor in built.norms.buffers():
            tensor.add_(3)
    assert torch.equal(built.predict(batch.images)["default"].logits, before)


def test_examples_are_generated_images():
    built, batch = network()
    actual = built.eval().examples(batch.images[:4], batch.labels[:4])["confusing_samples"]
    assert actual.shape == (4, 8, 8, 1)
    assert actual.dtype == "uint8"


@pytest.mark.slow
def test_a_run_counts_one_step_for_each_batch_and_logs_every_loss(ltr_train):
    finished = ltr_train(*SHORT)
    assert finished.code == 0, finished.err
    with open(finished.directory / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["4", "8"]
    logged = {name for name in rows[0] if name.startswith("train/")}
    assert {"train/class_term", "train/margin_term", "train/fooling_loss", "train/confusion"} <= logged
    assert {row["scorer"] for row in finished.result["rows"]} == {"max_logit", "msp", "distance"}


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("trainer.accumulate=2", "trainer.accumulate=2"),
        ("loss=ldam", "cross_entropy"),
    ],
)
def test_unsupported_options_are_refused_by_name(override, named):
    with pytest.raises(ConfigError, match=named):
        planned(*SMALL, override)


def test_image_shapes_that_the_generator_does_not_support_are_refused_before_training():
    plan = planned(*SMALL)
    with pytest.raises(ConfigError, match="arpl_cs generates images"):
        plan.method.check(replace(plan.dataset_info, image_shape=(1, 9, 9)))
