"""Batches of a few classes with m images of each."""

from __future__ import annotations

import numpy as np
import pytest

from ltr.data.sampling.class_index import ClassIndex
from ltr.data.sampling.per_class import PerClass
from ltr.errors import ConfigError

COUNTS = np.array([23, 0, 7, 5, 40, 11, 6])
LABELS = np.random.Generator(np.random.Philox(key=3)).permutation(np.repeat(np.arange(7), COUNTS))


@pytest.fixture(scope="module")
def index() -> ClassIndex:
    with pytest.warns(UserWarning, match="1 of 7 classes have no training image"):
        return ClassIndex.from_labels(LABELS, 7)


def batches(index: ClassIndex, sampler: PerClass, epoch: int = 0, seed: int = 0) -> np.ndarray:
    return sampler.epoch(index, seed=seed, epoch=epoch, epochs=4).reshape(-1, sampler.batch_size)


@pytest.mark.parametrize(("batch_size", "each"), [(20, 5), (18, 5), (12, 2), (22, 4)])
def test_a_batch_holds_m_images_of_each_of_its_classes_but_the_last(index, batch_size, each):
    for batch in batches(index, PerClass(images_per_class=each, batches=50, batch_size=batch_size)):
        visits = [LABELS[batch[start : start + each]] for start in range(0, batch_size, each)]
        assert all(len(set(visit)) == 1 for visit in visits)
        assert len({visit[0] for visit in visits}) == len(visits)
        assert len(set(batch)) == batch_size


def test_a_batch_larger_than_the_number_of_classes_visits_classes_again(index):
    for batch in batches(index, PerClass(images_per_class=3, batches=40, batch_size=27)):
        visited = LABELS[batch[::3]]
        assert len(set(visited[:6])) == 6
        assert len(set(visited[6:])) == 3


def test_a_visit_never_has_an_image_twice(index):
    drawn = batches(index, PerClass(images_per_class=5, batches=300, batch_size=30))
    assert all(len(set(visit)) == 5 for visit in drawn.reshape(-1, 5))


def test_classes_and_images_within_a_class_are_about_equally_frequent(index):
    drawn = batches(index, PerClass(images_per_class=5, batches=600, batch_size=20)).reshape(-1)
    of_classes = np.bincount(LABELS[drawn], minlength=7)[COUNTS > 0]
    assert of_classes.min() > 0.9 * of_classes.max()
    for label in np.flatnonzero(COUNTS):
        times = np.bincount(drawn, minlength=len(LABELS))[label == LABELS]
        assert times.min() > 0.6 * times.max()


def test_an_epoch_has_as_many_images_as_the_training_set_or_as_requested_in_whole_batches(index):
    assert PerClass(batch_size=20).length(index) == 100  # of 92 images
    assert PerClass(batch_size=20, batches=7).length(index) == 140


def test_an_epoch_depends_on_seed_and_epoch_number(index):
    sampler = PerClass(batch_size=20)
    assert np.array_equal(batches(index, sampler), batches(index, sampler))
    assert not np.array_equal(batches(index, sampler), batches(index, sampler, epoch=1))
    assert not np.array_equal(batches(index, sampler), batches(index, sampler, seed=1))


def test_classes_are_sampled_with_equal_probability(index):
    expected = np.where(COUNTS > 0, 1 / 6, 0)
    assert PerClass(batch_size=20).class_probabilities(COUNTS, 0, 4) == pytest.approx(expected)


def test_a_class_with_fewer_than_m_images_is_refused_by_name_and_number(index):
    sampler = PerClass(images_per_class=6, batch_size=20)
    with pytest.raises(ConfigError, match=r"images_per_class=6: 1 of 6 classes.*3 \(5\).*at most 5"):
        sampler.length(index)
    with pytest.raises(ConfigError, match="images_per_class=6"):
        sampler.class_probabilities(COUNTS, 0, 4)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_a_batch_too_small_for_a_triplet_is_refused(batch_size):
    with pytest.raises(ConfigError, match=rf"batch_size={batch_size} with sampler.images_per_class=5.*triplet"):
        PerClass(batch_size=batch_size)


def test_one_image_of_a_class_is_refused():
    with pytest.raises(ConfigError, match="images_per_class=1"):
        PerClass(images_per_class=1, batch_size=20)


def test_one_class_alone_is_refused():
    with pytest.raises(ConfigError, match="two classes"):
        PerClass(batch_size=20).check(np.array([0, 30]))


def test_a_class_of_one_image_needs_another_split():
    sampler = PerClass(images_per_class=2, batch_size=20)
    with pytest.raises(ConfigError, match=r"label and images: 1 \(1\)\)\. Use a split without such classes"):
        sampler.check(np.array([4, 1, 3]))


def test_small_classes_give_all_of_their_images_if_they_may(index):
    sampler = PerClass(images_per_class=7, batches=300, batch_size=20, allow_fewer=True)
    times = np.zeros(7, dtype=int)
    for batch in batches(index, sampler):
        labels = LABELS[batch]
        changes = np.flatnonzero(np.diff(labels)) + 1
        visits = np.split(labels, changes)
        assert [len(visit) for visit in visits[:-1]] == [min(COUNTS[visit[0]], 7) for visit in visits[:-1]]
        assert len({visit[0] for visit in visits}) == len(visits), "no class comes twice"
        assert len(set(batch)) == 20
        times[[visit[0] for visit in visits]] += 1
    assert times[COUNTS > 0].min() > 0.7 * times.max()
    assert times[1] == 0


def test_a_batch_of_small_classes_may_need_them_again():
    labels = np.repeat(np.arange(3), 2)
    sampler = PerClass(images_per_class=5, batches=9, batch_size=10, allow_fewer=True)
    for batch in batches(ClassIndex.from_labels(labels, 3), sampler):
        visited = labels[batch][::2]
        assert set(visited[:3]) == {0, 1, 2}
        assert (np.bincount(batch, minlength=6) >= 1).all()


def test_a_class_of_one_image_is_refused_even_so():
    with pytest.raises(ConfigError, match=r"fewer than 2 training images.*1 \(1\)"):
        PerClass(images_per_class=5, batch_size=20, allow_fewer=True).check(np.array([4, 1, 3]))
