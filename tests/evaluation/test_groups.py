"""Many, medium, few: which class is in which group."""

import numpy as np
import pytest

from ltr.errors import ConfigError
from ltr.evaluation.groups import GROUPS, class_table, group_means, shot_groups


def exponential_counts(n_max: int, imbalance_factor: float, classes: int) -> np.ndarray:
    return np.array([int(n_max * imbalance_factor ** (-c / (classes - 1))) for c in range(classes)])


@pytest.mark.parametrize(
    ("count", "group"), [(0, "few"), (19, "few"), (20, "medium"), (100, "medium"), (101, "many"), (10**9, "many")]
)
def test_the_bounds_belong_to_medium(count, group):
    counts, nothing = np.array([count]), np.zeros(1)
    assert class_table(counts, shot_groups(counts), nothing, nothing, nothing)["group"].tolist() == [group]


@pytest.mark.parametrize(
    ("n_max", "factor", "classes", "sizes"),
    [
        (500, 100, 100, [35, 35, 30]),
        (500, 10, 100, [69, 31, 0]),
        (500, 200, 100, [30, 31, 39]),
        (5000, 100, 10, [8, 2, 0]),
    ],
)
def test_sizes_of_the_groups_of_long_tailed_cifar(n_max, factor, classes, sizes):
    groups = shot_groups(exponential_counts(n_max, factor, classes))
    assert [int(groups[name].sum()) for name in GROUPS] == sizes


def test_every_class_is_in_exactly_one_group():
    groups = shot_groups(np.arange(300), many_above=49, few_below=50)
    assert (sum(groups[name].astype(int) for name in GROUPS) == 1).all()


def test_bounds_that_overlap_are_refused():
    with pytest.raises(ConfigError, match=r"few_below=12 and evaluation\.many_above=10"):
        shot_groups(np.arange(3), many_above=10, few_below=12)


def test_group_means_are_over_the_classes_with_images():
    groups = shot_groups(np.array([200, 150, 50, 10, 5]))
    means = group_means(np.array([0.9, np.nan, 0.6, 0.2, 0.4]), groups)
    assert means == pytest.approx({"many": 0.9, "medium": 0.6, "few": 0.3, "balanced_accuracy": 0.525})
