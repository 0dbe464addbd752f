"""ltr-eval: the metrics of a run, changed values, and damaged runs and files."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest
import torch
import yaml

from ltr.errors import DataError

NOT_FORESEEN = "not a mistake that ltr foresees"


class Trap:
    """Object that creates a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.fixture
def refused_eval(ltr_eval):
    """Run ``ltr-eval`` with a mistake and return the message."""

    def command(*arguments: object) -> str:
        code, out, err = ltr_eval(*arguments)
        assert code in (1, 2), (code, out, err)
        assert err.startswith("error: ")
        assert "Traceback" not in err
        assert NOT_FORESEEN not in err, err
        assert not out
        return err

    return command


@pytest.fixture
def checkpoint(finished_run):
    return finished_run / "checkpoints" / "final.ckpt"


@pytest.fixture
def altered(checkpoint, tmp_path):
    """Write a copy of the run's checkpoint with other entries, or with other parts of its description."""

    def write(entries: dict | None = None, **description) -> str:
        content = torch.load(checkpoint, weights_only=True)
        content["description"] = json.dumps({**json.loads(content["description"]), **description})
        content.update(entries or {})
        torch.save({key: value for key, value in content.items() if value != "absent"}, tmp_path / "altered.ckpt")
        return str(tmp_path / "altered.ckpt")

    return write


def evaluated(ltr_eval, tmp_path, *arguments: object) -> dict:
    code, _, err = ltr_eval(*arguments, "--json", tmp_path / "out.json")
    assert code == 0, err
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    return row["metrics"]


def test_a_run_directory_gives_the_runs_numbers_to_the_last_digit(ltr_eval, tmp_path, finished_run, headline):
    assert evaluated(ltr_eval, tmp_path, finished_run) == headline


def test_a_checkpoint_inside_its_run_gives_the_runs_numbers(ltr_eval, tmp_path, checkpoint, headline):
    assert evaluated(ltr_eval, tmp_path, checkpoint) == headline


def test_a_lone_checkpoint_copied_elsewhere_gives_the_runs_numbers(ltr_eval, tmp_path, checkpoint, headline):
    shutil.copy(checkpoint, tmp_path / "lone.ckpt")
    assert evaluated(ltr_eval, tmp_path, tmp_path / "lone.ckpt") == headline


def test_the_validation_images_give_the_runs_validation_row(ltr_eval, tmp_path, finished_run):
    rows = json.loads((finished_run / "result.json").read_text())["rows"]
    expected = next(row for row in rows if row["split"] == "val")["metrics"]
    assert evaluated(ltr_eval, tmp_path, finished_run, "--split", "val") == expected


def test_the_best_epochs_weights_give_the_headline_of_a_run_that_selected_them(ltr_train, ltr_eval, tmp_path):
    done = ltr_train("debug=fast", "dataset.val=train_fraction", "trainer.selection=best_val")
    assert done.code == 0, done.err
    assert evaluated(ltr_eval, tmp_path, done.directory) == done.headline


def test_a_table_is_printed(ltr_eval, finished_run):
    code, out, err = ltr_eval(finished_run)
    assert (code, err) == (0, "")
    assert "digits_lt" in out
    assert "bACC" in out


def test_flags_and_overrides_are_accepted_in_any_order(ltr_eval, tmp_path, finished_run):
    first = evaluated(ltr_eval, tmp_path, "--split", "val", finished_run, "evaluation.top_k=2")
    second = evaluated(ltr_eval, tmp_path, finished_run, "evaluation.top_k=2", "--split", "val")
    assert first == second


def test_the_evaluations_batch_size_changes_no_count(ltr_eval, tmp_path, finished_run, headline):
    evaluation = evaluated(ltr_eval, tmp_path, finished_run, "evaluation.batch_size=37", "trainer.precision=auto")
    assert evaluation["accuracy"] == pytest.approx(headline["accuracy"], abs=0.01)


