"""``ltr-mine``: rank a pool of unlabelled images for each rare class, to label from."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ltr.commands.arguments import Parser, at_least, chosen_names, parse_arguments, refuse_unread
from ltr.commands.evaluate import find
from ltr.commands.named_runs import run_path
from ltr.commands.outputs import read_arguments, refuse_inputs
from ltr.commands.predict import (
    add_inputs,
    add_reading_flags,
    model_and_pool,
    report_broken,
    report_remarks,
    warn_of_whole_images,
)
from ltr.console import plain_warnings, print_line, progress
from ltr.errors import ConfigError, DataError
from ltr.files import file_digest
from ltr.names import counted
from ltr.writing import check_folder, check_named_files


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
        epilog="The same command resumes a stopped run. "
        "Example: ltr-mine outputs/inat_bg/background_splitting/RUN pool --out mined --exclude labelled.csv",
        allow_abbrev=False,
    )
    add_inputs(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder for sheets, table and state")
    parser.add_argument(
        "--classes",
        action="append",
        default=[],
        metavar="A,B,...",
        help="classes to mine for (default: --group); can be repeated",
    )
    parser.add_argument(
        "--group", choices=("few", "medium", "many", "all"), default="few", help="shot group to mine for (default: few)"
    )
    parser.add_argument(
        "--few-below",
        type=int,
        metavar="N",
        help="upper bound of few-shot classes, in training images (default: the run's)",
    )
    parser.add_argument(
        "--strategy",
        default="probability",
        metavar="NAME",
        help="probability, entropy, margin, coreset, cluster_margin, background_split or random (default: probability)",
    )
    parser.add_argument(
        "--class-budget", action="append", default=[], metavar="NAME=N", help="images of one class, instead of --top"
    )
    parser.add_argument(
        "--budget", type=int, metavar="N", help="total number of images, for strategies that rank the whole pool"
    )
    parser.add_argument(
        "--min-distance",
        type=float,
        metavar="D",
        help="minimal cosine distance of features within the batch (default: 0 for probability, else 0.01); not for "
        "coreset, cluster_margin and random",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of random and coreset (default: 0)")
    parser.add_argument("--top", type=int, default=100, metavar="N", help="images per class (default: 100)")
    parser.add_argument(
        "--thumbnails", type=int, default=24, metavar="N", help="images per class in the sheet (default: 24)"
    )
    parser.add_argument(
        "--exclude", type=Path, metavar="TABLE", help="table with a column path of images that are labelled already"
    )
    parser.add_argument("--chunk", type=int, default=4096, metavar="N", help="images between two saves (default: 4096)")
    parser.add_argument("--again", action="store_true", help="discard the state in --out and start from the beginning")
    parser.add_argument(
        "--features",
        choices=("auto", "stored", "images"),
        default="auto",
        help="stored: images pass through the backbone once, for all rounds (auto: if the run has features=stored)",
    )
    parser.add_argument("--stages", type=Path, metavar="FOLDER", help="the store of features (default: the run's)")
    add_reading_flags(parser)
    arguments = parse_arguments(parser, argv)
    if arguments is None:
        return 0
    for name, least in (("top", 1), ("thumbnails", 0), ("chunk", 1), ("few_below", 1), ("budget", 1), ("seed", 0)):
        at_least(arguments, name, least)
    check_folder(arguments.out, f"--out {arguments.out}")
    _check_outputs(arguments)

    from ltr.configuration.targets import allow_packages

    arguments.run = str(run_path(Path(arguments.run)))
    with allow_packages(arguments.allow):
        _check_strategy(arguments)
        return _mine(arguments)


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Refuse to replace an input, a table of candidates that a person has labelled, or a file of another program.

    Raises:
        ConfigError: names the file.
    """
    from ltr.apply.contact_sheet import CANDIDATE_COLUMNS, CANDIDATES, existing_sheets, labelled_rows
    from ltr.apply.tables import BROKEN_COLUMNS

    sheets = dict.fromkeys(("label.html", "sheet.html", *existing_sheets(arguments.out)), ())
    files = {CANDIDATES: CANDIDATE_COLUMNS, "broken.csv": BROKEN_COLUMNS, **sheets}
    typed = f"--out {arguments.out}"
    refuse_inputs({arguments.out / name: typed for name in files}, read_arguments(arguments, "out"))
    number = labelled_rows(arguments.out / CANDIDATES)
    if number:
        raise ConfigError(
            f"{typed}: {arguments.out / CANDIDATES} has {counted(number, 'label')}, filled in by hand, and "
            "would be replaced. Name another folder, or move the table; --exclude TABLE leaves its images out"
        )
    check_named_files(arguments.out, files, typed)


