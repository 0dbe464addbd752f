"""The division of images that come without a test part."""

import numpy as np
import pytest

from ltr.data.sources.division import hold_out_test_images, warn_of_untested
from ltr.errors import ConfigError, DataError

NAMES = ("a", "b", "c")


def divide(counts, fraction=0.2, seed=0, prefix=""):
    labels = np.repeat(np.arange(len(counts)), counts)
    paths = [f"{prefix}{label}/{n}.jpg" for label, count in enumerate(counts) for n in range(count)]
    return hold_out_test_images("own", paths, labels, NAMES[: len(counts)], fraction=fraction, seed=seed), labels, paths


@pytest.mark.parametrize(("fraction", "expected"), [(0.2, [20, 2, 1]), (0.07, [7, 1, 1]), (0.99, [99, 9, 1])])
def test_a_share_of_each_class_is_held_out_at_least_one_image_and_never_all(fraction, expected):
    is_test, labels, _ = divide([100, 10, 2], fraction)
    assert np.bincount(labels[is_test]).tolist() == expected


def test_the_division_depends_on_the_seed():
    first, again, other = divide([50, 50])[0], divide([50, 50])[0], divide([50, 50], seed=1)[0]
    assert (first == again).all()
    assert (first != other).any()


def test_added_images_change_the_part_of_few_existing_ones():
    before, _, paths = divide([100])
    after, _, more_paths = divide([110])
    held, later = ({p for p, t in zip(ps, test) if t} for ps, test in ((paths, before), (more_paths, after)))
    assert len(held - later) <= 4


@pytest.mark.parametrize(("tested", "warned"), [([0, 0, 2], ["b"]), ([0, 1, 2], []), ([], [])])
def test_classes_without_test_images_are_named_if_there_is_a_test_part(tested, warned, recwarn):
    warn_of_untested("own", np.array(tested, dtype=int), NAMES)
    assert [str(warning.message).rpartition(": ")[2] for warning in recwarn] == warned


def test_the_order_of_the_images_does_not_matter():
    is_test, labels, paths = divide([20, 20])
    shuffled = np.random.default_rng(0).permutation(40)
    again = hold_out_test_images("own", [paths[n] for n in shuffled], labels[shuffled], NAMES[:2], fraction=0.2, seed=0)
    assert (again == is_test[shuffled]).all()


def test_a_class_of_one_image_is_trained_on_and_named():
    with pytest.warns(UserWarning, match="classes with a single image are in training only: b"):
        is_test, labels, _ = divide([10, 1, 4])
    assert np.bincount(labels[is_test], minlength=3).tolist() == [2, 0, 1]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 2.0])
def test_a_fraction_outside_its_range_is_refused(fraction):
    with pytest.raises(ConfigError, match=r"dataset\.test_fraction"):
        divide([4], fraction)


def test_classes_of_single_images_alone_cannot_be_divided():
    with pytest.raises(DataError, match="so none can be held out for testing: there are 3 images"):
        divide([1, 1, 1])
