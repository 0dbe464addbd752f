"""The Source and ImageFiles: what they refuse, and what their fingerprint depends on."""

import pickle
from dataclasses import fields

import numpy as np
import pytest

from ltr.data.source import Grouping, ImageFiles, Source
from ltr.errors import DataError


def make(**changes):
    arguments = {
        "name": "tiny",
        "images": np.arange(6 * 2 * 2 * 1, dtype=np.uint8).reshape(6, 2, 2, 1),
        "labels": np.array([0, 1, 2, 0, 1, 2]),
        "class_names": ("a", "b", "c"),
        "parts": {"train": range(4), "test": range(4, 6)},
    }
    return Source(**{**arguments, **changes})


def test_labels_are_int64_and_cannot_be_written():
    source = make(labels=np.array([0, 1, 2, 0, 1, 2], dtype=np.uint8))
    assert source.labels.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        source.labels[0] = 1


def test_images_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        make().images[0] = 0


def test_the_callers_labels_are_copied():
    labels = np.array([0, 1, 2, 0, 1, 2])
    source = make(labels=labels)
    labels[0] = 2
    assert source.labels[0] == 0


@pytest.mark.parametrize("other", ["e\u0301", "\u00e9"])
def test_classes_of_one_name_are_refused(other):
    with pytest.raises(DataError, match=r"several classes have the same name: '\\xe9'\. .* give each class"):
        make(class_names=("\u00e9", "b", other))
    assert make(class_names=("E", "b", other)).num_classes == 3


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_its_range_is_refused_with_its_index(label):
    with pytest.raises(DataError, match=rf"label {label} of image 2 is outside 0\.\.2"):
        make(labels=np.array([0, 1, label, 0, 1, 2]))


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": np.array([0, 1, 2])},
        {"labels": np.array([0.0, 1, 2, 0, 1, 2])},
        {"labels": np.zeros((6, 1), dtype=int)},
        {"images": np.zeros((6, 2, 2, 1), dtype=np.float32)},
        {"images": np.zeros((6, 2, 2), dtype=np.uint8)},
        {"parts": {"train": range(4)}},
        {"parts": {"train": range(4), "test": range(3, 6)}},
        {"parts": {"train": range(4), "test": range(5, 6)}},
        {"parts": {"test": range(4, 6), "train": range(4)}},
        {"parts": {"train": range(0, 6, 2), "test": range(6, 6)}},
    ],
)
def test_inconsistent_labels_classes_and_parts_are_refused(changes):
    with pytest.raises(DataError, match="tiny"):
        make(**changes)


def test_a_part_that_is_missing_is_named_with_those_there_are():
    with pytest.raises(DataError, match=r"no part 'trian'; it has train, test. Did you mean 'train'"):
        make().part("trian")


def test_equal_sources_have_equal_fingerprints():
    assert make().fingerprint == make().fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"labels": np.array([0, 1, 2, 0, 1, 1])},
        {"class_names": ("a", "b", "d")},
        {"parts": {"train": range(3), "test": range(3, 6)}},
        {"images": np.arange(1, 25, dtype=np.uint8).reshape(6, 2, 2, 1)},
        {"images": np.arange(24, dtype=np.uint8).reshape(6, 4, 1, 1)},
    ],
)
def test_the_fingerprint_depends_on_every_argument(changes):
    assert make(**changes).fingerprint != make().fingerprint


def test_a_source_survives_pickling():
    source = make()
    copy = pickle.loads(pickle.dumps(source))
    assert copy.fingerprint == source.fingerprint
    np.testing.assert_array_equal(copy.images, source.images)


PATHS = ["a/1.jpg", "b/größe 2.jpg", "/elsewhere/3.jpg", "b/\udcff.jpg"]


def test_image_files_return_their_paths():
    files = ImageFiles.from_paths("/data", PATHS)
    assert len(files) == 4
    assert [files.path(i) for i in range(4)] == [
        "/data/a/1.jpg",
        "/data/b/größe 2.jpg",
        "/elsewhere/3.jpg",
        "/data/b/\udcff.jpg",
    ]


@pytest.mark.parametrize("index", [-1, 4])
def test_image_files_refuse_an_index_outside(index):
    with pytest.raises(IndexError):
        ImageFiles.from_paths("/data", PATHS).path(index)


def of_files(root="/data", paths=("a", "bc"), sizes=None):
    files = ImageFiles.from_paths(root, paths, sizes)
    return Source("files", files, np.array([0, 1]), ("x", "y"), {"train": range(2)})


def test_moving_files_does_not_change_the_fingerprint():
    assert of_files("/data").fingerprint == of_files("/moved").fingerprint


@pytest.mark.parametrize("changes", [{"paths": ("ab", "c")}, {"paths": ("bc", "a")}, {"sizes": [1, 2]}])
def test_the_fingerprint_of_files_depends_on_every_argument(changes):
    assert of_files(**changes).fingerprint != of_files().fingerprint


def test_file_sizes_are_part_of_the_fingerprint():
    assert of_files(sizes=[1, 2]).fingerprint != of_files(sizes=[1, 3]).fingerprint


def test_files_and_labels_must_be_equally_many():
    with pytest.raises(DataError, match="2 images but 3 labels"):
        Source("files", ImageFiles.from_paths("/", ["a", "b"]), np.zeros(3, int), ("x",), {"train": range(3)})


METADATA = {
    "class_ids": [np.array([7, 8, 9]), np.array([7, 9, 8])],
    "taxonomy": [{"family": ("x", "x", "y")}, {"family": ("x", "y", "y")}, {"order": ("x", "x", "y")}],
    "boxes": [np.zeros((6, 4)), np.eye(6, 4)],
    "groupings": [
        {"camera": Grouping(np.array([0, 0, 1, 1, -1, 0]), ("n", "s"))},
        {"camera": Grouping(np.array([0, 1, 1, 1, -1, 0]), ("n", "s"))},
        {"camera": Grouping(np.array([0, 0, 1, 1, -1, 0]), ("n", "w"))},
    ],
}


@pytest.mark.parametrize("field", METADATA)
def test_every_field_that_the_fingerprint_leaves_out_has_a_digest(field):
    key, more = ("group", {"group": "camera"}) if field == "groupings" else (field, {})
    sources = [make(**{field: value}, **more) for value in METADATA[field]]
    assert {source.fingerprint for source in sources} == {make().fingerprint}
    digests = [source.metadata_digests() for source in sources]
    assert all(list(one) == [key] for one in digests)
    assert len({one[key] for one in digests}) == len(sources)
    assert digests[0] == make(**{field: METADATA[field][0]}, **more).metadata_digests()
    assert make().metadata_digests() == {}


def test_each_field_of_a_source_is_part_of_its_fingerprint_or_of_its_metadata_or_only_described():
    fingerprinted = {"name", "images", "labels", "class_names", "parts", "fingerprint"}
    described = {"left_out", "remarks"}  # of ltr-data describe
    assert {field.name for field in fields(Source)} == fingerprinted | described | {*METADATA, "group"}
