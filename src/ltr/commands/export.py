"""``ltr-export``: a trained network as safetensors, JSON and, when asked, ONNX."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ltr.commands.arguments import Parser, parsed
from ltr.console import print_line
from ltr.writing import check_folder


def main(argv: Sequence[str]) -> int:
    """Run ``ltr-export RUN --out FOLDER [--onnx]``; return the exit code.

    Raises:
        ConfigError: flags that are wrong, a path that cannot be written, or ONNX that cannot be made.
        CheckpointError: no such run, or weights that cannot be read.
        TrainingError: the exported network gives other logits.
    """
    parser = Parser(
        prog="ltr-export",
        description="Write weights (safetensors), description and class names (JSON), and read them back as a check.",
        epilog="Example: ltr-export outputs/digits_lt/erm/erm-s0-1a2b3c4d --out exported",
        allow_abbrev=False,
    )
    parser.add_argument("run", help="a run (its folder, its name or 'last'), or a checkpoint file of this project")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the files go")
    parser.add_argument(
        "--onnx", action="store_true", help="also write model.onnx (needs the packages onnx, onnxscript)"
    )
    parser.add_argument(
        "--allow", action="append", default=[], metavar="PREFIX", help="a package of yours that may be named"
    )
    arguments = parsed(parser, argv)
    if arguments is None:
        return 0
    check_folder(arguments.out, f"--out {arguments.out}")

    from ltr.commands.evaluate import find
    from ltr.configuration.targets import allowing

    with allowing(arguments.allow):
        checkpoint, _ = find(Path(arguments.run))
        from ltr.apply.export import export
        from ltr.console import plain_warnings

        with plain_warnings():
            done = export(checkpoint, arguments.out, onnx=arguments.onnx)
    for name in done.files:
        print_line(f"{done.folder / name}  {(done.folder / name).stat().st_size / 1e6:,.2f} MB")
    print_line("checked: read back, the network gives the same logits to the bit")
    if done.onnx_difference is not None:
        print_line(f"checked: the logits of model.onnx differ by at most {done.onnx_difference:.2g}")
    elif arguments.onnx:
        print_line("warning: model.onnx was not run: onnxruntime is not installed", sys.stderr)
    return 0
