"""Splits: published totals and subsets, the rules of validation, what is refused, and what no split may ever do."""

# ruff: noqa: NPY002 - the published subset, and the promise to leave it alone, are about numpy's global generator

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr.data.source import Source
from ltr.data.sources.cifar import cifar10, cifar100
from ltr.data.sources.digits import digits
from ltr.data.split import load_split_file, save_split
from ltr.data.splitting.closed_set import from_file, long_tail, natural, profile_counts
from ltr.errors import ConfigError, DataError


def make_source(train, test=(4, 4, 4), val=None, shuffle=0):
    """One-pixel images; ``train``, ``test`` and ``val`` are images per class, in order where ``shuffle`` is None."""
    rng = np.random.Generator(np.random.Philox(key=shuffle or 0))
    counts = {"train": train, "val": val, "test": test}
    labels, parts, stop = [], {}, 0
    for part, per_class in counts.items():
        if per_class is None:
            continue
        of_part = np.repeat(np.arange(len(per_class)), per_class)
        labels.append(of_part if shuffle is None else rng.permutation(of_part))
        parts[part] = range(stop, stop + len(labels[-1]))
        stop += len(labels[-1])
    names = tuple(f"c{label}" for label in range(len(train)))
    return Source("toy", np.zeros((stop, 1, 1, 1), np.uint8), np.concatenate(labels).astype(int), names, parts)


BALANCED = make_source([60] * 5, [20] * 5)


# --- published facts


@pytest.mark.parametrize(
    ("num_classes", "n_max", "imbalance_factor", "total", "groups"),
    [
        (10, 5000, 200, 11203, (7, 3, 0)),
        (10, 5000, 100, 12406, (8, 2, 0)),
        (10, 5000, 50, 13996, (9, 1, 0)),
        (10, 5000, 20, 17023, (10, 0, 0)),
        (10, 5000, 10, 20431, (10, 0, 0)),
        (100, 500, 200, 9502, (30, 31, 39)),
        (100, 500, 100, 10847, (35, 35, 30)),
        (100, 500, 50, 12608, (41, 41, 18)),
        (100, 500, 20, 15907, (53, 47, 0)),
        (100, 500, 10, 19573, (69, 31, 0)),
    ],
)
def test_exponential_counts_have_the_published_totals(num_classes, n_max, imbalance_factor, total, groups):
    counts = profile_counts(num_classes, n_max=n_max, imbalance_factor=imbalance_factor, profile="exponential")
    assert counts.sum() == total
    assert ((counts > 100).sum(), ((counts >= 20) & (counts <= 100)).sum(), (counts < 20).sum()) == groups


def test_cifar10_at_imbalance_factor_100_has_the_published_counts():
    counts = profile_counts(10, n_max=5000, imbalance_factor=100, profile="exponential")
    assert counts.tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


def test_step_counts_keep_half_of_the_classes_large():
    assert profile_counts(4, n_max=500, imbalance_factor=100, profile="step").tolist() == [500, 500, 5, 5]


def test_step_counts_lose_no_class_where_the_number_is_odd():
    assert profile_counts(5, n_max=500, imbalance_factor=100, profile="step").tolist() == [500, 500, 5, 5, 5]


def official_cao_subset(targets, counts):
    """The subset of LDAM-DRW's data set, implemented again: the global generator, one class after another."""
    state = np.random.get_state()
    np.random.seed(0)
    kept = {}
    for label in np.unique(targets):
        positions = np.where(targets == label)[0]
        np.random.shuffle(positions)
        kept[int(label)] = positions[: counts[label]]
    np.random.set_state(state)
    return kept


