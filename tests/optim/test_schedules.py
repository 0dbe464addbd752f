"""Schedules against values computed by hand at the boundaries of epochs."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ltr.configuration.configs import read_config
from ltr.configuration.run_lengths import resolve_run_lengths
from ltr.configuration.targets import instantiate
from ltr.errors import ConfigError
from ltr.optim.schedules import Constant, Cosine, CosineRestarts, MultiStep, OneCycle, ReleasedCosine, milestone_epoch

STEPS = 7  # per epoch
CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "scheduler").glob("*.yaml"))
configs = pytest.mark.parametrize("config", CONFIGS, ids=[config.stem for config in CONFIGS])


def from_config(name: str, epochs: int = 200, steps: int = STEPS, **changes):
    plain = {"scheduler": {**read_config(f"scheduler/{name}"), **changes}, "trainer": {"max_epochs": epochs}}
    resolve_run_lengths(plain)
    return instantiate(plain["scheduler"], epochs, steps)


@pytest.mark.parametrize(
    ("epoch", "multiplier"),
    [
        (0, 0.2),
        (1, 0.4),
        (3, 0.8),
        (4, 1.0),
        (5, 1.0),
        (159, 1.0),
        (160, 1e-2),
        (179, 1e-2),
        (180, 1e-4),
        (199, 1e-4),
    ],
)
def test_the_ldam_schedule_drops_at_epochs_160_and_180_of_200(epoch, multiplier):
    schedule = from_config("ldam")
    assert schedule(epoch * STEPS) == pytest.approx(multiplier)
    assert schedule(epoch * STEPS + STEPS - 1) == pytest.approx(multiplier)


@pytest.mark.parametrize(
    ("step", "multiplier"),
    [(0, 0.0), (1, 1 / 35), (STEPS, 0.2), (5 * STEPS - 1, 34 / 35), (5 * STEPS, 1.0), (160 * STEPS, 1e-2)],
)
def test_the_class_balanced_papers_warm_up_rises_with_every_step(step, multiplier):
    assert from_config("ldam", warmup="step")(step) == pytest.approx(multiplier)


def test_the_ldam_drops_scale_with_the_length():
    schedule = from_config("ldam", epochs=30)
    assert [schedule(epoch * STEPS) for epoch in (23, 24, 26, 27)] == pytest.approx([1, 1e-2, 1e-2, 1e-4])


@pytest.mark.parametrize(("fraction", "epochs", "epoch"), [(0.8, 200, 160), (0.9, 200, 180), (0.8, 7, 6), (0.1, 3, 0)])
def test_a_fraction_is_the_nearest_whole_epoch(fraction, epochs, epoch):
    assert milestone_epoch(fraction, epochs) == epoch


def test_milestones_may_be_epochs():
    schedule = MultiStep(90, STEPS, milestones=[30, 60], gamma=0.1)
    assert [schedule(epoch * STEPS) for epoch in (0, 29, 30, 59, 60, 89)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert MultiStep(90, STEPS, milestones=[1], gamma=0.1)(STEPS) == pytest.approx(0.1)  # the first, not the whole run


@pytest.mark.parametrize("milestones", [[0.9, 0.8], [0.0], [-1], [200], [1.5], [160, 0.5]])
def test_milestones_outside_the_run_or_falling_are_refused(milestones):
    with pytest.raises(ConfigError, match="milestones"):
        MultiStep(200, STEPS, milestones=milestones)


@pytest.mark.parametrize(("epochs", "last"), [(5, 1.0), (6, 1e-4), (200, 1e-4)])
def test_a_milestone_within_the_warm_up_counts_from_its_end(epochs, last):
    assert from_config("ldam", epochs=epochs, warmup_epochs=5)(epochs * STEPS - 1) == pytest.approx(last)


@pytest.mark.parametrize(("epoch", "multiplier"), [(0, 1.0), (2, 0.9045085), (5, 0.5), (9, 0.0244717), (10, 0.0)])
def test_cosine_per_epoch_is_constant_within_an_epoch(epoch, multiplier):
    schedule = from_config("cosine", epochs=10)
    assert schedule(epoch * STEPS) == pytest.approx(multiplier, abs=1e-6)
    if epoch < 10:
        assert schedule(epoch * STEPS + STEPS - 1) == pytest.approx(multiplier, abs=1e-6)


@pytest.mark.parametrize(("step", "multiplier"), [(0, 1.0), (10, 0.9755283), (50, 0.5), (99, 0.0002467), (100, 0.0)])
def test_cosine_per_step_changes_with_every_step(step, multiplier):
    assert Cosine(10, 10, per="step")(step) == pytest.approx(multiplier, abs=1e-6)


@pytest.mark.parametrize(("step", "multiplier"), [(0, 0.0), (10, 0.5), (20, 1.0), (60, 0.55), (100, 0.1), (500, 0.1)])
def test_cosine_has_a_warm_up_and_a_final_value(step, multiplier):
    schedule = Cosine(10, 10, per="step", warmup_epochs=2, final=0.1)
    assert schedule(step) == pytest.approx(multiplier)


def released(total: int, warmup: int) -> np.ndarray:
    """HERBS's and PIM's rates by their formula, of every batch of a run, at a base learning rate of 1."""
    rise = np.arange(warmup) / (warmup - 1) if warmup > 1 else np.zeros(warmup)
    return np.concatenate([rise, (1 + np.cos(np.pi * np.arange(total - warmup) / total)) / 2])


@pytest.mark.parametrize("warmup_epochs", [0, 1 / 749, 2, 80])
def test_the_released_schedule_changes_with_every_batch(warmup_epochs):
    schedule = from_config("herbs", epochs=80, steps=749, warmup_epochs=warmup_epochs)
    expected = released(80 * 749, round(warmup_epochs * 749))
    rates = [schedule(batch) for batch in range(80 * 749)]
    np.testing.assert_allclose(rates, expected, atol=1e-12)
    assert schedule(80 * 749) == rates[-1]  # asked for after the last step of a run


@pytest.mark.parametrize(
    ("epochs", "batches", "warmup", "apart"),
    [(80, 749, 1500, 0.023), (50, 374, 800, 0.040)],  # HERBS and PIM on CUB
)
def test_the_released_schedule_never_reaches_zero(epochs, batches, warmup, apart):
    lengths = {"epochs": epochs, "steps": batches, "warmup_epochs": warmup / batches}
    actual, textbook = from_config("herbs", **lengths), from_config("cosine_per_step", **lengths)
    steps = epochs * batches
    assert actual(steps - 1) == pytest.approx((1 + math.cos(math.pi * (steps - 1 - warmup) / steps)) / 2, abs=1e-12)
    assert actual(steps - 1) > 0.0015
    assert textbook(steps) == pytest.approx(0, abs=1e-12)
    assert max(abs(actual(step) - textbook(step)) for step in range(steps)) == pytest.approx(apart, abs=5e-4)


@pytest.mark.parametrize(("batches", "accumulate"), [(749, 4), (12, 4), (5, 2), (3, 8)])
def test_an_accumulated_step_has_the_released_rate_of_its_last_batch(batches, accumulate):
    steps = math.ceil(batches / accumulate)
    schedule = ReleasedCosine(6, steps, warmup_epochs=2)
    schedule.count_batches(batches, accumulate)
    rates = released(6 * batches, 2 * batches).reshape(6, batches)
    last = [min((step + 1) * accumulate, batches) - 1 for step in range(steps)]
    np.testing.assert_allclose([schedule(step) for step in range(6 * steps)], rates[:, last].ravel(), atol=1e-12)


def test_a_resumed_run_has_the_released_rates_of_an_uninterrupted_one():
    def run(steps: int, state: dict | None = None) -> tuple[list[float], dict]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        schedule = from_config("herbs", epochs=4, steps=7, warmup_epochs=1)
        schedule.count_batches(14, 2)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        if state is not None:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            buffer.seek(0)
            read = torch.load(buffer, weights_only=True)
            scheduler.load_state_dict(read["scheduler"])
            optimizer.load_state_dict(read["optimizer"])
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return rates, {"scheduler": scheduler.state_dict(), "optimizer": optimizer.state_dict()}

    whole, _ = run(28)
    first, state = run(10)
    rest, _ = run(18, state)
    assert first + rest == whole


def test_constant_is_one_after_its_warm_up():
    schedule = Constant(4, 10, warmup_epochs=2, warmup="epoch")
    assert [schedule(step) for step in (0, 9, 10, 20, 39)] == [0.5, 0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(("epochs", "steps"), [(10, 10), (3, 7), (1, 5)])
def test_one_cycle_equals_torchs(epochs, steps):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=epochs * steps, cycle_momentum=False
    )
    actual = from_config("one_cycle", epochs=epochs, steps=steps)
    for step in range(epochs * steps):
        assert actual(step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        if step + 1 < epochs * steps:
            reference.step()


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("steps", [1, 2])
def test_one_cycle_is_defined_for_the_shortest_runs(epochs, steps):
    schedule = OneCycle(epochs, steps)
    assert all(0 < schedule(step) <= 1 for step in range(epochs * steps + 1))


@configs
def test_every_schedule_stays_within_0_and_1_and_never_fails_after_the_end(config):
    schedule = from_config(config.stem, epochs=30, steps=3)
    values = [schedule(step) for step in range(100)]
    assert all(0 <= value <= 1 for value in values)
    assert math.isclose(max(values), 1.0, abs_tol=0.02)


@configs
def test_no_warm_up_is_possible_in_a_run_of_one_epoch(config):
    assert from_config(config.stem, epochs=1, warmup_epochs=0)(0) == 1.0


@configs
@pytest.mark.parametrize("epochs", [1, 2, 3, 5])
def test_every_schedule_fits_short_runs_and_reaches_the_base_rate(config, epochs):
    schedule = from_config(config.stem, epochs=epochs)
    assert max(schedule(step) for step in range(epochs * STEPS)) > 0.8


@configs
def test_a_warm_up_longer_than_the_run_is_refused(config):
    with pytest.raises(ConfigError, match=r"warmup_epochs is 5 .*run has 3 epochs"):
        from_config(config.stem, epochs=3, warmup_epochs=5)


@configs
def test_the_state_of_lambda_lr_loads_without_pickled_code(config):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, from_config(config.stem))
    buffer = io.BytesIO()
    torch.save(scheduler.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    scheduler.load_state_dict(state)
    assert state["lr_lambdas"][0]["epochs"] == 200


@pytest.mark.parametrize(("epochs", "steps"), [(0, 5), (5, 0)])
def test_a_run_without_steps_is_refused(epochs, steps):
    with pytest.raises(ConfigError, match="at least one step"):
        Constant(epochs, steps)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (Constant, {"warmup": "batch"}),
        (Cosine, {"per": "batch"}),
        (Cosine, {"final": 2}),
        (MultiStep, {"milestones": [0.5], "gamma": 0}),
        (OneCycle, {"start_div": 0.5}),
    ],
)
def test_options_out_of_range_are_refused(make, options):
    with pytest.raises(ConfigError, match=rf"scheduler\.{'|'.join(options)}"):
        make(10, 10, **options)


def test_background_splittings_warm_up_starts_at_a_tenth_as_in_its_code():
    schedule = from_config("background_splitting", epochs=90)
    assert schedule(0) == pytest.approx(0.1)
    assert schedule(STEPS - 1) == pytest.approx(0.1 + 0.9 * (STEPS - 1) / STEPS)
    assert [schedule(epoch * STEPS) for epoch in (1, 20, 21, 41, 61, 81)] == pytest.approx(
        [1, 1, 0.1, 1e-2, 1e-3, 1e-4]
    )


def test_the_beginning_of_a_warm_up_by_epochs_cannot_be_chosen():
    with pytest.raises(ConfigError, match=r"warmup_from=0\.1 has no effect with scheduler\.warmup=epoch"):
        MultiStep(10, STEPS, milestones=[0.5], warmup_epochs=2, warmup="epoch", warmup_from=0.1)


def test_cosine_restarts_are_those_of_torch_with_the_previous_epochs_number():
    """The code of Vaze et al. calls ``scheduler.step(epoch)`` of torch's warm restarts after each epoch."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    restarts = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=200, eta_min=1e-3)
    expected = []
    for epoch in range(600):
        expected.append(optimizer.param_groups[0]["lr"])
        restarts.step(epoch)
    without_warm_up = CosineRestarts(600, STEPS)
    assert [without_warm_up(epoch * STEPS + 3) for epoch in range(600)] == pytest.approx(expected)
    schedule = from_config("cosine_restarts", epochs=600)
    assert [schedule(epoch * STEPS) for epoch in range(11, 600)] == pytest.approx(expected[11:])
    joins_at = 1e-3 + (1 - 1e-3) * (1 + math.cos(math.pi * 10 / 200)) / 2
    rise = [1e-3 + (joins_at - 1e-3) * epoch / 10 for epoch in range(11)]
    assert [schedule(epoch * STEPS + STEPS - 1) for epoch in range(11)] == pytest.approx(rise)