def _check_strategy(arguments: argparse.Namespace) -> None:
    """Refuse an unknown strategy, and flags that it does not read, before anything is loaded."""
    from ltr.apply.acquisition import BY_CLASS, BY_DISTANCE, BY_SEED, check_strategy

    check_strategy(arguments.strategy)
    by_class = arguments.strategy in BY_CLASS
    if by_class and arguments.budget is not None:
        raise ConfigError(
            f"--budget: --strategy {arguments.strategy} selects for each class. Use --top or --class-budget"
        )
    if not by_class and arguments.class_budget:
        raise ConfigError(f"--class-budget: --strategy {arguments.strategy} ranks the pool as a whole. Use --budget")
    distance = arguments.min_distance
    if distance is not None and not 0 <= distance <= 2:
        raise ConfigError(f"--min-distance {distance}: allowed is 0 to 2")
    named = f"--strategy {arguments.strategy}"
    if arguments.strategy not in BY_DISTANCE:
        allowed = ", ".join(BY_DISTANCE)
        refuse_unread(arguments, ["min_distance"], f"{named} does not use it, {allowed} do. Leave it out")
    if arguments.strategy not in BY_SEED:
        refuse_unread(arguments, ["seed"], f"{named} has no random numbers, {' and '.join(BY_SEED)} have. Leave it out")
    if arguments.budget is not None:
        because = f"--budget sets the number of images, which {named} selects from the whole pool. Leave it out"
        refuse_unread(arguments, ["classes", "group", "few_below", "top"], because)
    if arguments.classes:
        because = "--classes names the classes to mine for. Leave one of them out"
        refuse_unread(arguments, ["group", "few_below"], because)
    if arguments.group == "all":
        refuse_unread(arguments, ["few_below"], "--group all takes every class. Leave one of them out")
    if arguments.features == "images":
        refuse_unread(arguments, ["stages"], "--features images stores no features. Leave one of them out")


def _mine(arguments: argparse.Namespace) -> int:
    import numpy as np

    from ltr.apply.mine import mine, rare_classes, without
    from ltr.data.images.real_paths import first_of_each

    model, files = model_and_pool(arguments)
    warn_of_whole_images(model, "cut them by their boxes first, or classify boxes by ltr-predict --detections FILE")
    names = chosen_names(arguments.classes, model.class_names)
    group = arguments.group if arguments.budget is None else "all"  # a budget is of the whole pool
    classes = rare_classes(model, names, group, arguments.few_below)
    places = first_of_each(files)
    if len(places) < len(files):
        print_line(
            f"{len(files) - len(places):,} of {len(files):,} images are other paths of the same files, and left out"
        )
    checkpoint, _ = find(Path(arguments.run))
    labelled = np.empty(0, dtype=np.int64)
    if arguments.exclude is not None:
        with plain_warnings():
            unlabelled = np.intersect1d(places, without(files, arguments.exclude))
        print_line(f"{len(places) - len(unlabelled):,} of {len(places):,} images are labelled already and left out")
        labelled, places = np.setdiff1d(places, unlabelled), unlabelled
    places = _without_training_images(checkpoint, files, places)
    total = len(places)
    if not total:
        raise DataError(f"{arguments.images}: every image of the pool is labelled already. Name another pool")
    stored = _pool_features(arguments, model, files)
    if arguments.strategy != "probability" or arguments.class_budget or arguments.min_distance:
        return _select(arguments, model, files, classes, places, labelled, checkpoint, stored)

    def started(done: int) -> None:
        if done:
            print_line(f"resuming after {done:,} images")
            advance(done)

    with _reader(stored, places) as read, progress("mining", total) as advance:
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
            read=read,
            started=started,
            advance=advance,
        )
    summary = f"{counted(mined.ranked, 'image')} ranked for {counted(len(classes), 'class', 'classes')}"
    return _write(arguments, mined, model, files, checkpoint, summary)


def _without_training_images(checkpoint: Path, files: Any, places: Any) -> Any:
    """Leave out the images that the run was trained on.

    Raises:
        ConfigError: there are no others.
    """
    from ltr.apply.batch_selection import trained_on
    from ltr.methods.core.checkpoint import describe

    run = checkpoint.absolute().parent.parent
    with plain_warnings():
        is_trained = trained_on(describe(checkpoint), run, files, places)
    if not is_trained.any():
        return places
    if is_trained.all():
        raise ConfigError(
            f"all {len(places):,} images of the pool are training images of the run, which are labelled. Name a folder "
            "of other images"
        )
    print_line(f"{int(is_trained.sum()):,} of {len(places):,} images are training images of the run and left out")
    return places[~is_trained]


