"""scripts/reproduce.py on a small table of handwritten digits: cost, sharing, resuming, failures, the written block."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

import reproduce as script
from ltr.data.source import fixed_content
from ltr.data.sources import digits as digits_module
from ltr.errors import Interrupted

CONFIG = """# @package _global_
# A row of the tests' own table.
defaults:
  - override /dataset: digits_lt
  - override /method: {method}
  - _self_
name: {name}
_table_: [small]
{more}
"""
CONFIGS = {
    "small_erm": CONFIG.format(method="erm", name="erm", more='_published_: {accuracy: 90.0, source: "a paper"}'),
    "small_crt": CONFIG.format(
        method="crt",
        name="crt",
        more='_published_: {accuracy: 91.5, source: "another paper"}\nmethod: {classifier: {epochs: 1}}',
    ),
    "small_tau": CONFIG.format(method="tau_norm", name="tau_norm", more="method: {tau: auto}"),
    "bad_step": CONFIG.format(method="erm", name="bad_step", more="optimizer: {lr: 1.0e+30}").replace("small", "bad"),
    "bad_mean": CONFIG.format(method="erm", name="bad_mean", more="dataset: {mean: [0.5, 0.5]}").replace(
        "small", "bad"
    ),
    "bad_key": CONFIG.format(method="erm", name="bad_key", more="trainer: {max_epoch: 3}").replace("small", "bad"),
}
SHORT = ["--epochs", "1", "figures=none", "callbacks.progress=none", "trainer.limit_train_batches=2"]


@pytest.fixture(scope="module")
def configs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("configs")
    (folder / "experiment").mkdir()
    for name, text in CONFIGS.items():
        (folder / "experiment" / f"{name}.yaml").write_text(text)
    return folder


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def reproduce(configs, capsys, monkeypatch):
    """Run the script in this process and return its exit code and output."""
    from ltr.cli import run_guarded

    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def command(*arguments: object) -> Done:
        words = [*map(str, arguments), *SHORT, "--config-dir", str(configs)]
        code = run_guarded(lambda: script.main(words))
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return command


@pytest.fixture(scope="module")
def finished(configs, tmp_path_factory) -> Path:
    """The outputs of the whole small table with one seed."""
    outputs = tmp_path_factory.mktemp("finished")
    assert script.main(["small", *SHORT, "--config-dir", str(configs), "--outputs", str(outputs)]) == 0
    return outputs


def results(outputs: Path) -> dict[str, dict]:
    results = [json.loads(path.read_text()) for path in outputs.glob("*/*/*/result.json")]
    return {f"{result['config']['name']}-s{result['config']['seed']}": result for result in results}


def test_the_cost_is_reported_and_a_plan_trains_nothing(reproduce, tmp_path):
    done = reproduce("small", "--plan", "--seeds", 2, "--outputs", tmp_path)
    assert done.code == 0, done.err
    # per seed: one representation for all rows, cRT's classifier, the tau of tau-normalisation
    assert "small: 6 runs, 0 finished before, 6 to do" in done.out
    assert "stages: 6 (one that several runs share counts once); 0 cached, 4 to train, 2 to compute" in done.out
    assert "training: 4 epochs, 512 images" in done.out
    assert "images/s" in done.out
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_rows_share_their_representation(finished):
    stages = {name: [stage["status"] for stage in result["stages"]] for name, result in results(finished).items()}
    assert stages["erm-s0"] == ["trained"]
    assert stages["crt-s0"] == ["reused", "trained"]
    assert stages["tau_norm-s0"] == ["reused", "trained"]


def test_all_rows_have_the_same_validation_split(finished):
    data = [result["data"] for result in results(finished).values()]
    assert {one["val_rule"] for one in data} == {"test_fraction"}
    assert len({one["split_digest"] for one in data}) == 1


def test_neither_tables_nor_published_numbers_reach_what_a_run_writes(finished):
    for path in [*finished.glob("*/*/*/config.yaml"), *finished.glob("*/*/*/result.json")]:
        assert "_table_" not in path.read_text()
        assert "_published_" not in path.read_text()


def test_finished_runs_are_reused_without_measuring(reproduce, finished, monkeypatch):
    def unread():
        raise AssertionError("data whose content is fixed are not read again")

    unread.__module__ = digits_module.__name__
    monkeypatch.setattr(digits_module, "digits", fixed_content(unread))
    done = reproduce("small", "--outputs", finished)
    assert done.code == 0, done.err
    assert "small: 3 runs, 3 finished before, 0 to do" in done.out
    assert "images/s" not in done.out
    assert "| erm †" in done.out


def test_a_run_without_its_result_is_rebuilt_from_cached_stages(reproduce, finished):
    (result,) = finished.glob("*/crt/*/result.json")
    before = json.loads(result.read_text())
    result.unlink()
    done = reproduce("small", "--outputs", finished)
    assert done.code == 0, done.err
    assert "3 runs, 2 finished before, 1 to do" in done.out
    assert "2 cached, 0 to train, 0 to compute" in done.out
    assert json.loads(result.read_text())["rows"] == before["rows"]


def test_a_data_set_is_read_once_for_all_rows(reproduce, tmp_path, monkeypatch):
    real, calls = digits_module.digits, []

    def counted():
        calls.append(1)
        return real()

    counted.__module__ = real.__module__
    monkeypatch.setattr(digits_module, "digits", counted)
    assert reproduce("small", "--plan", "--seeds", 3, "--outputs", tmp_path).code == 0
    assert len(calls) == 1


def test_rows_that_need_validation_images_are_skipped_without_them(reproduce, tmp_path):
    done = reproduce("small", "--plan", "--val", "none", "--outputs", tmp_path)
    assert done.code == 0, done.err
    assert "left out: small_tau" in done.out
    assert "3 runs, 0 finished before, 2 to do" in done.out


def test_a_block_is_written_between_markers_and_again_without_a_change(reproduce, finished, tmp_path):
    config = tmp_path / "results.md"
    config.write_text("# Results\n\nBefore.\n\n<!-- small:begin -->\nold\n<!-- small:end -->\n\nAfter.\n")
    assert reproduce("small", "--outputs", finished, "--write", config).code == 0
    first = config.read_text()
    assert reproduce("small", "--only", "crt", "--outputs", finished, "--write", config).code == 0
    assert config.read_text() == first
    assert first.startswith("# Results\n\nBefore.\n\n<!-- small:begin -->\n```bash\npython scripts/reproduce.py small ")
    assert first.endswith("<!-- small:end -->\n\nAfter.\n")
    assert "old" not in first
    assert str(finished) not in first
    assert first.index("| erm †") < first.index("| crt ") < first.index(r"| tau\_norm ")
    assert "[1] a paper." in first


def test_a_failing_row_is_named_and_the_remaining_rows_run(reproduce, tmp_path):
    config = tmp_path / "results.md"
    done = reproduce("bad", "small_erm", "--outputs", tmp_path / "outputs", "--write", config)
    assert done.code == 1
    assert "Traceback" not in done.err
    failed = [line for line in done.err.splitlines() if line.startswith("failed: ")]
    assert [line.split(":")[1].strip() for line in failed] == ["bad_key", "bad_mean, seed 0", "bad_step, seed 0"]
    assert list(results(tmp_path / "outputs")) == ["erm-s0"]
    assert "| erm †" in config.read_text()
    assert "No result yet: bad_key, bad_mean, bad_step." in config.read_text()


def test_an_interrupted_command_resumes_with_the_remaining_rows(reproduce, tmp_path, monkeypatch):
    real = script.run

    def stopped_at_the_second(config, *more):
        if config["name"] == "crt":
            raise Interrupted(15, "stopped by SIGTERM; the same command continues from there")
        return real(config, *more)

    monkeypatch.setattr(script, "run", stopped_at_the_second)
    done = reproduce("small", "--outputs", tmp_path)
    assert done.code == 143
    assert "stopped by SIGTERM" in done.err
    monkeypatch.setattr(script, "run", real)
    done = reproduce("small", "--outputs", tmp_path)
    assert done.code == 0, done.err
    assert "3 runs, 1 finished before, 2 to do" in done.out
    assert "1 cached, 1 to train, 1 to compute" in done.out


@pytest.mark.slow
def test_runs_in_processes_give_the_same_results_and_share_stages(reproduce, finished, tmp_path):
    done = reproduce("small_erm", "small_crt", "--parallel", 2, "--outputs", tmp_path)
    assert done.code == 0, done.err
    alone, beside = results(finished), results(tmp_path)
    assert sorted(beside) == ["crt-s0", "erm-s0"]
    assert all(beside[name]["rows"] == alone[name]["rows"] for name in beside)
    # the second began when the first had trained what both need
    status = [stage["status"] for result in beside.values() for stage in result["stages"]]
    assert sorted(status) == ["reused", "trained", "trained"]
    assert not any("waiting for stage" in log.read_text() for log in (tmp_path / "reproduce").iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["smal"], "smal: neither a table nor an experiment; tables: bad, "),
        (["small", "--only", "*_x"], "no row fits '*_x'"),
        (["small", "seed=3"], "use --seeds"),
        (["small", "trainer.max_epoch=3"], "there is no key 'trainer.max_epoch'"),
    ],
)
def test_a_mistake_is_explained_before_anything_runs(reproduce, tmp_path, arguments, words):
    done = reproduce(*arguments, "--outputs", tmp_path)
    assert done.code == 2
    assert words in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["small", "--seeds", "0"], ["figures=all"]])
def test_a_command_without_rows_or_seeds_is_refused(reproduce, arguments):
    with pytest.raises(SystemExit) as stopped:
        reproduce(*arguments)
    assert stopped.value.code == 2


def test_the_help_names_each_default_once(capsys):
    with pytest.raises(SystemExit):
        script.parse_arguments(["--help"])
    options = capsys.readouterr().out.partition("options:")[2].split("\n  --")
    assert [option for option in options if option.count("(default") > 1] == []
