"""Text lists with a list of unknown images: the part `open`, its one class, and what is refused."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

import trees
from ltr.data.source import PLAIN, Decoding, ImageFiles
from ltr.data.sources.open_lists import open_lists
from ltr.data.sources.text_lists import text_lists
from ltr.data.splitting.open_set import open_set
from ltr.errors import DataError


@pytest.fixture
def lists(tmp_path):
    """Two classes with three training, one validation and two test images; two more images that no list has yet."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(buffer, "JPEG")
    rows = {
        "train": ["a/0.jpg 0", "a/1.jpg 0", "b/0.jpg 1"],
        "val": ["a/2.jpg 0"],
        "test": ["v/0.jpg 0", "v/1.jpg 1"],
        "open": ["o/0.jpg 1", "o/1 with a space.jpg -1"],
    }
    for part, lines in rows.items():
        (tmp_path / f"{part}.txt").write_text("\n".join(lines) + "\n")
        for line in lines:
            file = tmp_path / "images" / line.rpartition(" ")[0]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(buffer.getvalue())
    return tmp_path


def read(root, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return open_lists(
            **{"name": "toy", "root": str(root), "folder": "images", "lists": ".", "train": "train.txt"}
            | {"val": "val.txt", "test": "test.txt", "open": "open.txt"}
            | more
        )


def test_the_open_list_is_the_last_part_with_a_separate_class(lists):
    source = read(lists)
    assert source.parts == {"train": range(3), "val": range(3, 4), "test": range(4, 6), "open": range(6, 8)}
    assert source.labels.tolist() == [0, 0, 1, 0, 0, 1, 2, 2]
    assert source.class_names[2] == "unknown"
    assert isinstance(source.images, ImageFiles)
    assert source.images.path(7) == str(lists / "images" / "o" / "1 with a space.jpg")
    assert source.images.path(5) == str(lists / "images" / "v" / "1.jpg")


def test_images_of_the_open_list_are_the_unknown_ones_of_the_split(lists):
    source = read(lists)
    split = open_set(source, classes="all", unknown_part="open", val="official")
    assert split.unknown.tolist() == [6, 7]
    assert (split.num_classes, len(split.train), len(split.val), len(split.test)) == (2, 3, 1, 2)


def test_labels_may_be_missing_from_the_open_list(lists):
    (lists / "open.txt").write_text("o/0.jpg\n")
    assert len(read(lists).parts["open"]) == 1


def test_an_empty_open_list_is_refused(lists):
    (lists / "open.txt").write_text("\n")
    with pytest.raises(DataError, match=r"open\.txt is empty"):
        read(lists)


def test_an_open_image_that_is_known_is_refused(lists):
    for path in ("a/1.jpg", "./a/1.jpg", "o/../a//1.jpg"):
        (lists / "open.txt").write_text(f"{path} 5\n")
        with pytest.raises(
            DataError, match=r"appears twice:\n  a/1\.jpg \(line 2 of train\.txt\) and .*line 1 of open\.txt"
        ):
            read(lists)


def test_a_missing_open_list_is_named(lists):
    with pytest.raises(DataError, match=r"absent\.txt"):
        read(lists, open="absent.txt")


def test_a_missing_open_image_is_named(lists):
    (lists / "open.txt").write_text("o/9.jpg 1\n")
    with pytest.raises(DataError, match=r"o/9\.jpg"):
        read(lists)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "folder", "prefix"),
    [("imagenet_lt_open", "imagenet", "ImageNet_LT"), ("places_lt_open", "places365", "Places_LT")],
)
def test_the_configs_read_the_lists_under_their_published_names(lists, ltr_train, config, folder, prefix):
    (lists / "images").rename(lists / folder)
    (lists / prefix).mkdir()
    for part in ("train", "val", "test", "open"):
        (lists / f"{part}.txt").rename(lists / prefix / f"{prefix}_{part}.txt")
    small = ["backbone.name=resnet18", "dataset.image_size=32", "trainer.precision=fp32", "trainer.num_workers=0"]
    finished = ltr_train("debug=fast", "trainer.max_epochs=1", f"dataset={config}", f"paths.data={lists}", *small)
    assert finished.code == 0, finished.err
    with np.load(finished.directory / "split.npz") as split:
        assert split["unknown"].tolist() == [6, 7]
        assert split["val"].tolist() == [3]


def test_published_lists_drop_alpha_and_other_lists_have_a_white_matte(tmp_path):
    def decoding(name, **options):
        root = tmp_path / name
        if not root.exists():
            trees.put(root / "images" / "a" / "0.jpg", 0)
            trees.put(root / "images" / "a" / "1.jpg", 1)
            trees.lines(root / "lists" / "train.txt", ["a/0.jpg 0"])
            trees.lines(root / "lists" / "test.txt", ["a/1.jpg 0"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is not the whole published set
            options |= {"root": str(root), "folder": "images", "lists": "lists"}
            return text_lists(name=name, train="train.txt", test="test.txt", **options).decoding

    assert decoding("imagenet_lt") == PLAIN
    assert decoding("birds") == Decoding(matte=(255, 255, 255))
    assert decoding("birds", matte=None) == PLAIN