@pytest.mark.parametrize(("read", "n_max", "classes"), [(cifar10, 5000, 10), (cifar100, 500, 100)])
def test_the_cao_subset_of_real_cifar_is_the_official_one(cifar_root, read, n_max, classes):
    source = read(root=str(cifar_root))
    split = long_tail(source, imbalance_factor=100)
    counts = [int(n_max * 0.01 ** (label / (classes - 1.0))) for label in range(classes)]
    for label, positions in official_cao_subset(source.labels[:50000], counts).items():
        actual = split.train[source.labels[split.train] == label]
        assert set(actual.tolist()) == set(positions.tolist())


def test_the_cao_subset_does_not_depend_on_the_position_of_the_train_part():
    labels = BALANCED.labels[:300]
    kept = official_cao_subset(labels, profile_counts(5, n_max=60, imbalance_factor=6, profile="exponential"))
    split = long_tail(BALANCED, imbalance_factor=6)
    assert split.train.tolist() == sorted(np.concatenate(list(kept.values())).tolist())


def test_first_n_takes_the_first_images_of_each_class():
    split = long_tail(BALANCED, imbalance_factor=6, subset="first_n")
    for label, count in enumerate(split.class_counts):
        members = np.flatnonzero(BALANCED.labels[:300] == label)
        assert split.train[BALANCED.labels[split.train] == label].tolist() == members[:count].tolist()


def test_seeded_subsets_differ_by_seed():
    splits = [long_tail(BALANCED, imbalance_factor=6, subset="seeded", seed=seed) for seed in (0, 0, 1)]
    assert splits[0].digest() == splits[1].digest() != splits[2].digest()
    assert splits[2].name == "toy-exp6-seeded1"


def test_the_default_digits_have_many_medium_and_few_classes():
    counts = long_tail(digits(), imbalance_factor=15).class_counts
    assert [(counts > 100).sum(), ((counts >= 20) & (counts <= 100)).sum(), (counts < 20).sum()] == [2, 5, 3]


# --- sizes


def test_by_default_n_max_is_the_size_of_the_smallest_class():
    # class 1 has 10 images and takes int(n_max / 2): 21 is the last n_max with int(n_max / 2) = 10
    source = make_source([40, 10], [1, 1])
    assert long_tail(source, imbalance_factor=2).class_counts.tolist() == [21, 10]


def test_a_smaller_n_max_is_used_and_part_of_the_name():
    split = long_tail(BALANCED, imbalance_factor=4, n_max=40)
    assert (split.class_counts[0], split.class_counts[-1], split.name) == (40, 10, "toy-exp4-cao-nmax40")


def test_natural_keeps_all_training_images():
    split = natural(make_source([5, 3, 1]))
    assert split.class_counts.tolist() == [5, 3, 1]
    assert (split.name, len(split.train), len(split.val), len(split.test)) == ("toy-natural", 9, 0, 12)


def test_classes_left_out_have_no_label_and_no_images():
    split = natural(BALANCED, num_classes=2)
    assert split.label_map.tolist() == [0, 1, -1, -1, -1]
    assert split.class_names == ("c0", "c1")
    assert set(BALANCED.labels[np.concatenate([split.train, split.test])]) == {0, 1}
    assert split.name == "toy-natural-classes2"


def test_labels_are_mapped_for_the_whole_source():
    split = natural(BALANCED, num_classes=2)
    expected = np.where(BALANCED.labels < 2, BALANCED.labels, -1)
    np.testing.assert_array_equal(split.labels(BALANCED), expected)


# --- validation


def test_train_fraction_takes_a_share_of_each_class_and_at_least_one():
    source = make_source([100, 19, 2])
    split = natural(source, val="train_fraction", val_fraction=0.1)
    assert np.bincount(source.labels[split.val]).tolist() == [10, 1, 1]
    assert split.class_counts.tolist() == [90, 18, 1]
    assert split.name == "toy-natural-val_train_fraction0.1"


@pytest.mark.parametrize(
    ("fraction", "images", "held"), [(0.07, 100, 7), (0.1, 30, 3), (0.29, 100, 29), (0.9, 2, 1), (1 - 1e-12, 2, 1)]
)
def test_shares_are_rounded_down_in_exact_arithmetic(fraction, images, held):
    split = natural(make_source([images] * 3), val="train_fraction", val_fraction=fraction)
    assert len(split.val) == 3 * held


