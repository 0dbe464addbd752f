"""SVHN, Stanford Cars and FGVC-Aircraft through torchvision's readers."""

import hashlib

import numpy as np
import pytest
from torchvision import datasets

import trees
from ltr.data.sources.torchvision_sets import aircraft, cars, svhn
from ltr.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:.*not the whole published")


@pytest.fixture
def small_svhn(tmp_path, monkeypatch):
    """The official files with a few images, and their md5 for torchvision."""
    from scipy.io import savemat

    random = np.random.default_rng(0)
    images, entries = {}, {}
    for part, labels in (("train", [1, 10, 3, 9]), ("test", [10, 2])):
        images[part] = random.integers(0, 256, (32, 32, 3, len(labels)), dtype=np.uint8)
        file = tmp_path / f"{part}_32x32.mat"
        savemat(file, {"X": images[part], "y": np.array(labels, dtype=np.uint8)[:, None]})
        entries[part] = [f"http://example.org/{file.name}", file.name, hashlib.md5(file.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", entries)
    return tmp_path, images


def test_label_ten_of_svhn_is_read_as_zero(small_svhn):
    root, images = small_svhn
    source = svhn(root=str(root))
    assert source.labels.tolist() == [1, 0, 3, 9, 0, 2]
    assert source.parts == {"train": range(4), "test": range(4, 6)}
    np.testing.assert_array_equal(source.images[1], images["train"][..., 1])
    np.testing.assert_array_equal(source.images[4], images["test"][..., 0])


def test_a_truncated_svhn_file_is_named(small_svhn):
    root, _ = small_svhn
    (root / "test_32x32.mat").write_bytes((root / "test_32x32.mat").read_bytes()[:100])
    with pytest.raises(DataError, match=r"test_32x32\.mat is damaged or only half downloaded \(100 bytes\)"):
        svhn(root=str(root))


def test_a_missing_svhn_file_is_refused_with_its_download(tmp_path):
    with pytest.raises(DataError, match=r"train_32x32\.mat.*\n.*dataset\.download=true"):
        svhn(root=str(tmp_path))


def test_a_failed_download_of_svhn_is_one_message(tmp_path, monkeypatch):
    def fail(self):
        raise OSError("the network is down")

    monkeypatch.setattr(datasets.SVHN, "download", fail)
    with pytest.raises(DataError, match=r"could not be downloaded .*the network is down"):
        svhn(root=str(tmp_path), download=True)


def test_cars_are_those_of_torchvision(tmp_path):
    trees.cars(tmp_path)
    source = cars(root=str(tmp_path))
    for part, indices in source.parts.items():
        expected = datasets.StanfordCars(str(tmp_path), split=part)
        assert [(source.images.path(n), int(source.labels[n])) for n in indices] == expected._samples
        assert list(source.class_names) == expected.classes


def test_downloading_cars_is_refused_with_the_reason(tmp_path):
    with pytest.raises(DataError, match="the official address no longer exists"):
        cars(root=str(tmp_path))


@pytest.mark.parametrize(("train_part", "expected_part"), [("trainval", "trainval"), ("train", "train")])
def test_aircraft_are_those_of_torchvision(tmp_path, train_part, expected_part):
    trees.aircraft(tmp_path)
    source = aircraft(root=str(tmp_path), train_part=train_part)
    reader = datasets.FGVCAircraft(str(tmp_path), split=expected_part)
    assert [source.images.path(n) for n in source.parts["train"]] == reader._image_files
    assert source.labels[: len(reader)].tolist() == reader._labels
    assert ("val" in source.parts) == (train_part == "train")


def test_aircraft_know_their_family_and_manufacturer(tmp_path):
    trees.aircraft(tmp_path)
    taxonomy = aircraft(root=str(tmp_path)).taxonomy
    assert taxonomy["family"] == ("Made-up 0 family", "Made-up 0 family", "Made-up 1 family", "Made-up 1 family")
    assert taxonomy["manufacturer"] == ("Made-up Works",) * 4


def test_a_damaged_aircraft_list_is_named(tmp_path):
    base = trees.aircraft(tmp_path)
    trees.lines(base / "data" / "images_variant_test.txt", ["2000000 Unknown-1"])
    with pytest.raises(DataError, match=r"images_variant_test\.txt is damaged"):
        aircraft(root=str(tmp_path))


def test_an_aircraft_without_a_training_image_is_named(tmp_path):
    base = trees.aircraft(tmp_path)
    trees.lines(base / "data" / "images_variant_trainval.txt", ["0000000 Made-up 0-100"])
    with pytest.raises(DataError, match=r"without a training image in images_variant_trainval\.txt .*Made-up 1-100"):
        aircraft(root=str(tmp_path))


def test_aircraft_lists_of_different_lengths_are_refused(tmp_path):
    base = trees.aircraft(tmp_path)
    trees.lines(base / "data" / "images_family_trainval.txt", ["0000000 Made-up 0 family"])
    with pytest.raises(DataError, match="12 training images have a variant, and 1 a family"):
        aircraft(root=str(tmp_path))


@pytest.mark.parametrize(("read", "draw"), [(cars, trees.cars), (aircraft, trees.aircraft)])
def test_missing_images_are_counted(tmp_path, read, draw):
    base = draw(tmp_path)
    sorted(base.rglob("*.jpg"))[0].unlink()
    with pytest.raises(DataError, match="1 of 20 image files"):
        read(root=str(tmp_path))


def test_a_variant_of_two_families_is_refused(tmp_path):
    base = trees.aircraft(tmp_path)
    file = base / "data" / "images_family_trainval.txt"
    rows = file.read_text().splitlines()
    image, _, name = rows[0].partition(" ")
    other = next(row.partition(" ")[2] for row in rows if not row.endswith(name))
    trees.lines(file, [f"{image} {other}", *rows[1:]])
    with pytest.raises(DataError, match="of two classes of family"):
        aircraft(root=str(tmp_path))
