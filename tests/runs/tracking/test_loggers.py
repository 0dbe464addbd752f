"""Loggers: values that reach them, values that never do, and closing them."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from ltr.errors import ConfigError, Interrupted
from ltr.runs.tracking.loggers import RunLoggers, described, forgiving

sys.path.insert(0, str(Path(__file__).parent))
from offline_file import Offline, offline

SHORT = ["trainer.max_epochs=2", "dataset.val=train_fraction"]
SECRET = "0123456789abcdef0123456789abcdef01234567"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def offline_run(tmp_path_factory) -> Path:
    """The directory of a decoupled run with everything logged, made on a machine with secrets."""
    from ltr.cli import train_main

    outputs = tmp_path_factory.mktemp("home") / "alice-private"
    arguments = [*SHORT, "method=crt", "method.classifier.epochs=2", "callbacks.progress=none", "logger=wandb"]
    arguments += ["logger.mode=offline", "logger.model=true", "logger.tags=[mine]", f"paths.outputs={outputs}"]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"WANDB_API_KEY": SECRET, "USER": "alice", "MY_TOKEN": "token-of-alice"}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["/home/alice-private/ltr-train", *arguments])
        assert train_main(arguments) == 0
    return next(path.parent for path in outputs.glob("*/*/*/result.json"))


@pytest.fixture(scope="module")
def sent(offline_run) -> Offline:
    return offline(offline_run)


def test_the_run_is_named_grouped_and_tagged(sent, offline_run):
    run = sent.run
    assert run.display_name == "crt-digits_lt-s0"
    assert run.run_group.startswith("crt-digits_lt-")  # shared by the seeds
    assert run.job_type == "train"
    assert set(run.tags) == {"digits_lt", "crt", "mine"}
    assert run.project == "ltr"
    assert offline_run.name.endswith(run.run_id[:8])
    assert run.resume


def test_the_configuration_is_sent_flat(sent):
    assert sent.config["method.name"] == "crt"
    assert sent.config["optimizer.lr"] == 0.1
    assert not [key for key in sent.config if key.startswith(("paths", "hydra"))]


def test_epochs_are_counted_through_the_stages(sent):
    epochs = [step["epoch"] for step in sent.history if "train/loss" in step]
    assert epochs == [1, 2, 3, 4]
    assert sent.steps["*"] == "epoch"


def test_the_summary_of_a_metric_is_its_best_value(sent):
    assert sent.summaries["val/balanced_accuracy"] == "max"
    assert sent.summaries["val/nll"] == sent.summaries["val/ece_few"] == sent.summaries["train/loss"] == "min"
    losses = [step["val/nll"] for step in sent.history if "val/nll" in step]
    assert sent.summary["val/nll"] == {"min": min(losses)}


def test_the_result_is_in_the_summary_and_not_a_step(sent, offline_run):
    import json

    rows = json.loads((offline_run / "result.json").read_text())["rows"]
    headline = next(row for row in rows if row["headline"])["metrics"]
    assert sent.summary["final/few"] == pytest.approx(headline["few"])
    assert not [step for step in sent.history if "final/few" in step]


def test_each_evaluation_has_one_table(sent, offline_run):
    tables = {key.partition("/")[0] for step in sent.history for key in step if key.endswith("/ncols")}
    assert tables == {"results", "per_class"}
    assert sent.summary["per_class/nrows"] == 10
    assert sent.summary["results/nrows"] == 2  # val and test


def test_figures_are_uploaded_with_the_result(sent):
    names = {key.removesuffix("/path") for key in sent.summary if key.startswith("figures/")}
    assert {"figures/accuracy_by_frequency", "figures/training_curves"} <= {
        name.rpartition("/_")[0] or name for name in names
    }
    assert sum(name.endswith(".png") for name in sent.files) == 2


def test_the_final_model_is_an_artifact_if_requested(sent):
    assert f"model-{sent.run.run_id}" in sent.artifacts


def test_nothing_of_the_machine_or_its_user_is_written(offline_run):
    (folder,) = offline_run.glob("wandb/offline-run-*")
    files = [path for path in folder.rglob("*") if path.is_file() and "logs" not in path.relative_to(folder).parts]
    assert [path for path in files if path.suffix == ".wandb"]
    words = (SECRET, "alice", "token-of", os.getcwd(), sys.executable, f'"{socket.gethostname()}"')
    for path in files:
        content = path.read_bytes()
        assert not [word for word in words if word.encode() in content], path
    sent = offline(offline_run)
    assert not sent.run.host
    assert "environment" not in sent.kinds


def test_paths_in_the_configuration_are_shortened_to_their_last_part():
    config = {"dataset": {"root": "/home/alice/data", "name": "x"}, "backbone": {"weights": "/home/alice/r50.pth"},
              "paths": {"outputs": "/home/alice"}, "a": ["~/b/c", "C:\\alice\\d"], "tau": 0.5}  # fmt: skip
    assert described(config) == {"dataset.name": "x", "backbone.weights": "r50.pth", "a": ["c", "d"], "tau": 0.5}


def test_a_run_that_trains_nothing_is_logged_too(ltr_train):
    outputs = [*SHORT, "method=tau_norm", "method.tau=0.5"]
    assert ltr_train(*outputs).code == 0
    done = ltr_train(*outputs, "method.tau=0.7", "logger=wandb", "logger.mode=offline")
    assert done.code == 0, done.err
    (directory,) = [path for path in done.directories if (path / "wandb").is_dir()]
    sent = offline(directory)
    assert not [step for step in sent.history if "train/loss" in step]
    assert "final/few" in sent.summary
    assert not sent.artifacts or not any(name.startswith("model") for name in sent.artifacts)


def test_two_runs_in_one_process_do_not_share_an_id_but_a_group(ltr_train, tmp_path):
    import wandb

    logged = [*SHORT, "debug=fast", "logger=wandb", "logger.mode=offline"]
    before = os.environ.get("WANDB_MODE")
    runs = [ltr_train(*logged, f"seed={seed}", outputs=tmp_path / str(seed)).directory for seed in (0, 1)]
    one, two = (offline(run).run for run in runs)
    assert one.run_id != two.run_id
    assert one.run_group == two.run_group
    assert wandb.run is None
    assert os.environ.get("WANDB_MODE") == before


def test_a_failed_run_closes_its_logger(ltr_train):
    import wandb

    done = ltr_train(*SHORT, "logger=wandb", "logger.mode=offline", "optimizer.lr=1e18")
    assert done.code == 1
    assert wandb.run is None
    (path,) = done.outputs.glob("*/*/*/wandb/offline-run-*/run-*.wandb")
    sent = offline(path.parents[2])
    assert "final/few" not in sent.summary


def test_refusals_by_wandb_are_reported_with_advice(ltr_train, monkeypatch):
    import wandb

    def refuse(*arguments, **options):
        raise wandb.errors.UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", refuse)
    done = ltr_train(*SHORT, "logger=wandb")
    assert done.code != 0
    assert "Traceback" not in done.err
    assert "logger.mode=offline" in done.err


def test_tensorboard_gets_the_epochs_of_both_stages(ltr_train):
    from tensorboard.backend.event_processing import event_accumulator as accumulator

    done = ltr_train(*SHORT, "method=crt", "method.classifier.epochs=1", "logger=tensorboard")
    assert done.code == 0, done.err
    events = accumulator.EventAccumulator(str(done.directory / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3]
    assert {"val/accuracy", "final/few"} <= set(events.Tags()["scalars"])


def test_the_default_writes_no_logger_files(ltr_train):
    done = ltr_train(*SHORT)
    known = ("checkpoints", "figures", "artifacts")
    assert not [p for p in done.directory.iterdir() if p.is_dir() and p.name not in known]


def test_a_missing_package_is_reported(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "ltr.runs.tracking.wandb_run", raising=False)
    loggers = RunLoggers({"logger": {"name": "wandb"}}, tmp_path, {"main": 1})
    with pytest.raises(ConfigError, match="wandb is not installed"):
        loggers("main")


class Breaks:
    """A logger whose chosen methods raise, and which notes the calls of all."""

    def __init__(self, *broken: str, error: type[Exception] = RuntimeError) -> None:
        self.broken, self.error, self.calls = broken, error, []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.broken:
            raise self.error(f"{name} does not work\nand says more")

    def log_metrics(self, metrics, step=None):
        self._call("log_metrics")

    def log_result(self, *arguments):
        self._call("log_result")

    def close(self, failed):
        self._call("close")


@pytest.mark.parametrize("broken", [("log_metrics",), ("log_result",), ("close",), ("log_metrics", "close")])
def test_a_failing_logger_is_reported_once_and_does_not_stop_the_run(broken):
    logger = forgiving(Breaks(*broken), "wandb")

    def whole_run() -> None:
        for step in (1, 2):
            logger.log_metrics({"a": 1}, step=step)
        logger.log_result({}, [], [], [])
        logger.close(failed=False)

    message = f"logger=wandb failed and is disabled: RuntimeError: {broken[0]} does not work. "
    with pytest.warns(UserWarning, match=message) as caught:
        whole_run()
    assert len(caught) == 1
    assert logger.calls[-1] == "close"
    assert logger.calls.count(broken[0]) == 1


def test_a_signal_is_not_reported_as_a_failing_logger():
    with pytest.raises(Interrupted):
        forgiving(Breaks("close", error=lambda text: Interrupted(15, text)), "wandb").close(failed=False)


def test_a_setting_that_wandb_refuses_is_named(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setattr(RunLoggers, "_wandb", lambda _: wandb.Settings(mode="bogus"))
    with pytest.raises(ConfigError, match="logger=wandb: it cannot start: ValidationError: mode: Input should be "):
        RunLoggers({"logger": {"name": "wandb"}}, tmp_path, {"main": 1})("main")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("pydantic\nlines"), TypeError()])
def test_a_logger_that_cannot_start_is_refused_before_the_training_and_a_warning_after_it(tmp_path, monkeypatch, error):
    def start(self):
        raise error

    monkeypatch.setattr(RunLoggers, "_tensorboard", start)
    loggers = RunLoggers({"logger": {"name": "tensorboard"}}, tmp_path, {"main": 1})
    with pytest.raises(ConfigError, match=f"logger=tensorboard: it cannot start: {type(error).__name__}: .*logger=csv"):
        loggers("main")
    with pytest.warns(UserWarning, match="the result is not logged"):
        loggers.log_result([{"headline": True}], [])
    loggers.close(failed=False)


def test_long_tags_and_names_are_truncated():
    from ltr.runs.tracking.wandb_run import shortened, tags

    shortened_tags = tags(["d" * 65, "", "  ", "crt", "crt", "d" * 64 + "e", " x "])
    assert shortened_tags == ["d" * 64, "crt", "x"]
    assert shortened("d" * 200, "-s0") == "d" * 125 + "-s0"
    assert shortened("crt-digits_lt", "-s0") == "crt-digits_lt-s0"
