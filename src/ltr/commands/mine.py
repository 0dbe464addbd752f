"""``ltr-mine``: rank a pool of unlabelled images for each rare class, to label from."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ltr.commands.arguments import Parser, at_least, chosen_names, parsed
from ltr.commands.predict import add_inputs, add_reading_flags, model_and_pool, report_broken, report_remarks
from ltr.console import print_line
from ltr.writing import check_folder


def main(argv: Sequence[str]) -> int:
    """Run ``ltr-mine RUN FOLDER|TABLE --out FOLDER``; return the exit code.

    Raises:
        ConfigError: flags that are wrong, or a path that cannot be written.
        CheckpointError: no such run, or weights that cannot be read.
        DataError: no images, or not one that can be read.
    """
    parser = Parser(
        prog="ltr-mine",
        description="Rank a pool of images for each rare class: contact sheets to look at, a table to label from.",
        epilog="A run that was stopped goes on with the same command. "
        "Example: ltr-mine outputs/inat_bg/background_splitting/RUN pool --out mined --exclude labelled.csv",
        allow_abbrev=False,
    )
    add_inputs(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of sheets, table and state")
    parser.add_argument(
        "--classes",
        action="append",
        default=[],
        metavar="A,B,...",
        help="classes to mine for (default: --group); may be given several times, once for each class",
    )
    parser.add_argument(
        "--group", choices=("few", "medium", "many", "all"), default="few", help="a shot group (default: few)"
    )
    parser.add_argument("--few-below", type=int, metavar="N", help="training images (default: the run's bound)")
    parser.add_argument("--top", type=int, default=100, metavar="N", help="images of each class (default: 100)")
    parser.add_argument("--thumbnails", type=int, default=24, metavar="N", help="of them in the sheet (default: 24)")
    parser.add_argument("--exclude", type=Path, metavar="TABLE", help="with a column path: images that are labelled")
    parser.add_argument("--chunk", type=int, default=4096, metavar="N", help="images between two saves (default: 4096)")
    parser.add_argument("--again", action="store_true", help="throw away what was found in --out, and start anew")
    add_reading_flags(parser)
    arguments = parsed(parser, argv)
    if arguments is None:
        return 0
    for name, least in (("top", 1), ("thumbnails", 0), ("chunk", 1), ("few_below", 1)):
        at_least(arguments, name, least)
    check_folder(arguments.out, f"--out {arguments.out}")

    from ltr.configuration.targets import allowing

    with allowing(arguments.allow):
        return _mine(arguments)


def _mine(arguments: argparse.Namespace) -> int:
    import numpy as np

    from ltr.apply.contact_sheet import write_candidates, write_sheets
    from ltr.apply.mine import mine, rare_classes, without
    from ltr.apply.tables import write_broken
    from ltr.commands.evaluate import find
    from ltr.console import progress
    from ltr.data.real_paths import first_of_each
    from ltr.files import file_digest

    model, files = model_and_pool(arguments)
    names = chosen_names(arguments.classes, model.class_names)
    classes = rare_classes(model, names, arguments.group, arguments.few_below)
    places = first_of_each(files)
    if len(places) < len(files):
        print_line(f"{len(files) - len(places):,} of {len(files):,} images are others under another path, and left out")
    if arguments.exclude is not None:
        unlabelled = np.intersect1d(places, without(files, arguments.exclude))
        print_line(f"{len(places) - len(unlabelled):,} of {len(places):,} images are labelled already and left out")
        places = unlabelled
    total = len(places)
    checkpoint, _ = find(Path(arguments.run))

    def started(done: int) -> None:
        if done:
            print_line(f"going on after {done:,} images")
            advance(done)

    with progress("mining", total) as advance:
        mined = mine(
            model,
            files,
            classes,
            arguments.out,
            top=arguments.top,
            chunk=arguments.chunk,
            places=places,
            identity=file_digest(checkpoint),
            again=arguments.again,
            started=started,
            advance=advance,
        )
    rows = write_candidates(arguments.out / "candidates.csv", mined, model, files)
    title = f"Mined with {checkpoint.absolute().parent.parent.name} in {arguments.images.absolute().name}"
    with progress("drawing", len(classes)) as drawn:
        sheets = write_sheets(
            arguments.out, mined, model, files, title=title, thumbnails=arguments.thumbnails, advance=drawn
        )
    listed = arguments.out / "broken.csv"
    write_broken(listed, mined.broken)
    print_line(f"{mined.looked_at:,} images ranked for {len(classes):,} classes")
    print_line(f"{arguments.out / 'candidates.csv'}: {rows:,} rows")
    for sheet in sheets:
        print_line(sheet)
    report_remarks(mined.remarks)
    report_broken(mined.broken, listed)
    return 0