def test_an_override_of_the_data_set_reaches_its_split(ltr_eval, tmp_path, finished_run):
    val = ("--split", "val", "--allow-overlap")
    evaluation = evaluated(ltr_eval, tmp_path, finished_run, *val)
    assert evaluated(ltr_eval, tmp_path, finished_run, *val, "dataset.imbalance_factor=2") != evaluation


def test_groups_are_those_of_the_images_that_were_trained_on(ltr_eval, tmp_path, finished_run, headline):
    """Classes of the overridden split have more images, and none is a few-shot class."""
    evaluation = evaluated(ltr_eval, tmp_path, finished_run, "dataset.imbalance_factor=2")
    assert headline["few"] is not None
    assert (evaluation["few"], evaluation["accuracy"]) == (headline["few"], headline["accuracy"])


def test_other_shot_bounds_move_classes_between_groups(ltr_eval, tmp_path, finished_run):
    evaluation = evaluated(ltr_eval, tmp_path, finished_run, "evaluation.many_above=1", "evaluation.few_below=0")
    assert evaluation["medium"] is None
    assert evaluation["few"] is None


@pytest.mark.parametrize("where", ["run", "lone"])
def test_another_number_of_classes_than_the_checkpoints_is_refused(refused_eval, finished_run, altered, where):
    err = refused_eval(finished_run if where == "run" else altered(), "dataset.num_classes=5")
    assert "has 10 classes" in err
    assert "the data set has 5" in err


def test_all_mistakes_are_reported_in_one_message(refused_eval, finished_run):
    wrong = {
        "foo": "an override is written key=value",
        "evaluation.many_abov=3": "Did you mean 'evaluation.many_above'?",
        "evaluation.top_k=0": "allowed is int [1, inf)",
        "evaluation.few_below=abc": "allowed is int [0, inf)",
        "evaluation.batch_size=0": "allowed is int [1, inf)",
        "dataset.imbalance_factor=0.1": "allowed is [1, inf)",
        "trainer.accelerator=tpu": "allowed is one of: auto, cpu, gpu",
        "seed=1": "evaluation does not depend on 'seed'",
        "loss=ldam": "evaluation does not depend on 'loss'",
        "nothing.at.all=1": "there is no key",
        "evaluation.calibration_bins=[1": "not an override",
        "~evaluation.top_k": "as key=value",
        "evaluation.top_k=1,2": "as key=value",
    }
    lines = [line.strip() for line in refused_eval(finished_run, *wrong).splitlines()]
    for override, words in wrong.items():
        (line,) = [line for line in lines if line.startswith((f"{override}:", f"{override} "))]
        assert words in line
    assert any(line.startswith("what can be changed: evaluation.many_above, ") for line in lines)


def test_wrong_overrides_are_reported_before_torch_is_imported(python, finished_run):
    done = python(
        "import sys; from ltr.cli import evaluate_main; code = evaluate_main(sys.argv[1:]); "
        "print(code, 'torch' in sys.modules)",
        str(finished_run),
        "evaluation.top_k=0",
    )
    assert done.stdout.strip() == "2 False", done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "which run? Give its folder or a checkpoint file"),
        (["--nothing"], "unrecognized arguments: --nothing"),
        (["RUN", "--decid", "max"], "unrecognized arguments: --decid max. Did you mean '--decide'?"),
        (["RUN", "--split", "tset"], ". Did you mean 'test'?"),
        (["RUN", "--split", "train"], "invalid choice: 'train'"),
        (["RUN", "--split", "val", "dataset.val=none"], "has no such images"),
        (["RUN", "--json"], "expected one argument"),
        (["RUN", "--json", "."], "that is a folder"),
        (["RUN", "--allow", "a-b"], "the dotted name of a package is needed"),
        (["nothing"], "nothing: there is no such run directory or checkpoint file"),
        (["."], "holds no finished run"),
        (["OUTPUTS"], "Below it are, newest first: "),
    ],
)
def test_wrong_commands_are_refused_with_the_reason(
    refused_eval, finished_run, tmp_path, monkeypatch, arguments, words
):
    monkeypatch.chdir(tmp_path)
    places = {"RUN": finished_run, "OUTPUTS": finished_run.parents[2]}
    assert words in refused_eval(*(places.get(argument, argument) for argument in arguments))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_named(refused_eval, finished_run):
    assert "no CUDA device is visible" in refused_eval(finished_run, "trainer.accelerator=gpu")


