"""timm's schedules by name: timm's own values, the interface of a schedule, and errors."""

from __future__ import annotations

import pytest
import torch
from timm.scheduler import create_scheduler_v2

from ltr.configuration.configs import read_config
from ltr.configuration.targets import instantiate
from ltr.errors import ConfigError
from ltr.optim.timm_schedules import NAMES, TimmSchedule

EPOCHS, STEPS = 12, 5
MORE = {"multistep": {"decay_milestones": [4, 8]}, "step": {"decay_epochs": 4.0}}


@pytest.mark.parametrize("per", ["epoch", "step"])
@pytest.mark.parametrize("name", NAMES)
def test_multipliers_equal_those_of_a_training_loop_with_timm(name, per):
    more = MORE.get(name, {})
    schedule = TimmSchedule(EPOCHS, STEPS, name=name, per=per, warmup_epochs=2, warmup_lr=0.25, min_lr=0.125, **more)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, epochs = create_scheduler_v2(
        optimizer, name, EPOCHS, warmup_epochs=2, warmup_lr=0.25, min_lr=0.125, cycle_decay=1.0,
        step_on_epochs=per == "epoch", updates_per_epoch=STEPS, **more,
    )  # fmt: skip
    assert epochs == EPOCHS
    values, updates = [], 0
    for epoch in range(EPOCHS):
        for _ in range(STEPS):
            values.append(optimizer.param_groups[0]["lr"])
            updates += 1
            scheduler.step_update(num_updates=updates)
        scheduler.step(epoch + 1)
    assert [schedule(step) for step in range(EPOCHS * STEPS)] == pytest.approx(values, abs=1e-12)
    assert len(set(values)) > 2
    assert schedule(EPOCHS * STEPS) == schedule(EPOCHS * STEPS - 1)


def test_a_value_depends_on_the_step_only():
    schedule = TimmSchedule(EPOCHS, STEPS, name="tanh", per="step")
    forwards = [schedule(step) for step in range(20)]
    assert [schedule(step) for step in reversed(range(20))] == forwards[::-1]
    other = TimmSchedule(EPOCHS, STEPS, name="tanh", per="step", min_lr=0.5)
    assert [schedule(3), other(3), schedule(3)] == [forwards[3], other(3), forwards[3]]


def test_the_state_has_plain_values_and_resumes():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, TimmSchedule(EPOCHS, STEPS, per="step"))
    for _ in range(7):
        optimizer.step()
        scheduler.step()
    again = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    resumed = torch.optim.lr_scheduler.LambdaLR(again, TimmSchedule(EPOCHS, STEPS, per="step"))
    resumed.load_state_dict(scheduler.state_dict())
    again.load_state_dict(optimizer.state_dict())
    for _ in range(3):
        for each in (optimizer, again, scheduler, resumed):
            each.step()
        assert again.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] < 2.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "cosin"}, "allowed are cosine.*Did you mean 'cosine'"),
        ({"name": "plateau"}, "follows a metric"),
        ({"name": "multistep"}, "decay_milestones is empty"),
        ({"per": "batch"}, "allowed is one of: epoch, step"),
        ({"warmup_epochs": 13}, "the run has 12 epochs"),
        ({"cooldown_epochs": 12}, "cooldown_epochs=12.*12 epochs"),
        ({"name": "step", "cooldown_epochs": 2}, "cooldown_epochs=2 has no effect on name=step"),
        (
            {"name": "multistep", "decay_milestones": [4], "cooldown_epochs": 2},
            "cooldown_epochs=2 has no effect on name=multistep",
        ),
        ({"warmup_epochs": 12, "warmup_prefix": True}, "timm cannot build it"),
    ],
)
def test_incompatible_options_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        TimmSchedule(EPOCHS, STEPS, **arguments)


def test_the_config_builds_a_cosine_schedule():
    schedule = instantiate(read_config("scheduler/timm"), EPOCHS, STEPS)
    assert schedule(0) == 1.0
    assert schedule(EPOCHS * STEPS // 2) == pytest.approx(0.5)
