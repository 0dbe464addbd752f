"""``ltr-data check``: files, counts, decoding, identical images, and images in training and test that look alike."""

from __future__ import annotations

import argparse
import warnings
from typing import TYPE_CHECKING, Any

from ltr.commands.arguments import refuse_unread
from ltr.commands.data import processes, read_dataset
from ltr.console import plain_warnings, print_line, progress
from ltr.errors import ConfigError
from ltr.escaping import one_line
from ltr.files import write_csv

if TYPE_CHECKING:
    from ltr.data.deduplication.near_duplicates import Pair
    from ltr.data.source import Source

_SHOWN = 10
_BITS, _COSINE = 4, 0.1  # distances at which images look alike, by hash and by features
_WORTH_PROCESSES = 2000  # images to hash, which takes less than starting processes does


def check_dataset(arguments: argparse.Namespace, config: dict[str, Any]) -> int:
    """Check the images of a data set and print the outcome; return the exit code, 1 if some cannot be used.

    Args:
        arguments: flags of ``ltr-data check``.
        config: the composed config.

    Raises:
        ConfigError: features of a random backbone, or a bound of pixels for images that are kept decoded.
        DataError: the data set is missing or damaged.
    """
    import numpy as np

    from ltr.data.images.checking import BadImage, find_bad_images, write_exclusions
    from ltr.data.images.tally import Tally, tally_arrays
    from ltr.data.packed_images.reading import PackedImages
    from ltr.data.packed_images.writing import find_bad_packed_images
    from ltr.data.source import ImageFiles

    if arguments.duplicates and arguments.by == "features":
        _check_weights(arguments, config)
    source, partial = _read_and_compare(config)
    if isinstance(source.images, PackedImages | np.ndarray):
        kept = "packed" if isinstance(source.images, PackedImages) else "in memory"
        because = f"it bounds the images of image files, and those of {source.name} are {kept}. Leave it out"
        refuse_unread(arguments, ["max_pixels"], because)
    print_line(f"{source.name}: {len(source):,} images of {source.num_classes:,} classes found")
    for line in partial:
        print_line(f"wrong: {line}")
    bad: list[BadImage] = []
    tally = Tally(source.decoding, config["dataset"])
    if isinstance(source.images, PackedImages):
        with progress("decoding", len(source)) as advance:
            bad = find_bad_packed_images(
                source.images, progress=advance, workers=processes(arguments)["workers"], tally=tally
            )
        print_line(f"{len(source) - len(bad):,} of {len(source):,} packed images are intact")
    elif isinstance(source.images, ImageFiles):
        with progress("decoding", len(source)) as advance:
            bad = find_bad_images(source.images, progress=advance, tally=tally, **processes(arguments))
        print_line(f"{len(source) - len(bad):,} of {len(source):,} images can be decoded")
    else:
        tally_arrays(source.images, tally)
        print_line("their reader has decoded all of them, and checked the files where checksums are published")
    for line in tally.lines():
        print_line(f"warning: {one_line(line)}")
    if bad:
        print_line(f"wrong: {len(bad):,} of them cannot be read{', the first ten' if len(bad) > _SHOWN else ''}:")
        for image in bad[:_SHOWN]:
            print_line(f"  {one_line(image.path)}: {one_line(image.reason)}")
    _print_identical(source, processes(arguments)["workers"])
    if arguments.duplicates and bad and arguments.by == "features":
        print_line("no features are compared while images cannot be read: leave these out with dataset.exclude=FILE")
    elif arguments.duplicates:
        _print_alike(arguments, config, source)
    if arguments.exclude_to:
        write_exclusions(arguments.exclude_to, bad)
        print_line(f"{len(bad):,} paths written to {arguments.exclude_to}")
    return 1 if bad or partial else 0


def _check_weights(arguments: argparse.Namespace, config: dict[str, Any]) -> None:
    """Refuse to compare features of a backbone without weights, unless they were left out by name."""
    backbone = config["backbone"]
    asked = [text for text in arguments.overrides if text in ("backbone.weights=null", "backbone.pretrained=false")]
    if not (backbone.get("weights") or backbone.get("pretrained") or asked):
        raise ConfigError(
            f"--by features: {backbone.get('name')} has no pretrained weights, and a random network's features find "
            "little more than copies. Name a backbone with weights (backbone=timm backbone.name=resnet50 "
            "backbone.pretrained=true, or backbone.weights=FILE), compare by --by hash, or add backbone.weights=null "
            "to use random features"
        )


