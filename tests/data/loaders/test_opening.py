"""The check of image files before training: damaged files, cost, one check per process, and advice."""

import numpy as np
import pytest
from PIL import Image

from ltr.data.loaders import opening
from ltr.data.loaders.opening import check_files, open_files
from ltr.data.source import Decoding, ImageFiles, Source
from ltr.data.split import Split
from ltr.errors import DataError

NOTHING = np.empty(0, dtype=np.int64)
CONFIG = {"exclude": None, "matte": "white", "white_level": None}
FORMATS = {"jpg": {}, "png": {}, "webp": {}, "gif": {}, "bmp": {}, "tif": {}, "ppm": {}}


def picture(seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8))


@pytest.fixture
def source(tmp_path, request):
    names = [f"{number}.jpg" for number in range(8)]
    for number, name in enumerate(names):
        picture(number).save(tmp_path / name)
    files = ImageFiles.from_paths(tmp_path, names, decoding=Decoding(matte=(255, 255, 255)))
    labels = np.array([0, 0, 0, 1, 0, 1, 0, 1])  # class 1 has one training image
    return Source(request.node.name, files, labels, ("a", "b"), {"train": range(4), "test": range(4, 8)})


def split():
    arrays = {"train": np.arange(4), "val": NOTHING, "test": np.arange(4, 8), "unknown": NOTHING}
    about = {"class_names": ("a", "b"), "class_counts": np.array([3, 1]), "name": "s"}
    return Split(**arrays, label_map=np.arange(2), **about)


def check(source, *, may_skip=False, dataset=CONFIG):
    return check_files(source, split(), workers=0, dataset=dataset, may_skip=may_skip)


def cut(source, index, share=0.5):
    path = source.images.path(index)
    with open(path, "rb") as file:
        content = file.read()
    with open(path, "wb") as file:
        file.write(content[: int(len(content) * share)])


@pytest.mark.parametrize("share", [0, 0.3, 0.7, 0.9])
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_truncated_file_of_any_format_is_found(tmp_path, suffix, share):
    for name in ("whole", "cut"):
        picture().save(tmp_path / f"{name}.{suffix}")
    content = (tmp_path / f"cut.{suffix}").read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(content[: int(len(content) * share)])
    files = ImageFiles.from_paths(tmp_path, [f"whole.{suffix}", f"cut.{suffix}"])
    outcome = open_files(files, np.arange(2))
    assert [image.number for image in outcome.bad] == [1]
    assert outcome.bad[0].path == f"cut.{suffix}"


def test_a_whole_jpeg_is_not_decoded(source, monkeypatch):
    monkeypatch.setattr(opening, "inspect_image", lambda *_: pytest.fail("decoded"))
    assert not open_files(source.images, np.arange(8)).bad


def test_padding_or_text_after_the_end_is_not_damage(source):
    for index, more in ((0, b"\0" * 40), (1, b"a trailer of some telephone" * 9)):
        with open(source.images.path(index), "ab") as file:
            file.write(more)
    assert not open_files(source.images, np.arange(8)).bad


def test_workers_find_the_same_broken_files(source, monkeypatch):
    cut(source, 5)
    monkeypatch.setattr(opening, "FEW", 4)
    monkeypatch.setattr(opening, "_AT_A_TIME", 2)
    assert open_files(source.images, np.arange(8), workers=2).bad == open_files(source.images, np.arange(8)).bad


@pytest.mark.parametrize("may_skip", [False, True])
def test_a_broken_evaluation_image_is_an_error_without_the_advice_to_skip(source, may_skip):
    cut(source, 4)
    with pytest.raises(DataError, match=r"1 image file cannot be read, evaluated \(1\):\n.*4\.jpg") as caught:
        check(source, may_skip=may_skip)
    assert "on_error" not in str(caught.value)
    assert "dataset.exclude=FILE" in str(caught.value)


def test_a_broken_training_image_is_an_error_unless_it_may_be_replaced(source):
    cut(source, 1)
    with pytest.raises(DataError, match=r"trained on \(1\)(.|\n)*trainer\.on_error=skip takes"):
        check(source)
    assert check(source, may_skip=True) == []


def test_the_only_image_of_a_class_cannot_be_replaced(source):
    cut(source, 3)
    with pytest.raises(DataError, match=r"with no other image of the class \(1\)") as caught:
        check(source, may_skip=True)
    assert "on_error" not in str(caught.value)


def test_only_keys_that_the_data_set_has_are_advised(source):
    cut(source, 4)
    with pytest.raises(DataError) as caught:
        check(source, dataset={})
    assert "dataset.exclude" not in str(caught.value)


def test_the_same_files_are_opened_once_in_a_process(source, monkeypatch):
    check(source)
    monkeypatch.setattr(opening, "open_files", lambda *_, **__: pytest.fail("opened again"))
    assert check(source) == []


def test_peculiarities_are_reported_with_the_files(source):
    path = source.images.path
    Image.fromarray(np.full((8, 8), 4000, dtype=np.uint16)).save(path(0), "PNG")
    drawing = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    drawing.save(path(1), "PNG")
    low, clear = check(source)
    assert "1 image has 16 bits and a highest value of 4,000" in low
    assert "dataset.white_level=4095" in low
    assert "0.jpg" in low
    assert "1 image has transparency; transparent pixels get the background white (dataset.matte): 1.jpg" in clear


def grey(path, highest):
    Image.fromarray(np.full((8, 8), highest, dtype=np.uint16)).save(path, "PNG")


def test_dark_16_bit_images_at_the_beginning_give_no_warning(source):
    for index in range(8):
        grey(source.images.path(index), 60000 if index == 5 else 20000)
    assert open_files(source.images, np.arange(8)).tally.lines() == []
    grey(source.images.path(5), 20000)
    (line,) = open_files(source.images, np.arange(8)).tally.lines()
    assert line.startswith("8 images have 16 bits and a highest value of 20,000")


def test_an_alpha_channel_without_transparent_pixels_gives_no_warning(source):
    for index in range(8):
        picture(index).convert("RGBA").save(source.images.path(index), "PNG")
    assert open_files(source.images, np.arange(8)).tally.lines() == []


@pytest.mark.parametrize("kind", ["P6", "P3"])
def test_wide_colours_of_portable_pixmaps_are_reported(source, kind):
    for index in range(2):
        pixels = bytes(2 * 3 * 4) if kind == "P6" else b" 0" * 12
        with open(source.images.path(index), "wb") as file:
            file.write(kind.encode() + (b"\n2 2\n255\n" if index else b"\n2 2\n65535\n") + pixels)
    (line,) = open_files(source.images, np.arange(8)).tally.lines()
    assert line == "1 image with 16 bits per colour: only the upper 8 bits are read: 0.jpg"
