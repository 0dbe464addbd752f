"""``ltr-predict``: predictions of a trained run for images, as a table."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ltr.commands.arguments import Parser, add_allow, at_least, file_path, parse_arguments, refuse_unread
from ltr.commands.evaluate import find
from ltr.commands.named_runs import run_path
from ltr.commands.outputs import read_arguments, refuse_inputs
from ltr.console import plain_warnings, print_line, progress
from ltr.errors import ConfigError
from ltr.escaping import one_line
from ltr.names import counted
from ltr.writing import check_file, check_named_files

SHOWN = 5
FORMATS = ("csv", "megadetector", "camtrap_dp")


def main(argv: Sequence[str]) -> int:
    """Run ``ltr-predict RUN FOLDER|TABLE [--out FILE]``; return the exit code.

    Raises:
        ConfigError: flags that are wrong, or a path that cannot be written.
        CheckpointError: no such run, or weights that cannot be read.
        DataError: no images, or not one that can be read.
    """
    parser = Parser(
        prog="ltr-predict",
        description="Class, probability, the next best and knownness of every image, as a table.",
        epilog="Example: ltr-predict outputs/folder/crt/crt-s0-1a2b3c4d photos",
        allow_abbrev=False,
    )
    add_inputs(parser)
    parser.add_argument(
        "--out",
        type=file_path,
        metavar="FILE",
        help=".csv or .parquet file; .json for megadetector (default: predictions.csv or .json in the run's folder)",
    )
    parser.add_argument(
        "--format", choices=FORMATS, help="format of the file (default: csv, with ltr's columns)", default="csv"
    )
    parser.add_argument(
        "--detections", type=Path, metavar="FILE", help="classify each box of these MegaDetector results"
    )
    parser.add_argument(
        "--min-confidence", type=float, metavar="P", help="minimal confidence of detections, 0 to 1 (default: 0)"
    )
    parser.add_argument(
        "--category", action="append", metavar="NAME", help="detection category to classify (default: all)"
    )
    parser.add_argument("--scorer", default="msp", metavar="NAME", help="scorer of knownness, for csv (default: msp)")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="number of classes per row (default: 5)")
    parser.add_argument(
        "--views",
        metavar="KIND",
        help="mean scores over views of each image, as by evaluation.views of ltr-eval: flip, five_crops or ten_crops "
        "(default: the image alone, even if the run was evaluated with views)",
    )
    add_reading_flags(parser)
    arguments = parse_arguments(parser, argv)
    if arguments is None:
        return 0

    from ltr.configuration.targets import allow_packages

    with allow_packages(arguments.allow):
        return _predict(arguments)


def _predict(arguments: argparse.Namespace) -> int:
    at_least(arguments, "top", 1)
    from ltr.apply.predict import check_scorer, predict_files

    check_scorer(arguments.scorer)
    if arguments.views is not None:
        from ltr.configuration.ranges import check_option
        from ltr.runs.evaluation.views import Views

        check_option("--views", arguments.views, Views)
    _check_detection_flags(arguments)
    if arguments.format != "csv":
        because = f"--format {arguments.format} has no column of knownness. Leave it out, or write --format csv"
        refuse_unread(arguments, ["scorer"], because)
    if arguments.format == "camtrap_dp":
        refuse_unread(arguments, ["top"], "--format camtrap_dp has one class per row. Leave it out")
    named = arguments.out is not None
    if named:  # an unwritable output is refused before the run is looked up
        _check_out(arguments)
    arguments.run = str(run_path(Path(arguments.run)))  # once, because it prints and a new run may change it
    if not named:
        arguments.out = _default_out(arguments)
        _check_out(arguments)
    pool = None
    if arguments.detections is None:
        model, files = model_and_pool(arguments)
        warn_of_whole_images(model, "--detections FILE cuts them by MegaDetector's boxes")
    else:
        model, pool = _model_and_detections(arguments)
        files = pool.for_model(model)
    if arguments.format != "csv":
        return _write_format(arguments, model, files, pool)
    decider = _decider(arguments, model)
    with progress("predicting", len(files)) as advance:
        done = predict_files(
            model,
            files,
            arguments.out,
            scorer=arguments.scorer,
            top=arguments.top,
            advance=advance,
            pool=pool,
            decider=decider,
        )
    rate = done.images / max(done.seconds, 1e-9)
    images = f"{counted(done.images, 'image')}{_views_text(arguments)}"
    print_line(f"{arguments.out}: {images} in {done.seconds:,.1f} s, {rate:,.0f} images/s")
    report_remarks(done.remarks)
    report_broken(done.broken, done.broken_file)
    return 0


def warn_of_whole_images(model: Any, advice: str) -> None:
    """Print that the images are whole, if the network was trained on images cut by box."""
    if model.trained_on_crops:
        print_line(
            f"warning: the run was trained on images cut by box, and sees whole images here; {advice}", sys.stderr
        )


def _views_text(arguments: argparse.Namespace) -> str:
    """Return which views the scores are means of, for the summary line; empty for the images alone."""
    return "" if arguments.views is None else f", means over the views of {arguments.views},"


def _report_views(arguments: argparse.Namespace, config: Any) -> None:
    """Print that the run was evaluated with other views than these predictions have."""
    evaluated = ((config or {}).get("evaluation") or {}).get("views")
    if evaluated not in (None, arguments.views):
        used = "the images alone" if arguments.views is None else f"the views of {arguments.views}"
        print_line(
            f"the run was evaluated with evaluation.views={evaluated}; these predictions are of {used}. --views "
            f"{evaluated} predicts as the run was evaluated",
            sys.stderr,
        )


def _default_out(arguments: argparse.Namespace) -> Path:
    """Return ``predictions.csv`` (``.json`` for MegaDetector) in the folder of the run or of a single checkpoint."""

    checkpoint, config = find(Path(arguments.run))
    folder = checkpoint.parent if config is None else checkpoint.parent.parent
    return folder / ("predictions.json" if arguments.format == "megadetector" else "predictions.csv")


def _decider(arguments: argparse.Namespace, model: Any) -> Any:
    """Return the decisions that ``ltr-eval --decide`` chose for these weights; None without any."""

    checkpoint, _ = find(Path(arguments.run))
    from ltr.apply.decisions import decisions_file, read_decisions

    path = decisions_file(checkpoint)
    if path is None:
        return None
    if arguments.views is not None:
        print_line(
            f"warning: the thresholds of {path} are of images without views, so no decisions are written. Leave "
            "--views out for decisions",
            sys.stderr,
        )
        return None
    decider = read_decisions(path, checkpoint, model.class_names)
    if decider is None:
        print_line(
            f"warning: {path} has no decisions for {checkpoint.name}, so none are written. Choose them by ltr-eval "
            "RUN --decide precision=0.9",
            sys.stderr,
        )
    return decider


def _report_unused_decisions(arguments: argparse.Namespace, checkpoint: Path) -> None:
    """Print that another tool's format has no columns for the decisions of these weights."""
    from ltr.apply.decisions import decisions_file

    path = decisions_file(checkpoint)
    if path is not None:
        print_line(
            f"warning: --format {arguments.format} has no columns for the decisions of {path}, so none are written. "
            "--format csv writes them",
            sys.stderr,
        )


