"""Images that look alike in training and test."""

import itertools

import numpy as np
import pytest
from PIL import Image

from ltr.data.deduplication import near_duplicates as module
from ltr.data.deduplication.near_duplicates import (
    MAX_DISTANCE,
    _close_pairs,
    find_near_duplicates,
    find_near_duplicates_by_features,
    perceptual_hash,
)
from ltr.data.source import ImageFiles, Source
from ltr.data.splitting.closed_set import natural
from ltr.errors import DataError


def scene(seed, size=(64, 48)):
    """A smooth made-up scene."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def noisy(image, seed):
    pixels = np.asarray(image).astype(int) + np.random.default_rng(seed).integers(-6, 7, (*image.size[::-1], 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture
def source(tmp_path):
    """Six scenes for training; tested are the next frame, a smaller copy, a recompression, a new scene and two more."""
    images = [scene(number) for number in range(6)]
    images += [noisy(images[0], 9), images[1].resize((40, 30)), scene(2), scene(50), Image.new("RGB", (64, 48)), None]
    for number, image in enumerate(images):
        path = tmp_path / f"{number:02d}.jpg"
        if image is None:
            path.write_bytes(b"no image")
        else:
            image.save(path, quality=30 if number == 8 else 95)
    Image.new("RGB", (64, 48)).save(tmp_path / "05.jpg")  # as flat as 10.jpg, which says nothing
    files = ImageFiles.from_paths(tmp_path, [f"{number:02d}.jpg" for number in range(12)])
    return Source("scenes", files, np.arange(12) % 2, ("a", "b"), {"train": range(6), "test": range(6, 12)})


def test_frames_copies_and_recompressions_are_named_and_nothing_else(source):
    pairs = find_near_duplicates(source, natural(source))
    assert {(pair.train, pair.test) for pair in pairs} == {(0, 6), (1, 7), (2, 8)}


def test_arrays_are_compared_too(source):
    pixels = np.stack([np.asarray(scene(number % 3)) for number in range(6)])
    arrays = Source("arrays", pixels, np.arange(6) % 2, ("a", "b"), {"train": range(3), "test": range(3, 6)})
    pairs = find_near_duplicates(arrays, natural(arrays), distance=0)
    assert [(pair.train, pair.test, pair.distance) for pair in pairs] == [(0, 3, 0), (1, 4, 0), (2, 5, 0)]


@pytest.mark.parametrize("distance", [0, 3, MAX_DISTANCE])
def test_every_close_pair_is_reported_once(distance):
    random = np.random.default_rng(distance)
    train = random.integers(0, 2**16, (40, 8)).astype(np.uint16)
    test = train[random.integers(0, 40, 60)].copy()
    for row in test:  # up to ten bits of each are turned
        for bit in random.integers(0, 128, int(random.integers(0, 11))):
            row[bit // 16] ^= np.uint16(1 << (bit % 16))
    expected = {
        (one, other): int(np.bitwise_count(train[one] ^ test[other]).sum())
        for one, other in itertools.product(range(40), range(60))
        if np.bitwise_count(train[one] ^ test[other]).sum() <= distance
    }
    pairs = list(_close_pairs(train, test, distance))
    assert {(one, other): bits for one, other, bits in pairs} == expected
    assert len(pairs) == len(expected)


def test_the_hash_encodes_where_brightness_rises():
    ramp = np.tile(np.arange(9, dtype=np.uint8) * 20, (9, 1))
    bits = np.unpackbits(perceptual_hash(ramp).view(np.uint8))
    assert bits[:64].all()
    assert not bits[64:].any()
    assert perceptual_hash(np.full((9, 9), 7, dtype=np.uint8)) is None


@pytest.mark.parametrize("distance", [0.0, 0.05, 0.4])
def test_pairs_by_features_are_those_of_the_cosines(distance, monkeypatch):
    random = np.random.default_rng(3)
    known = random.normal(size=(37, 6))
    tested = known[random.integers(0, 37, 25)] * random.uniform(0.1, 9, (25, 1))  # a length says nothing
    tested[5:] += random.normal(scale=0.3, size=(20, 6))
    train, test = np.arange(37) * 2, 100 + np.arange(25)
    cosine = (tested @ known.T) / np.outer(np.linalg.norm(tested, axis=1), np.linalg.norm(known, axis=1))
    rows, columns = np.nonzero(1 - cosine <= distance + 1e-6)
    expected = {(int(train[column]), int(test[row])) for row, column in zip(rows, columns)}
    pairs = find_near_duplicates_by_features(train, known, test, tested, distance=distance)
    assert {(pair.train, pair.test) for pair in pairs} == expected
    assert len(pairs) == len(expected) >= 5
    for pair in pairs:
        assert abs(pair.distance - max(0, 1 - cosine[pair.test - 100, pair.train // 2])) < 1e-5
    assert [(pair.test, pair.distance) for pair in pairs] == sorted((pair.test, pair.distance) for pair in pairs)
    monkeypatch.setattr(module, "_ROWS", 4)
    monkeypatch.setattr(module, "_COLUMNS", 5)
    in_blocks = find_near_duplicates_by_features(train, known, test, tested, distance=distance)
    assert {pair[:2] for pair in in_blocks} == expected


def test_zero_features_have_no_duplicates_and_too_many_pairs_are_refused(monkeypatch):
    rows, zeros = np.arange(3), np.zeros((3, 2))
    assert find_near_duplicates_by_features(rows, zeros, rows, zeros, distance=1.0) == []
    monkeypatch.setattr(module, "MAX_PAIRS", 8)
    with pytest.raises(DataError, match=r"more than 8 pairs .* Choose a smaller --distance"):
        find_near_duplicates_by_features(rows, zeros + 1, rows, zeros + 1, distance=0.1)
