"""Options that a method refuses when the run is planned, each with a word of what is allowed."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("method", "override", "message"),
    [
        ("bcl", "+method.contrast_augment.mix=mixup", "method.contrast_augment=simaugment"),
        ("bcl", "method.contrast_augment=cifar_mixup", "method.contrast_augment=simaugment"),
        ("bcl", "method.temperature=0", "method.temperature"),
        ("bcl", "features=stored", "features=images"),
        ("bcl", "trainer.auto_accumulate=true", "custom training step"),
        ("proco", "method.contrast_augment=cifar_mixup", "method.contrast_augment=simaugment"),
        ("proco", "method.form=both", "method.form"),
        ("proco", "method.feature_dim=0", "method.feature_dim"),
        ("proco", "features=stored", "features=images"),
        ("ride", "method.experts=1", "method.experts=1"),
        ("ride", "method.top_choices=11", "10 classes"),
        ("ride", "method.divergence=mea", "mean"),
        ("ride", "features=stored", "features=images"),
        ("ride", "method.assignment.epochs=0", "method.assignment.epochs"),
        ("sade", "loss=ldam", "loss=cross_entropy"),
        ("sade", "method.aggregation.views=0", "method.aggregation.views"),
        ("sade", "features=stored", "features=images"),
        ("sade", "method.aggregation.augment=cifar_mixup", "method.aggregation.augment=test_time"),
    ],
)
def test_wrong_options_are_refused(ltr_train, method, override, message):
    done = ltr_train(f"method={method}", override, "stages=plan")
    assert done.code == 2
    assert message in done.err
