"""Camera-trap images from the files of other tools: COCO Camera Traps, COCO, Camtrap DP or CSV, with MegaDetector."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np

from ltr.configuration.ranges import Fraction, NonNegativeInt, ProperFraction, check_option
from ltr.data.annotations import camtrap_dp, coco, csv_table
from ltr.data.annotations.reading import Format, read_annotations
from ltr.data.annotations.records import Records
from ltr.data.images.decode import WhiteLevel, build_decoding
from ltr.data.images.regions import BoxCrops
from ltr.data.label_warnings import warn_of_groups
from ltr.data.source import Decoding, ImageFiles, Source
from ltr.data.sources.division import warn_of_untested
from ltr.data.sources.labelled_boxes import (
    NO_BOX,
    Boxes,
    Faulty,
    LabelTable,
    LeftOut,
    Multiple,
    WithoutBox,
    add_detections,
    check_boxes,
    find_existing_images,
    resolve_multiple,
    select_boxes,
)
from ltr.data.sources.part_division import (
    AUTO,
    NONE,
    PARTS,
    UNKNOWN_TIME,
    UNLISTED,
    Division,
    choose_group,
    comparable_times,
    divide_by_groups,
    divide_by_time,
)
from ltr.data.sources.part_lists import divide_by_column, divide_by_list
from ltr.data.splitting.groups import FILE, file_groups
from ltr.data.unread_divisions import refuse_divisions, refuse_unread_division, warn_of_parts_in_paths
from ltr.errors import ConfigError, DataError
from ltr.identity import named
from ltr.names import counted, list_first

Crop = Literal["auto", "box", "none"]
CropMargin = Annotated[float, "[0, 10]"]
DivisionRule = Literal["groups", "time"]
UNTRAINED = "its class has no training image"
_CROPS = "-crops"  # in the name of a source
_TO_A_LIST = (
    "Name the groups or paths of each part in a file, dataset.split_list=FILE, or remove it, to have test images drawn "
    "at random"
)


@named("source/camera_traps")
def camera_traps(
    *,
    name: str,
    annotations: str,
    root: str,
    roots: Sequence[str] = (),
    format: Format = "auto",
    detections: str | None = None,
    crop: Crop = "auto",
    crop_margin: CropMargin = 0.1,
    crop_square: bool = True,
    boxes: Boxes = "all",
    multiple: Multiple | None = None,
    without_box: WithoutBox = "exclude",
    invalid_boxes: Faulty = "error",
    detector_categories: Sequence[str] | None = ("animal",),
    min_confidence: Fraction = 0.2,
    missing: Faulty = "error",
    group: str = "auto",
    division: DivisionRule = "groups",
    split_list: str | None = None,
    test_fraction: ProperFraction = 0.2,
    split_seed: NonNegativeInt = 0,
    exif: bool = True,
    matte: str | None = "white",
    white_level: WhiteLevel | None = None,
    file_sizes: bool = True,
) -> Source:
    """Read images and labels of an annotation file, as whole images or crops, and divide them into parts.

    Every image that the file names is in the source or, with the reason, in ``left_out``. Classes are the names that
    occur in images, in alphabetical order.

    Args:
        name: name of the data set.
        annotations: annotation file; for Camtrap DP, datapackage.json or its folder.
        root: folder that the paths of the annotation file start from.
        roots: further folders that may contain image files and link targets.
        format: format of the annotation file; ``auto`` detects it from the content.
        detections: results of MegaDetector with a box for each animal, joined by file name; images with boxes in the
            annotation file keep those.
        crop: ``none``: whole images; ``box``: one image for each box; ``auto``: ``box`` with detections, or if a CSV
            table or COCO's detection format has boxes, else ``none``. If ``exif`` is set, boxes are in coordinates of
            the upright image, as MegaDetector's are.
        crop_margin: fraction of a box's longer side that is added on each side.
        crop_square: True extends the shorter side of a box to the longer one.
        boxes: ``all`` boxes of an image, or the ``largest``.
        multiple: images with several labels: ``crop`` uses their labelled boxes, ``first`` uses the first label,
            ``exclude`` excludes them; None: ``crop`` with boxes, else ``exclude``.
        without_box: images without any box, if ``crop`` is box: ``exclude``, or ``whole`` to use the whole image.
        invalid_boxes: boxes outside their image: ``error``, or ``exclude`` them.
        detector_categories: names of the detection categories to use; None: all.
        min_confidence: smallest confidence of a detection to use.
        missing: image files that are missing: ``error``, or ``exclude`` them.
        group: field of the file that groups images; a group is never divided between training and testing: location,
            seq_id, deployment, date or another. ``auto``: the first of location, deployment, seq_id, date that every
            image has; ``none``: images are divided one by one, the crops of a file together.
        division: ``groups`` holds out a sample of the groups for testing, ``time`` the latest images.
        split_list: JSON or CSV file that lists the groups or paths of each part; None: ``division`` decides.
        test_fraction: requested share of each class for testing.
        split_seed: seed of the division by groups.
        exif, matte, white_level, file_sizes: see `ltr.data.sources.folder.image_folder`.

    Raises:
        ConfigError: a value is outside its range, or keys contradict each other.
        DataError: a file is missing or damaged, or no image is left; the message names file and record.
    """
    decoding = build_decoding(exif=exif, matte=matte, white_level=white_level)
    base = str(Path(root).expanduser().absolute())
    file = Path(annotations).expanduser().absolute()
    records = read_annotations(name, file, base, format, () if group in (AUTO, NONE, "date") else (group,))
    has_boxes = not np.isnan(records.boxes[:, 0]).all() if len(records.boxes) else False
    if records.format == csv_table.FORMAT and crop != "none":
        csv_table.refuse_unread_boxes(name, file)
    if crop == AUTO:
        is_cut = has_boxes and records.format in (coco.COCO, csv_table.FORMAT)
        crop = "box" if detections is not None or is_cut else "none"
        if has_boxes and crop == "none":
            records.remarks.append(f"boxes are in {file.name}, and images are whole; dataset.crop=box cuts them")
    timeless = int(np.count_nonzero(records.times == UNKNOWN_TIME))
    if records.unreadable_time or 0 < timeless < len(records):
        records.remarks.append(f"{timeless:,} of {len(records):,} images have no time that can be read")
    if records.unreadable_time:
        text = ascii(records.unreadable_time[:40])
        records.remarks.append(f"times must be written as 2024-05-31 23:59:01; {text} cannot be read")
    if multiple is None:
        multiple = "crop" if crop == "box" else "exclude"
    if crop == "none" and multiple == "crop":
        raise ConfigError(
            "dataset.multiple=crop needs boxes: use dataset.crop=box, or dataset.multiple=first or exclude"
        )
    left_out = LeftOut(records.files)
    for reason, rows in records.left_out.items():
        left_out.add(reason, rows)

    is_usable = find_existing_images(name, records.files, file, roots, missing, left_out)
    table = LabelTable(records.images, records.classes, records.boxes)
    table = table.take(is_usable[table.images])
    if crop == "box":
        table = check_boxes(name, file, records, table, invalid_boxes, left_out, exif)
    table = resolve_multiple(table, multiple, len(records), left_out, crop == "box")
    if crop == "box":
        if detections is not None:
            results_file = Path(detections).expanduser().absolute()
            table = add_detections(
                name, results_file, base, records, table, detector_categories, min_confidence, left_out
            )
        table = select_boxes(table, without_box, boxes, left_out)
    else:
        table.boxes[:] = np.nan
    if not len(table.images):
        reasons = "; ".join(f"{reason}: {len(paths):,}" for reason, paths in left_out.paths().items())
        is_boxless = NO_BOX in left_out.paths() and detections is not None
        hint = f". Is dataset.min_confidence={min_confidence:g} too high?" if is_boxless else ""
        raise DataError(f"{name}: no image of {file} can be used ({reasons or 'it lists none'}){hint}")

    crops = BoxCrops(table.boxes, crop_margin, crop_square) if crop == "box" else None
    return _source(name, file, records, table, crops, left_out, decoding=decoding, group=group, division=division,
                   split_list=split_list, test_fraction=test_fraction, split_seed=split_seed,
                   file_sizes=file_sizes)  # fmt: skip


def is_cut_by_box(source: Source) -> bool:
    """Return whether the images of a source of camera traps are crops of boxes, also if they are packed."""
    has_crops = isinstance(source.images, ImageFiles) and source.images.crops is not None
    return has_crops or is_name_of_crops(source.name)


def is_name_of_crops(name: str) -> bool:
    """Return whether the name of a source or split is that of crops, as in ``traps-csv-crops-location-test0.2``."""
    return any(f"-{format}{_CROPS}-" in name for format in get_args(Format))


def _source(
    name: str,
    file: Path,
    records: Records,
    table: LabelTable,
    crops: BoxCrops | None,
    left_out: LeftOut,
    *,
    decoding: Decoding,
    group: str,
    division: str,
    split_list: str | None,
    test_fraction: float,
    split_seed: int,
    file_sizes: bool,
) -> Source:
    """Divide the images, order them by part, and build the source."""
    check_option("dataset.division", division, DivisionRule)
    if records.split is None and split_list is None:
        _check_unread_divisions(name, file, records)
    labels, class_names, unused = _numbered(records.class_names, table.classes)
    files = ImageFiles.from_paths(records.files.root, map(records.files.relative, table.images.tolist()), crops=crops)
    groupings = {key: grouping.take(table.images) for key, grouping in records.groupings.items()}
    by_file = file_groups(files)
    if by_file is not None:
        groupings[FILE] = by_file
    key = choose_group(name, group, groupings)
    if key is None and by_file is not None:
        key = FILE
    if key is not None:
        warn_of_groups(name, key, groupings[key])
    if split_list is not None:
        divided = divide_by_list(name, files, Path(split_list).expanduser().absolute(), key, groupings)
    elif records.split is not None:
        divided = divide_by_column(name, file, _kind_of_field(records), records.split.take(table.images), key)
    elif division == "time":
        unit = key if group != AUTO else next((at for at in ("seq_id", FILE) if at in groupings), None)
        times, clock = comparable_times(name, records.times[table.images], records.instants[table.images])
        divided = divide_by_time(name, files, times, unit, groupings, fraction=test_fraction, clock=clock)
    else:
        divided = divide_by_groups(
            name, files, labels, class_names, key, groupings, fraction=test_fraction, seed=split_seed
        )
    part, labels, class_names, untrained = _trainable(name, divided, labels, class_names)
    left_out.add(UNLISTED, table.images[divided.part < 0])
    left_out.add(UNTRAINED, table.images[untrained])
    order = np.flatnonzero(part >= 0)
    order = order[np.argsort(part[order], kind="stable")]
    counts = np.bincount(part[order], minlength=len(PARTS))
    stops = np.cumsum(counts)
    parts = {
        part_name: range(int(stop - count), int(stop))
        for part_name, count, stop in zip(PARTS, counts, stops)
        if count or part_name != "val"
    }
    left_out.keep(table.images[order])
    paths = left_out.paths()
    _warn(name, paths)
    if unused:
        warnings.warn(
            f"{name}: without an image that is used, and so without a class: "
            f"{counted(len(unused), 'category', 'categories')} of {file}: "
            f"{list_first(unused)}",
            stacklevel=4,
        )
    warn_of_untested(name, labels[order][part[order] == PARTS.index("test")], class_names)
    if crops is not None:
        crops = BoxCrops(crops.boxes[order], crops.margin, crops.square)
    sizes = _file_sizes(files, order) if file_sizes else None
    images = ImageFiles.from_paths(
        files.root,
        map(files.relative, order.tolist()),
        sizes,
        decoding=decoding,
        crops=crops,
    )
    note = f"the annotations are in the format {records.format}" + (
        f"; images are cut by box ({len(order):,} crops of {len(np.unique(table.images[order])):,} images)"
        if crops
        else ""
    )
    return Source(
        f"{name}-{records.format}{_CROPS if crops is not None else ''}-{divided.name}",
        images,
        labels[order],
        class_names,
        parts,
        groupings={key: grouping.take(order) for key, grouping in groupings.items()},
        group=divided.group,
        left_out=paths,
        remarks=(note, *records.remarks, *divided.remarks),
    )


def _kind_of_field(records: Records) -> str:
    """Return what a value of each image is called in a format, for messages."""
    return "column" if records.format == csv_table.FORMAT else "field"


def _check_unread_divisions(name: str, file: Path, records: Records) -> None:
    """Refuse, or warn of, a division that the annotation file has under a name that is not read."""
    if records.format == csv_table.FORMAT:
        refuse_unread_division(name, file, csv_table.READ, records.class_names)
    if records.format == camtrap_dp.FORMAT:
        for key, table in camtrap_dp.open_package(name, file).tables.items():
            refuse_unread_division(name, table, camtrap_dp.READ[key], records.class_names, advice=_TO_A_LIST)
    kind = _kind_of_field(records)
    refuse_divisions(name, file, kind, records.unread_divisions, records.class_names)
    if records.format != camtrap_dp.FORMAT:
        warn_of_parts_in_paths(name, file, kind, map(records.files.relative, range(len(records.files))))


def _numbered(names: Sequence[str], classes: np.ndarray) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """Return labels of the used classes in alphabetical order, their names, and the names of unused classes."""
    used = np.unique(classes).tolist()
    ordered = sorted(used, key=lambda number: names[number])
    label_of = np.full(len(names), -1, dtype=np.int64)
    label_of[ordered] = np.arange(len(ordered))
    unused = [class_name for number, class_name in enumerate(names) if label_of[number] < 0]
    return label_of[classes], tuple(names[number] for number in ordered), unused


def _trainable(
    name: str, divided: Division, labels: np.ndarray, class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], np.ndarray]:
    """Remove images of classes without a training image from the parts.

    Returns:
        (part of each image, labels of the remaining classes, their names, mask of the removed images).

    Raises:
        DataError: no image is for training.
    """
    trained = np.bincount(labels[divided.part == 0], minlength=len(class_names)) > 0
    if not trained.any():
        raise DataError(f"{name}: no image is for training. Check the list of parts")
    untrained = ~trained[labels] & (divided.part > 0)
    part = np.where(trained[labels], divided.part, -1)
    number_of = np.cumsum(trained) - 1
    names = tuple(class_name for class_name, is_trained in zip(class_names, trained) if is_trained)
    return part, np.where(trained[labels], number_of[labels], 0), names, untrained


def _file_sizes(files: ImageFiles, rows: np.ndarray) -> np.ndarray:
    """Return the size of each row's file in bytes, int64 [n], with one system call per file."""
    import os

    sizes: dict[str, int] = {}
    values = np.empty(len(rows), dtype=np.int64)
    for number, row in enumerate(rows.tolist()):
        path = files.path(row)
        if path not in sizes:
            sizes[path] = os.stat(path).st_size
        values[number] = sizes[path]
    return values


def _warn(name: str, paths: dict[str, tuple[str, ...]]) -> None:
    """Warn of excluded images, by reason."""
    if paths:
        total = sum(map(len, paths.values()))
        lines = [f"{reason} ({len(of):,}): {list_first(of, 3)}" for reason, of in paths.items()]
        warnings.warn(
            f"{name}: {counted(total, 'image is', 'images are')} left out; {'; '.join(lines)}. ltr-data "
            "describe writes the whole list",
            stacklevel=4,
        )
