"""``ltr-data``: list, describe, check, pack and import data sets, and audit their labels."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltr.commands.arguments import Parser, add_allow, file_path, parse_arguments, refuse_unread
from ltr.commands.outputs import read_arguments, refuse_inputs
from ltr.console import plain_warnings, print_line, progress
from ltr.errors import ConfigError
from ltr.escaping import one_line
from ltr.writing import check_file, check_folder, check_named_files

if TYPE_CHECKING:
    from ltr.data.source import Source

DISTANCES = {"hash": 7, "features": 1}  # what images are compared by, and the largest distance


def main(argv: Sequence[str]) -> int:
    """Run ``ltr-data list | describe | check | pack | import | audit``; return the exit code.

    Raises:
        ConfigError: flags, a name or overrides that are wrong.
        DataError: the data set is missing or damaged.
    """
    arguments = parse_arguments(_parser(), argv)
    if arguments is None:
        return 0
    if arguments.command == "list":
        return _list(arguments.config_dir)
    if arguments.command != "audit":
        arguments.dataset = arguments.dataset.removeprefix("dataset=")  # as in the other commands
    _check_flags(arguments)

    from ltr.configuration.targets import allow_packages

    if arguments.command == "audit":
        from ltr.commands.audit import run_audit

        with allow_packages(arguments.allow):
            return run_audit(arguments)
    with allow_packages(arguments.allow):
        config = _configuration(arguments)
        _check_outputs(arguments, config)
        return _command(arguments.command)(arguments, config)


def _check_outputs(arguments: argparse.Namespace, config: dict[str, Any]) -> None:
    """Refuse to replace a file of the data set, or another input."""
    files = {flag: getattr(arguments, flag, None) for flag in ("exclude_to", "to", "pairs_to")}
    outputs = {path: f"--{flag.replace('_', '-')} {path}" for flag, path in files.items() if path is not None}
    folder = getattr(arguments, "out", None)
    if folder is not None:
        from ltr.commands.data_describe import FILES

        outputs |= {folder / name: f"--out {folder}" for name in FILES}
        check_named_files(folder, FILES, f"--out {folder}")
    refuse_inputs(outputs, read_arguments(arguments, *files, "out"), config)


def _command(name: str) -> Callable[[argparse.Namespace, dict[str, Any]], int]:
    if name == "check":
        from ltr.commands.data_check import check_dataset

        return check_dataset
    if name == "describe":
        from ltr.commands.data_describe import describe_dataset

        return describe_dataset
    return {"pack": _pack, "import": _import}[name]


def _parser() -> Parser:
    parser = Parser(prog="ltr-data", description="Look at data sets before anything is trained.")
    parser.further = "overrides"
    commands = parser.add_subparsers(dest="command", required=True)
    shown = commands.add_parser("list", help="dataset configs, and whether their files exist")
    shown.add_argument("--config-dir", metavar="FOLDER", help="also list your configs in FOLDER/dataset")

    describe = commands.add_parser("describe", help="classes, images, imbalance; two figures")
    describe.add_argument(
        "--out", type=Path, metavar="FOLDER", help="folder for the figures (default: outputs/data/DATASET)"
    )

    check = commands.add_parser("check", help="check files, published counts, and decoding of every image")
    check.add_argument(
        "--exclude-to", type=file_path, metavar="FILE", help="write the paths of bad images to this file, one per line"
    )

    check.add_argument(
        "--duplicates", action="store_true", help="also find near-duplicates between training and test images"
    )
    check.add_argument(
        "--by",
        choices=tuple(DISTANCES),
        default="hash",
        help="comparison by a perceptual hash, or by the features of features=stored (default: hash)",
    )
    check.add_argument(
        "--distance",
        type=float,
        metavar="D",
        help="maximal distance of near-duplicates: hash bits, 0 to 7 of 128 (default: 4), or cosine distance of "
        "features, 0 to 1 (default: 0.1)",
    )
    check.add_argument("--pairs-to", type=file_path, metavar="FILE", help="write all pairs to this .csv file")

    pack = commands.add_parser("pack", help="decode and resize once, to one file for dataset.packed=FILE")
    pack.add_argument("--to", type=file_path, metavar="FILE", required=True, help="packed file to write")
    pack.add_argument("--size", type=int, default=256, metavar="PIXELS", help="short side of the images (default: 256)")
    pack.add_argument("--format", choices=("jpeg", "raw"), default="jpeg", help="format of the pixels (default: jpeg)")
    pack.add_argument("--quality", type=int, default=90, metavar="1..100", help="JPEG quality (default: 90)")
    for command in (check, pack):
        command.add_argument("--workers", type=int, metavar="N", help="number of processes (default: all cores)")
        command.add_argument(
            "--max-pixels", type=int, metavar="N", help="refuse larger images (default: the limit of training)"
        )
    imported = commands.add_parser("import", help="write the images of a data set as a table")
    imported.add_argument("--to", type=file_path, metavar="FILE", required=True, help=".csv file to write")

    audit = commands.add_parser("audit", help="likely label errors, outliers and copies in a run's data set")
    audit.add_argument("run", help="a run (folder, name or 'last'), or a checkpoint file of this project")
    audit.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="folder for table and sheet (default: outputs/audit/DATASET/METHOD/RUN)",
    )
    audit.add_argument(
        "--part", action="append", default=[], choices=("train", "val", "test"), help="images to audit (default: all)"
    )
    audit.add_argument(
        "--method",
        choices=("ltr", "cleanlab"),
        default="ltr",
        help="method for label errors: ltr spares rare classes, the package cleanlab flags more (default: ltr)",
    )
    audit.add_argument("--folds", type=int, default=5, metavar="N", help="folds of the training images (default: 5)")
    audit.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the folds (default: 0)")
    audit.add_argument(
        "--batch-size", type=int, metavar="N", help="images per batch (default: as in the run's evaluation)"
    )
    audit.add_argument("--workers", type=int, metavar="N", help="decoding processes (default: all cores)")
    audit.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), default="auto", help="(default: auto)")
    add_allow(audit)

    for command in (describe, check, pack, imported):
        command.add_argument("dataset", help="name of a dataset config, see ltr-data list")
        command.add_argument("overrides", nargs="*", metavar="key=value", help="as for ltr-train")
        command.add_argument("--config-dir", metavar="FOLDER", help="folder with your own configs")
        add_allow(command)
    return parser


def _check_flags(arguments: argparse.Namespace) -> None:
    """Refuse combinations of flags that argparse accepts, before anything is read."""
    values = vars(arguments)
    bounds = (
        *(("workers", 1, 1024), ("size", 1, 65_500), ("quality", 1, 100), ("max_pixels", 1, None)),
        *(("folds", 2, 100), ("seed", 0, None), ("batch_size", 1, None)),
    )
    for flag, least, most in bounds:
        value = values.get(flag)
        if value is not None and (value < least or (most is not None and value > most)):
            allowed = f"at least {least}" if most is None else f"{least} to {most}"
            raise ConfigError(f"--{flag.replace('_', '-')} {value}: allowed is {allowed}")
    if arguments.command == "check":
        _check_duplicate_flags(arguments)
    if arguments.command == "pack" and arguments.format == "raw":
        refuse_unread(arguments, ["quality"], "--format raw stores pixels unchanged. Leave one of them out")
    if arguments.command == "audit" and arguments.part and "train" not in arguments.part:
        because = "only training images are divided into folds. Leave it out, or add --part train"
        refuse_unread(arguments, ["folds", "seed"], because)
    if values.get("pairs_to") is not None and values["pairs_to"].suffix.lower() != ".csv":
        raise ConfigError(f"--pairs-to {values['pairs_to']}: the name must end in .csv")
    for flag in ("exclude_to", "to", "pairs_to"):
        if values.get(flag) is not None:
            check_file(values[flag], f"--{flag.replace('_', '-')} {values[flag]}")
    if values.get("out") is not None:
        check_folder(values["out"], f"--out {values['out']}")
    if arguments.command != "audit" and "=" in arguments.dataset:
        raise ConfigError(
            f"{arguments.dataset}: the name of a data set comes first, ltr-data {arguments.command} NAME "
            f"{arguments.dataset}; ltr-data list shows the names"
        )


def _check_duplicate_flags(arguments: argparse.Namespace) -> None:
    if not arguments.duplicates:
        because = "only --duplicates compares images that look alike. Add it, or leave the rest out"
        refuse_unread(arguments, ["by", "distance", "pairs_to"], because)
    most = DISTANCES[arguments.by]
    distance = arguments.distance
    if distance is not None and not (0 <= distance <= most and (arguments.by != "hash" or distance == int(distance))):
        kind = "a whole number of bits" if arguments.by == "hash" else "a cosine distance"
        raise ConfigError(f"--distance {distance:g}: with --by {arguments.by} it is {kind} from 0 to {most}")


def _configuration(arguments: argparse.Namespace) -> dict[str, Any]:
    from ltr.configuration.overrides import load_config

    # first, so that overrides win
    stored = ["features=stored"] if getattr(arguments, "by", "hash") == "features" else []
    return load_config([f"dataset={arguments.dataset}", *stored, *arguments.overrides], arguments.config_dir)


def _list(config_dir: str | None) -> int:
    from ltr.commands.layout import columns, help_width, wrapped
    from ltr.configuration.configs import conf_directory, config_names
    from ltr.configuration.descriptions import summary_of
    from ltr.data.sources.download_hints import dataset_paths

    data = os.environ.get("LTR_DATA", "data")
    rows = []
    for name in config_names("dataset"):
        needed = dataset_paths(name, data)
        rows.append((name, _state_of(needed), summary_of(conf_directory() / "dataset" / f"{name}.yaml")))
    if config_dir is not None:
        own_configs = sorted((Path(config_dir) / "dataset").glob("*.yaml"))
        rows += [(path.stem, "?", summary_of(path)) for path in own_configs]
    width = help_width()
    print_line("\n".join(wrapped(f"Data sets, and whether their files are in paths.data ({data})", width)))
    print_line("\n".join(columns([("data set", "files", "description"), *rows], width, "")))
    return 0


def _state_of(needed: list[Path] | None) -> str:
    if needed is None:
        return "?"
    if not needed:
        return "built in"
    present = sum(path.exists() for path in needed)
    return "found" if present == len(needed) else "partly" if present else "-"


def _pack(arguments: argparse.Namespace, config: dict[str, Any]) -> int:
    from ltr.data.images.tally import Tally
    from ltr.data.packed_images.writing import pack

    if config["dataset"].get("packed") is not None:
        raise ConfigError("dataset.packed: these images are packed already. Leave the key out to pack the image files")
    options: dict[str, Any] = {"size": arguments.size, "format": arguments.format, "quality": arguments.quality}
    with plain_warnings():
        source = read_dataset(config)
        with progress("packing", len(source)) as advance:
            node = config["dataset"]["source"]
            tally = Tally(source.decoding, config["dataset"])
            made = pack(source, node, arguments.to, progress=advance, tally=tally, **options, **processes(arguments))
    for line in tally.lines():
        print_line(f"warning: {one_line(line)}")
    size = arguments.to.stat().st_size / 1e6
    print_line(f"{len(source):,} images, {size:,.1f} MB{'' if made else '; the file exists already'}")
    print_line(f"train from it with dataset.packed={arguments.to}")
    return 0


def _import(arguments: argparse.Namespace, config: dict[str, Any]) -> int:
    from ltr.data.image_table import write_image_table

    if arguments.to.suffix.lower() != ".csv":
        raise ConfigError(f"--to {arguments.to}: the name must end in .csv")
    with plain_warnings():
        source = read_dataset(config)
        write_image_table(source, arguments.to)
    for line in source.remarks:
        print_line(line)
    print_line(f"{arguments.to}: {len(source):,} images of {source.num_classes:,} classes")
    return 0


def read_dataset(config: dict[str, Any]) -> Source:
    """Return the source of a config; images may have any number of pixels, since nothing is trained.

    Raises:
        ConfigError: the options do not fit the code of the data set.
        DataError: the data set is missing or damaged.
    """
    from ltr.configuration.targets import check_arguments

    mistakes = check_arguments({"dataset": config["dataset"]})
    if mistakes:
        raise ConfigError("the data set's config does not fit the code:\n  " + "\n  ".join(mistakes))
    from ltr.data.packed_images.reading import read_source

    return read_source({**config["dataset"], "image_size": None})


def processes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options ``workers`` and ``max_pixels`` of functions that decode images."""
    from ltr.data.images.decode import MAX_PIXELS
    from ltr.data.parallel import cores

    return {"workers": arguments.workers or cores(), "max_pixels": arguments.max_pixels or MAX_PIXELS}
