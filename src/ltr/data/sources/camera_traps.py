"""Camera-trap images from the files of other tools: COCO Camera Traps, COCO, Camtrap DP or CSV, with MegaDetector."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ltr.data.annotations import camtrap_dp, coco, csv_table
from ltr.data.annotations.megadetector import read_megadetector
from ltr.data.annotations.records import Records, clip_boxes, normal_path
from ltr.data.decode import decoding, open_image, orientation
from ltr.data.group_division import FILE, file_groups
from ltr.data.regions import BoxCrops
from ltr.data.source import Decoding, ImageFiles, Source
from ltr.data.sources.checks import check_image_files, shown
from ltr.data.sources.division import warn_of_untested
from ltr.data.sources.part_division import (
    AUTO,
    NONE,
    PARTS,
    UNLISTED,
    Division,
    choose_group,
    divide_by_column,
    divide_by_groups,
    divide_by_list,
    divide_by_time,
)
from ltr.errors import ConfigError, DataError
from ltr.identity import named
from ltr.names import counted

FORMATS = (coco.CAMERA_TRAPS, coco.COCO, camtrap_dp.FORMAT, csv_table.FORMAT)
MISSING, NO_RECORD, FAILED = "file missing", "not in the detections", "the detector could not read it"
NO_BOX, SEVERAL, BAD_BOX = "no box", "several labels", "box outside the image"
UNTRAINED = "its class has no training image"


@named("source/camera_traps")
def camera_traps(
    *,
    name: str,
    annotations: str,
    root: str,
    roots: Sequence[str] = (),
    format: str = AUTO,
    detections: str | None = None,
    crop: str = AUTO,
    crop_margin: float = 0.1,
    crop_square: bool = True,
    boxes: str = "all",
    multiple: str | None = None,
    without_box: str = "exclude",
    invalid_boxes: str = "error",
    detector_categories: Sequence[str] | None = ("animal",),
    min_confidence: float = 0.2,
    missing: str = "error",
    group: str = AUTO,
    division: str = "groups",
    split_list: str | None = None,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    exif: bool = True,
    matte: str | None = "white",
    white_level: int | None = None,
    file_sizes: bool = True,
) -> Source:
    """Read images and labels of an annotation file, whole or cut by box, and divide them into parts.

    Every image that the file names is in the source, or is listed in ``left_out`` with the reason. Classes are the
    names that some image has, in alphabetical order.

    Args:
        name: name of the data set.
        annotations: annotation file; of Camtrap DP, datapackage.json or its folder.
        root: folder that the file's paths start from.
        roots: further folders that may contain image files and link targets.
        format: one of `FORMATS`, or ``auto``: by the file's content.
        detections: results of MegaDetector, joined by file name; images with boxes of their own keep those.
        crop: ``none``: whole images; ``box``: one image for each box; ``auto``: ``box`` with detections, or
            if a CSV table or COCO's detection format has boxes, else ``none``. Boxes count in
            upright images if ``exif`` is set, as MegaDetector's do.
        crop_margin, crop_square: see `ltr.data.regions.Region`.
        boxes: ``all`` boxes of an image, or the ``largest``.
        multiple: images with several labels: ``crop`` takes their labelled boxes, ``first`` takes the first label,
            ``exclude`` leaves them out; None: ``crop`` with boxes, else ``exclude``.
        without_box: images without any box, if ``crop`` is box: ``exclude``, or ``whole`` takes the image itself.
        invalid_boxes: boxes outside their image: ``error``, or ``exclude`` them.
        detector_categories: names of the detection categories that count; None: all.
        min_confidence: least confidence of a detection, in [0, 1].
        missing: image files that are missing: ``error``, or ``exclude`` them.
        group: grouping that no division separates, see `ltr.data.sources.part_division.choose_group`. Without one, the
            crops of a file are kept together (``path``).
        division: ``groups`` holds out groups, ``time`` the latest images.
        split_list: file with the parts of groups or paths, see `ltr.data.sources.part_division.divide_by_list`.
        test_fraction: wanted share of each class for testing, in (0, 1).
        split_seed: seed of the division by groups.
        exif, matte, white_level, file_sizes: as in `ltr.data.sources.folder.image_folder`.

    Raises:
        ConfigError: a value is outside its range, or keys contradict each other.
        DataError: a file is missing or damaged, or no image is left; the message names file and record.
    """
    how = decoding(exif=exif, matte=matte, white_level=white_level)
    base = str(Path(root).expanduser().absolute())
    file = Path(annotations).expanduser().absolute()
    records = read_annotations(name, file, base, format, (group,))
    has_boxes = not np.isnan(records.boxes[:, 0]).all() if len(records.boxes) else False
    if crop == AUTO:
        is_cut = has_boxes and records.format in (coco.COCO, csv_table.FORMAT)
        crop = "box" if detections is not None or is_cut else "none"
        if has_boxes and crop == "none":
            records.remarks.append(f"boxes are in {file.name}, and images are whole; dataset.crop=box cuts them")
    if multiple is None:
        multiple = "crop" if crop == "box" else "exclude"
    if crop == "none" and multiple == "crop":
        raise ConfigError(
            "dataset.multiple=crop needs boxes: use dataset.crop=box, or dataset.multiple=first or exclude"
        )
    left_out = _LeftOut(records.files)
    for reason, rows in records.left_out.items():
        left_out.add(reason, rows)

    is_usable = _existing(name, records.files, file, roots, missing, left_out)
    table = _Labels(records.images, records.classes, records.boxes)
    table = table.take(is_usable[table.images])
    if crop == "box":
        table = _checked_boxes(name, file, records, table, invalid_boxes, left_out, exif)
    table = _resolve_multiple(table, multiple, len(records), left_out, crop == "box")
    if crop == "box":
        if detections is not None:
            results_file = Path(detections).expanduser().absolute()
            table = _with_detections(
                name, results_file, base, records, table, detector_categories, min_confidence, left_out
            )
        table = _only_boxed(table, without_box, boxes, left_out)
    else:
        table.boxes[:] = np.nan
    if not len(table.images):
        reasons = "; ".join(f"{reason}: {len(paths):,}" for reason, paths in left_out.paths().items())
        raise DataError(f"{name}: no image of {file} can be used ({reasons or 'it lists none'})")

    crops = BoxCrops(table.boxes, crop_margin, crop_square) if crop == "box" else None
    return _source(name, file, records, table, crops, left_out, how=how, group=group, division=division,
                   split_list=split_list, test_fraction=test_fraction, split_seed=split_seed,
                   file_sizes=file_sizes)  # fmt: skip


def read_annotations(name: str, file: Path, root: str, format: str, columns: Iterable[str] = ()) -> Records:
    """Read an annotation file in the format that its content shows, or in ``format``.

    Args:
        columns: further fields that group images, where the format may have any.

    Raises:
        ConfigError: the format is unknown.
        DataError: the file is missing, damaged or in another format.
    """
    if format not in (AUTO, *FORMATS):
        raise ConfigError(f"dataset.format={format}: allowed are {', '.join((AUTO, *FORMATS))}")
    more = tuple(column for column in columns if column not in (AUTO, NONE, "date"))
    if not file.exists():
        raise DataError(
            f"{name} was not found: there is no file {file}. dataset.annotations must name an annotation file: COCO "
            "(Camera Traps) JSON, a Camtrap DP package, or CSV with path and label"
        )
    kind = _format_of(file) if format == AUTO else format
    if kind == camtrap_dp.FORMAT:
        return camtrap_dp.read_camtrap_dp(name, file, root)
    if kind == csv_table.FORMAT:
        return csv_table.read_csv(name, file, root, more)
    records = coco.read_coco(name, file, root, more)
    if format != AUTO:
        records.format = format
    return records


def _format_of(file: Path) -> str:
    """Return the format by the name and beginning of a file; of COCO's two, reading tells."""
    if file.is_dir() or file.name == "datapackage.json":
        return camtrap_dp.FORMAT
    if file.suffix.lower() in (".csv", ".tsv", ".txt"):
        return csv_table.FORMAT
    return coco.COCO


