"""The packed store: what it holds, how it is made again after a kill, and what it refuses."""

from __future__ import annotations

import io
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import trees
from ltr.data.images.decode import decode_image
from ltr.data.packed_images import writing as packing
from ltr.data.packed_images.reading import PackedImages, open_packed, read_source
from ltr.data.packed_images.writing import find_bad_packed_images, pack
from ltr.data.source import Decoding, ImageFiles, Source
from ltr.data.sources.birds import cub
from ltr.errors import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore:.*not the whole published")


@pytest.fixture
def birds(tmp_path) -> Source:
    """30 images of 20 to 22 x 16 pixels, with boxes and class ids."""
    trees.cub(tmp_path)
    return cub(root=str(tmp_path))


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(packing, "CHUNK", 8)
    monkeypatch.setattr(packing, "_PIECE", 3)


CONFIG = {"_target_": "ltr.data.sources.birds.cub", "root": "/data", "folder": "CUB_200_2011", "roots": [],
        "download": False}  # fmt: skip


def packed(source: Source, to, **options) -> Source:
    pack(source, CONFIG, to, **{"size": 8, "format": "raw", **options})
    return open_packed(to)


def image(source: Source, index: int) -> Image.Image:
    assert isinstance(source.images, ImageFiles)
    opened = source.images.open(index)
    return opened if isinstance(opened, Image.Image) else decode_image(opened)


def test_packing_changes_only_the_pixels(birds, tmp_path):
    packed_source = packed(birds, tmp_path / "p")
    assert isinstance(packed_source.images, PackedImages)
    assert (packed_source.name, packed_source.class_names, dict(packed_source.parts)) == (
        birds.name,
        birds.class_names,
        dict(birds.parts),
    )
    assert np.array_equal(packed_source.labels, birds.labels)
    assert np.array_equal(packed_source.class_ids, birds.class_ids)
    assert [packed_source.images.relative(n) for n in range(30)] == [birds.images.relative(n) for n in range(30)]


@pytest.mark.parametrize("format", ["raw", "jpeg"])
@pytest.mark.parametrize("index", [29, 0, 8, 7, 15])
def test_any_image_is_the_original_with_its_short_side_resized(birds, tmp_path, format, index):
    packed_source = image(packed(birds, tmp_path / "p", format=format, quality=100), index)
    original = image(birds, index)
    expected = original.resize((round(original.width / 2), 8), Image.Resampling.BILINEAR)
    assert packed_source.size == expected.size
    difference = np.abs(np.asarray(packed_source).astype(int) - np.asarray(expected))
    # jpeg halves the resolution of colour, and the images are noise
    assert difference.max() == 0 if format == "raw" else difference.mean() < 12


def test_small_images_keep_their_pixels(birds, tmp_path):
    packed_source = packed(birds, tmp_path / "p", size=64)
    assert np.array_equal(np.asarray(image(packed_source, 3)), np.asarray(image(birds, 3)))


def test_boxes_are_in_pixels_of_the_stored_images(birds, tmp_path):
    assert np.array_equal(packed(birds, tmp_path / "p").boxes, birds.boxes / 2)


def test_rotated_images_are_stored_upright(tmp_path):
    orientation = Image.Exif()
    orientation[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "0.jpg", exif=orientation)
    files = ImageFiles.from_paths(tmp_path, ["0.jpg"], decoding=Decoding(exif=True))
    source = Source("one", files, np.zeros(1, dtype=np.int64), ("a",), {"train": range(1)})
    packed_source = packed(source, tmp_path / "p", size=10)
    assert image(packed_source, 0).size == (10, 15)
    assert not packed_source.images.decoding.exif


def test_the_matte_is_applied_before_packing_and_recorded(tmp_path):
    Image.new("RGBA", (12, 12), (0, 0, 0, 0)).save(tmp_path / "0.png")
    files = ImageFiles.from_paths(tmp_path, ["0.png"], decoding=Decoding(matte=(255, 255, 255)))
    source = Source("one", files, np.zeros(1, dtype=np.int64), ("a",), {"train": range(1)})
    packed_source = packed(source, tmp_path / "p", size=10, format="raw")
    assert (np.asarray(image(packed_source, 0)) == 255).all()
    assert packed_source.decoding == Decoding(matte=(255, 255, 255))


