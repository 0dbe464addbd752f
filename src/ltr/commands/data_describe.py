"""``ltr-data describe``: numbers of a data set and its split, and a figure of its first images."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltr.commands.data import read_dataset
from ltr.console import plain_warnings, print_line
from ltr.files import write_csv
from ltr.writing import check_folder

if TYPE_CHECKING:
    from ltr.data.source import Source
    from ltr.data.split import Split

# in the folder of --out, with the columns of a table
FILES = {"class_frequency.png": (), "contact_sheet.png": (), "left_out.csv": ("path", "reason")}
_CLASSES, _IMAGES, _SIDE = 3, 8, 96  # of the contact sheet: classes of each kind, images of a class, pixels a side


def describe_dataset(arguments: argparse.Namespace, config: dict[str, Any]) -> int:
    """Print the numbers of a data set and its split, and draw its classes and first images; return the exit code.

    Args:
        arguments: flags of the command line.
        config: the composed config.

    Raises:
        DataError: the data set is missing or damaged.
    """
    from ltr.data.description import describe
    from ltr.data.splitting.exclusion import read_split
    from ltr.data.splitting.group_description import describe_groups
    from ltr.report.data_figures import class_frequency

    bounds = config["evaluation"]["many_above"], config["evaluation"]["few_below"]
    folder = arguments.out or Path(config["paths"]["outputs"]) / "data" / config["dataset"]["name"]
    check_folder(folder, f"--out {folder}")
    with plain_warnings():
        source = read_dataset(config)
        split = read_split(config["dataset"], source)
        about = describe(split)
        for line in _numbers(source, split, about, *bounds):
            print_line(line)
        for line in describe_groups(source, split):
            print_line(line)
        title = f"{split.name}: {len(about.class_counts):,} classes, {int(about.class_counts.sum()):,} training images"
        figures = [folder / "class_frequency.png", folder / "contact_sheet.png"]
        class_frequency(title, about.class_names, about.class_counts, *bounds, figures[0])
        _draw_first_images(source, split, about, figures[1])
    if source.left_out:
        figures.append(folder / "left_out.csv")
        rows = ({"path": path, "reason": reason} for reason, paths in source.left_out.items() for path in paths)
        write_csv(figures[-1], rows)
    else:
        (folder / "left_out.csv").unlink(missing_ok=True)  # of an earlier description
    for path in figures:
        print_line(path)
    return 0


def _numbers(source: Source, split: Split, about: Any, many_above: int, few_below: int) -> Iterator[str]:
    from ltr.data.splitting.open_set import openness
    from ltr.evaluation.groups import shot_groups

    counts = about.class_counts
    yield f"{source.name}: {len(source):,} images of {source.num_classes:,} classes"
    yield f"split {split.name}, evaluated by {', '.join(split.protocols)}"
    labels = split.label_map[source.labels]
    for part, images in about.images.items():
        inside = labels[getattr(split, part)] if part != "unknown" else source.labels[split.unknown]
        yield f"  {part:<8}{images:>10,} images of {len(set(inside.tolist())):,} classes"
    if len(split.unknown):
        unknown = len(set(source.labels[split.unknown].tolist()))
        known = split.num_classes
        value = openness(known, unknown)
        yield f"openness 1 - sqrt(2K / (2K + Q)) = {value:.3f} for K = {known:,} known, Q = {unknown:,} unknown classes"
    if about.background_share is not None:
        yield f"background share {about.background_share:.4f}; the lines below are about the other classes"
    smallest, largest = int(counts.min()), int(counts.max())
    if smallest:
        yield f"imbalance factor {about.imbalance_factor:.2f} (training images of a class: {largest:,} to {smallest:,})"
    else:
        yield f"imbalance factor undefined: {int((counts == 0).sum()):,} classes have no training image"
    yield f"Gini coefficient of the class counts {about.gini:.3f}"
    groups = shot_groups(counts, many_above, few_below)
    says = {"many": f"more than {many_above}", "medium": "between", "few": f"fewer than {few_below}"}
    yield "classes: " + ", ".join(f"{int(of.sum()):,} {name} ({says[name]})" for name, of in groups.items())


def _draw_first_images(source: Source, split: Split, about: Any, path: Path) -> None:
    from ltr.data.description import first_images, head_middle_tail, thumbnail
    from ltr.report.data_figures import contact_sheet

    rows = {
        position: [
            (
                about.class_names[row],
                int(about.class_counts[row]),
                [thumbnail(source, int(i), _SIDE) for i in first_images(source, split, about.labels[row], _IMAGES)],
            )
            for row in chosen.tolist()
        ]
        for position, chosen in head_middle_tail(about.class_counts, _CLASSES).items()
    }
    contact_sheet(f"{split.name}: first training images", rows, path)
