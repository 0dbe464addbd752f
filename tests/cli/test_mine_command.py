"""ltr-mine: from a run and a pool to sheets and a table; resuming and refusals."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from ltr.data.sources.digits import digits


@pytest.fixture
def command(run_command, tmp_path, monkeypatch):
    """Run ``ltr-mine`` in the folder of the test, see `run_command`."""
    from ltr.commands.mine import main

    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run_command(main, *arguments, "--workers", "0")


def draw(folder, number: int):
    folder.mkdir()
    for index in range(number):
        Image.fromarray(digits().images[index, :, :, 0]).save(folder / f"{index:04d}.png")
    return folder


@pytest.fixture
def pool(tmp_path):
    return draw(tmp_path / "pool", 30)


def candidates(folder) -> list[dict[str, str]]:
    with open(folder / "candidates.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_few_shot_classes_of_the_run_are_mined_for(command, finished_run, pool, tmp_path):
    code, out, err = command(finished_run, pool, "--out", "mined", "--top", "5")
    assert code == 0, err
    mined = candidates(tmp_path / "mined")
    assert {row["class"] for row in mined} <= {str(digit) for digit in range(10)}
    assert len(mined) == 5 * len({row["class"] for row in mined})
    assert "mined/sheet.html" in out
    assert (tmp_path / "mined" / "sheet.html").is_file()


def test_named_classes_and_labelled_images(command, finished_run, pool, tmp_path):
    (tmp_path / "labelled.csv").write_text("path,label\n0000.png,0\n0001.png,1\n")
    flags = ["--classes", "7,8", "--exclude", "labelled.csv", "--top", "100", "--thumbnails", "3"]
    code, out, err = command(finished_run, pool, "--out", "mined", *flags)
    assert code == 0, err
    assert "2 of 30 images are labelled already" in out
    mined = candidates(tmp_path / "mined")
    assert {row["class"] for row in mined} == {"7", "8"}
    assert len(mined) == 56
    assert not {"0000.png", "0001.png"} & {row["path"] for row in mined}
    assert (tmp_path / "mined" / "sheet.html").read_text().count("<img") == 6


@pytest.mark.parametrize(
    ("flags", "code", "reason"),
    [
        (["--classes", "seven"], 2, "does not know"),
        (["--few-below", "1"], 2, "no such class"),
        (["--exclude", "nothing.csv"], 1, "no such table"),
        (["--out", "pool/0000.png"], 2, "is a file"),
        (["--out", "pool/0000.png/x"], 2, "a folder is needed, and "),
        (["--top", "0"], 2, "allowed is 1 or more"),
        (["--group", "rare"], 2, "invalid choice"),
    ],
)
def test_mistakes_are_reported(command, finished_run, pool, flags, code, reason):
    with_output = flags if "--out" in flags else [*flags, "--out", "mined"]
    exit_code, _, err = command(finished_run, pool, *with_output)
    assert exit_code == code, err
    assert err.startswith("error: ")
    assert reason in err
    assert "Traceback" not in err


def test_another_top_is_refused_without_another_folder_or_again(command, finished_run, pool):
    assert command(finished_run, pool, "--out", "mined")[0] == 0
    code, _, err = command(finished_run, pool, "--out", "mined", "--top", "3")
    assert code == 2
    assert "--again" in err
    assert command(finished_run, pool, "--out", "mined", "--top", "3", "--again")[0] == 0


@pytest.mark.slow
def test_a_killed_process_resumes_where_it_stopped(command, finished_run, tmp_path):
    pool = draw(tmp_path / "many", 400)
    common = [finished_run, pool, "--top", "7", "--chunk", "20", "--batch-size", "20"]
    assert command(*common, "--out", "whole")[0] == 0
    code = "import sys\nfrom ltr.cli import mine\nsys.argv[0] = 'ltr-mine'\nmine()"
    words = [sys.executable, "-c", code, *map(str, common), "--out", "killed", "--workers", "0"]
    process = subprocess.Popen(
        words, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    state = tmp_path / "killed" / ".mining.npz"
    try:
        for _ in range(3000):
            if state.exists() or process.poll() is not None:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    finally:
        process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was faster than the test"
    exit_code, out, err = command(*common, "--out", "killed")
    assert exit_code == 0, err
    assert "resuming after" in out
    assert (tmp_path / "killed" / "candidates.csv").read_bytes() == (tmp_path / "whole" / "candidates.csv").read_bytes()


@pytest.mark.parametrize("strategy", ["entropy", "margin", "coreset", "cluster_margin", "random"])
def test_strategies_that_rank_the_pool_as_a_whole_fill_one_budget(command, finished_run, pool, tmp_path, strategy):
    (tmp_path / "labelled.csv").write_text("path\n0003.png\n0004.png\n")
    flags = ["--strategy", strategy, "--budget", "7", "--exclude", "labelled.csv"]
    code, out, err = command(finished_run, pool, "--out", "mined", *flags)
    assert code == 0, err
    paths = [row["path"] for row in candidates(tmp_path / "mined")]
    assert len(set(paths)) == len(paths) == 7
    assert not {"0003.png", "0004.png"} & set(paths)
    assert f"7 of 28 images selected by {strategy}" in out
    assert (tmp_path / "mined" / "sheet.html").is_file()


def test_budgets_of_single_classes_are_respected(command, finished_run, pool, tmp_path):
    flags = ["--classes", "8,9", "--top", "2", "--class-budget", "9=4", "--min-distance", "0.05"]
    code, _, err = command(finished_run, pool, "--out", "mined", *flags)
    assert code == 0, err
    mined = candidates(tmp_path / "mined")
    assert [sum(row["class"] == digit for row in mined) for digit in "89"] == [2, 4]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--strategy", "margins"], "Did you mean 'margin'"),
        (["--strategy", "background_split"], "the run has no background class"),
        (["--strategy", "margin", "--class-budget", "9=4"], "Use --budget"),
        (["--strategy", "probability", "--budget", "4"], "Use --top or --class-budget"),
        (["--class-budget", "nine=4"], "give NAME=N"),
        (["--strategy", "margin", "--min-distance", "3"], "allowed is 0 to 2"),
        (["--strategy", "random", "--budget", "0"], "allowed is 1 or more"),
        (["--exclude", "all.csv"], "every image of the pool is labelled already"),
    ],
)
def test_wrong_strategies_and_budgets_are_reported(command, finished_run, pool, tmp_path, flags, words):
    (tmp_path / "all.csv").write_text("path\n" + "".join(f"{number:04d}.png\n" for number in range(30)))
    code, _, err = command(finished_run, pool, "--out", "mined", *flags)
    assert code in (1, 2)
    assert words in err
    assert "Traceback" not in err
    assert not (tmp_path / "mined" / "candidates.csv").exists()


def test_labels_of_a_person_are_not_replaced(command, finished_run, pool, tmp_path):
    common = [finished_run, pool, "--out", "mined", "--top", "2", "--group", "all"]
    assert command(*common)[0] == 0
    assert command(*common)[0] == 0  # without labels it may be repeated
    table = tmp_path / "mined" / "candidates.csv"
    lines = table.read_text().splitlines()
    labelled = "\n".join([lines[0], f"{lines[1]}cat", *lines[2:]]) + "\n"
    for text in (labelled, labelled.replace(",", ";")):
        table.write_text(text)
        for flags in ([], ["--again"]):
            code, _, err = command(*common, *flags)
            assert (code, "1 label, filled in by hand" in err) == (2, True), err
        assert table.read_text() == text


def test_a_table_of_labelled_images_is_not_replaced(command, finished_run, pool, tmp_path):
    (tmp_path / "mined").mkdir()
    table = tmp_path / "mined" / "candidates.csv"
    table.write_text("path,label\n0000.png,\n")
    code, _, err = command(finished_run, pool, "--out", "mined", "--again", "--exclude", "pool/../mined/candidates.csv")
    assert (code, "the command reads this file" in err) == (2, True), err
    assert table.read_text() == "path,label\n0000.png,\n"
