"""Label errors by the package cleanlab, and the message where it is not installed."""

from __future__ import annotations

import importlib.util
import sys
import types

import numpy as np
import pytest

from ltr.apply.audit import audit
from ltr.apply.cleanlab_errors import check_cleanlab, cleanlab_errors
from ltr.errors import ConfigError


def synthetic(classes=4, number=200):
    """Features and probabilities near the true classes, and labels of which ten are flipped."""
    random = np.random.default_rng(0)
    truth = random.integers(0, classes, number)
    features = 4 * np.eye(classes)[truth] + random.normal(size=(number, classes))
    p = np.exp(features) / np.exp(features).sum(axis=1, keepdims=True)
    labels = truth.copy()
    labels[:10] = (labels[:10] + 1) % classes
    return features.astype(np.float32), p.astype(np.float32), truth, labels


@pytest.fixture
def largest(monkeypatch):
    """A stand-in for the package: an error is a label that is not the most probable class."""
    calls = []

    def find_label_issues(labels, pred_probs, n_jobs):
        calls.append((labels, pred_probs))
        return pred_probs.argmax(axis=1) != labels

    package, module = types.ModuleType("cleanlab"), types.ModuleType("cleanlab.filter")
    module.find_label_issues = find_label_issues
    monkeypatch.setitem(sys.modules, "cleanlab", package)
    monkeypatch.setitem(sys.modules, "cleanlab.filter", module)
    return calls


def test_cleanlab_gets_only_images_and_classes_that_take_part(largest):
    _, p, truth, labels = synthetic()
    padded = np.concatenate([p[:, :2], np.zeros((200, 1), np.float32), p[:, 2:]], axis=1)  # class 2 has no image
    moved, moved_truth = labels + (labels >= 2), truth + (truth >= 2)
    is_counted = np.arange(200) % 5 != 4
    errors = cleanlab_errors(padded, moved, is_counted=is_counted)
    ((seen_labels, seen),) = largest
    assert seen.shape == (160, 4)
    np.testing.assert_allclose(seen.sum(axis=1), 1)
    assert seen_labels.tolist() == labels[is_counted].tolist()
    expected = (p.argmax(axis=1) != labels) & is_counted
    assert errors.is_error.tolist() == expected.tolist()
    assert errors.suggested[errors.is_error].tolist() == (p.argmax(axis=1) + (p.argmax(axis=1) >= 2))[expected].tolist()
    assert (errors.suggested == moved)[~errors.is_error].all()
    assert (errors.scores[expected] > 0).all()
    assert (errors.scores[~expected] == 0).all()
    assert (errors.suggested[:10] == moved_truth[:10]).mean() > 0.7


def test_the_audit_uses_the_error_function_that_is_passed_in(largest):
    features, p, _, labels = synthetic()
    held = np.arange(200) >= 150
    outcome = audit(features, labels, 4, held_out=p, is_held_out=held, find_errors=cleanlab_errors)
    assert len(largest) == 2
    assert (outcome.errors.is_error[held] == (p.argmax(axis=1) != labels)[held]).all()
    assert outcome.errors.is_error[:10].sum() >= 7


def test_without_the_package_the_message_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'ltr\[audit\]'"):
        check_cleanlab()


def test_the_package_finds_flipped_labels():
    pytest.importorskip("cleanlab")
    _, p, _, labels = synthetic()
    errors = cleanlab_errors(p, labels)
    assert errors.is_error[:10].sum() >= 7
    assert errors.is_error.mean() < 0.15
