"""CUB-200-2011 and NABirds: official files, and files that contradict each other."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trees
from ltr.data.sources.birds import cub, nabirds
from ltr.data.splitting.closed_set import natural
from ltr.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:.*not the whole published")


def test_cub_divides_by_its_flags_and_keeps_the_files_order(tmp_path):
    base = trees.cub(tmp_path, classes=3)
    source = cub(root=str(tmp_path))
    flags = dict(line.split() for line in (base / "train_test_split.txt").read_text().splitlines())
    paths = dict(line.split() for line in (base / "images.txt").read_text().splitlines())
    expected = [paths[image] for flag in "10" for image in paths if flags[image] == flag]
    assert [os.path.relpath(source.images.path(n), base / "images") for n in range(len(source))] == expected
    assert source.parts == {"train": range(9), "test": range(9, 15)}
    assert source.labels[:9].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_cub_names_classes_without_number_and_underscores(tmp_path):
    trees.cub(tmp_path, classes=3)
    source = cub(root=str(tmp_path))
    assert source.class_names == ("Made up Bird 1", "Made up Bird 2", "Made up Bird 3")
    assert source.class_ids.tolist() == [1, 2, 3]


def test_boxes_belong_to_their_images(tmp_path):
    base = trees.cub(tmp_path, classes=2)
    boxes = {line.split()[0]: line.split()[1:] for line in (base / "bounding_boxes.txt").read_text().splitlines()}
    ids = {path: image for image, path in (line.split() for line in (base / "images.txt").read_text().splitlines())}
    source = cub(root=str(tmp_path))
    for index in range(len(source)):
        image = ids[os.path.relpath(source.images.path(index), base / "images")]
        assert source.boxes[index].tolist() == [float(number) for number in boxes[image]]


def test_nabirds_labels_sparse_ids_in_ascending_order(tmp_path):
    trees.nabirds(tmp_path, (817, 295, 1010))
    source = nabirds(root=str(tmp_path))
    assert source.class_ids.tolist() == [295, 817, 1010]
    assert source.class_names == ("Made-up Bird 295", "Made-up Bird 817", "Made-up Bird 1010")
    for index, label in enumerate(source.labels):
        assert source.images.path(index).split("/")[-2] == f"{source.class_ids[label]:04d}"


def test_nabirds_takes_its_hierarchy_as_taxonomy(tmp_path):
    trees.nabirds(tmp_path, (817, 295, 1010))
    assert nabirds(root=str(tmp_path)).taxonomy == {"level1": ("Owls", "Owls", "Ducks and Others")}


def test_a_class_above_the_leaves_is_its_superclass(tmp_path):
    base = trees.nabirds(tmp_path, (817, 295))
    (base / "hierarchy.txt").write_text("1 0\n2 1\n817 2\n295 0\n")
    taxonomy = nabirds(root=str(tmp_path)).taxonomy
    assert taxonomy == {"level1": ("Made-up Bird 295", "Ducks and Others"), "level2": ("Made-up Bird 295", "Owls")}


def test_a_cyclic_hierarchy_is_refused(tmp_path):
    base = trees.nabirds(tmp_path, (817, 295))
    (base / "hierarchy.txt").write_text("817 1\n1 817\n")
    with pytest.raises(DataError, match="has a cycle"):
        nabirds(root=str(tmp_path))


@pytest.mark.parametrize("file", ["images.txt", "classes.txt", "train_test_split.txt", "bounding_boxes.txt"])
def test_a_missing_file_is_named(tmp_path, file):
    base = trees.cub(tmp_path)
    (base / file).unlink()
    with pytest.raises(DataError, match=rf"it lacks {file}\.\n") as refused:
        cub(root=str(tmp_path))
    assert "dataset.download=true" in str(refused.value)


@pytest.mark.parametrize("file", ["image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt"])
def test_a_truncated_file_is_named_with_the_missing_ids(tmp_path, file):
    base = trees.cub(tmp_path)
    lines = (base / file).read_text().splitlines()
    trees.lines(base / file, lines[:-2])
    with pytest.raises(DataError, match=rf"{file} lacks 2 ids that .*images\.txt has: 29, 30"):
        cub(root=str(tmp_path))


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("image_class_labels.txt", "1 99", r"classes\.txt lacks the classes 99"),
        ("train_test_split.txt", "1 2", "0 and 1 only, not '2' of image 1"),
        ("bounding_boxes.txt", "1 a b c d", "values that are not numbers"),
        ("images.txt", "2 other.jpg", "appears twice: 2"),
        ("images.txt", "1 ../../../1.jpg", "lie outside"),
        ("images.txt", "1 nowhere.jpg", "1 of 30 image files"),
    ],
)
def test_a_wrong_line_is_refused(tmp_path, file, line, words):
    base = trees.cub(tmp_path)
    trees.lines(base / file, [line, *(base / file).read_text().splitlines()[1:]])
    with pytest.raises(DataError, match=words):
        cub(root=str(tmp_path))


@pytest.mark.parametrize(
    ("file", "lines", "words"),
    [
        ("classes.txt", {0: "1 002.Made_up_Bird_2"}, "class 1 is called 002.Made_up_Bird_2"),
        ("classes.txt", {0: "1 001.Other_Bird"}, "001.Made_up_Bird_1/Bird_1_0.jpg has class 1, 001.Other_Bird"),
        ("image_class_labels.txt", {0: "1 2"}, "001.Made_up_Bird_1/Bird_1_0.jpg has class 2, 002.Made_up_Bird_2"),
    ],
)
def test_ids_and_names_that_contradict_each_other_are_refused(tmp_path, file, lines, words):
    base = trees.cub(tmp_path)
    rows = (base / file).read_text().splitlines()
    trees.lines(base / file, [lines.get(number, row) for number, row in enumerate(rows)])
    with pytest.raises(DataError, match="contradict each other") as refused:
        cub(root=str(tmp_path))
    assert words in str(refused.value)


def test_a_bird_in_the_folder_of_another_class_is_refused(tmp_path):
    base = trees.nabirds(tmp_path)
    file = base / "image_class_labels.txt"
    file.write_text(file.read_text().replace(" 817\n", " 295\n", 1))
    with pytest.raises(DataError, match=r"contradict each other: 0817/Bird_817_0\.jpg has class 295"):
        nabirds(root=str(tmp_path))


def test_a_class_without_a_training_image_is_named(tmp_path):
    base = trees.cub(tmp_path)
    flags = (base / "train_test_split.txt").read_text().splitlines()
    trees.lines(base / "train_test_split.txt", [f"{n} 0" for n in range(1, 6)] + flags[5:])
    with pytest.raises(DataError, match=r"without a training image in .*train_test_split\.txt, by class_id: 1\."):
        cub(root=str(tmp_path))


def test_an_absolute_folder_is_used_unchanged(tmp_path):
    base = trees.cub(tmp_path)
    assert len(cub(root="/nowhere", folder=str(base))) == 30


def test_a_class_folder_linked_outside_is_refused_unless_its_target_is_allowed(tmp_path):
    base = trees.cub(tmp_path / "data")
    moved = tmp_path / "disk2"
    (base / "images").rename(moved)
    (base / "images").symlink_to(moved)
    with pytest.raises(DataError, match=r"30 of 30 image files .* lie outside"):
        cub(root=str(tmp_path / "data"))
    assert len(cub(root=str(tmp_path / "data"), roots=[str(moved)])) == 30


@pytest.fixture(scope="module")
def real_cub():
    root = Path(os.environ.get("LTR_DATA", "data"))
    if not (root / "CUB_200_2011" / "images.txt").is_file():
        pytest.skip("LTR_DATA does not point to CUB-200-2011")
    return cub(root=str(root))


def test_real_cub_has_thirty_training_images_of_the_first_class(real_cub):
    assert np.bincount(real_cub.labels[: real_cub.parts["train"].stop])[0] == 30
    assert real_cub.class_names[0] == "Black footed Albatross"


def test_real_cub_boxes_lie_in_their_images(real_cub):
    for index in range(0, len(real_cub), 50):
        with Image.open(real_cub.images.path(index)) as image:
            left, top, width, height = real_cub.boxes[index]
            assert 0 <= left < left + width <= image.width + 1
            assert 0 <= top < top + height <= image.height + 1


def test_real_cub_splits(real_cub):
    split = natural(real_cub)
    assert len(split.train) + len(split.test) == len(real_cub)