def _check_detection_flags(arguments: argparse.Namespace) -> None:
    """Refuse flags of detections without any, and a confidence outside its range."""
    if arguments.detections is None and (arguments.min_confidence is not None or arguments.category):
        raise ConfigError("--min-confidence and --category choose among detections: add --detections FILE")
    if arguments.min_confidence is not None and not 0 <= arguments.min_confidence <= 1:
        raise ConfigError(f"--min-confidence {arguments.min_confidence}: allowed is 0 to 1")


def _check_out(arguments: argparse.Namespace) -> None:
    """Refuse an output file that cannot be written, has another format's ending or is the input."""
    from ltr.apply.tables import BROKEN_COLUMNS, broken_table, check_table_path

    typed = f"--out {arguments.out}"
    if arguments.format == "csv":
        check_table_path(arguments.out)
    else:
        ending = ".json" if arguments.format == "megadetector" else ".csv"
        check_file(arguments.out, typed)
        if arguments.out.suffix.lower() != ending:
            raise ConfigError(f"{typed}: --format {arguments.format} writes a {ending} file; name it so")
    broken = broken_table(arguments.out)
    refuse_inputs({arguments.out: typed, broken: typed}, read_arguments(arguments, "out"))
    check_named_files(broken.parent, {broken.name: BROKEN_COLUMNS}, typed)


