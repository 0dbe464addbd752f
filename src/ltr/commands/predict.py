"""``ltr-predict``: what a trained run says of images, as a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltr.commands.arguments import Parser, at_least, parsed
from ltr.console import print_line
from ltr.escaping import one_line

SHOWN = 5


def main(argv: Sequence[str]) -> int:
    """Run ``ltr-predict RUN FOLDER|TABLE --out FILE``; return the exit code.

    Raises:
        ConfigError: flags that are wrong, or a path that cannot be written.
        CheckpointError: no such run, or weights that cannot be read.
        DataError: no images, or not one that can be read.
    """
    parser = Parser(
        prog="ltr-predict",
        description="Class, probability, the next best and known-ness of every image, as a table.",
        epilog="Example: ltr-predict outputs/folder/crt/crt-s0-1a2b3c4d photos --out predictions.csv",
        allow_abbrev=False,
    )
    add_inputs(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .csv or .parquet file")
    parser.add_argument("--scorer", default="msp", metavar="NAME", help="of known-ness (default: msp)")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes of a row (default: 5)")
    add_reading_flags(parser)
    arguments = parsed(parser, argv)
    if arguments is None:
        return 0

    from ltr.configuration.targets import allowing

    with allowing(arguments.allow):
        return _predict(arguments)


def _predict(arguments: argparse.Namespace) -> int:
    at_least(arguments, "top", 1)
    from ltr.apply.predict import check_scorer, predict_files
    from ltr.apply.tables import checked_out
    from ltr.console import progress

    check_scorer(arguments.scorer)
    checked_out(arguments.out)
    model, files = model_and_pool(arguments)
    with progress("predicting", len(files)) as advance:
        done = predict_files(model, files, arguments.out, scorer=arguments.scorer, top=arguments.top, advance=advance)
    rate = done.images / max(done.seconds, 1e-9)
    print_line(f"{arguments.out}: {done.images:,} images in {done.seconds:,.1f} s, {rate:,.0f} images/s")
    report_remarks(done.remarks)
    report_broken(done.broken, done.broken_file)
    return 0


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a network and the images it is applied to."""
    parser.add_argument("run", help="a run (its folder, its name or 'last'), or a checkpoint file of this project")
    parser.add_argument("images", type=Path, help="a folder of images, or a table with a column path")


def add_reading_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of commands that apply a network to image files."""
    parser.add_argument(
        "--root", action="append", default=[], metavar="FOLDER", help="a further folder in which images may lie"
    )
    parser.add_argument("--no-exif", action="store_true", help="do not turn images as their EXIF orientation says")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images a batch (default: the run's evaluation's)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that decode (default: all cores)")
    add_network_flags(parser)


def add_network_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of commands that load a network."""
    parser.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), default="auto", help="(default: auto)")
    parser.add_argument(
        "--precision", choices=("auto", "bf16", "fp16", "fp32"), help="of the arithmetic (default: the run's)"
    )
    parser.add_argument(
        "--allow", action="append", default=[], metavar="PREFIX", help="a package of yours that may be named"
    )


def model_and_pool(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Return the run's network and the images; the images, which are cheap to list, come first.

    Raises:
        ConfigError, CheckpointError, DataError: see `main`.
    """
    at_least(arguments, "batch_size", 1)
    at_least(arguments, "workers", 0)
    from ltr.commands.evaluate import find

    checkpoint, config = find(Path(arguments.run))
    from ltr.apply.pool import image_pool

    files = image_pool(arguments.images, arguments.root, exif=not arguments.no_exif)
    from ltr.apply.model import load_model
    from ltr.console import plain_warnings

    with plain_warnings():
        model = load_model(
            checkpoint,
            config,
            accelerator=arguments.accelerator,
            precision=arguments.precision,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
        )
    return model, files


def report_broken(broken: Sequence[Any], listed: Path | None) -> None:
    """Print to standard error how many images could not be read, and the first of them."""
    if not broken:
        return
    images = "1 image" if len(broken) == 1 else f"{len(broken):,} images"
    print_line(f"warning: {images} could not be read; {listed} lists them:", sys.stderr)
    for image in broken[:SHOWN]:
        print_line(f"  {one_line(image.path)}: {one_line(image.reason)}", sys.stderr)


def report_remarks(remarks: Sequence[str]) -> None:
    """Print to standard error what stood out in the images that were read."""
    for remark in remarks:
        print_line(f"warning: {one_line(remark)}", sys.stderr)
