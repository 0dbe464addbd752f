"""Colour jitter with hue, in random order, of a part of the images; and random greyscale (MoCo v2's augmentation)."""

from __future__ import annotations

import numpy as np

from ltr.data.augmentation.policies import Step, number_of

_ORDER = ("brightness", "contrast", "colour", "hue")


class ColourJitter:
    """Random brightness, contrast, colour and hue, as a policy of `ltr.data.augmentation.policies`.

    It is torchvision's ``RandomApply([ColorJitter(jitter, jitter, jitter, hue)], probability)`` followed by
    ``RandomGrayscale(greyscale)``.

    Args:
        jitter: range of the factors of brightness, contrast and colour, [1 - jitter, 1 + jitter].
        hue: range of the hue's shift as a share of the circle, [-hue, hue].
        probability: probability that an image is changed.
        shuffled: whether each image has the four operations in a random order; else they are in the order above.
        greyscale: probability that an image becomes grey.
    """

    draws = 2 + 2 * len(_ORDER)  # is it changed, does it become grey; value and rank of each operation

    def __init__(self, *, jitter: float, hue: float, probability: float, shuffled: bool, greyscale: float) -> None:
        self.amplitudes = np.array([jitter, jitter, jitter, hue])
        self.probability = probability
        self.shuffled = shuffled
        self.greyscale = greyscale

    def steps(self, uniform: np.ndarray, side: int) -> list[Step]:
        count = len(_ORDER)
        offsets = (2 * uniform[:, 2 : 2 + count] - 1) * self.amplitudes
        values = offsets + np.array([1.0, 1.0, 1.0, 0.0])
        names = np.array([number_of(name) for name in _ORDER])
        order = (
            np.argsort(uniform[:, 2 + count :], axis=1)
            if self.shuffled
            else np.tile(np.arange(count), (len(uniform), 1))
        )
        unchanged = number_of("identity")
        is_changed = uniform[:, 0] < self.probability
        steps = []
        for position in range(count):
            chosen = order[:, position]
            applied = is_changed & (self.amplitudes[chosen] > 0)
            steps.append(
                Step(np.where(applied, names[chosen], unchanged), np.take_along_axis(values, chosen[:, None], 1)[:, 0])
            )
        grey = np.where(uniform[:, 1] < self.greyscale, number_of("grey"), unchanged)
        return [*steps, Step(grey, np.zeros(len(uniform)))]