def test_a_workers_copy_opens_the_file_itself(birds, tmp_path):
    packed_source = packed(birds, tmp_path / "p").images
    content = pickle.dumps(packed_source.store)
    assert len(content) < 1000
    assert np.array_equal(np.asarray(pickle.loads(content).open(9)), np.asarray(packed_source.open(9)))


def test_the_fingerprint_depends_on_source_size_format_quality_and_content(birds, tmp_path):
    ways = [{}, {"size": 9}, {"format": "jpeg"}, {"format": "jpeg", "quality": 50}]
    packed_source = [packed(birds, tmp_path / f"{n}", **way).fingerprint for n, way in enumerate(ways)]
    trees.put(tmp_path / "CUB_200_2011" / birds.images.relative(0), 5, (20, 16))
    packed_source.append(packed(birds, tmp_path / "changed").fingerprint)
    assert len({birds.fingerprint, *packed_source}) == 6
    assert packed(cub(root=str(tmp_path)), tmp_path / "again").fingerprint == packed_source[-1]


def test_a_killed_run_resumes_with_its_finished_chunks(birds, tmp_path, monkeypatch):
    whole = packed(birds, tmp_path / "whole").fingerprint
    looked_at: list[str] = []
    one = packing._resize_one

    def counted(path, *rest):
        looked_at.append(path)
        if len(looked_at) == 20:
            raise KeyboardInterrupt
        return one(path, *rest)

    monkeypatch.setattr(packing, "_resize_one", counted)
    with pytest.raises(KeyboardInterrupt):
        packed(birds, tmp_path / "p")
    assert not (tmp_path / "p").exists()
    assert packed(birds, tmp_path / "p").fingerprint == whole
    assert len(looked_at) == 20 + 14  # two chunks of eight were whole
    assert not (tmp_path / "p.parts").exists()


SLOWLY = """
import sys, time
from ltr.data.packed_images import writing as packing
from ltr.data.sources.birds import cub
from pathlib import Path

packing.CHUNK, packing._PIECE = 8, 3
one = packing._resize_one
packing._resize_one = lambda *args: (time.sleep(0.05), one(*args))[1]
packing.pack(cub(root=sys.argv[1]), {config}, Path(sys.argv[2]), size=8, format="jpeg")
""".replace("{config}", repr(CONFIG))


def test_packing_that_was_killed_ends_with_the_same_bytes(birds, tmp_path):
    packed(birds, tmp_path / "whole", format="jpeg")
    command = [sys.executable, "-W", "ignore", "-c", SLOWLY, str(tmp_path), str(tmp_path / "p")]
    process = subprocess.Popen(command)
    until = time.monotonic() + 60
    while not (tmp_path / "p.parts" / "000001.arrow").exists() and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert sorted(part.name for part in (tmp_path / "p.parts").glob("*.arrow")) == ["000000.arrow", "000001.arrow"]
    packed(birds, tmp_path / "p", format="jpeg")
    assert (tmp_path / "p").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not (tmp_path / "p.parts").exists()


