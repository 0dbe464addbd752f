"""Tiny-ImageNet-200: labels by ascending WordNet id, and the labelled validation images as test images."""

import os
from pathlib import Path

import numpy as np
import pytest

import trees
from ltr.data.sources.tiny_imagenet import tiny_imagenet
from ltr.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:.*not the whole published")


def test_labels_are_numbered_as_by_torchvisions_image_folder(tmp_path):
    from torchvision.datasets import ImageFolder

    base = trees.tiny_imagenet(tmp_path)
    source, expected = tiny_imagenet(root=str(tmp_path)), ImageFolder(str(base / "train"))
    train = [(source.images.path(n), int(source.labels[n])) for n in source.parts["train"]]
    assert train == expected.samples
    assert list(source.taxonomy["wnid"]) == expected.classes


def test_validation_images_are_the_test_part_in_the_files_order(tmp_path):
    base = trees.tiny_imagenet(tmp_path)
    source = tiny_imagenet(root=str(tmp_path))
    rows = [line.split()[:2] for line in (base / "val" / "val_annotations.txt").read_text().splitlines()]
    test = [(Path(source.images.path(n)).name, source.taxonomy["wnid"][source.labels[n]]) for n in source.parts["test"]]
    assert test == [tuple(row) for row in rows]
    assert list(source.parts) == ["train", "test"]


def test_a_class_is_named_by_the_first_word_of_its_synset(tmp_path):
    trees.tiny_imagenet(tmp_path)
    assert tiny_imagenet(root=str(tmp_path)).class_names == ("word 0", "word 1", "word 2", "word 3")


def test_an_empty_class_is_named(tmp_path):
    base = trees.tiny_imagenet(tmp_path)
    for path in (base / "train" / "n01000037" / "images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"no image .* of n01000037"):
        tiny_imagenet(root=str(tmp_path))


def test_an_annotated_id_without_a_class_is_named(tmp_path):
    base = trees.tiny_imagenet(tmp_path)
    trees.lines(base / "val" / "val_annotations.txt", ["val_0.JPEG\tn99999999\t0\t0\t1\t1"])
    with pytest.raises(DataError, match=r"not in wnids\.txt: n99999999"):
        tiny_imagenet(root=str(tmp_path))


def test_a_repeated_class_is_named(tmp_path):
    base = trees.tiny_imagenet(tmp_path)
    trees.lines(base / "wnids.txt", ["n01000000", "n01000037", "n01000000"])
    with pytest.raises(DataError, match="appears twice: n01000000"):
        tiny_imagenet(root=str(tmp_path))


def test_missing_files_are_named_with_their_location_and_download(tmp_path):
    with pytest.raises(DataError) as refused:
        tiny_imagenet(root=str(tmp_path))
    for words in ("wnids.txt", str(tmp_path / "tiny-imagenet-200"), "no such folder", "download=true"):
        assert words in str(refused.value)


def test_real_tiny_imagenet_is_balanced():
    root = Path(os.environ.get("LTR_DATA", "data"))
    if not (root / "tiny-imagenet-200" / "wnids.txt").is_file():
        pytest.skip("LTR_DATA does not point to Tiny-ImageNet-200")
    source = tiny_imagenet(root=str(root))
    assert source.num_classes == 200
    for part in source.parts.values():
        assert len(set(np.bincount(source.labels[part.start : part.stop], minlength=200))) == 1
    assert source.class_names[0] == "goldfish"


def test_an_image_in_the_folder_of_another_class_is_refused(tmp_path):
    base = trees.tiny_imagenet(tmp_path) / "train"
    first, second = sorted(base.iterdir())[:2]
    (first / "images" / f"{first.name}_0.JPEG").rename(second / "images" / f"{first.name}_0.JPEG")
    with pytest.raises(DataError, match=rf"after another class .*: {second.name}/images/{first.name}_0\.JPEG"):
        tiny_imagenet(root=str(tmp_path))
