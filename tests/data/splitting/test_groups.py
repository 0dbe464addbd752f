"""Groups held out whole: properties for random groups, and the balance of classes."""

import numpy as np
import pytest

from ltr.data.splitting.groups import hold_out_groups, separate_unknown, share_of_shared_groups


def synthetic(seed):
    """Random labels with a long tail, and groups of very different sizes that prefer some classes."""
    random = np.random.default_rng(seed)
    classes, groups = int(random.integers(2, 12)), int(random.integers(2, 60))
    images = int(random.integers(classes, 900))
    sizes = random.exponential(size=groups)
    group_of = random.choice(groups, images, p=sizes / sizes.sum())
    liked = random.integers(0, classes, groups)
    weights = 0.6 ** np.arange(classes)
    labels = random.choice(classes, images, p=weights / weights.sum())
    labels = np.where(random.uniform(size=images) < 0.4, liked[group_of], labels)
    return labels, group_of, [f"g{number}" for number in range(groups)], classes


@pytest.mark.parametrize("seed", range(60))
def test_no_group_is_in_two_parts_and_every_class_stays_in_training(seed):
    labels, groups, names, classes = synthetic(seed)
    held = hold_out_groups(labels, groups, names, classes, fraction=0.25, seed=seed)
    assert not set(groups[held]) & set(groups[~held])
    assert set(labels[~held]) == set(labels)


@pytest.mark.parametrize("seed", range(60))
def test_a_class_lacks_test_images_only_if_none_of_its_groups_can_be_held_out(seed):
    labels, groups, names, classes = synthetic(seed)
    held = hold_out_groups(labels, groups, names, classes, fraction=0.25, seed=seed)
    left = np.bincount(labels[~held], minlength=classes)
    for label in set(labels) - set(labels[held]):
        for group in set(groups[labels == label]):
            taken = np.bincount(labels[groups == group], minlength=classes)
            assert (left - taken)[taken > 0].min() <= 0, "this group could have been held out"


def test_many_small_groups_give_the_wanted_share_of_every_class():
    random = np.random.default_rng(0)
    labels = random.choice(4, 4000, p=[0.6, 0.25, 0.1, 0.05])
    groups = np.arange(4000) // 4
    held = hold_out_groups(labels, groups, [str(n) for n in range(1000)], 4, fraction=0.2, seed=3)
    shares = np.bincount(labels[held], minlength=4) / np.bincount(labels, minlength=4)
    np.testing.assert_allclose(shares, 0.2, atol=0.01)


def test_the_division_depends_on_seed_and_group_names_only():
    labels, groups, names, classes = synthetic(5)
    held = hold_out_groups(labels, groups, names, classes, fraction=0.3, seed=1)
    order = np.random.default_rng(0).permutation(len(labels))
    again = hold_out_groups(labels[order], groups[order], names, classes, fraction=0.3, seed=1)
    np.testing.assert_array_equal(again, held[order])
    others = [hold_out_groups(labels, groups, names, classes, fraction=0.3, seed=seed) for seed in range(2, 8)]
    assert any((other != held).any() for other in others)


def test_the_leak_is_the_share_of_test_images_whose_group_is_in_training():
    groups = np.array([0, 0, 1, 2, -1, -1])
    assert share_of_shared_groups(groups, np.array([0, 3, 4]), np.array([1, 2, 5])) == pytest.approx(1 / 3)
    assert np.isnan(share_of_shared_groups(groups, np.array([0]), np.array([], dtype=int)))


def test_images_of_unknown_groups_are_groups_by_themselves():
    codes, names = separate_unknown(np.array([1, -1, 0, -1, 1]), ("a", "b"))
    assert codes.tolist() == [1, 2, 0, 3, 1]
    assert names == ("a", "b", "unknown 0", "unknown 1")
    known, same = separate_unknown(np.array([1, 0]), ("a", "b"))
    assert (known.tolist(), same) == ([1, 0], ("a", "b"))