def _write_format(arguments: argparse.Namespace, model: Any, files: Any, pool: Any) -> int:
    """Write predictions in another tool's format."""
    from ltr.apply.camera_trap_formats import write_camtrap_dp, write_megadetector
    from ltr.apply.predict import predictions_of
    from ltr.apply.tables import broken_table, write_broken

    checkpoint, _ = find(Path(arguments.run))
    _report_unused_decisions(arguments, checkpoint)
    started = time.perf_counter()
    run = checkpoint.absolute().parent
    classifier = f"ltr-{run.parent.name if run.name == 'checkpoints' else checkpoint.stem}"
    with progress("predicting", len(files)) as advance:
        predictions, broken, remarks = predictions_of(
            model, files, classifier=classifier, top=arguments.top, advance=advance
        )
    if arguments.format == "megadetector":
        write_megadetector(arguments.out, predictions, files, pool)
    else:
        untimed = write_camtrap_dp(arguments.out, predictions, files, pool, arguments.images.expanduser())
        if untimed:
            print_line(
                f"warning: {untimed:,} observations have no eventStart, which Camtrap DP requires: no datapackage.json "
                "or EXIF gives the time of their images",
                sys.stderr,
            )
    listed = broken_table(arguments.out)
    has_broken = write_broken(listed, broken)
    what = "detection" if pool is not None else "image"
    seconds = time.perf_counter() - started
    number = f"{counted(len(files) - len(broken), what)}{_views_text(arguments)}"
    print_line(f"{arguments.out}: {number} in {seconds:,.1f} s")
    report_remarks(remarks)
    report_broken(broken, listed if has_broken else None)
    return 0


def _model_and_detections(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Return the run's network and the detections to classify; the detections come first."""
    at_least(arguments, "batch_size", 1)
    at_least(arguments, "workers", 0)

    checkpoint, config = find(Path(arguments.run))
    from ltr.apply.detections import detection_pool

    pool = detection_pool(
        arguments.images,
        arguments.detections,
        arguments.root,
        min_confidence=arguments.min_confidence or 0.0,
        categories=arguments.category,
    )
    model = _load(arguments, checkpoint, config)
    return model, replace(pool, files=_oriented(pool.files, model, arguments))


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a network and the images it is applied to."""
    parser.add_argument("run", help="a run (its folder, its name or 'last'), or a checkpoint file of this project")
    parser.add_argument("images", type=Path, help="a folder of images, an image, or a table with a column path")


def add_reading_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of commands that apply a network to image files."""
    parser.add_argument(
        "--root", action="append", default=[], metavar="FOLDER", help="further folder that may contain images"
    )
    parser.add_argument(
        "--exif",
        action=argparse.BooleanOptionalAction,
        help="apply or ignore the EXIF orientation of images (default: apply, unless trained with dataset.exif=false)",
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images per batch (default: as in the run's evaluation)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="decoding processes (default: all cores)")
    add_network_flags(parser)


def add_network_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of commands that load a network."""
    parser.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), default="auto", help="(default: auto)")
    parser.add_argument(
        "--precision", choices=("auto", "bf16", "fp16", "fp32"), help="precision of inference (default: the run's)"
    )
    add_allow(parser)


def model_and_pool(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Return the run's network and the images; the images, which are cheap to list, come first.

    Raises:
        ConfigError, CheckpointError, DataError: see `main`.
    """
    at_least(arguments, "batch_size", 1)
    at_least(arguments, "workers", 0)

    checkpoint, config = find(Path(arguments.run))
    from ltr.apply.pool import image_pool

    files = image_pool(arguments.images, arguments.root)
    model = _load(arguments, checkpoint, config)
    return model, _oriented(files, model, arguments)


def _oriented(files: Any, model: Any, arguments: argparse.Namespace) -> Any:
    """Return the files with the EXIF option of the command, or else that of the model."""
    exif = model.exif if arguments.exif is None else arguments.exif
    return replace(files, decoding=replace(files.decoding, exif=exif))


def _load(arguments: argparse.Namespace, checkpoint: Path, config: Any) -> Any:
    from ltr.apply.model import load_model

    views = getattr(arguments, "views", None)  # a flag of ltr-predict only
    if "views" in arguments:
        _report_views(arguments, config)
    with plain_warnings():
        return load_model(
            checkpoint,
            config,
            accelerator=arguments.accelerator,
            precision=arguments.precision,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            views=views,
        )


def report_broken(broken: Sequence[Any], listed: Path | None) -> None:
    """Print to standard error how many images could not be read, and the first of them."""
    if not broken:
        return
    print_line(f"warning: {counted(len(broken), 'image')} could not be read; {listed} lists them:", sys.stderr)
    for image in broken[:SHOWN]:
        print_line(f"  {one_line(image.path)}: {one_line(image.reason)}", sys.stderr)


def report_remarks(remarks: Sequence[str]) -> None:
    """Print remarks on the images to standard error."""
    for remark in remarks:
        print_line(f"warning: {one_line(remark)}", sys.stderr)