class _LeftOut:
    """Images that cannot be used: the first reason of each."""

    def __init__(self, files: ImageFiles) -> None:
        self._files = files
        self._reasons: list[str] = []
        self._reason_of = np.full(len(files), -1, dtype=np.int16)

    def add(self, reason: str, rows: np.ndarray) -> None:
        if reason not in self._reasons:
            self._reasons.append(reason)
        fresh = rows[self._reason_of[rows] < 0]
        self._reason_of[fresh] = self._reasons.index(reason)

    def keep(self, rows: np.ndarray) -> None:
        """Take back images of which some crop is used."""
        self._reason_of[rows] = -1

    @property
    def mask(self) -> np.ndarray:
        return self._reason_of >= 0

    def paths(self) -> dict[str, tuple[str, ...]]:
        """Return the paths by reason."""
        by_reason = {
            reason: tuple(self._files.relative(row) for row in np.flatnonzero(self._reason_of == number).tolist())
            for number, reason in enumerate(self._reasons)
        }
        return {reason: paths for reason, paths in by_reason.items() if paths}


@dataclass
class _Labels:
    """Labels with their images and boxes; `Records` has the meaning of the arrays."""

    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray

    def take(self, chosen: np.ndarray) -> _Labels:
        """Return the chosen labels, by mask or row."""
        return _Labels(self.images[chosen], self.classes[chosen], self.boxes[chosen])

    @property
    def has_box(self) -> np.ndarray:
        return ~np.isnan(self.boxes[:, 0])


