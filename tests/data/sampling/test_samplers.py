"""Samplers: images of an epoch, their frequencies, and the shards of processes."""

import copy
import random
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr.data.sampling import class_index
from ltr.data.sampling.class_index import ClassIndex
from ltr.data.sampling.samplers import (
    ClassBalanced,
    EffectiveNumber,
    Instance,
    Power,
    Progressive,
    SquareRoot,
    shard,
)
from ltr.errors import ConfigError, DataError

COUNTS = np.array([400, 100, 25, 4, 1])
LABELS = np.random.Generator(np.random.Philox(key=3)).permutation(np.repeat(np.arange(5), COUNTS))
INDEX = ClassIndex.from_labels(LABELS, 5)
N = len(LABELS)

SAMPLERS = [
    Instance(),
    ClassBalanced(),
    ClassBalanced(draw="iid"),
    ClassBalanced(images_per_visit=4),
    Power(q=0.25),
    SquareRoot(),
    EffectiveNumber(beta=0.99),
    Progressive(),
]


def name(sampler):
    return f"{type(sampler).__name__}-{'-'.join(str(value) for value in vars(sampler).values() if value is not None)}"


every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=name)


def draw(sampler, epoch=0, epochs=10, seed=0, index=INDEX):
    return sampler.epoch(index, seed=seed, epoch=epoch, epochs=epochs)


def class_counts(positions, labels=LABELS, num_classes=5):
    return np.bincount(labels[positions], minlength=num_classes)


# --- the class index


def test_the_index_holds_each_class_in_ascending_order():
    for label in range(5):
        members = INDEX.order[INDEX.starts[label] : INDEX.starts[label] + INDEX.counts[label]]
        assert members.tolist() == np.flatnonzero(np.isin(LABELS, label)).tolist()


@pytest.mark.parametrize("labels", [[0, 5], [-1, 0]])
def test_the_index_refuses_labels_outside_their_range(labels):
    with pytest.raises(DataError, match=r"outside 0\.\.4"):
        ClassIndex.from_labels(np.array(labels), 5)


def test_the_index_refuses_an_empty_train_array():
    with pytest.raises(DataError, match="no training image"):
        ClassIndex.from_labels(np.empty(0, int), 5)


# --- what holds for every sampler


@every_sampler
def test_an_epoch_is_as_long_as_the_training_set(sampler):
    positions = draw(sampler)
    assert (positions.dtype, len(positions), sampler.length(INDEX)) == (np.int64, N, N)
    assert positions.min() >= 0
    assert positions.max() < N


@pytest.mark.parametrize("num_samples", [1, 7, 3 * N + 1])
@pytest.mark.parametrize("kind", [Instance, ClassBalanced, SquareRoot, Progressive])
def test_num_samples_is_the_length_of_an_epoch(kind, num_samples):
    assert len(draw(kind(num_samples=num_samples))) == num_samples


@every_sampler
def test_an_epoch_depends_on_seed_and_epoch_number_only(sampler):
    first = draw(sampler, epoch=3, seed=1)
    draw(sampler, epoch=4, seed=1)  # what was drawn between does not matter
    assert draw(sampler, epoch=3, seed=1).tolist() == first.tolist()
    assert draw(sampler, epoch=4, seed=1).tolist() != first.tolist()
    assert draw(sampler, epoch=3, seed=2).tolist() != first.tolist()


@every_sampler
def test_global_generators_are_neither_read_nor_advanced(sampler):
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    first = draw(sampler)
    after = (np.random.random(), random.random())  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    assert after == (np.random.random(), random.random())  # noqa: NPY002
    assert draw(sampler).tolist() == first.tolist()


@every_sampler
@pytest.mark.parametrize("epoch", [0, 5, 9])
def test_class_shares_are_the_expected_ones(sampler, epoch):
    size = 40_000
    sampler = copy.copy(sampler)
    sampler.num_samples = size
    probabilities = sampler.class_probabilities(INDEX.counts, epoch, 10)
    assert probabilities.sum() == pytest.approx(1)
    # six standard deviations of an independent draw; the other draws vary less
    tolerance = 6 * np.sqrt(size * probabilities * (1 - probabilities)) + 5
    assert (np.abs(class_counts(draw(sampler, epoch)) - size * probabilities) <= tolerance).all()


@every_sampler
def test_classes_are_mixed_over_the_epoch(sampler):
    positions = draw(sampler, epoch=9)
    shares = sampler.class_probabilities(INDEX.counts, 9, 10)
    half = N // 2
    tolerance = 6 * np.sqrt(half * shares * (1 - shares)) + 5
    assert (np.abs(class_counts(positions[:half]) - half * shares) <= tolerance).all()


# --- instance


def test_instance_sampling_visits_each_image_once():
    assert sorted(draw(Instance())) == list(range(N))


