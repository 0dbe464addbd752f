"""Text lists of "path label": ImageNet-LT, Places-LT, iNaturalist 2018."""

import os
from pathlib import Path

import numpy as np
import pytest

import trees
from ltr.data.sources.text_lists import PUBLISHED, read_list, text_lists
from ltr.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:.*not the whole published")
FILES = {part: f"ImageNet_LT_{part}.txt" for part in ("train", "val", "test")}


def read(root, **options):
    named = {"name": "imagenet_lt", "folder": "imagenet", "lists": "ImageNet_LT", **FILES}
    return text_lists(root=str(root), **{**named, **options})


@pytest.fixture
def tree(tmp_path):
    trees.imagenet_lt(tmp_path)
    return tmp_path


def train_list(tree):
    return tree / "ImageNet_LT" / "ImageNet_LT_train.txt"


def test_parts_are_the_lists_in_their_order(tree):
    source = read(tree)
    assert source.parts == {"train": range(12), "val": range(12, 16), "test": range(16, 24)}
    for part, indices in source.parts.items():
        rows = (tree / "ImageNet_LT" / FILES[part]).read_text().splitlines()
        paths = [os.path.relpath(source.images.path(n), tree / "imagenet") for n in indices]
        assert [f"{path} {source.labels[n]}" for path, n in zip(paths, indices)] == rows


def test_without_a_val_list_there_is_no_such_part(tree):
    assert list(read(tree, val=None).parts) == ["train", "test"]


def test_classes_are_named_after_their_folders(tree):
    assert read(tree).class_names == ("n00000000", "n00000001", "n00000002", "n00000003")


def test_classes_that_share_a_folder_are_numbered(tree):
    (tree / "imagenet" / "train" / "n00000001").rename(tree / "imagenet" / "moved")
    (tree / "imagenet" / "train" / "n00000001").mkdir()
    text = train_list(tree).read_text().replace("train/n00000001/", "train/n00000000/")
    for path in (tree / "imagenet" / "moved").iterdir():
        path.rename(tree / "imagenet" / "train" / "n00000000" / path.name)
    train_list(tree).write_text(text)
    assert read(tree, val=None).class_names == ("class 0", "class 1", "class 2", "class 3")


def test_labels_with_a_gap_are_refused(tree):
    train_list(tree).write_text(train_list(tree).read_text().replace(" 2\n", " 7\n"))
    with pytest.raises(DataError, match=r"labels up to 7, but none of 2, 4, 5, 6\."):
        read(tree)


def test_a_huge_label_is_refused_without_allocating_memory_for_it(tree):
    train_list(tree).write_text("a.jpg 0\nb.jpg 999999999999\n")
    with pytest.raises(DataError, match=r"none of 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, \.\.\. \(999,999,999,998 in all\)"):
        read(tree)


def test_a_test_label_that_training_does_not_have_is_refused(tree):
    file = tree / "ImageNet_LT" / FILES["test"]
    file.write_text(file.read_text().replace(" 3\n", " 4\n"))
    with pytest.raises(DataError, match=r"labels that ImageNet_LT_train\.txt lacks: 4; it has 0 to 3"):
        read(tree)


def test_another_spelling_of_an_image_is_that_image(tree):
    file = tree / "ImageNet_LT" / FILES["test"]
    file.write_text("./train//n00000001/train_1.JPEG 1\n" + "".join(file.read_text().splitlines(True)[1:]))
    with pytest.raises(DataError, match=r"appears twice:\n  train/n00000001/train_1\.JPEG \(line 2 .*\./train//n"):
        read(tree)


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_label_that_contradicts_the_folder_of_another_class_is_refused(tree, part):
    file = tree / "ImageNet_LT" / FILES[part]
    trees.put(tree / "imagenet" / part / "n00000002" / "x.JPEG", 0)
    file.write_text(file.read_text() + f"{part}/n00000002/x.JPEG 1\n")
    with pytest.raises(
        DataError, match=rf"contradict each other for 1 images:\n  {part}/n00000002/x\.JPEG has label 1"
    ):
        read(tree)


def test_an_image_in_two_lists_is_refused(tree):
    file = tree / "ImageNet_LT" / FILES["test"]
    file.write_text(train_list(tree).read_text())
    with pytest.raises(
        DataError,
        match=r"appears twice, and so do 11 others \(the first ten\):\n  train/n00000000/train_0\.JPEG \(line 1",
    ):
        read(tree)


@pytest.mark.parametrize("line", ["train/1.JPEG", "train/1.JPEG x", "train/1.JPEG -1", " 3"])
def test_a_line_without_a_label_is_named(tree, line):
    train_list(tree).write_text(f"{line}\n" + train_list(tree).read_text())
    with pytest.raises(DataError, match=r"ImageNet_LT_train\.txt must have lines 'path label' .* line 1 "):
        read(tree)


def test_a_path_may_hold_spaces(tmp_path):
    (tmp_path / "x.txt").write_text("a folder/an image.jpg 12\n")
    assert read_list("tiny", tmp_path / "x.txt") == (["a folder/an image.jpg"], [12])


def test_ten_missing_images_are_counted(tree):
    for path in sorted((tree / "imagenet").rglob("*.JPEG"))[:10]:
        path.unlink()
    with pytest.raises(DataError, match="10 of 24 image files"):
        read(tree)


def test_a_missing_list_is_refused_with_its_location(tree):
    train_list(tree).unlink()
    with pytest.raises(DataError, match=r"lacks ImageNet_LT_train\.txt.*\n.*dataset\.lists"):
        read(tree)


def test_a_missing_image_folder_is_named(tree):
    (tree / "imagenet").rename(tree / "elsewhere")
    with pytest.raises(DataError, match=f"put the images there, as {tree / 'imagenet'}"):
        read(tree)


def test_an_empty_list_is_refused(tree):
    train_list(tree).write_text("\n")
    with pytest.raises(DataError, match="is empty"):
        read(tree)


def published_list(name):
    file = Path(os.environ.get("LTR_DATA", "data")) / "lists" / name
    if not file.is_file():
        pytest.skip(f"LTR_DATA has no {name}")
    return read_list("published", file)


def test_the_published_places_lt_list_has_its_published_counts():
    paths, labels = published_list("Places_LT_train.txt")
    counts = np.bincount(labels)
    assert (len(paths), len(counts)) == (PUBLISHED["places_lt"]["train"], PUBLISHED["places_lt"]["classes"])
    assert (counts.max(), counts.min()) == (4980, 5)


def test_the_published_inaturalist_val_list_has_three_of_each():
    _, labels = published_list("iNaturalist18_val.txt")
    assert np.bincount(labels).tolist() == [3] * PUBLISHED["inat18_lists"]["classes"]


def test_a_published_list_of_real_size_is_read_completely(tmp_path):
    paths, labels = published_list("Places_LT_train.txt")
    for folder in {os.path.dirname(path) for path in paths}:
        (tmp_path / "places" / folder).mkdir(parents=True)
    few = {label: path for path, label in zip(paths, labels)}  # the last image of each class
    for path in few.values():
        (tmp_path / "places" / path).touch()
    for part in ("train", "test"):
        trees.lines(
            tmp_path / f"{part}.txt", [f"{path} {label}" for label, path in few.items()] if part == "train" else []
        )
    source = text_lists(
        name="places", root=str(tmp_path), folder="places", lists=".", train="train.txt", test="test.txt"
    )
    assert source.class_names[0] == "airfield"
    assert source.num_classes == 365