def _existing(
    name: str, files: ImageFiles, named_in: Path, roots: Sequence[str], missing: str, left_out: _LeftOut
) -> np.ndarray:
    """Return a mask of the images that are there and not left out."""
    _refuse_choice("missing", missing, ("error", "exclude"))
    candidates = np.flatnonzero(~left_out.mask)
    chosen = ImageFiles.from_paths(files.root, (files.relative(row) for row in candidates.tolist()))
    rows: list[int] = []
    if len(chosen):
        check_image_files(
            name, chosen, named_in=str(named_in), roots=roots, missing_rows=rows if missing == "exclude" else None
        )
    left_out.add(MISSING, candidates[rows])
    return ~left_out.mask


def _checked_boxes(
    name: str, file: Path, records: Records, table: _Labels, invalid: str, left_out: _LeftOut, exif: bool
) -> _Labels:
    """Convert boxes to fractions and clip them; refuse or leave out those outside the image."""
    _refuse_choice("invalid_boxes", invalid, ("error", "exclude"))
    boxes = table.boxes.astype(np.float64)
    if records.sizes is not None:
        sizes = records.sizes.astype(np.float64)
        rows = table.images[table.has_box]
        for row in np.unique(rows[(sizes[rows] <= 0).any(axis=1)]).tolist():
            sizes[row] = _size_of(records.files.path(row), exif)
        boxes /= np.tile(np.where(sizes > 0, sizes, 1.0)[table.images], 2)
    table.boxes, is_invalid = clip_boxes(boxes)
    if is_invalid.any():
        wrong = np.flatnonzero(is_invalid)
        if invalid == "error":
            named_boxes = [
                f"{records.files.relative(int(table.images[row]))} {_numbers(boxes[row])}" for row in wrong.tolist()
            ]
            raise DataError(
                f"{name}: {file} has {counted(wrong.size, 'box', 'boxes')} outside the image or without area, here in "
                f"fractions of the image: {shown(named_boxes)}. Correct them, or leave them out with "
                "dataset.invalid_boxes=exclude"
            )
        left_out.add(BAD_BOX, table.images[wrong])
        table = table.take(~is_invalid)
        left_out.keep(table.images)
    return table


def _size_of(path: str, exif: bool) -> tuple[int, int]:
    """Return width and height of an image file; (0, 0) if it cannot be read, which its decoding reports later."""
    try:
        with open_image(path) as image:
            turned = orientation(image) if exif else 1
            return image.size[::-1] if turned >= 5 else image.size
    except Exception:  # decoders raise errors of any type for damaged files
        return (0, 0)