def test_longer_epochs_of_instance_sampling_repeat_whole_permutations():
    positions = draw(Instance(num_samples=2 * N + 10))
    assert sorted(positions[:N]) == sorted(positions[N : 2 * N]) == list(range(N))
    assert positions[:N].tolist() != positions[N : 2 * N].tolist()
    assert len(set(positions[2 * N :])) == 10


# --- class-balanced


@pytest.mark.parametrize("num_samples", [5, 23, 500, 530])
def test_cyclic_class_counts_differ_by_one_at_most(num_samples):
    counts = class_counts(draw(ClassBalanced(num_samples=num_samples)))
    assert counts.max() - counts.min() <= 1


def test_cyclic_classes_are_reshuffled_in_each_round():
    rounds = LABELS[draw(ClassBalanced(num_samples=500))].reshape(100, 5)
    assert (np.sort(rounds, axis=1) == np.arange(5)).all()
    assert len({tuple(one) for one in rounds}) > 50


def in_rounds(positions, labels, label, count):
    """The images that ``label`` gave, cut into rounds of ``count``."""
    drawn_images = positions[labels[positions] == label]
    return [drawn_images[start : start + count] for start in range(0, len(drawn_images), count)]


@pytest.mark.parametrize("sampler", [ClassBalanced(), ClassBalanced(images_per_visit=4), Progressive()], ids=name)
@pytest.mark.parametrize("label", range(5))
def test_a_class_repeats_no_image_before_all_were_sampled(sampler, label):
    for one in in_rounds(draw(sampler, epoch=9), LABELS, label, COUNTS[label]):
        assert len(set(one)) == len(one)


@pytest.mark.parametrize("sampler", [ClassBalanced(), Progressive()], ids=name)
def test_a_class_is_reshuffled_in_each_round(sampler):
    rounds = in_rounds(draw(sampler, epoch=9), LABELS, 3, COUNTS[3])
    assert len({tuple(one) for one in rounds if len(one) == COUNTS[3]}) > 5


def test_images_of_a_visit_are_adjacent():
    labels = LABELS[draw(ClassBalanced(images_per_visit=4, num_samples=400))].reshape(100, 4)
    assert (labels == labels[:, :1]).all()
    counts = np.bincount(labels[:, 0])
    assert counts.tolist() == [20] * 5


def test_iid_class_balanced_sampling_equals_power_zero():
    assert draw(ClassBalanced(draw="iid")).tolist() == draw(Power(q=0)).tolist()


# --- power


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        (1.0, COUNTS / COUNTS.sum()),
        (0.5, np.array([20, 10, 5, 2, 1]) / 38),
        (0.0, np.full(5, 0.2)),
        (-1.0, (1 / COUNTS) / (1 / COUNTS).sum()),
    ],
)
def test_power_has_the_probabilities_of_its_formula(q, expected):
    np.testing.assert_allclose(Power(q=q).class_probabilities(COUNTS, 0, 1), expected, rtol=1e-12)


def test_square_root_equals_power_one_half():
    assert draw(SquareRoot()).tolist() == draw(Power(q=0.5)).tolist()


def test_power_samples_all_images_of_a_class_equally_often():
    positions = draw(Power(q=0.0, num_samples=50_000))
    times = np.bincount(positions, minlength=N)[LABELS == 2]
    assert (np.abs(times - 400) < 6 * 20).all()


def test_large_powers_of_large_counts_stay_finite():
    counts = np.array([10**9, 10**6, 1])
    sampler = Power(q=2)
    sampler.q = 50  # more than an option may be
    assert np.isfinite(sampler.class_probabilities(counts, 0, 1)).all()


def test_classes_sampled_by_table_equal_those_of_plain_inversion():
    # inversion by plain search gives the same classes for the same uniform numbers
    probabilities = np.array([0.0, 1e-7, 0.3, 0.0, 0.2, 1e-9, 0.5 - 1e-7 - 1e-9, 0.0])
    rng = [np.random.Generator(np.random.Philox(key=1)) for _ in range(2)]
    drawn = class_index.sample_classes(probabilities, 100_000, rng[0])
    edges = np.cumsum(probabilities)
    plain = np.searchsorted(edges / edges[-1], rng[1].random(100_000), side="right")
    assert drawn.tolist() == plain.tolist()
    assert set(drawn) <= {1, 2, 4, 5, 6}


# --- effective number


def test_an_image_has_the_inverse_effective_number_of_its_class_as_weight():
    beta = 0.9999
    counts = np.array([int(5000 * 0.01 ** (c / 9)) for c in range(10)])
    weights = (1 - beta) / (1 - beta**counts)  # of an image
    shares = EffectiveNumber(beta=beta).class_probabilities(counts, 0, 1)
    np.testing.assert_allclose(shares, counts * weights / (counts * weights).sum(), rtol=1e-10)
    assert (round(shares[0], 3), round(shares[-1], 3)) == (0.119, 0.094)