def test_train_fraction_is_taken_after_the_tail_is_cut():
    whole = long_tail(BALANCED, imbalance_factor=6)
    split = long_tail(BALANCED, imbalance_factor=6, val="train_fraction")
    assert sorted([*split.train, *split.val]) == whole.train.tolist()


def test_a_class_of_one_image_stays_in_training_and_is_named():
    source = make_source([5, 3, 1])
    with pytest.warns(
        UserWarning, match=r"1 of 3 classes have one training image, .* they have no validation image: c2"
    ):
        split = natural(source, val="train_fraction")
    assert split.class_counts.tolist() == [4, 2, 1]
    assert np.bincount(source.labels[split.val], minlength=3).tolist() == [1, 1, 0]


def test_a_class_of_one_image_does_not_affect_other_classes():
    with pytest.warns(UserWarning, match="one training image"):
        with_single = natural(make_source([20, 9, 1], shuffle=None), val="train_fraction")
    without_single = natural(make_source([20, 9], (4, 4), shuffle=None), val="train_fraction")
    assert with_single.val.tolist() == without_single.val.tolist()


def test_a_class_of_one_test_image_stays_in_the_test_set():
    source = make_source([5, 3], [4, 1])
    with pytest.warns(UserWarning, match=r"val=test_fraction: 1 of 2 classes have one test image"):
        split = natural(source, val="test_fraction")
    assert np.bincount(source.labels[split.test]).tolist() == [3, 1]
    assert source.labels[split.val].tolist() == [0]


def test_validation_is_refused_if_every_class_has_one_image():
    with pytest.raises(DataError, match=r"no class of toy has two training images.*Use dataset\.val=none"):
        natural(make_source([1, 1], [4, 4]), val="train_fraction")


def test_test_fraction_takes_the_first_of_each_test_class():
    split = natural(BALANCED, val="test_fraction")
    test_part = np.arange(300, 400)
    for label in range(5):
        members = test_part[BALANCED.labels[test_part] == label]
        assert split.val[BALANCED.labels[split.val] == label].tolist() == members[:2].tolist()
        assert split.test[BALANCED.labels[split.test] == label].tolist() == members[2:].tolist()
    assert split.name == "toy-natural-val_test_fraction0.1"


def test_official_validation_is_the_val_part_of_the_source():
    source = make_source([5, 3, 1], val=[2, 2, 2])
    split = natural(source, val="official")
    assert split.val.tolist() == list(source.parts["val"])
    assert split.val_rule == "official"


def test_validation_images_of_a_source_are_unused_by_default():
    source = make_source([5, 3, 1], val=[2, 2, 2])
    assert len(natural(source).val) == 0


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imbalance_factor": 0.5}, r"allowed is \[1, inf\)"),
        ({"imbalance_factor": float("nan")}, "imbalance_factor=nan"),
        ({"imbalance_factor": float("inf")}, r"allowed is \[1, inf\)"),
        ({"imbalance_factor": 100}, "1 of 5 classes of toy without a training image.*at most 60"),
        ({"n_max": 61}, "images enough for 1 to 60"),
        ({"n_max": 0}, "images enough for 1 to 60"),
        ({"num_classes": 6}, "toy has 5 classes"),
        ({"num_classes": 0}, "toy has 5 classes"),
        ({"profile": "exponental"}, "Did you mean 'exponential'"),
        ({"subset": "random"}, "cao, first_n, seeded"),
        ({"val": "test"}, "none, train_fraction, official, test_fraction"),
        ({"val": "official"}, "has no validation part"),
        ({"val": "train_fraction", "val_fraction": 0.0}, r"allowed is \(0, 1\)"),
        ({"val": "train_fraction", "val_fraction": 1.0}, r"allowed is \(0, 1\)"),
    ],
)
def test_a_wrong_option_is_refused_with_the_allowed_values(changes, message):
    with pytest.raises(ConfigError, match=message):
        long_tail(BALANCED, **{"imbalance_factor": 6, **changes})


