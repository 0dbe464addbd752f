"""Outputs of commands: neither an input nor a file of a run is replaced."""

from __future__ import annotations

import argparse

import pytest

from ltr.commands.outputs import existing_files, is_of_run, read_arguments, refuse_inputs
from ltr.errors import ConfigError


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "table.csv"
    path.write_text("path\n")
    return path


@pytest.mark.parametrize("value", ["folder/table.csv", "folder/../folder/table.csv", "precision=folder/table.csv"])
@pytest.mark.parametrize(
    "nest", [lambda x: x, lambda x: [x], lambda x: {"a": {"b": x}}, lambda x: argparse.Namespace(a=x)]
)
def test_an_output_that_is_an_input_is_refused(table, value, nest):
    with pytest.raises(ConfigError, match=r"--out .*table.csv.*: the command reads this file"):
        refuse_inputs({table: f"--out {table}"}, nest(value))


def test_an_input_is_found_through_links_and_the_root_of_a_data_set(table, tmp_path):
    linked = tmp_path / "link.csv"
    linked.symlink_to(table)
    for config in ("link.csv", {"root": "folder", "file": "table.csv"}, ["dataset.file=link.csv"]):
        with pytest.raises(ConfigError, match="the command reads this file"):
            refuse_inputs({table: "--out x"}, config)
    with pytest.raises(ConfigError, match="the command reads this file"):
        refuse_inputs({linked: "--out x"}, str(table))


def test_other_files_and_new_files_are_written(table, tmp_path):
    (tmp_path / "other.csv").touch()
    refuse_inputs(
        {tmp_path / "other.csv": "--out", tmp_path / "new.csv": "--out"}, "folder/table.csv", None, 3, ["", "\0"]
    )


@pytest.mark.parametrize("name", ["result.json", "predictions.parquet", "decisions.json", "checkpoints/final.ckpt"])
def test_a_file_of_a_run_is_not_replaced(tmp_path, name):
    (tmp_path / "checkpoints").mkdir()
    for file in ("config.yaml", name):
        (tmp_path / file).touch()
    (tmp_path / "link").symlink_to(tmp_path / name)
    for path in (tmp_path / name, tmp_path / "link"):
        with pytest.raises(ConfigError, match="a file of a finished run"):
            refuse_inputs({path: "--json"})
    assert not is_of_run(tmp_path / "predictions.csv")  # of ltr-predict, which may write it again
    assert not is_of_run(tmp_path.parent / "result.json")


def test_arguments_without_outputs(table):
    arguments = argparse.Namespace(out=table, images="folder/table.csv", typed_flags={"out": "--out"})
    assert list(existing_files(list(read_arguments(arguments, "images").values()))) == [table]
    assert "typed_flags" not in read_arguments(arguments)
