"""Shares of the classes in the batches of a stage, and checks of methods that presume some of them."""

from __future__ import annotations

import warnings

import numpy as np

from ltr.configuration.targets import instantiate, typed_name
from ltr.errors import ConfigError
from ltr.methods.core.settings import DatasetInfo, Settings

_NEARLY = 0.3  # of a share: effective numbers at beta 0.9999 give 0.94 to 1.19 times the equal one on CIFAR-10-LT
_LONG = 1000  # epochs


def shares_of_epoch(settings: Settings, dataset_info: DatasetInfo, epoch: int) -> np.ndarray:
    """Return the expected share of each class in an epoch of a stage, float64 [C]; -1 is the last epoch."""
    counts = np.asarray(dataset_info.class_counts)
    epochs = settings.epochs
    return np.asarray(instantiate(settings.sampler).class_probabilities(counts, epoch % epochs, epochs))


def training_shares(dataset_info: DatasetInfo) -> np.ndarray:
    """Return the share of each class in the training images, float64 [C]."""
    counts = np.asarray(dataset_info.class_counts)
    return np.asarray(counts / counts.sum())


def ends_rebalanced(settings: Settings, dataset_info: DatasetInfo) -> bool:
    """Return whether the last epoch's shares of classes differ from those of the training images."""
    return not np.allclose(shares_of_epoch(settings, dataset_info, -1), training_shares(dataset_info))


def are_nearly_equal(shares: np.ndarray, dataset_info: DatasetInfo) -> bool:
    """Return whether all classes with training images have nearly the same share."""
    present = np.asarray(dataset_info.class_counts) > 0
    return np.allclose(shares[present], 1 / present.sum(), rtol=_NEARLY)


def check_balanced_sampler(settings: Settings, dataset_info: DatasetInfo, where: str, what: str) -> None:
    """Check that a stage's batches are class-balanced where a method replaces images by their class.

    Warns if they become so during the training only (`progressive`).

    Args:
        where: key of the stage's sampler.
        what: what the method does in such batches, for messages.

    Raises:
        ConfigError: the batches of the last epoch are not class-balanced.
    """
    name = typed_name(settings.sampler)
    sampler = instantiate(settings.sampler)
    if sampler.start_epoch(settings.epochs) >= settings.epochs:  # a short training, which never samples so
        settings = settings.replaced(epochs=_LONG)
        if sampler.start_epoch(_LONG) >= _LONG:
            return
    shares = shares_of_epoch(settings, dataset_info, -1)
    if not are_nearly_equal(shares, dataset_info):
        present = shares[np.asarray(dataset_info.class_counts) > 0]
        raise ConfigError(
            f"{where}={name}: {what} in class-balanced batches, and in this sampler's last epoch the shares of classes "
            f"range from {present.min():.3g} to {present.max():.3g}. Use {where}=class_balanced, or "
            f"class_balanced_deferred to begin after {where}.defer_from of the epochs"
        )
    start = sampler.start_epoch(settings.epochs)
    if not are_nearly_equal(shares_of_epoch(settings, dataset_info, start), dataset_info):
        warnings.warn(
            f"{where}={name}: {what} in class-balanced batches, and this sampler becomes class-balanced only during "
            f"the training. {where}=class_balanced_deferred is so from its first epoch on",
            stacklevel=3,
        )
