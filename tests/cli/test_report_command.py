"""ltr-report: real runs and made-up ones, every format, and what is refused."""

from __future__ import annotations

import csv
import functools
import io
import json

import pytest
from made_up_outputs import write
from made_up_runs import curve_rows, per_class_table, write_predictions, write_run


@pytest.fixture
def command(run_command, tmp_path, monkeypatch):
    """Run ``ltr-report`` in the folder of the test, see `run_command`."""
    from ltr.commands.report import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LTR_OUTPUTS", raising=False)
    return functools.partial(run_command, main)


@pytest.fixture
def outputs(tmp_path):
    for seed in range(3):
        write(tmp_path / "outputs", "erm", seed, metrics={"few": 0.2 + seed / 100})
    write(tmp_path / "outputs", "crt", metrics={"few": 0.4})
    return tmp_path / "outputs"


def test_a_real_run_is_reported(command, finished_run, headline):
    code, out, err = command(finished_run, "--format", "csv")
    assert code == 0, err
    (line,) = csv.DictReader(io.StringIO(out))
    assert float(line["balanced_accuracy"]) == pytest.approx(headline["balanced_accuracy"])
    assert line["row"] == "erm"
    assert float(line["images_per_second"]) > 0


def test_outputs_is_the_default_folder(command, outputs):
    code, out, _ = command()
    assert code == 0
    assert "21.0 ± 1.0" in out


def test_an_impossible_comparison_is_reported_on_stderr_along_with_the_report(command, outputs):
    code, out, err = command("outputs", "--against", "erm")
    assert code == 1
    assert "predictions.parquet is missing" in err
    assert "21.0 ± 1.0" in out


@pytest.mark.parametrize("form", ["table", "markdown", "latex", "csv"])
def test_every_format_is_written_to_the_terminal_or_a_file(command, outputs, tmp_path, form):
    code, out, _ = command("outputs", "--format", form, "--by", "method", "--metric", "few")
    assert code == 0
    assert "crt" in out
    code, message, _ = command("outputs", "--format", form, "--by", "method", "--metric", "few", "--out", "report.txt")
    assert code == 0
    assert "4 runs" in message
    assert (tmp_path / "report.txt").read_text() == out


def test_html_is_written_into_the_folder_of_runs(command, outputs):
    code, out, _ = command("outputs", "--format", "html")
    assert code == 0
    assert "outputs/report.html" in out
    assert "<table" in (outputs / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["nothing"], 1, "no such folder"),
        (["empty"], 1, "no finished run"),
        (["outputs", "--metric", "feww"], 2, "Did you mean 'few'"),
        (["outputs", "--by", "metod"], 2, "Did you mean 'method'"),
        (["outputs", "--dataset", "cifar"], 2, "cifar10_lt"),
        (["outputs", "--against", "lws"], 2, "no row has this name"),
        (["outputs", "--format", "pdf"], 2, "invalid choice"),
        (["outputs", "--level", "95"], 2, "between 0 and 1"),
        (["outputs", "--out", "outputs"], 2, "that is a folder"),
        (["outputs", "--format", "html", "--figure-runs", "-1"], 2, "0 or more"),
    ],
)
def test_mistakes_are_reported(command, outputs, tmp_path, arguments, code, reason):
    (tmp_path / "empty").mkdir()
    exit_code, out, err = command(*arguments)
    assert exit_code == code, err
    assert err.startswith("error: ")
    assert reason in err
    assert "Traceback" not in err
    assert not out


def test_warnings_are_written_to_standard_error(command, outputs):
    (outputs / "cifar10_lt" / "erm" / "x").mkdir()
    (outputs / "cifar10_lt" / "erm" / "x" / "config.yaml").write_text("{}")
    code, out, err = command("outputs")
    assert code == 0
    assert err == "warning: left out: 1 unfinished run\n"
    assert "unfinished" not in out


def test_figures_are_made_from_the_files_of_a_run(command, tmp_path):
    table = per_class_table(10, images=10)
    for seed in (0, 1):
        run_dir = write_run(tmp_path / f"outputs/{seed}", table, curve_rows({"main": 2}))
        write_predictions(run_dir, table, 10)
        result = json.loads((run_dir / "result.json").read_text())
        result["config"] |= {"seed": seed, "name": "erm"}
        (run_dir / "result.json").write_text(json.dumps(result))
    (tmp_path / "outputs/1/per_class.parquet").write_bytes(b"half")
    code, _, message = command("outputs", "--figures", "all")
    assert code == 0, message
    names = {path.stem for path in (tmp_path / "outputs/0/figures").iterdir()}
    assert {"accuracy_by_frequency", "confusion", "reliability"} <= names
    assert "1/2" in message
    assert "per_class.parquet cannot be read" in message
    assert "; no data for curve, translations, selected_locations, feature_plane, " in message


def test_a_folder_as_output_file_is_refused(command, tmp_path):
    code, _, message = command("outputs", "--format", "latex", "--out", "tables/")
    assert code == 2
    assert "--out: tables/ is a folder; the name of a file is needed, such as tables/table.csv" in message
    assert not (tmp_path / "tables").exists()


