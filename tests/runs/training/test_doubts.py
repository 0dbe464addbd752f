"""Warnings before training about settings that are allowed and hardly meant."""

from __future__ import annotations

import pytest

QUICK = ("trainer.max_epochs=1", "trainer.precision=fp32", "trainer.accelerator=cpu", "trainer.limit_train_batches=1")
DOUBTS = {
    "rate": (("optimizer.lr=1e-13",), "optimizer.lr=1e-13 is below 1e-12"),
    "rate of the head": (("optimizer.head_lr=1e-20",), "optimizer.head_lr=1e-20 is below"),
    "batch": (("batch_size=1000",), "batch_size=1000 is more than the 500 training images"),
    "frozen": (("backbone.trainable=none",), "the backbone stays at random values"),
    "stored": (("features=stored",), "features=stored without weights: the features are those of a random backbone"),
}


@pytest.mark.parametrize(("overrides", "message"), DOUBTS.values(), ids=DOUBTS)
def test_doubtful_settings_are_reported(ltr_train, overrides, message):
    done = ltr_train(*QUICK, *overrides)
    assert done.code == 0, done.err
    assert message in done.out + done.err


def test_an_ordinary_run_has_no_warning(ltr_train):
    done = ltr_train(*QUICK)
    assert done.code == 0
    assert "warning" not in done.out + done.err