def _print_identical(source: Source, workers: int) -> None:
    """Warn of images that are byte for byte the same."""
    from ltr.data.deduplication.duplicates import find_identical_images

    with progress("comparing", len(source)) as advance:
        same = find_identical_images(source, workers=workers if len(source) > _WORTH_PROCESSES else 1, progress=advance)
    for line in same.lines(source):
        print_line(f"  {one_line(line.strip())}" if line.startswith(" ") else f"warning: {one_line(line)}")


def _print_alike(arguments: argparse.Namespace, config: dict[str, Any], source: Source) -> None:
    """Warn of test images that look like training images, and write the pairs."""
    from ltr.data.deduplication.duplicates import describe_image

    find = _alike_by_features if arguments.by == "features" else _alike_by_hash
    pairs, images, measure, unit = find(arguments, config, source)
    tested = len({pair.test for pair in pairs})
    print_line(
        f"{'warning: ' if pairs else ''}{tested:,} of {images:,} test images look like a training image "
        f"({len(pairs):,} pairs, {measure})"
        f"{', the first ten' if len(pairs) > _SHOWN else ''}{':' if pairs else ''}"
    )
    names = {index: describe_image(source, index) for pair in pairs for index in pair[:2]}
    for pair in pairs[:_SHOWN]:
        print_line(f"  {one_line(names[pair.test])} ~ {one_line(names[pair.train])}, {pair.distance:.4g}{unit}")
    if arguments.pairs_to:
        rows = ({"test": names[p.test], "train": names[p.train], "distance": float(f"{p.distance:.6g}")} for p in pairs)
        write_csv(arguments.pairs_to, rows, ("test", "train", "distance"))
        print_line(f"{len(pairs):,} pairs written to {arguments.pairs_to}")


def _alike_by_hash(
    arguments: argparse.Namespace, config: dict[str, Any], source: Source
) -> tuple[list[Pair], int, str, str]:
    """Return the pairs, the number of test images, the rule and the unit of distances."""
    from ltr.data.deduplication.near_duplicates import find_near_duplicates, parts_to_compare
    from ltr.data.splitting.exclusion import read_split

    with plain_warnings():
        split = read_split(config["dataset"], source)
    train, test = parts_to_compare(split)
    total = len(train) + len(test)
    distance = int(_BITS if arguments.distance is None else arguments.distance)
    workers = processes(arguments)["workers"] if total > _WORTH_PROCESSES else 1
    with progress("hashing", total) as advance:
        pairs = find_near_duplicates(source, split, distance=distance, workers=workers, progress=advance)
    return pairs, len(test), f"hashes differ in at most {distance} of 128 bits", " bits"


def _alike_by_features(
    arguments: argparse.Namespace, config: dict[str, Any], source: Source
) -> tuple[list[Pair], int, str, str]:
    """Return the pairs, the number of test images, the rule and the unit of distances."""
    from rich.console import Console

    from ltr.data.deduplication.near_duplicates import find_near_duplicates_by_features, parts_to_compare
    from ltr.runs.split_features import split_features

    with plain_warnings():
        # of packed images, the check of their number of pixels belongs to the reading
        is_packed = config["dataset"].get("packed") is not None
        split, table = split_features(config, None if is_packed else source, Console())
    train, test = parts_to_compare(split)
    distance = _COSINE if arguments.distance is None else arguments.distance
    pairs = find_near_duplicates_by_features(train, table.take(train), test, table.take(test), distance=distance)
    return pairs, len(test), f"cosine distance of features at most {distance:g}", ""


def _read_and_compare(config: dict[str, Any]) -> tuple[Source, list[str]]:
    """Return the source and its reports of missing images; print its other warnings."""
    from ltr.data.sources.checks import PARTIAL

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        source = read_dataset(config)
    partial = [str(warning.message) for warning in caught if PARTIAL in str(warning.message)]
    with plain_warnings():
        for warning in caught:
            if PARTIAL not in str(warning.message):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return source, partial