def test_chunks_of_other_settings_are_not_reused(birds, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "_join", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        packed(birds, tmp_path / "p")
    with pytest.raises(ConfigError, match="size: 8 there, 9 now"):
        packed(birds, tmp_path / "p", size=9)


def test_a_damaged_chunk_is_found(birds, tmp_path, monkeypatch):
    join = packing._join
    monkeypatch.setattr(packing, "_join", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        packed(birds, tmp_path / "p")
    flip_a_pixel(tmp_path / "p.parts" / "000001.arrow", np.asarray(image(birds, 8).resize((10, 8), 2)).tobytes())
    monkeypatch.setattr(packing, "_join", join)
    with pytest.raises(DataError, match=r"000001.arrow was damaged"):
        packed(birds, tmp_path / "p")
    assert len(packed(birds, tmp_path / "p")) == 30


def flip_a_pixel(path, of: bytes) -> None:
    content = path.read_bytes()
    index = content.rindex(of[:40])  # images of a class are alike
    path.write_bytes(content[:index] + bytes([of[0] ^ 255]) + content[index + 1 :])


def test_an_existing_packed_file_is_unchanged(birds, tmp_path):
    packed(birds, tmp_path / "p")
    before = (tmp_path / "p").stat().st_mtime_ns
    assert pack(birds, CONFIG, tmp_path / "p", size=8, format="raw") is False
    assert (tmp_path / "p").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="made in another way"):
        pack(birds, CONFIG, tmp_path / "p", size=8, format="jpeg")


def test_images_that_cannot_be_read_are_named(birds, tmp_path):
    broken = tmp_path / "CUB_200_2011" / birds.images.relative(17)
    broken.write_bytes(b"no image")
    with pytest.raises(DataError, match=f"(?s)1 images of the 8 .*{broken.name}") as refused:
        packed(birds, tmp_path / "p")
    assert "ltr-data check" in str(refused.value)


def test_arrays_cannot_be_packed(tmp_path):
    source = Source("a", np.zeros((2, 4, 4, 3), dtype=np.uint8), np.zeros(2, int), ("x",), {"train": range(2)})
    with pytest.raises(ConfigError, match="no image files to pack"):
        packed(source, tmp_path / "p")


# -- reading ----------------------------------------------------------------------------------------------------


def test_without_a_packed_file_the_source_of_the_config_is_read(birds):
    asked = []
    for more in ({"packed": None}, {}):
        assert read_source({"source": {"x": 1}, **more}, lambda config: asked.append(config) or birds) is birds
    assert asked == [{"x": 1}, {"x": 1}]


def test_the_source_does_not_depend_on_paths(birds, tmp_path):
    packed(birds, tmp_path / "p")
    config = {**CONFIG, "root": "/elsewhere", "folder": "/gone", "roots": ["/more"]}
    assert len(read_source({"source": config, "packed": str(tmp_path / "p")})) == 30


def test_another_source_is_refused(birds, tmp_path):
    packed(birds, tmp_path / "p")
    config = {**CONFIG, "_target_": "ltr.data.sources.birds.nabirds"}
    with pytest.raises(ConfigError, match=r"birds.cub in the file, .*birds.nabirds in the configuration"):
        read_source({"source": config, "packed": str(tmp_path / "p")})


@pytest.mark.parametrize(
    ("size", "resize", "fits"), [(7, None, True), (8, None, False), (8, 8, True), (4, 9, False), (4, 4, True)]
)
def test_more_pixels_than_are_held_are_refused(birds, tmp_path, size, resize, fits):
    packed(birds, tmp_path / "p")
    dataset = {"source": CONFIG, "packed": str(tmp_path / "p"), "image_size": size, "image_resize": resize}
    if fits:
        assert len(read_source(dataset)) == 30
    else:
        with pytest.raises(ConfigError, match=r"short side of 8 pixels.*ask for 9"):
            read_source(dataset)


@pytest.mark.parametrize("content", [None, b"", b"no arrow at all", "cut"])
def test_a_file_that_is_not_packed_is_refused_in_one_message(birds, tmp_path, content):
    path = tmp_path / "p"
    if content == "cut":
        packed(birds, path)
        path.write_bytes(path.read_bytes()[:-100])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="the packed file"):
        open_packed(path)


def test_an_arrow_file_of_something_else_is_refused(tmp_path):
    import pyarrow as pa

    sink = io.BytesIO()
    with pa.ipc.new_file(sink, pa.schema([("a", pa.int8())])):
        pass
    (tmp_path / "p").write_bytes(sink.getvalue())
    with pytest.raises(DataError, match="not made by ltr-data pack"):
        open_packed(tmp_path / "p")


def test_checking_finds_a_changed_pixel(birds, tmp_path):
    packed_source = packed(birds, tmp_path / "p")
    seen: list[int] = []
    assert find_bad_packed_images(packed_source.images, progress=seen.append) == []
    assert sum(seen) == 30
    flip_a_pixel(tmp_path / "p", np.asarray(image(packed_source, 29)).tobytes())
    bad = find_bad_packed_images(open_packed(tmp_path / "p").images, progress=seen.append)
    assert [entry.number for entry in bad] == list(range(24, 30))


def test_a_run_trains_from_it_without_the_image_files(ltr_train, tmp_path, monkeypatch):
    import shutil

    root = trees.folder(tmp_path / "data", each=6)
    monkeypatch.setenv("LTR_DATA", str(tmp_path / "data"))
    from ltr.commands.data import main

    assert main(["pack", "folder", "--size", "16", "--to", str(tmp_path / "pets"), "--workers", "1"]) == 0
    shutil.rmtree(root)
    small = ["backbone.name=resnet18", "dataset.image_size=14", "trainer.precision=fp32", "trainer.num_workers=0"]
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "batch_size=8"]
    run = ltr_train("dataset=folder", f"dataset.packed={tmp_path / 'pets'}", *small, *short)
    assert run.code == 0, run.err
    assert run.result["data"]["train_images"] == 15