def _pool_features(arguments: argparse.Namespace, model: Any, files: Any) -> Any:
    """Return the pool's stored features as `--features` asks for; None where images pass through the network.

    Raises:
        ConfigError: they are asked for, and the run was trained on images.
    """
    from ltr.apply.pool_features import PoolFeatures
    from ltr.runs.processes.device import trained_on_features
    from ltr.runs.store import StageStore

    if arguments.features == "images":
        return None
    if not trained_on_features(model.network):
        if arguments.features == "stored":
            raise ConfigError(
                "--features stored: the run was trained on images, so that the backbone of the next round is another. "
                "Allowed are runs of features=stored; leave the flag out, or train with features=stored"
            )
        refuse_unread(
            arguments, ["stages"], "the run was trained on images, so that no features are stored. Leave it out"
        )
        return None
    stages = _stages_folder(arguments)
    existing = next(folder for folder in (stages, *stages.parents) if folder.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        if arguments.features == "stored" or arguments.stages is not None:
            raise ConfigError(f"{stages}: features cannot be stored there. Name a folder that can be written: --stages")
        print_line(f"features: {stages} cannot be written, so images pass through the backbone; --stages names another")
        return None
    return PoolFeatures(model, files, StageStore(stages, print_line), print_line)


def _stages_folder(arguments: argparse.Namespace) -> Path:
    """Return the store of features: of the flag, else that of the run while it exists, else the usual one."""
    from ltr.commands.named_runs import outputs_folder

    if arguments.stages is not None:
        return Path(arguments.stages).absolute()
    _, config = find(Path(arguments.run))
    of_run = ((config or {}).get("paths") or {}).get("stages")
    if of_run and Path(of_run).is_dir():
        return Path(of_run)
    return (outputs_folder() / "stages").absolute()


def _reader(stored: Any, places: Any) -> AbstractContextManager[Any]:
    """Return a context manager of the function that reads a pool's stored features; of None for images."""
    return nullcontext() if stored is None else stored.reading(places)


def _select(
    arguments: argparse.Namespace,
    model: Any,
    files: Any,
    classes: Any,
    places: Any,
    labelled: Any,
    checkpoint: Path,
    stored: Any,
) -> int:
    """Select a batch by a strategy from the predictions of the whole pool."""
    import numpy as np

    from ltr.apply.acquisition import BY_CLASS, NEEDS_FEATURES, check_budget, check_strategy, select
    from ltr.apply.batch_selection import as_ranking, class_budgets, pool_scores, predict_pool
    from ltr.apply.mine import Mined

    strategy = arguments.strategy
    check_strategy(strategy, has_background=model.background is not None)
    budgets = class_budgets(model, classes, arguments.top, arguments.class_budget)
    if budgets == class_budgets(model, classes, arguments.top + 1, arguments.class_budget):
        refuse_unread(arguments, ["top"], "--class-budget sets the number of every class. Leave one of them out")
    if strategy not in BY_CLASS and arguments.budget is not None:
        budgets = {int(classes[0]): arguments.budget}
    check_budget(strategy, min(sum(budgets.values()), len(places)))
    distance = arguments.min_distance
    if distance is None:
        distance = 0.0 if strategy == "probability" else 0.01
    known = np.union1d(places, labelled) if strategy == "coreset" else places

    def started(done: int) -> None:
        print_line(f"resuming after {done:,} images")
        advance(done)

    with _reader(stored, known) as read, progress("predicting", len(known)) as advance:
        predictions = predict_pool(
            model,
            files,
            known,
            arguments.out,
            with_features=strategy in NEEDS_FEATURES or (distance > 0 and strategy != "random"),
            chunk=arguments.chunk,
            identity=file_digest(checkpoint),
            again=arguments.again,
            read=read,
            started=started,
            advance=advance,
        )
    is_candidate = ~np.isin(predictions.places, labelled)
    scores = pool_scores(model, predictions, is_candidate)
    selection = select(strategy, scores, budgets, seed=arguments.seed, min_distance=distance)
    ranking = as_ranking(selection, predictions, np.flatnonzero(is_candidate))
    mined = Mined(ranking, predictions.broken, len(known), predictions.resumed_at, predictions.remarks)
    summary = f"{len(selection.images):,} of {len(scores):,} images selected by {strategy}"
    return _write(arguments, mined, model, files, checkpoint, summary)


def _write(arguments: argparse.Namespace, mined: Any, model: Any, files: Any, checkpoint: Path, summary: str) -> int:
    """Write the table, the sheets and the list of unreadable images, and print where they are."""
    from ltr.apply.contact_sheet import CANDIDATES, write_candidates, write_sheets
    from ltr.apply.labelling_sheet import write_labelling_sheet
    from ltr.apply.tables import write_broken

    rows = write_candidates(arguments.out / CANDIDATES, mined, model, files)
    title = f"Mined with {checkpoint.absolute().parent.parent.name} in {arguments.images.absolute().name}"
    with progress("drawing", len(mined.ranking.classes)) as drawn:
        sheets = write_sheets(
            arguments.out, mined, model, files, title=title, thumbnails=arguments.thumbnails, advance=drawn
        )
    with progress("labelling sheet", rows) as drawn:
        write_labelling_sheet(arguments.out / "label.html", mined, model, files, title=title, advance=drawn)
    listed = arguments.out / "broken.csv"
    write_broken(listed, mined.broken)
    print_line(summary)
    print_line(f"{arguments.out / CANDIDATES}: {rows:,} rows")
    for sheet in (*sheets, arguments.out / "label.html"):
        print_line(sheet)
    report_remarks(mined.remarks)
    report_broken(mined.broken, listed)
    return 0