@pytest.mark.parametrize("config", ["a: [", "a: 1", "3", "", "\udcff"])
def test_a_damaged_configuration_is_named(refused_eval, finished_run, tmp_path, config):
    run = tmp_path / "run"
    shutil.copytree(finished_run / "checkpoints", run / "checkpoints")
    (run / "config.yaml").write_bytes(config.encode("utf-8", "surrogateescape"))
    err = refused_eval(run)
    assert "is damaged" in err or "this is not the configuration of a run" in err


def test_a_run_older_than_a_key_is_evaluated_with_its_default(ltr_eval, finished_run, tmp_path, headline):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    text = (run / "config.yaml").read_text()
    assert "  calibration_bins: 15\n" in text
    (run / "config.yaml").write_text(text.replace("  calibration_bins: 15\n", ""))
    assert evaluated(ltr_eval, tmp_path, run) == headline


def test_a_truncated_checkpoint_is_refused(refused_eval, checkpoint, tmp_path):
    content = checkpoint.read_bytes()
    for name, kept in {"half": len(content) // 2, "some": 100}.items():
        (tmp_path / name).write_bytes(content[:kept])
        assert "cannot be read as a torch file" in refused_eval(tmp_path / name)


def test_a_text_file_or_foreign_weights_are_refused(refused_eval, tmp_path):
    (tmp_path / "text.ckpt").write_text("hello")
    assert "text.ckpt' is a text file, not weights" in refused_eval(tmp_path / "text.ckpt")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "foreign.ckpt")
    assert "To start from foreign weights use backbone.weights=FILE" in refused_eval(tmp_path / "foreign.ckpt")


@pytest.mark.parametrize("form", ["pickle", "torch", "hidden"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_instead_of_a_checkpoint_is_never_executed(refused_eval, tmp_path, altered, form):
    trap = Trap(str(tmp_path / "sprung"))
    path = tmp_path / "trap.ckpt"
    if form == "pickle":
        path.write_bytes(pickle.dumps(trap))
    elif form == "torch":
        torch.save(trap, path)
    else:
        torch.save({**torch.load(altered(), weights_only=True), "state_dict": {"weight": trap}}, path)
    err = refused_eval(path)
    assert "which is refused" in err or "running code from a weights file is refused" in err
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_cannot_call_functions_outside_the_declared_targets(refused_eval, tmp_path, altered):
    trap = str(tmp_path / "sprung")
    targets = [
        {"_target_": "os.mkdir", "path": trap},
        {"_target_": "ltr.files.write_text", "path": trap, "text": "x"},
        {"_target_": "ltr.files.os.mkdir", "path": trap},
    ]
    for source in targets:
        dataset = {"name": "x", "source": source, "split": {"_target_": "ltr.data.splitting.closed_set.long_tail"}}
        refused_eval(altered(dataset=dataset))
        assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "entries",
    [{"version": "x"}, {"version": "absent"}, {"description": "{"}, {"description": "3"}, {"state_dict": None}],
)
def test_a_checkpoint_with_wrong_entries_is_refused(refused_eval, altered, entries):
    assert "altered.ckpt" in refused_eval(altered(entries))


@pytest.mark.parametrize(
    "description",
    [{"settings": {}}, {"settings": None}, {"facts": {"x": 1}}, {"options": 3}, {"module": "ltr.files.write_text"}],
)
def test_a_checkpoint_with_a_wrong_description_is_refused(refused_eval, altered, description):
    assert "altered.ckpt" in refused_eval(altered(**description))


def test_an_empty_file_is_refused(refused_eval, tmp_path):
    (tmp_path / "empty.ckpt").write_bytes(b"")
    assert "empty.ckpt" in refused_eval(tmp_path / "empty.ckpt")


def test_a_flipped_bit_in_the_weights_is_detected(refused_eval, checkpoint, tmp_path):
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "flipped.ckpt").write_bytes(content)
    assert "flipped.ckpt" in refused_eval(tmp_path / "flipped.ckpt")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [(None, "dataset is None, and must be a mapping"), ({"name": "x"}, "this is not the configuration of a run")],
)
def test_a_checkpoint_without_a_data_set_is_refused(refused_eval, altered, dataset, message):
    assert message in refused_eval(altered(dataset=dataset))