@pytest.mark.parametrize(("beta", "q"), [(0.0, 1.0), (1 - 1e-13, 0.0)])
def test_effective_numbers_go_from_instance_to_class_balance(beta, q):
    shares = EffectiveNumber(beta=beta).class_probabilities(COUNTS, 0, 1)
    np.testing.assert_allclose(shares, Power(q=q).class_probabilities(COUNTS, 0, 1), rtol=1e-6)


# --- progressive


INSTANCE_SHARES, BALANCED_SHARES = COUNTS / N, np.full(5, 0.2)


@pytest.mark.parametrize(
    ("schedule", "epoch", "balance"),
    [("official", 0, 0.0), ("official", 9, 1.0), ("official", 3, 3 / 9), ("paper", 0, 0.0), ("paper", 9, 0.9)],
)
def test_progressive_goes_from_instance_to_class_balance(schedule, epoch, balance):
    expected = (1 - balance) * INSTANCE_SHARES + balance * BALANCED_SHARES
    shares = Progressive(schedule=schedule).class_probabilities(COUNTS, epoch, 10)
    np.testing.assert_allclose(shares, expected, rtol=1e-12)


@pytest.mark.parametrize(("schedule", "signs"), [("periodic", (1, 1, 1)), ("mirrored", (1, -1, 1))])
@pytest.mark.parametrize("epochs", [90, 91, 92, 12, 3, 1])
def test_the_periodic_schedules_are_three_periods_of_the_published_code(schedule, signs, epochs):
    rise = np.linspace(0, 1, max(epochs // 3, 1))
    cycles = np.concatenate([rise[::sign] for sign in signs])[:epochs]
    cycles = np.append(cycles, [cycles[-1]] * (epochs - len(cycles)))  # where the published code fails
    sampler = Progressive(schedule=schedule)
    probabilities = [sampler.class_probabilities(COUNTS, epoch, epochs) for epoch in range(epochs)]
    expected = (1 - cycles)[:, None] * INSTANCE_SHARES + cycles[:, None] * BALANCED_SHARES
    np.testing.assert_allclose(probabilities, expected, rtol=1e-9, atol=1e-12)


def test_a_deferred_periodic_schedule_completes_its_periods_in_the_remaining_epochs():
    sampler = Progressive(schedule="mirrored", defer_from=0.5)
    shares = [sampler.class_probabilities(COUNTS, epoch, 24)[-1] for epoch in range(24)]
    own = [Progressive(schedule="mirrored").class_probabilities(COUNTS, epoch, 12)[-1] for epoch in range(12)]
    np.testing.assert_allclose(shares, [INSTANCE_SHARES[-1]] * 12 + own)


def test_progressive_over_one_epoch_is_instance_balanced():
    np.testing.assert_allclose(Progressive().class_probabilities(COUNTS, 0, 1), INSTANCE_SHARES)


def test_deferred_progressive_sampling_reaches_class_balance_in_the_remaining_epochs():
    sampler = Progressive(defer_from=0.5)
    np.testing.assert_allclose(sampler.class_probabilities(COUNTS, 5, 10), INSTANCE_SHARES)
    np.testing.assert_allclose(sampler.class_probabilities(COUNTS, 9, 10), BALANCED_SHARES)


# --- deferral


@pytest.mark.parametrize("make", [ClassBalanced, SquareRoot, Progressive], ids=lambda make: make.__name__)
def test_before_its_start_a_deferred_sampler_equals_instance(make):
    sampler = make(defer_from=0.8)
    assert draw(sampler, 7).tolist() == draw(Instance(), 7).tolist()
    np.testing.assert_allclose(sampler.class_probabilities(COUNTS, 7, 10), INSTANCE_SHARES)


@pytest.mark.parametrize("make", [ClassBalanced, SquareRoot], ids=lambda make: make.__name__)
def test_from_its_start_a_deferred_sampler_equals_the_undeferred_one(make):
    assert draw(make(defer_from=0.8), 8).tolist() == draw(make(), 8).tolist()


@pytest.mark.parametrize(
    ("defer_from", "epochs", "start"), [(None, 200, 0), (0.0, 200, 0), (0.8, 200, 160), (2 / 3, 90, 60), (1.0, 10, 10)]
)
def test_the_start_is_the_rounded_share_of_the_epochs(defer_from, epochs, start):
    assert ClassBalanced(defer_from=defer_from).start_epoch(epochs) == start


# --- empty classes and small worlds


def test_empty_classes_warn_once_where_the_index_is_built():
    with pytest.warns(UserWarning, match=r"2 of 4 classes have no training image \(labels 0, 2\)"):
        index = ClassIndex.from_labels(np.array([1, 3, 3]), 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sampler in SAMPLERS:
            draw(sampler, index=index)


@every_sampler
def test_empty_classes_are_skipped(sampler):
    labels = np.array([1, 3, 3, 1, 3])
    with pytest.warns(UserWarning, match="no training image"):
        index = ClassIndex.from_labels(labels, 5)
    positions = draw(sampler, epoch=9, index=index)
    assert len(positions) == 5
    shares = sampler.class_probabilities(index.counts, 9, 10)
    assert shares[[0, 2, 4]].tolist() == [0, 0, 0]
    assert shares.sum() == pytest.approx(1)


@every_sampler
def test_one_image_is_enough(sampler):
    assert draw(sampler, index=ClassIndex.from_labels(np.array([0]), 1)).tolist() == [0]


def test_shuffled_ranges_fall_back_if_a_key_has_too_few_bits(monkeypatch):
    monkeypatch.setattr(class_index, "RANDOM_BITS", 64)
    lengths = np.array([3, 1, 50, 2])
    numbers = class_index.shuffled_ranges(lengths, np.random.Generator(np.random.Philox(key=0)))
    parts = np.split(numbers, np.cumsum(lengths)[:-1])
    assert [sorted(part) for part in parts] == [list(range(length)) for length in lengths]
    assert parts[2].tolist() != sorted(parts[2])


def test_every_order_of_a_shuffled_range_is_equally_likely():
    numbers = class_index.shuffled_ranges(np.full(12_000, 3), np.random.Generator(np.random.Philox(key=0)))
    _, times = np.unique(numbers.reshape(-1, 3), axis=0, return_counts=True)
    assert len(times) == 6
    assert (np.abs(times - 2000) < 6 * 41).all()


# --- sharing out over processes


@given(length=st.integers(8, 200), world_size=st.integers(1, 8), per_process=st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_the_shares_of_all_processes_form_the_global_batches(length, world_size, per_process):
    batch_size = world_size * per_process
    parts = [shard(np.arange(length), rank, world_size, batch_size) for rank in range(world_size)]
    assert len({len(part) for part in parts}) == 1
    left_out = length % batch_size % world_size
    taken = []
    for step in range(-(-len(parts[0]) // per_process)):
        together = np.concatenate([part[step * per_process : (step + 1) * per_process] for part in parts])
        expected = np.arange(step * batch_size, min((step + 1) * batch_size, length - left_out))
        assert sorted(together) == expected.tolist()
        taken.append(together)
    assert len(np.concatenate(taken)) == length - left_out


def test_one_process_keeps_the_short_last_batch():
    assert shard(np.arange(10), 0, 1, 4).tolist() == list(range(10))


def test_images_of_one_visit_spread_over_the_processes():
    labels = LABELS[shard(draw(ClassBalanced(images_per_visit=4, num_samples=80)), 0, 2, 8)]
    assert np.bincount(labels, minlength=5).tolist() == [8] * 5


def test_a_batch_that_cannot_be_shared_out_is_refused():
    with pytest.raises(ConfigError, match=r"batch_size=10 \(global\) cannot be shared out evenly over 4"):
        shard(np.arange(100), 0, 4, 10)


def test_fewer_images_than_processes_are_refused():
    with pytest.raises(DataError, match="3 images cannot be shared out over 4"):
        shard(np.arange(3), 0, 4, 8)


# --- what is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Instance(num_samples=0), "num_samples=0"),
        (lambda: Instance(defer_from=1.5), "defer_from=1.5"),
        (lambda: Instance(defer_from=-0.1), "defer_from=-0.1"),
        (lambda: Power(q=float("nan")), "q=nan"),
        (lambda: EffectiveNumber(beta=1.0), r"beta=1\.0"),
        (lambda: ClassBalanced(draw="cylic"), "Did you mean 'cyclic'"),
        (lambda: ClassBalanced(images_per_visit=0), "images_per_visit=0"),
        (lambda: ClassBalanced(draw="iid", images_per_visit=4), "needs sampler.draw=cyclic"),
        (lambda: Progressive(schedule="linear"), "official, paper"),
    ],
)
def test_a_wrong_option_is_refused_with_the_allowed_values(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_without_reshuffling_every_epoch_has_the_same_order():
    index = ClassIndex.from_labels(np.arange(30) % 3, 3)
    kept, usual = Instance(reshuffle=False), Instance()
    first = usual.epoch(index, seed=1, epoch=0, epochs=5)
    np.testing.assert_array_equal(kept.epoch(index, seed=1, epoch=4, epochs=5), first)
    assert (usual.epoch(index, seed=1, epoch=4, epochs=5) != first).any()