@pytest.fixture
def subsets(tmp_path):
    for number in range(8):
        config = {"dataset.split_seed": number // 2}
        metrics = {"balanced_accuracy": 0.4 + number / 100}
        write(tmp_path / "outputs", "erm", number % 2, metrics=metrics, config=config, split=f"seeded{number // 2}")
    return tmp_path / "outputs"


def test_a_spread_is_written_to_the_terminal_a_file_or_a_figure(command, subsets, tmp_path):
    code, out, err = command("outputs", "--spread")
    assert (code, err) == (0, "")
    assert "4 x 2" in out
    code, message, _ = command("outputs", "--spread", "--out", "spread.txt")
    assert code == 0
    assert "8 runs" in message
    assert (tmp_path / "spread.txt").read_text() == out
    assert command("outputs", "--spread", "--out", "spread.png")[0] == 0
    assert (tmp_path / "spread.png").is_file()


@pytest.mark.parametrize(
    "flags", [("--format", "html"), ("--curve", "loss.beta"), ("--metric", "few,many"), ("--against", "crt")]
)
def test_a_spread_refuses_flags_of_other_reports(command, subsets, flags):
    code, out, err = command("outputs", "--spread", *flags)
    assert (code, out) == (2, "")
    assert flags[0] in err


def test_a_spread_refuses_a_setting_that_no_run_has(command, subsets):
    code, out, err = command("outputs", "--spread", "--by", "nokey")
    assert (code, out) == (2, "")
    assert "--by nokey: no run has this setting" in err


def test_a_curve_of_a_setting_that_no_run_has_is_refused_and_one_of_few_values_reported(command, outputs):
    code, out, err = command("outputs", "--curve", "nokey")
    assert (code, out) == (2, "")
    assert "--curve nokey: no run has this setting" in err
    code, out, err = command("outputs", "--curve", "trainer.max_epochs")
    assert code == 0
    assert "--curve trainer.max_epochs: no method has 3 values of it" in err


def test_a_spread_of_runs_of_one_subset_is_refused(command, outputs):
    code, out, err = command("outputs", "--spread")
    assert (code, out) == (1, "")
    assert "dataset.split_seed=0,1,2" in err


def test_a_run_is_added_to_a_leaderboard_checked_and_shown(command, outputs, tmp_path):
    for folder in sorted(outputs.glob("*/*/*")):
        code, out, err = command("--leaderboard", "results", "--add", folder)
        assert (code, err) == (0, "")
        assert f"added results/cifar10_lt/{folder.parent.name}/{folder.name}" in out
    code, out, _ = command("--leaderboard", "results", "--check")
    assert (code, out) == (0, "results: 4 results accepted, 0 refused\n")
    code, out, _ = command("results", "--leaderboard")
    assert (code, out) == (0, "results/leaderboard.html: 4 results in 2 rows\n")
    assert "<table" in (tmp_path / "results" / "leaderboard.html").read_text()
    assert command("--leaderboard", "results", "--check")[0] == 0, "the leaderboard itself is no result"
    assert "| crt |" in command("--leaderboard", "results", "--format", "markdown")[1]


def test_a_refused_result_is_named_and_other_results_are_shown(command, outputs, tmp_path):
    runs = [next(outputs.glob(f"*/{method}/*")) for method in ("crt", "erm")]
    assert command("--leaderboard", "results", "--add", runs[0], "--add", runs[1])[1].count("added") == 2
    path = next((tmp_path / "results").glob("*/crt/*/result.json"))
    path.write_text(path.read_text().replace('"last"', '"best_test"'))
    for flags in (["--check"], ["--out", "board.html"]):
        code, out, err = command("--leaderboard", "results", *flags)
        assert code == 1
        assert f"refused: {path.relative_to(tmp_path)}: its weights were selected by best_test" in err
        assert "1 result" in out


def test_a_limited_run_is_refused_on_entry(command, tmp_path):
    run = write(tmp_path / "outputs", "erm", config={"trainer.limit_train_batches": 2})
    code, _, err = command("--leaderboard", "results", "--add", run)
    assert code == 2
    assert "limited: 2 batches an epoch" in err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--leaderboard"], "one folder of results is needed"),
        (["--leaderboard", "results", "more"], "one folder of results is needed"),
        (["--leaderboard", "outputs", "--spread"], "--leaderboard --spread"),
        (["--leaderboard", "outputs", "--metric", "few"], "--leaderboard --metric"),
        (["--leaderboard", "outputs", "--format", "csv"], "allowed are html and markdown"),
        (["--leaderboard", "outputs", "--check", "--out", "x.html"], "--check: it writes nothing"),
        (["outputs", "--check"], "--check: it belongs to --leaderboard"),
        (["outputs", "--add", "outputs"], "--add: it belongs to --leaderboard"),
    ],
)
def test_flags_of_a_leaderboard_are_checked(command, outputs, flags, message):
    code, out, err = command(*flags)
    assert (code, out) == (2, "")
    assert message in err


def test_a_report_replaces_no_file_of_a_run(command, outputs):
    result = min(outputs.rglob("result.json"))
    before = result.read_bytes()
    code, _, err = command("outputs", "--format", "csv", "--out", result)
    assert (code, "is a file of a finished run" in err) == (2, True), err
    assert result.read_bytes() == before
