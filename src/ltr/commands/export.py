"""``ltr-export``: a trained network as safetensors, JSON and, when asked, ONNX."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltr.commands.arguments import Parser, add_allow, parse_arguments
from ltr.commands.evaluate import find
from ltr.commands.outputs import read_arguments, refuse_inputs
from ltr.console import plain_warnings, print_line
from ltr.errors import ConfigError
from ltr.writing import check_folder


def main(argv: Sequence[str]) -> int:
    """Run ``ltr-export RUN --out FOLDER [--onnx]`` or ``ltr-export RUN --hub FOLDER``; return the exit code.

    Raises:
        ConfigError: flags that are wrong, a path that cannot be written, or ONNX that cannot be made.
        CheckpointError: no such run, or weights that cannot be read.
        DataError: the run's result.json is damaged.
        TrainingError: the exported network gives other logits.
    """
    parser = Parser(
        prog="ltr-export",
        description=(
            "Write weights (safetensors), description and class names (JSON), or a model of timm and the Hugging Face "
            "hub, and read them back as a check."
        ),
        epilog="Example: ltr-export outputs/digits_lt/erm/erm-s0-1a2b3c4d --out exported",
        allow_abbrev=False,
    )
    parser.add_argument("run", help="a run (its folder, its name or 'last'), or a checkpoint file of this project")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write the network for ltr and ONNX")
    parser.add_argument(
        "--hub", type=Path, metavar="FOLDER", help="write a timm model with a card, for the Hugging Face hub"
    )
    parser.add_argument(
        "--onnx", action="store_true", help="also write model.onnx (needs the packages onnx, onnxscript)"
    )
    add_allow(parser)
    arguments = parse_arguments(parser, argv)
    if arguments is None:
        return 0
    if arguments.out is None and arguments.hub is None:
        raise ConfigError(
            "ltr-export writes into a folder, and none is named. Give --out FOLDER (the network for ltr, with --onnx "
            "also ONNX) or --hub FOLDER (a timm model for the Hugging Face hub)"
        )
    if arguments.onnx and arguments.out is None:
        raise ConfigError("--onnx writes model.onnx into the folder of --out, and there is none. Add --out FOLDER")
    folders = [os.path.realpath(folder) for folder in (arguments.out, arguments.hub) if folder is not None]
    if len(folders) > len(set(folders)):
        raise ConfigError(f"--out and --hub are both {arguments.hub}, and each writes its own config.json. Name two")
    for flag, folder in (("--out", arguments.out), ("--hub", arguments.hub)):
        if folder is not None:
            check_folder(folder, f"{flag} {folder}")

    from ltr.configuration.targets import allow_packages

    with allow_packages(arguments.allow):
        checkpoint, _ = find(Path(arguments.run))
        _check_outputs(arguments, checkpoint)
        with plain_warnings():
            if arguments.hub is not None:  # first: it refuses more networks
                _export_hub(checkpoint, arguments.hub)
            if arguments.out is not None:
                _export(checkpoint, arguments)
    return 0


def _check_outputs(arguments: argparse.Namespace, checkpoint: Path) -> None:
    """Refuse to replace the exported weights, or a file of a run."""
    from ltr.apply.export import FILES

    inputs = [checkpoint, *read_arguments(arguments, "out", "hub").values()]
    for flag, folder in (("--out", arguments.out), ("--hub", arguments.hub)):
        if folder is not None:
            refuse_inputs({folder / name: f"{flag} {folder}" for name in FILES}, inputs)


def _export(checkpoint: Path, arguments: argparse.Namespace) -> None:
    from ltr.apply.export import export

    done = export(checkpoint, arguments.out, onnx=arguments.onnx)
    _print_files(done.folder, done.files)
    print_line("checked: read back, the network gives the same logits to the bit")
    if done.merged_difference is not None:
        print_line(
            "merged: the low-rank updates (tune=lora) are part of the backbone's weights; logits differ by at most "
            f"{done.merged_difference:.2g}"
        )
    if done.onnx_difference is not None:
        print_line(f"checked: the logits of model.onnx differ by at most {done.onnx_difference:.2g}")
    elif arguments.onnx:
        print_line("warning: model.onnx was not run: onnxruntime is not installed", sys.stderr)


def _export_hub(checkpoint: Path, folder: Path) -> None:
    from ltr.apply.hub import CARD, export_hub
    from ltr.report.limits import limits

    result = _result_of(checkpoint)
    done = export_hub(
        checkpoint, folder, result, "" if result is None else limits(result["config"], result.get("data", {}))
    )
    _print_files(done.folder, done.files)
    print_line(f"checked: timm builds it again; its logits differ by at most {done.difference:.2g}")
    if done.kept_card:
        print_line(f"{done.folder / CARD} was there and is kept")
    print_line(f'load it: timm.create_model("local-dir:{done.folder}", pretrained=True)')


def _print_files(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        size = (folder / name).stat().st_size
        print_line(f"{folder / name}  {size / 1e6:,.2f} MB" if size >= 1e4 else f"{folder / name}  {size:,} bytes")


def _result_of(checkpoint: Path) -> Mapping[str, Any] | None:
    """Return the result of the run that a checkpoint belongs to; None for a file outside of a finished run."""
    from ltr.results import read_result_file

    folder = checkpoint.resolve().parent
    file = folder.parent / "result.json"
    return read_result_file(file) if folder.name == "checkpoints" and file.is_file() else None
