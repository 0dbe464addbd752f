"""Files that a command names itself, in a folder of the user's: another program's file of that name is not replaced."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import pytest
from PIL import Image

from ltr.data.sources.digits import digits

FOREIGN = "path,reason,written by a person\n"
BROKEN = "photos/broken.png"


@pytest.fixture
def words(finished_run, tmp_path, monkeypatch) -> Callable[[str], list[str]]:
    """Return the arguments of a command line, whose RUN is a finished run and PHOTOS a folder of images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for index in range(6):
        Image.fromarray(digits().images[index, :, :, 0]).save(tmp_path / "photos" / f"{index}.png")
    (tmp_path / BROKEN).write_text("no image")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "run").symlink_to(finished_run)
    return lambda line: [{"RUN": str(finished_run)}.get(word, word) for word in line.split()]


COMMANDS = {
    "data describe digits --out out": {"class_frequency.png", "contact_sheet.png"},
    "data audit RUN --part val --out out": {"issues.csv", "sheet.html"},
    "mine RUN photos --out out --workers 0": {"candidates.csv", "broken.csv", "label.html", "sheet.html"},
    "export RUN --out out": {"config.json", "model.safetensors", "class_names.json"},
    "predict RUN photos --out out/p.csv --workers 0": {"p.broken.csv"},  # and p.csv, which its user has named
    "report runs --format html": {"report.html"},
}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_file_of_another_program_is_not_replaced(run_command, words, tmp_path, line):
    main = import_module(f"ltr.commands.{line.split()[0]}").main
    arguments = words(line)[1:]
    out = tmp_path / ("runs" if line.startswith("report") else "out")
    assert run_command(main, *arguments)[0] == 0
    written = {path.name for path in out.iterdir() if path.is_file() and path.name[0] != "."}
    assert written - {"p.csv"} == COMMANDS[line]
    assert run_command(main, *arguments)[0] == 0  # its own files are
    for name in COMMANDS[line]:
        if name in ("model.safetensors", "class_names.json"):
            continue  # config.json says whose they are
        own = (out / name).read_bytes()
        (out / name).write_text(FOREIGN)
        code, _, err = run_command(main, *arguments)
        assert (code, name in err, len(err.splitlines())) == (2, True, 1), err
        assert (out / name).read_text() == FOREIGN
        (out / name).write_bytes(own)
    assert run_command(main, *arguments)[0] == 0


def test_weights_without_the_description_of_an_export_are_not_replaced(run_command, words, tmp_path):
    from ltr.commands.export import main

    (tmp_path / "out").mkdir()
    for name in ("model.safetensors", "class_names.json"):
        (tmp_path / "out" / name).write_text(FOREIGN)
        code, _, err = run_command(main, *words("RUN --out out"))
        assert (code, f"{name} is not of ltr-export --out" in err) == (2, True), err
        assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
        (tmp_path / "out" / name).unlink()


def test_a_list_that_a_description_would_remove_is_kept(run_command, words, tmp_path):
    from ltr.commands.data import main

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "left_out.csv").write_text(FOREIGN)
    code, _, err = run_command(main, *words("describe digits --out out"))
    assert (code, "left_out.csv was not written by this command" in err) == (2, True), err
    assert (tmp_path / "out" / "left_out.csv").read_text() == FOREIGN


def test_numbered_sheets_of_another_program_are_kept(run_command, words, tmp_path):
    from ltr.commands.mine import main

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sheet-7.html").write_text("<!doctype html>mine")
    code, _, err = run_command(main, *words("RUN photos --out out"))
    assert (code, "sheet-7.html" in err) == (2, True), err
    assert (tmp_path / "out" / "sheet-7.html").exists()
