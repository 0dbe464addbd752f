"""A packed file is not used in the place of labels or parts that other files give."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import camera_trap_files
from ltr.data.packed_images.checks import metadata_digest
from ltr.data.packed_images.reading import PackedStore, read_source, with_metadata
from ltr.data.packed_images.writing import pack
from ltr.data.source import ImageFiles, Source
from ltr.errors import ConfigError, DataError

KEYS = {
    "file": {"file": "a.csv"},
    "labels": {"file": "gone.csv", "labels": ["a.csv", "b.csv"]},
    "annotations": {"annotations": "a.csv"},
    "detections": {"annotations": "b.csv", "detections": "a.csv"},
    "split_list": {"annotations": "b.csv", "split_list": "a.csv"},
    "lists": {"root": ".", "lists": "lists", "train": "a.csv", "test": "b.csv"},
}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.csv").write_text(f"path,label\n0.png,{name}\n")
        (tmp_path / "lists" / f"{name}.csv").write_text(f"0.png {name}\n")


def packed(config, to="p.arrow"):
    for number in range(4):
        Image.fromarray(np.full((8, 8, 3), number, dtype=np.uint8)).save(f"{number}.png")
    files = ImageFiles.from_paths(".", [f"{number}.png" for number in range(4)])
    source = Source("four", files, np.arange(4) % 2, ("a", "b"), {"train": range(2), "test": range(2, 4)})
    pack(source, {"_target_": "x", **config}, Path(to), size=8)
    return source


def read(config, to="p.arrow"):
    return read_source({"source": {"_target_": "x", **config}, "packed": to})


def quietly(config):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read(config)


def metadata_of(path):
    return PackedStore(path).metadata


def rewritten(metadata):
    """Write p.arrow with another description as q.arrow."""
    store = PackedStore("p.arrow")
    schema = with_metadata(store.batches[0].schema.remove_metadata(), metadata)
    with pa.ipc.new_file("q.arrow", schema) as writer:
        for batch in store.batches:
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))
    return "q.arrow"


def changed(name):
    """Change the copies of a file, in both places."""
    for path in (name, f"lists/{name}"):
        with open(path, "a") as file:
            file.write("1.png,a\n")


@pytest.mark.parametrize("key", KEYS)
def test_the_same_files_are_accepted_and_a_changed_one_is_refused(key):
    packed(KEYS[key])
    before = quietly(KEYS[key]).fingerprint
    assert before == quietly(KEYS[key]).fingerprint
    changed("a.csv")
    with pytest.raises(ConfigError, match=rf"dataset\.{key}: .*a\.csv has another content") as refused:
        read(KEYS[key])
    assert "dataset.packed=null" in str(refused.value)


@pytest.mark.parametrize("key", KEYS)
def test_moved_and_renamed_files_are_the_same(key, tmp_path):
    packed(KEYS[key])
    moved = tmp_path / "elsewhere"
    if key == "lists":
        shutil.move("lists", moved)
        config = {**KEYS[key], "lists": str(moved)}
    else:
        moved.mkdir()
        paths = KEYS[key][key]
        new = [str(moved / f"new-{path}") for path in ([paths] if isinstance(paths, str) else paths)]
        for old, path in zip([paths] if isinstance(paths, str) else paths, new):
            shutil.move(old, path)
        config = {**KEYS[key], key: new[0] if isinstance(paths, str) else new}
    assert len(quietly(config)) == 4


@pytest.mark.parametrize("key", KEYS)
def test_an_absent_file_is_tolerated_with_a_warning(key, tmp_path):
    packed(KEYS[key])
    for path in ("a.csv", "lists/a.csv"):
        (tmp_path / path).unlink()
    with pytest.warns(UserWarning, match=rf"dataset\.{key}=.*not on this machine, so it is not compared"):
        assert len(read(KEYS[key])) == 4


@pytest.mark.parametrize("key", ["labels", "detections", "split_list"])
def test_a_file_that_only_one_of_the_two_has_is_refused(key):
    with_file = KEYS[key]
    without = {**with_file, "file": "a.csv", key: None} if key == "labels" else {**with_file, key: None}
    packed(with_file)
    with pytest.raises(ConfigError, match=rf"dataset\.({key} is null|file=a.csv): .*made from"):
        read(without)
    packed(without, "q.arrow")
    assert len(read(without, "q.arrow")) == 4
    with pytest.raises(ConfigError, match=rf"dataset\.{key}=.*made (without one|from one file)"):
        read(with_file, "q.arrow")


def test_labels_of_one_table_equal_the_table_as_file():
    packed({"file": "a.csv", "labels": None})
    assert len(quietly({"file": "gone.csv", "labels": ["a.csv"]})) == 4


def test_the_order_of_tables_counts():
    packed(KEYS["labels"])
    with pytest.raises(ConfigError, match="another content"):
        read({**KEYS["labels"], "labels": ["b.csv", "a.csv"]})


@pytest.mark.parametrize("table", ["deployments", "media", "observations"])
def test_the_tables_of_a_camtrap_dp_package_are_compared(table, tmp_path):
    camera_trap_files.camtrap_dp(tmp_path / "package", camera_trap_files.shots(2))
    folder, description = {"annotations": "package"}, {"annotations": "package/datapackage.json"}
    packed(folder)
    assert len(quietly(folder)) == len(quietly(description)) == 4
    with (tmp_path / "package" / f"{table}.csv").open("a") as file:
        file.write("\n")
    for config in (folder, description):
        with pytest.raises(ConfigError, match=r"dataset\.annotations: .*another content"):
            read(config)


def test_a_file_of_an_earlier_version_is_read_with_a_warning():
    packed(KEYS["file"])
    earlier = {key: value for key, value in metadata_of("p.arrow").items() if key not in ("about", "files")}
    other = rewritten({**earlier, "about": metadata_digest(earlier)})
    with pytest.warns(UserWarning, match=r"earlier version, which kept no digest of dataset.file: .*ltr-data pack"):
        source = read(KEYS["file"], other)
    assert source.fingerprint == quietly(KEYS["file"]).fingerprint


def test_folders_of_images_have_no_digests():
    packed({"root": "."})
    assert "files" not in metadata_of("p.arrow")
    assert len(quietly({"root": "elsewhere"})) == 4


def test_packing_again_after_a_change_of_the_labels_is_refused(tmp_path):
    packed(KEYS["file"])
    changed("a.csv")
    with pytest.raises(ConfigError, match="made in another way"):
        packed(KEYS["file"])


def test_the_digests_are_covered_by_the_digest_of_the_description():
    packed(KEYS["file"])
    other = rewritten({**metadata_of("p.arrow"), "files": {"file": [None]}})
    with pytest.raises(DataError, match="description is not the one that was written"):
        read(KEYS["file"], other)
