"""Places that cannot be written are refused before the work, by the key or flag that named them."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from ltr.cli import run_guarded
from ltr.errors import ConfigError, LtrError
from ltr.files import write_text
from ltr.writing import check_file, check_folder, check_named_files, disk_trouble

NOWHERE = "/proc/ltr"  # nobody may make anything here, whoever runs the tests


def test_checking_a_writable_path_does_not_change_it(tmp_path):
    check_folder(tmp_path / "a" / "b", "--out a/b")
    check_file(tmp_path / "a" / "b.csv", "--out a/b.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            f"{NOWHERE}/x",
            r"--out .*: nothing can be written in /proc \(.*\)\. Set --out to a writable folder",
        ),
        ("file/x", "a folder is needed, and .*file is a file"),
        ("link/x", "is a broken link"),
        ("n" * 300, "longer than 255 bytes"),
        ("n" * 300 + "/x", "longer than 255 bytes"),
    ],
)
def test_an_unwritable_path_is_named_with_the_reason(tmp_path, monkeypatch, path, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for check in (check_file, check_folder):
        with pytest.raises(LtrError, match=words):
            check(tmp_path / path if not path.startswith("/") else Path(path), f"--out {path}")


def test_a_folder_that_is_read_only_is_refused(tmp_path):
    (tmp_path / "shut").mkdir()
    (tmp_path / "shut").chmod(0o500)
    if os.access(tmp_path / "shut", os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(LtrError, match=r"Set paths\.outputs to a place"):
        check_folder(tmp_path / "shut" / "x", f"paths.outputs={tmp_path / 'shut'}")


def test_a_device_or_a_pipe_is_never_replaced_by_a_file(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="not a regular file"):
        check_file(pipe, "--out pipe")
    with pytest.raises(LtrError, match="not a regular file"):
        write_text(pipe, "x")
    assert not pipe.is_file()


PATHS = {"outputs": "/o", "stages": "/s"}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/s/k/x"), "Free some space, or set paths.stages elsewhere"),
        (OSError(errno.ENOSPC, "No space left on device"), r"paths.outputs \(and paths.stages\)"),
        (OSError(errno.EROFS, "Read-only file system", "/o/x"), "set paths.outputs to a writable folder"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/o/x"), "Another process removed or renamed it"),
    ],
)
def test_errors_in_the_outputs_of_a_run_name_the_configuration_key(error, words):
    assert re.search(words, str(disk_trouble(error, "the run", PATHS)))


def test_errors_in_other_files_do_not_name_the_outputs():
    assert disk_trouble(FileNotFoundError(errno.ENOENT, "No such file", "/data/x.jpg"), "the run", PATHS) is None
    assert disk_trouble(OSError(errno.EBADF, "Bad file descriptor"), "the run", PATHS) is None


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ((f"paths.outputs={NOWHERE}",), "paths.outputs"),
        ((f"paths.stages={NOWHERE}",), "paths.stages"),
        ((f"paths.outputs={NOWHERE}", "-m", "seed=0,1"), "paths.outputs"),
    ],
)
def test_a_run_names_the_key_that_it_could_not_write_to(ltr_train, overrides, key):
    done = ltr_train("debug=fast", *overrides)
    assert done.code == 1
    assert key in done.err
    assert "Check that the path is correct" not in done.err
    other = {"paths.outputs": "paths.stages", "paths.stages": "paths.outputs"}[key]
    assert other not in done.err
    assert "1 epochs" not in done.out


COMMANDS = {
    "ltr.commands.evaluate": ("RUN", "--out", NOWHERE),
    "ltr.commands.predict": ("RUN", ".", "--out", f"{NOWHERE}/x.csv"),
    "ltr.commands.mine": ("RUN", ".", "--out", NOWHERE),
    "ltr.commands.export": ("RUN", "--out", NOWHERE),
    "ltr.commands.report": (".", "--out", f"{NOWHERE}/x.html", "--format", "html"),
    "ltr.commands.data": ("describe", "digits", "--out", NOWHERE),
}


@pytest.mark.parametrize("module", COMMANDS)
def test_every_command_refuses_an_unwritable_path_before_its_work(module, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main = __import__(module, fromlist=["main"]).main
    assert run_guarded(lambda: main(list(COMMANDS[module]))) == 1
    assert ": nothing can be written in /proc" in capsys.readouterr().err


def test_an_unexpanded_tilde_is_refused_unless_such_a_folder_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"--out ~/x.csv: the shell did not expand '~'.* Write /"):
        check_file(Path("~/x.csv"), "--out ~/x.csv")
    (tmp_path / "~").mkdir()
    check_file(Path("~/x.csv"), "--out ~/x.csv")


def test_a_pipe_or_a_broken_link_is_not_a_file_that_a_command_wrote(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name in ("pipe", "link"):
        with pytest.raises(ConfigError, match=f"{name} was not written by this command"):
            check_named_files(tmp_path, {name: ()}, "--out x")
