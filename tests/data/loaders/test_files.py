"""Image files through workers: pixels of any image mode with any number of workers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ltr.data.augmentation.augment import Augmentation
from ltr.data.images.crop import FileCrop
from ltr.data.images.decode import to_rgb
from ltr.data.loaders.files import FileLoader
from ltr.data.source import Decoding, ImageFiles
from ltr.errors import DataError

N, SIZE = 11, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eleven JPEGs of different sizes."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(N):
        height, width = random.integers(20, 60, 2)
        rough = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        rough.resize((int(width), int(height)), Image.Resampling.BICUBIC).save(root / f"{number}.jpg", quality=95)
    return root


@pytest.fixture(scope="module")
def files(folder):
    return ImageFiles.from_paths(folder, [f"{number}.jpg" for number in range(N)])


def order(epoch: int) -> np.ndarray:
    return np.random.default_rng(epoch).integers(0, N, 13)


def loader(files: ImageFiles, **changes) -> FileLoader:
    options = {
        "crop": FileCrop(SIZE, random=True),
        "device": torch.device("cpu"),
        "order": order,
        "batch_size": 5,
        "augment": Augmentation((3, SIZE, SIZE), pad=0),
        "train": True,
    } | changes
    return FileLoader(files, torch.arange(N) * 10, **options)


def pixels(batches) -> torch.Tensor:
    return torch.cat([batch.images for batch in batches])


def epoch_of(batches: FileLoader, epoch: int) -> torch.Tensor:
    batches.sampler.set_epoch(epoch)
    return pixels(batches)


def test_two_workers_give_the_bits_of_none_in_every_epoch(files):
    alone, two = loader(files), loader(files, num_workers=2)
    for epoch in range(2):
        assert torch.equal(epoch_of(alone, epoch), epoch_of(two, epoch))


def test_two_workers_start_in_mid_epoch_too(files):
    batches = loader(files, num_workers=2)
    batches.start_at(1, 1)
    assert torch.equal(epoch_of(batches, 1), epoch_of(loader(files), 1)[5:])


def crops_of_one_image(files: ImageFiles, **changes) -> list[bytes]:
    """Un-augmented crops of image 0 at twelve positions of an epoch, in three batches."""
    options = {"order": lambda epoch: np.zeros(12, dtype=np.int64), "batch_size": 4, "augment": None} | changes
    return [image.numpy().tobytes() for image in pixels(loader(files, **options))]


def test_every_position_of_an_epoch_has_a_different_crop(files):
    assert len(set(crops_of_one_image(files))) == 12


def test_a_crop_depends_on_its_position(files):
    later = crops_of_one_image(files, positions=lambda epoch: np.arange(12) + 5)
    assert later[:7] == crops_of_one_image(files)[5:]


def test_another_seed_gives_other_crops(files):
    assert not set(crops_of_one_image(files)) & set(crops_of_one_image(files, seed_of_epoch=lambda epoch: 8))


def test_batches_hold_labels_and_indices_in_order(files):
    batches = list(loader(files))
    assert torch.cat([batch.indices for batch in batches]).tolist() == order(0).tolist()
    assert torch.cat([batch.labels for batch in batches]).tolist() == (10 * order(0)).tolist()
    assert [batch.images.shape for batch in batches] == [(5, 3, SIZE, SIZE), (5, 3, SIZE, SIZE), (3, 3, SIZE, SIZE)]
    assert len(loader(files)) == 3


def test_images_are_uint8_in_channels_last_memory(files):
    batch = next(iter(loader(files)))
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_evaluation_uses_the_centre_crop_and_is_deterministic(files):
    batches = loader(files, train=False, augment=None)
    batches.sampler.set_epoch(0)
    first = pixels(batches)
    assert torch.equal(pixels(batches), first)
    expected = [FileCrop(SIZE).read(files.path(int(i)), None) for i in order(0)]
    assert np.array_equal(first.permute(0, 2, 3, 1).numpy(), np.stack(expected))


def test_the_global_generator_is_not_advanced(files):
    before = torch.get_rng_state()
    list(loader(files))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("content", [b"", b"this is a text", None])
def test_a_file_that_cannot_be_read_is_named(folder, files, num_workers, content, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes((folder / "0.jpg").read_bytes()[:300] if content is None else content)
    mixed = ImageFiles.from_paths(folder, ["0.jpg", str(bad)])
    batches = FileLoader(
        mixed,
        torch.zeros(2, dtype=torch.long),
        crop=FileCrop(SIZE),
        device=torch.device("cpu"),
        order=lambda epoch: np.array([0, 1]),
        batch_size=2,
        num_workers=num_workers,
    )
    with pytest.raises(DataError) as refused:
        list(batches)
    message = str(refused.value)
    assert f"image 1, {bad}" in message
    assert "Traceback" not in message


def test_a_missing_file_is_named(files, tmp_path):
    missing = ImageFiles.from_paths(tmp_path, ["nowhere.jpg"])
    batches = loader(missing, order=lambda epoch: np.array([0]))
    with pytest.raises(DataError, match=r"image 0, .*nowhere\.jpg, cannot be read: FileNotFoundError"):
        list(batches)


GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def rgb(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[..., None], 3, -1)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_truncated_to_the_upper_eight(suffix, tmp_path):
    deep = GREY.astype(np.uint16) * 256 + 99
    Image.fromarray(deep).save(tmp_path / f"deep.{suffix}")
    with Image.open(tmp_path / f"deep.{suffix}") as image:
        assert np.array_equal(np.asarray(to_rgb(image)), rgb(GREY))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "1"])
def test_grey_and_alpha_are_converted_to_rgb(mode, tmp_path):
    Image.fromarray(GREY).convert(mode).save(tmp_path / "image.png")
    expected = rgb(np.asarray(Image.fromarray(GREY).convert(mode).convert("L")))
    with Image.open(tmp_path / "image.png") as image:
        assert np.array_equal(np.asarray(to_rgb(image)), expected)


@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette_is_converted_to_its_colours(transparent, tmp_path, recwarn):
    picture = Image.fromarray(np.array([[0, 1], [1, 0]], dtype=np.uint8))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.save(tmp_path / "image.png", **({"transparency": b"\x80\xff"} if transparent else {}))
    with Image.open(tmp_path / "image.png") as image:
        rgb = np.asarray(to_rgb(image))
    assert rgb.tolist() == [[[10, 20, 30], [200, 100, 50]], [[200, 100, 50], [10, 20, 30]]]
    assert not [w for w in recwarn.list if "ransparency" in str(w.message)]


def test_cmyk_is_converted_to_rgb(tmp_path):
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(tmp_path / "image.jpg", quality=100)
    with Image.open(tmp_path / "image.jpg") as image:
        assert image.mode == "CMYK"
        assert np.abs(np.asarray(to_rgb(image)).astype(int) - [255, 0, 0]).max() <= 3


def test_floating_point_pixels_are_refused():
    with pytest.raises(ValueError, match="floating-point"):
        to_rgb(Image.fromarray(np.zeros((4, 4), dtype=np.float32)))


@pytest.mark.parametrize("exif", [False, True])
def test_exif_orientation_is_applied_if_the_source_requests_it(exif, tmp_path):
    picture = Image.new("RGB", (32, 32), "black")
    picture.paste("white", (0, 0, 32, 16))  # the upper half
    orientation = picture.getexif()
    orientation[0x0112] = 3  # upside down
    picture.save(tmp_path / "image.png", exif=orientation)
    upright = ImageFiles.from_paths(tmp_path, ["image.png"], decoding=Decoding(exif=exif))
    batches = loader(upright, crop=FileCrop(SIZE, resize=SIZE), order=lambda epoch: np.array([0]), augment=None)
    rgb = pixels(batches)[0].permute(1, 2, 0).numpy()
    top, bottom = rgb[: SIZE // 2].mean(), rgb[SIZE // 2 :].mean()
    assert (top < bottom) == exif


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_view_has_a_different_crop(files, num_workers):
    plain, window = Augmentation((3, SIZE, SIZE), pad=0, flip=False), FileCrop(SIZE, resize=20)
    fixed = Augmentation((3, SIZE, SIZE), pad=0, flip=False)
    fixed.file_crop = window  # the evaluation crop
    batches = list(loader(files, augment=plain, views=(plain, fixed), num_workers=num_workers))
    assert torch.equal(pixels(batches), pixels(loader(files, augment=plain)))
    assert [len(batch.views) for batch in batches] == [2, 2, 2]
    first, second = (torch.cat([batch.views[number] for batch in batches]) for number in (0, 1))
    assert not torch.equal(first, pixels(batches))
    assert torch.equal(second, pixels(loader(files, augment=None, crop=window)))


def test_views_start_in_mid_epoch_too(files):
    view = Augmentation((3, SIZE, SIZE), pad=0)
    whole, resumed = list(loader(files, views=(view,))), loader(files, views=(view,))
    resumed.start_at(0, 1)
    assert torch.equal(next(iter(resumed)).views[0], whole[1].views[0])
    assert resumed.state_dict() == {"epoch": 0, "batch": 2}
