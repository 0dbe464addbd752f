"""Reader of annotation files in any supported format, recognised by name and content."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from ltr.configuration.ranges import check_option
from ltr.data.annotations import camtrap_dp, coco, csv_table
from ltr.data.annotations.records import Records
from ltr.errors import DataError

Format = Literal["auto", "coco_camera_traps", "coco", "camtrap_dp", "csv"]
_TABLES = (".csv", ".tsv", ".txt", ".xls", ".xlsx", ".ods")  # the CSV reader refuses workbooks with advice


def read_annotations(name: str, file: Path, root: str, format: Format, columns: Iterable[str] = ()) -> Records:
    """Read an annotation file in the format that its content shows, or in ``format``.

    Args:
        columns: further fields that group images, for formats that allow any.

    Raises:
        ConfigError: the format is unknown.
        DataError: the file is missing, damaged or in another format.
    """
    check_option("dataset.format", format, Format)
    if not file.exists():
        raise DataError(
            f"{name} was not found: there is no file {file}. dataset.annotations must name an annotation file: COCO "
            "(Camera Traps) JSON, a Camtrap DP package, or CSV with path and label"
        )
    is_auto = format == "auto"
    if format == camtrap_dp.FORMAT or (is_auto and (file.is_dir() or file.name == "datapackage.json")):
        return camtrap_dp.read_camtrap_dp(name, file, root)
    if format == csv_table.FORMAT or (is_auto and file.suffix.lower() in _TABLES):
        return csv_table.read_csv(name, file, root, tuple(columns))
    records = coco.read_coco(name, file, root, tuple(columns))
    if not is_auto:  # otherwise the reader distinguishes the two COCO formats
        records.format = format
    return records
