"""Any legal name of a file survives each table that is written and read again."""

from __future__ import annotations

import csv
import json
import re
import warnings

import numpy as np
import pytest

from ltr.apply.labelling_sheet import path_entry, sheet_document
from ltr.apply.mine import without
from ltr.apply.pool import image_pool, table_column
from ltr.apply.tables import open_table
from ltr.data.image_table import write_image_table
from ltr.data.source import ImageFiles, Source
from ltr.data.sources.camera_traps import camera_traps
from ltr.data.sources.folder import image_folder
from ltr.data.sources.table import image_table
from ltr.data.splitting.closed_set import natural
from ltr.data.splitting.exclusion import exclude_images
from ltr.escaping import csv_text
from ltr.files import write_csv

NAMES = (
    "Screenshot 9.41.00\u202fAM", "a\u00a0b", "thin\u2009space", "\u3000wide", " leading and trailing ", "tab\tinside",
    "\tleading tab", "line\nbreak", "carriage\rreturn", 'quo"te', "it's", "'=apostrophe", "''=two", "=1+1", "+a", "-b",
    "@c", "-1.5", "\uff1dwide", "comma,semicolon;", "e\u0301", "\u00e9", "\u200bzero width", "\u200djoined",
    "\u202ereversed", "\x1b[31mred", "\x7f", "\x80", "\udc80\udcff", "\\x1b", "\\x5cx1b", "back\\slash", "\U000e0041",
    "#", "nan", "\u2028line",
)  # fmt: skip


@pytest.fixture
def root(tmp_path):
    """Return a folder of classes ``ant`` and ``bee``, each with an empty file of every name."""
    for class_name in ("ant", "bee"):
        (tmp_path / "images" / class_name).mkdir(parents=True)
        for name in NAMES:
            (tmp_path / "images" / class_name / f"{name}.png").touch()
    return tmp_path / "images"


def paths(files: ImageFiles) -> list[str]:
    return [files.relative(index) for index in range(len(files))]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_predictions_name_the_files_that_they_are_of(root, suffix):
    files = image_pool(root)
    if suffix == ".parquet":  # which holds nothing but UTF-8
        files = ImageFiles.from_paths(root, [path for path in paths(files) if "\udcff" not in path])
    table = root / f"predictions{suffix}"
    with open_table(table) as writer:
        writer.write({"path": paths(files), "probability": np.zeros(len(files))})
    assert table_column(table, "path") == paths(files)
    assert paths(image_pool(table)) == paths(files)


def test_a_table_of_labels_excludes_all_of_its_images(root):
    files = image_pool(root)
    listed = paths(files)[:-1]
    write_csv(root / "labels.csv", ({"path": path} for path in listed))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert without(files, root / "labels.csv").tolist() == [len(files) - 1]


def test_paths_of_excluded_images_that_the_pool_lacks_are_counted(root):
    files = image_pool(root)
    write_csv(root / "labels.csv", [{"path": paths(files)[0]}, {"path": "a b.png"}, {"path": "ant/none.png"}])
    with pytest.warns(UserWarning, match=r"2 of 3 paths are not in the pool: a b.png, ant/none.png"):
        assert len(without(files, root / "labels.csv")) == len(files) - 1


@pytest.mark.filterwarnings("ignore")
def test_an_exclusion_list_names_its_images(root):
    source = image_folder(name="own", root=str(root))
    listed = [f"ant/{name}.png" for name in NAMES if not {"\n", "\r"} & {*name}]
    written = "".join(f"{path}\n" for path in listed).encode("utf-8", "surrogateescape")
    (root.parent / "bad.txt").write_bytes(written)
    split = exclude_images(natural(source), source, root.parent / "bad.txt")
    assert sum(len(part) for part in (split.train, split.val, split.test)) == len(source) - len(listed)


def labels(source: Source) -> dict[str, str]:
    assert isinstance(source.images, ImageFiles)
    return {source.images.relative(n): source.class_names[source.labels[n]] for n in range(len(source))}


@pytest.mark.filterwarnings("ignore")
def test_an_export_is_read_as_the_data_set_that_it_was_made_of(root, tmp_path):
    source = image_folder(name="own", root=str(root))
    write_image_table(source, tmp_path / "table.csv")
    again = image_table(name="own", file=str(tmp_path / "table.csv"), root=str(root))
    assert labels(again) == labels(source)
    assert list(again.parts.values()) == list(source.parts.values())
    rows = camera_traps(name="own", annotations=str(tmp_path / "table.csv"), root=str(root), missing="exclude")
    kept = {path: label for path, label in labels(source).items() if "\\" not in path}  # \ separates folders there
    assert kept.items() <= labels(rows).items()


def test_names_of_classes_survive_too(tmp_path):
    names = sorted({name.strip() for name in NAMES if "\udcff" not in name})
    write_csv(tmp_path / "t.csv", ({"path": f"{n}.png", "label": name} for n, name in enumerate(names)))
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        assert [csv_text(row["label"]) for row in csv.DictReader(file)] == names


def test_a_labelling_sheet_holds_the_cells_of_paths_and_classes():
    images = [{**path_entry(name), "class": "a", "score": 1, "predicted": "a"} for name in NAMES]
    document = sheet_document("t", ["blue bird\u00a0x", "=b"], images)
    data = json.loads(re.search(r'id="data">(.*?)</script>', document, re.DOTALL)[1])  # type: ignore[index]
    assert [csv_text(image.get("cell", image["path"])) for image in data["images"]] == list(NAMES)
    assert {csv_text(cell) for cell in data["cells"].values()} == {"blue bird\u00a0x", "=b"}
