"""Two data sets in one source: order, labels, names and parts, and what cannot be combined."""

import numpy as np
import pytest

from ltr.data.source import Source
from ltr.data.sources.combined import cifar10_and_cifar100, combine
from ltr.data.splitting.open_set import open_set
from ltr.errors import DataError


def small(name, classes=2, side=1, fill=0):
    images = np.full((classes * 3, side, side, 1), fill, np.uint8)
    labels = np.tile(np.arange(classes), 3)
    parts = {"train": range(classes * 2), "test": range(classes * 2, classes * 3)}
    return Source(name, images, labels, tuple("abc"[:classes]), parts)


def test_the_first_data_set_is_followed_by_the_test_part_of_the_second():
    both = combine("both", small("one", fill=1), small("two", classes=3, fill=2))
    assert both.parts == {"train": range(4), "test": range(4, 6), "two_test": range(6, 9)}
    assert both.images[:, 0, 0, 0].tolist() == [1] * 6 + [2] * 3
    assert both.labels[6:].tolist() == [2, 3, 4]
    assert both.class_names == ("one/a", "one/b", "two/a", "two/b", "two/c")


def test_images_of_different_shapes_are_refused():
    with pytest.raises(DataError, match="arrays of one shape"):
        combine("both", small("one"), small("two", side=2))


def test_a_data_set_is_not_combined_with_itself():
    with pytest.raises(DataError, match="twice"):
        combine("both", small("one"), small("one"))


@pytest.fixture(scope="module")
def both_cifars(cifar_root):
    return cifar10_and_cifar100(root=str(cifar_root))


def test_the_real_cifars_give_70000_images_of_110_classes(both_cifars):
    train, test, unknown = range(50_000), range(50_000, 60_000), range(60_000, 70_000)
    assert both_cifars.images.shape == (70_000, 32, 32, 3)
    assert both_cifars.parts == {"train": train, "test": test, "cifar100_test": unknown}
    assert np.bincount(both_cifars.labels).tolist() == [6000] * 10 + [100] * 100
    assert (both_cifars.class_names[0], both_cifars.class_names[10]) == ("cifar10/airplane", "cifar100/apple")


@pytest.mark.parametrize(("name", "unknown"), [("cifar_plus_10", 1000), ("cifar_plus_50", 5000)])
def test_cifar_plus_n_of_the_real_files_has_the_published_sizes(both_cifars, name, unknown):
    split = open_set(both_cifars, classes=name, unknown_part="cifar100_test")
    assert (len(split.train), len(split.test), len(split.unknown)) == (20_000, 4_000, unknown)