def _numbers(box: np.ndarray) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in box.tolist()) + "]"


def _resolve_multiple(table: _Labels, rule: str, total: int, left_out: _LeftOut, cropped: bool) -> _Labels:
    """Apply the rule for images of several classes; of equal labels without boxes, one remains."""
    _refuse_choice("multiple", rule, ("crop", "first", "exclude"))
    first_row = np.full(total, len(table.images), dtype=np.int64)
    np.minimum.at(first_row, table.images, np.arange(len(table.images)))
    first_class = table.classes[first_row[table.images]] if len(table.images) else table.classes
    differs = table.classes != first_class
    is_several = np.zeros(total, dtype=bool)
    is_several[table.images[differs]] = True
    if rule == "first":
        table = table.take(~differs)
    else:
        several = is_several[table.images]
        keep = ~several | table.has_box if rule == "crop" else ~several
        left_out.add(SEVERAL, np.flatnonzero(is_several))
        table = table.take(keep)
        left_out.keep(table.images)
    if not cropped:
        return table.take(np.unique(table.images, return_index=True)[1])
    # of an image with boxes, labels without one say nothing more
    has_boxes = np.zeros(total, dtype=bool)
    has_boxes[table.images[table.has_box]] = True
    table = table.take(table.has_box | ~has_boxes[table.images])
    whole = np.flatnonzero(~table.has_box)
    is_first = np.zeros(len(table.images), dtype=bool)
    is_first[whole[np.unique(table.images[whole], return_index=True)[1]]] = True
    return table.take(table.has_box | is_first)


def _with_detections(
    name: str,
    file: Path,
    root: str,
    records: Records,
    table: _Labels,
    categories: Sequence[str] | None,
    min_confidence: float,
    left_out: _LeftOut,
) -> _Labels:
    """Replace labels without a box by one label for each detection of their image."""
    if not 0 <= min_confidence <= 1:
        raise ConfigError(f"dataset.min_confidence={min_confidence}: it must be from 0 to 1")
    detections = read_megadetector(name, file, root)
    row_of = {normal_path(records.files.relative(row)): row for row in np.unique(table.images).tolist()}
    image_of = np.array(
        [row_of.get(normal_path(detections.files.relative(row)), -1) for row in range(len(detections.files))],
        dtype=np.int64,
    )
    if row_of and not (image_of >= 0).any():
        raise DataError(
            f"{name}: {file} has none of the {len(row_of):,} labelled images. It names "
            f"{shown([detections.files.relative(row) for row in range(min(2, len(detections.files)))]) or 'none'}, the "
            f"annotations {shown(list(row_of)[:2])}. Run the detector from {root}, so that both name the same paths"
        )
    waiting = np.full(len(records), -1, dtype=np.int32)  # class of images that have no box yet
    waiting[table.images[~table.has_box]] = table.classes[~table.has_box]
    is_listed = np.zeros(len(records), dtype=bool)
    is_listed[image_of[image_of >= 0]] = True
    left_out.add(NO_RECORD, np.flatnonzero((waiting >= 0) & ~is_listed))
    failed = image_of[detections.failed]
    failed = failed[failed >= 0]
    left_out.add(FAILED, failed[waiting[failed] >= 0])
    waiting[left_out.mask] = -1
    rows = detections.chosen(categories, min_confidence)
    owners = image_of[detections.images[rows]]
    is_used = (owners >= 0) & (waiting[owners] >= 0)
    owners, rows = owners[is_used], rows[is_used]
    stay = ~left_out.mask[table.images]
    stay &= table.has_box | ~np.isin(table.images, owners)
    table = table.take(stay)
    images = np.concatenate([table.images, owners])
    classes = np.concatenate([table.classes, waiting[owners].astype(table.classes.dtype)])
    boxes = np.concatenate([table.boxes, detections.boxes[rows]])
    order = np.argsort(images, kind="stable")
    return _Labels(images[order], classes[order], boxes[order])