def test_an_empty_class_cannot_be_in_a_tail():
    with pytest.raises(DataError, match="without any training image cannot be in a tail: c1"):
        long_tail(make_source([5, 0, 5]), imbalance_factor=2)


# --- files


def test_a_saved_split_is_loaded_unchanged(tmp_path):
    split = long_tail(BALANCED, imbalance_factor=6, val="train_fraction", subset="seeded", seed=3, num_classes=4)
    save_split(split, tmp_path / "split.npz")
    copy = from_file(BALANCED, file=str(tmp_path / "split.npz"))
    assert copy.digest() == split.digest()
    for field in ("name", "class_names", "protocols", "seed", "val_rule"):
        assert getattr(copy, field) == getattr(split, field)
    np.testing.assert_array_equal(copy.class_counts, split.class_counts)


def test_saving_twice_writes_the_same_bytes_and_no_other_file(tmp_path):
    save_split(natural(BALANCED), tmp_path / "a" / "split.npz")
    first = (tmp_path / "a" / "split.npz").read_bytes()
    save_split(natural(BALANCED), tmp_path / "a" / "split.npz")
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["split.npz"]
    assert (tmp_path / "a" / "split.npz").read_bytes() == first


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "split.npz"
    save_split(natural(BALANCED), file)
    before = file.read_bytes()

    def full(stream, **arrays):
        stream.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space left"):
        save_split(natural(BALANCED, num_classes=2), file)
    assert [name.name for name in tmp_path.iterdir()] == ["split.npz"]
    assert file.read_bytes() == before


def test_saving_does_not_disturb_a_reader_of_the_old_file(tmp_path):
    file = tmp_path / "split.npz"
    save_split(natural(BALANCED), file)
    before = file.read_bytes()
    with file.open("rb") as reader:
        save_split(natural(BALANCED, num_classes=2), file)
        assert reader.read() == before


def test_a_file_with_train_and_test_only_is_enough(tmp_path):
    np.savez(tmp_path / "mine.npz", train=[0, 1, 2], test=[300, 301])
    split = load_split_file(tmp_path / "mine.npz", BALANCED)
    assert (split.name, split.num_classes, split.val_rule) == ("toy-file-mine", 5, "none")
    assert split.class_counts.sum() == 3


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train": [0]}, "lacks the arrays test"),
        ({"train": [0], "test": [400]}, r"1 indices of 'test' \(first 400\) are outside the 400 samples"),
        ({"train": [-1], "test": [0]}, "outside the 400 samples"),
        ({"train": [0, 0], "test": [1]}, "repeats an index"),
        ({"train": [0], "test": [0]}, "shares one with another"),
        ({"train": [0.5], "test": [1]}, "must be integers"),
        ({"train": [0], "test": [1], "label_map": [0, 1]}, "maps 2 classes, but toy has 5"),
        ({"train": [0], "test": [1], "label_map": [0, 1, 2, 3, 5]}, "from -1 to 4"),
        ({"train": range(300), "test": [300], "label_map": [0, 1, 2, 3, -1]}, "gives no label"),
        ({"train": [0], "test": [1], "class_counts": [9, 9, 9, 9, 9]}, "made for other data"),
        ({"train": [0], "test": [1], "class_names": ["c1", "c0", "c2", "c3", "c4"]}, "label 0 is 'c1' in the file"),
        ({"train": [0], "test": [1], "label_map": [1, 0, 2, 3, 4]}, "contradict each other: label 1 is 'c1'"),
    ],
)
def test_a_split_file_that_does_not_fit_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "split.npz", **{name: np.array(array) for name, array in arrays.items()})
    with pytest.raises(DataError, match=message):
        load_split_file(tmp_path / "split.npz", BALANCED)


