"""Counted operations of trainings of the digits."""

from __future__ import annotations

import pytest

from ltr.configuration.overrides import load_config
from ltr.data.sources.digits import digits
from ltr.runs.plan import plan_of
from ltr.runs.processes.interrupt import StopRequest
from training_operations import training_operations

SOURCE = digits()


def operations(*overrides: str) -> float:
    config = load_config(["trainer.max_epochs=4", "trainer.precision=fp32", *overrides])
    return training_operations(config, plan_of(config, SOURCE), StopRequest())


def number_of_training_images(*overrides: str) -> int:
    return len(plan_of(load_config([*overrides]), SOURCE).split.train)


@pytest.fixture(scope="module")
def plain() -> float:
    return operations()


def test_a_gradient_at_perturbed_weights_counts_twice(plain):
    assert operations("sharpness=sam") == pytest.approx(2 * plain)


def test_gradients_within_a_step_count(plain):
    assert plain < operations("method=cc_sam", "method.classifier.epochs=1") < 2 * plain


def test_operations_are_proportional_to_the_number_of_epochs(plain):
    assert operations("trainer.max_epochs=8") == pytest.approx(2 * plain)


def test_a_frozen_backbone_counts_its_forward_pass_only(plain):
    classifier = operations("method=crt", "method.classifier.epochs=4") - plain
    assert plain / 4 < classifier < plain / 2


def test_a_stage_that_builds_on_computed_ones_is_counted_without_them(plain):
    background = ("dataset=digits_bg", "method=background_splitting")
    share = number_of_training_images(*background) / number_of_training_images()
    # the second head is the only addition to the network
    assert plain * share < operations(*background) < 1.05 * plain * share


def test_computed_stages_that_no_training_needs_are_skipped(plain):
    assert operations("method=ncm") == pytest.approx(plain)