def _only_boxed(table: _Labels, without_box: str, boxes: str, left_out: _LeftOut) -> _Labels:
    """Keep labels with a box, of an image all or the largest; the others stay whole or are left out."""
    _refuse_choice("without_box", without_box, ("exclude", "whole"))
    _refuse_choice("boxes", boxes, ("all", "largest"))
    if without_box == "exclude":
        left_out.add(NO_BOX, table.images[~table.has_box])
        table = table.take(table.has_box)
    if boxes == "largest":
        areas = np.nan_to_num(table.boxes[:, 2] * table.boxes[:, 3])
        order = np.lexsort((np.arange(len(areas)), -areas, table.images))
        first = np.unique(table.images[order], return_index=True)[1]
        table = table.take(order[first])
    return table


def _source(
    name: str,
    file: Path,
    records: Records,
    table: _Labels,
    crops: BoxCrops | None,
    left_out: _LeftOut,
    *,
    how: Decoding,
    group: str,
    division: str,
    split_list: str | None,
    test_fraction: float,
    split_seed: int,
    file_sizes: bool,
) -> Source:
    """Divide the images, order them by part, and build the source."""
    _refuse_choice("division", division, ("groups", "time"))
    labels, class_names, unused = _numbered(records.class_names, table.classes)
    files = ImageFiles.from_paths(records.files.root, map(records.files.relative, table.images.tolist()), crops=crops)
    groupings = {key: grouping.take(table.images) for key, grouping in records.groupings.items()}
    by_file = file_groups(files)
    if by_file is not None:
        groupings[FILE] = by_file
    key = choose_group(name, group, groupings)
    if key is None and by_file is not None:
        key = FILE
    if split_list is not None:
        divided = divide_by_list(name, files, Path(split_list).expanduser().absolute(), key, groupings)
    elif records.split is not None:
        divided = divide_by_column(name, file, records.split.take(table.images), key)
    elif division == "time":
        unit = key if group != AUTO else next((at for at in ("seq_id", FILE) if at in groupings), None)
        times = records.times[table.images]
        divided = divide_by_time(name, files, times, unit, groupings, fraction=test_fraction)
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
            f"{shown(unused)}",
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
        decoding=how,
        crops=crops,
    )
    said = f"the annotations are in the format {records.format}" + (
        f"; images are cut by box ({len(order):,} crops of {len(np.unique(table.images[order])):,} images)"
        if crops
        else ""
    )
    return Source(
        f"{name}-{records.format}{'-crops' if crops is not None else ''}-{divided.name}",
        images,
        labels[order],
        class_names,
        parts,
        groupings={key: grouping.take(order) for key, grouping in groupings.items()},
        group=divided.group,
        left_out=paths,
        remarks=(said, *records.remarks, *divided.remarks),
    )


def _numbered(names: Sequence[str], classes: np.ndarray) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """Return labels of the used classes by alphabetical order, their names, and the names of the others."""
    used = np.unique(classes).tolist()
    ordered = sorted(used, key=lambda number: names[number])
    label_of = np.full(len(names), -1, dtype=np.int64)
    label_of[ordered] = np.arange(len(ordered))
    unused = [class_name for number, class_name in enumerate(names) if label_of[number] < 0]
    return label_of[classes], tuple(names[number] for number in ordered), unused


def _trainable(
    name: str, divided: Division, labels: np.ndarray, class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], np.ndarray]:
    """Take images of classes without a training image out of the parts.

    Returns:
        (part of each image, labels of the remaining classes, their names, mask of the images taken out).

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
    """Return the size of each row's file in bytes, int64 [n]; a file of several crops is asked once."""
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
    """Warn of images that are left out, by reason."""
    if paths:
        total = sum(map(len, paths.values()))
        lines = [
            f"{reason} ({len(of):,}): {shown(of[:3])}{', ...' if len(of) > 3 else ''}" for reason, of in paths.items()
        ]
        warnings.warn(
            f"{name}: {total:,} images are left out; {'; '.join(lines)}. ltr-data describe writes the whole list",
            stacklevel=4,
        )


def _refuse_choice(key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"dataset.{key}={value}: allowed are {', '.join(allowed)}")