def test_a_checkpoint_of_a_newer_version_is_refused(refused_eval, altered):
    assert "newer version" in refused_eval(altered({"version": 99}))


def test_a_traceback_is_shown_on_request(ltr_eval, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    code, _, err = ltr_eval("nothing")
    assert code == 1
    assert "Traceback" in err
    assert "no such run directory" in err


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda config: config["method"].pop("name"), "method.name is missing"),
        (lambda config: config["optimizer"].update({3: 1}), "optimizer: the key '3' is not text"),
        (lambda config: config["optimizer"].update(lr=float("nan")), "optimizer.lr=nan"),
        (lambda config: config["loss"].update(beta=[1, 10**30]), "loss.beta.1="),
    ],
)
def test_a_configuration_that_is_not_of_a_run_is_refused(finished_run, ltr_eval, tmp_path, damage, named):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    damage(config)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    code, _, err = ltr_eval(run, "--out", tmp_path / "out")
    assert code in (1, 2)
    assert named in err
    assert "not a mistake that ltr foresees" not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("decide", [[], ["--decide", "recall=0.5"]])
def test_a_file_of_a_run_or_an_input_is_not_replaced(ltr_eval, finished_run, tmp_path, decide):
    (tmp_path / "weights.ckpt").symlink_to(finished_run / "checkpoints" / "final.ckpt")
    (tmp_path / "levels.csv").write_text("class,level\n")
    before = (finished_run / "result.json").read_bytes()
    for words in (
        [finished_run, "--json", finished_run / "result.json"],
        [tmp_path / "weights.ckpt", "--json", tmp_path / "weights.ckpt"],
        [finished_run, "--decide", f"precision={tmp_path / 'levels.csv'}", "--json", tmp_path / "levels.csv"],
    ):
        code, out, err = ltr_eval(*words, *decide)
        assert (code, out) == (2, ""), err
        assert "would be replaced" in err
    assert (finished_run / "result.json").read_bytes() == before


@pytest.mark.parametrize("override", ["figures=two", "weights.entry=model", "evaluation.views=flip"])
def test_overrides_that_decisions_do_not_read_are_refused(ltr_eval, finished_run, override):
    code, out, err = ltr_eval(finished_run, "--decide", "recall=0.5", override)
    assert (code, out) == (2, "")
    assert f"{override.partition('=')[0]}" in err
    assert "--decide reads the probabilities of the images alone" in err


def test_decisions_may_be_chosen_on_training_images_on_purpose(ltr_eval, finished_run, monkeypatch):
    allowed = []

    def probabilities(candidate, check):
        allowed.append(candidate.allow_overlap)
        raise DataError("no images")

    monkeypatch.setattr("ltr.runs.evaluation.checkpoints.headline_probabilities", probabilities)
    for flags in ([], ["--allow-overlap"]):
        assert ltr_eval(finished_run, "--decide", "recall=0.5", *flags)[0] == 1
    assert allowed == [False, True]
