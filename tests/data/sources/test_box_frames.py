"""Boxes of photographs with an EXIF orientation cut the object, whichever image the annotating tool measured."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image, ImageOps

from ltr.data.images.decode import decode_image
from ltr.data.sources import box_frames
from ltr.data.sources.box_frames import turned_boxes
from ltr.data.sources.camera_traps import camera_traps
from ltr.errors import DataError

SIZE = (48, 32)
BOX = (4, 8, 16, 12)  # left, top, width, height of a red object in the stored pixels


def pixels(size=SIZE):
    image = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    left, top, width, height = BOX
    image[top : top + height, left : left + width] = (255, 0, 0)
    return Image.fromarray(image)


def photograph(path, turn, size=SIZE):
    """Write an image; return its upright form and the box of the object in it."""
    exif = Image.Exif()
    exif[0x0112] = turn
    pixels(size).save(path, exif=exif)
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    rows, columns = np.nonzero(np.asarray(upright)[..., 0] > 128)
    box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    return upright, tuple(map(int, box))


def annotated(folder, images):
    """Write COCO with one box for each (turn, width and height or None, box)."""
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}
    for number, (name, size, box) in enumerate(images):
        sides = {} if size is None else {"width": size[0], "height": size[1]}
        content["images"].append({"id": number, "file_name": name, **sides})
        content["annotations"].append(
            {"id": number, "image_id": number, "category_id": 1 + number % 2, "bbox": list(box)}
        )
    (folder / "c.json").write_text(json.dumps(content))
    return folder / "c.json"


def read(folder, **options):
    return camera_traps(
        name="x",
        annotations=str(folder / "c.json"),
        root=str(folder),
        crop_margin=0.0,
        crop_square=False,
        group="none",
        **options,
    )


def assert_red(source, count):
    assert len(source) == count
    for row in range(count):
        crop = np.asarray(decode_image(source.images.open(row), source.decoding))
        assert (crop[..., 0] > 128).all(), source.images.relative(row)
        assert crop.shape[0] * crop.shape[1] == BOX[2] * BOX[3]


@pytest.mark.parametrize("exif", [True, False])
@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("scale", [1, 2, 0.5])
@pytest.mark.parametrize("frame", ["stored", "upright"])
def test_a_box_cuts_the_object_in_the_frame_that_width_and_height_show(tmp_path, exif, turn, scale, frame):
    entries = []
    for number in range(4):  # one of another orientation decides where a half turn or a mirror image leaves it open
        upright, box = photograph(tmp_path / f"{number}.png", turn if number else 6)
        size, box = (SIZE, BOX) if frame == "stored" else (upright.size, box)
        entries.append((f"{number}.png", [round(side * scale) for side in size], [side * scale for side in box]))
    annotated(tmp_path, entries)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = read(tmp_path, exif=exif)
    assert_red(source, 4)
    assert any("turned with the image" in remark for remark in source.remarks) == (exif == (frame == "stored"))


@pytest.mark.parametrize("turn", range(1, 9))
def test_turned_boxes_are_those_of_the_turned_pixels(tmp_path, turn):
    upright, box = photograph(tmp_path / "a.png", turn)
    stored = np.array([BOX]) / np.tile(SIZE, 2)
    np.testing.assert_allclose(turned_boxes(stored, turn) * np.tile(upright.size, 2), [box])


@pytest.mark.parametrize(("turn", "size"), [(3, SIZE), (2, SIZE), (6, None), (6, (48, 48))])
def test_a_size_that_shows_no_frame_is_warned_of(tmp_path, turn, size):
    image_size = size if size and size[0] == size[1] else SIZE
    _, box = zip(*(photograph(tmp_path / f"{number}.png", turn, image_size) for number in range(4)))
    annotated(tmp_path, [(f"{number}.png", size, box[number]) for number in range(4)])
    with pytest.warns(UserWarning, match=r"4 photographs with an EXIF orientation: .*read as of the upright image"):
        assert_red(read(tmp_path), 4)


@pytest.mark.parametrize("size", [(32, 48), (48, 48), (64, 32)])
@pytest.mark.parametrize("exif", [True, False])
def test_another_shape_is_refused_or_left_out(tmp_path, size, exif):
    for number in range(6):
        photograph(tmp_path / f"{number}.png", 1)
    annotated(tmp_path, [(f"{number}.png", size if number < 2 else SIZE, BOX) for number in range(6)])
    with pytest.raises(
        DataError, match=rf"2 images have another shape .*0\.png \({size[0]} x {size[1]} in c\.json, 48 x"
    ):
        read(tmp_path, exif=exif)
    with pytest.warns(UserWarning, match=r"another shape than its annotations say \(2\): 0.png, 1.png"):
        source = read(tmp_path, exif=exif, invalid_boxes="exclude")
    assert_red(source, 4)
    assert len(read(tmp_path, exif=exif, crop="none")) == 6


@pytest.mark.parametrize("size", [(47, 32), (96, 63), (24, 16), (1000, 667), (25, 16)])
def test_the_rounding_of_a_resizing_is_accepted(tmp_path, size):
    for number in range(4):
        photograph(tmp_path / f"{number}.png", 1)
    annotated(tmp_path, [(f"{number}.png", size, (1, 1, 4, 4)) for number in range(4)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read(tmp_path)) == 4


@pytest.mark.parametrize("odd", ["turned", "another shape"])
def test_headers_of_many_images_are_sampled_unless_one_stands_out(tmp_path, monkeypatch, odd):
    read_paths = []
    real = box_frames._header
    monkeypatch.setattr(box_frames, "ALL", 5)
    monkeypatch.setattr(box_frames, "_header", lambda path: read_paths.append(path) or real(path))
    for number in range(20):
        photograph(tmp_path / f"{number}.png", 1)
    entries = [(f"{number}.png", SIZE, BOX) for number in range(20)]
    annotated(tmp_path, entries)
    assert_red(read(tmp_path), 20)
    assert len(read_paths) == 5
    assert str(tmp_path / "0.png") in read_paths
    first = int(np.random.default_rng(0).integers(1, 4))
    if odd == "turned":
        for number in (0, first):
            photograph(tmp_path / f"{number}.png", 6)
        assert_red(read(tmp_path), 20)
    else:
        entries[0] = ("0.png", (32, 48), BOX)
        entries[first] = (f"{first}.png", (32, 48), BOX)
        annotated(tmp_path, entries)
        with pytest.raises(DataError, match="2 images have another shape"):
            read(tmp_path)
    assert len(read_paths) == 25


def test_an_unreadable_file_is_left_to_decoding(tmp_path):
    for number in range(4):
        photograph(tmp_path / f"{number}.png", 1)
    (tmp_path / "0.png").write_bytes(b"no image")
    annotated(tmp_path, [(f"{number}.png", SIZE, BOX) for number in range(4)])
    assert len(read(tmp_path)) == 4