@pytest.mark.parametrize("content", [b"", b"not an archive", None])
def test_an_unreadable_split_file_is_refused(tmp_path, content):
    file = tmp_path / "split.npz"
    if content is None:
        save_split(natural(BALANCED), file)
        content = file.read_bytes()[:-100]
    file.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        load_split_file(file, BALANCED)


def test_a_split_file_with_pickles_is_refused(tmp_path):
    np.savez(tmp_path / "split.npz", train=np.array([Path("x")], dtype=object), test=[1])
    with pytest.raises(DataError, match="without pickles"):
        load_split_file(tmp_path / "split.npz", BALANCED)


def test_a_missing_split_file_is_named(tmp_path):
    with pytest.raises(DataError, match="there is no split file"):
        load_split_file(tmp_path / "none.npz", BALANCED)


# --- what holds for every split


def draw_split(data):
    num_classes = data.draw(st.integers(1, 6), label="classes")
    sizes = st.lists(st.integers(4, 40), min_size=num_classes, max_size=num_classes)
    source = make_source(
        data.draw(sizes, label="train"), data.draw(sizes, label="test"), data.draw(sizes, label="val"), shuffle=1
    )
    options = {
        "val": data.draw(st.sampled_from(["none", "train_fraction", "official", "test_fraction"]), label="rule"),
        "val_fraction": data.draw(st.floats(0.01, 0.99), label="fraction"),
        "seed": data.draw(st.integers(0, 100), label="seed"),
    }
    if data.draw(st.booleans(), label="natural"):
        return source, lambda: natural(source, **options)
    options["subset"] = data.draw(st.sampled_from(["cao", "first_n", "seeded"]), label="subset")
    options["profile"] = data.draw(st.sampled_from(["exponential", "step"]), label="profile")
    # small enough that no class falls to one image, which train_fraction warns of
    options["imbalance_factor"] = data.draw(st.floats(1, 2), label="imbalance factor")
    return source, lambda: long_tail(source, **options)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_every_split_is_disjoint_sorted_and_inside_its_parts(data):
    source, make = draw_split(data)
    split = make()
    arrays = [split.train, split.val, split.test]
    together = np.concatenate(arrays)
    assert len(np.unique(together)) == len(together)
    assert all((np.diff(array) > 0).all() for array in arrays)
    assert set(split.train) <= set(source.parts["train"])
    assert set(split.test) <= set(source.parts["test"])
    home = {"train_fraction": "train", "official": "val", "test_fraction": "test"}.get(split.val_rule)
    assert set(split.val) <= set(source.parts[home]) if home else len(split.val) == 0
    assert set(source.labels[split.train]) == set(range(source.num_classes))
    np.testing.assert_array_equal(np.bincount(source.labels[split.train]), split.class_counts)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_split_neither_reads_nor_advances_global_generators(data):
    _, make = draw_split(data)
    first = make()
    np.random.seed(data.draw(st.integers(0, 1000)))
    random.seed(5)
    before = (np.random.get_state(), random.getstate())
    second = make()
    after = (np.random.get_state(), random.getstate())
    assert after[0][1].tolist() == before[0][1].tolist()
    assert after[0][2:] == before[0][2:]
    assert after[1] == before[1]
    assert first.digest() == second.digest()


@given(
    imbalance_factor=st.floats(1, 60),
    num_classes=st.integers(2, 12),
    profile=st.sampled_from(["exponential", "step"]),
)
@settings(max_examples=60, deadline=None)
def test_counts_fall_from_n_max_to_its_share(imbalance_factor, num_classes, profile):
    counts = profile_counts(num_classes, n_max=60, imbalance_factor=imbalance_factor, profile=profile)
    assert counts[0] == 60
    assert (np.diff(counts) <= 0).all()
    assert abs(counts[-1] - 60 / imbalance_factor) <= 1
    assert len(counts) == num_classes
