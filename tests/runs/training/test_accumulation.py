"""trainer.accumulate: a step over several batches is the step over one batch of all their images."""

from __future__ import annotations

import pytest
import torch

import resuming

# 500 images: 8 batches of 60 and one of 20
SHORT = ("trainer.max_epochs=2", "trainer.precision=fp32", "trainer.accelerator=cpu", "augment=none")


def weights(done) -> dict[str, torch.Tensor]:
    assert done.code == 0, done.err
    return resuming.weights(done.directory)


def differences(first, second) -> float:
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.mark.parametrize("together", [5, 100])
def test_a_step_over_several_batches_is_the_step_over_all_their_images(ltr_train, tmp_path, plain, together):
    many = ltr_train(*SHORT, *plain, "batch_size=60", f"trainer.accumulate={together}", outputs=tmp_path / "a")
    one = ltr_train(*SHORT, *plain, f"batch_size={min(60 * together, 500)}", outputs=tmp_path / "b")
    assert differences(weights(many), weights(one)) < 1e-6
    assert ("one optimiser step" in many.err + many.out) == (together == 100)


# methods whose steps read the positions of their images; tests/methods/test_parts_of_a_batch.py has the others
@pytest.mark.parametrize("method", [("method=smote",), ("method=non_robust_features", "method.steps=2")])
def test_methods_that_read_positions_accumulate_to_the_step_over_all_images(ltr_train, tmp_path, plain, method):
    arguments = (*SHORT, *plain, *method, "optimizer.lr=0.01")
    few = ("trainer.limit_train_batches=8", "batch_size=30", "trainer.accumulate=2")
    many = ltr_train(*arguments, *few, outputs=tmp_path / "a")
    one = ltr_train(*arguments, "trainer.limit_train_batches=4", "batch_size=60", outputs=tmp_path / "b")
    assert differences(weights(many), weights(one)) < 1e-6


def test_sum_losses_are_added_over_batches(ltr_train, tmp_path, plain):
    arguments = (*SHORT, *plain, "dataset=digits_open", "method=rpl", "method.reduction=sum", "optimizer.lr=1e-4")
    arguments += ("method.radius_init=0",)
    many = ltr_train(*arguments, "batch_size=50", "trainer.accumulate=3", outputs=tmp_path / "a")
    one = ltr_train(*arguments, "batch_size=150", outputs=tmp_path / "b")
    actual, expected = weights(many), weights(one)
    assert max(float((actual[name] - expected[name]).abs().max()) for name in actual if "history" not in name) < 1e-4
