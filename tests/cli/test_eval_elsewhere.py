"""ltr-eval on other data sets, of several checkpoints and foreign weights, with figures; the files that it writes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import trees
from ltr.configuration.overrides import load_config
from ltr.methods.core.checkpoint import network_checkpoint, write_checkpoint
from ltr.report.read_run import read_run
from ltr.runs.plan import plan_of

CIFAR_EMBEDDING = ("dataset=cifar100_retrieval", "method=triplet", "backbone=resnet20", "backbone.depth=8")


def untrained(path: Path, *overrides: str) -> Path:
    """A checkpoint of what these overrides would train, before its first step."""
    config = load_config([*overrides, "trainer.precision=fp32"])
    plan = plan_of(config)
    stage = plan.stages[-1]
    network = stage.network(plan.dataset_info, config["seed"])
    write_checkpoint(path, network_checkpoint(network, config["dataset"]))
    return path


@pytest.fixture(scope="module")
def digits_embedding(tmp_path_factory) -> Path:
    return untrained(tmp_path_factory.mktemp("digits") / "digits.ckpt", "dataset=digits_retrieval", "method=triplet")


@pytest.fixture
def cifar_embedding(tmp_path, small_sources) -> Path:
    return untrained(tmp_path / "cifar.ckpt", *CIFAR_EMBEDDING)


@pytest.fixture
def evaluated(ltr_eval, tmp_path):
    """Run ``ltr-eval``; the results as ``--json`` has them, and what was printed."""

    def command(*arguments: object) -> tuple[list[dict], str]:
        code, out, err = ltr_eval(*arguments, "--json", tmp_path / "found.json")
        assert code == 0, err
        assert not without_warnings(err)
        results = json.loads((tmp_path / "found.json").read_text())
        return (results if isinstance(results, list) else [results]), out

    return command


@pytest.fixture
def refused(ltr_eval, tmp_path):
    """Run ``ltr-eval`` with a mistake that leaves no files; returns the message."""

    def command(*arguments: object) -> str:
        code, out, err = ltr_eval(*arguments)
        assert code in (1, 2), (code, out, err)
        err = without_warnings(err)
        assert err.startswith("error: ")
        assert "Traceback" not in err
        assert "not a mistake that ltr foresees" not in err, err
        assert not list((tmp_path / "outputs").glob("evaluations/**/*"))
        return err

    return command


def without_warnings(err: str) -> str:
    """Remove the warnings that the miniatures of data sets are incomplete."""
    return "".join(line for line in err.splitlines(True) if not line.startswith("warning: "))


def evaluations(tmp_path: Path) -> list[Path]:
    return sorted(path.parent for path in (tmp_path / "outputs" / "evaluations").rglob("result.json"))


# -- what is left ---------------------------------------------------------------------------------------------------


def test_an_evaluation_writes_a_folder_that_reports_read(evaluated, finished_run, tmp_path, headline):
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}
    _, out = evaluated(finished_run, "evaluation.top_k=3", "figures=all")
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")} == before
    (folder,) = evaluations(tmp_path)
    assert out.strip().endswith(str(folder))
    again = read_run(folder)
    assert again.headline["metrics"]["accuracy"] == headline["accuracy"]
    assert again.result["run_hash"] != json.loads((finished_run / "result.json").read_text())["run_hash"]
    assert len(again.predictions["label"]) == 400
    assert again.per_class["accuracy"].shape == (10,)
    drawn = {path.name for path in (folder / "figures").iterdir()}
    assert {"accuracy_by_frequency.png", "training_curves.png"} <= drawn


def test_repeating_an_evaluation_replaces_its_folder(evaluated, finished_run, tmp_path):
    for _ in range(2):
        evaluated(finished_run)
    (folder,) = evaluations(tmp_path)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert not (folder / "figures").exists()


def test_a_failing_figure_leaves_no_partial_evaluation(ltr_eval, finished_run, tmp_path, monkeypatch):
    def fails(*arguments: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("ltr.report.figures.draw", fails)
    assert ltr_eval(finished_run, "figures=two")[0] == 1
    assert not list((tmp_path / "outputs").rglob("*.*"))


def test_the_report_of_outputs_leaves_evaluations_out_and_reads_them_when_named(evaluated, finished_run, tmp_path):
    from ltr.report.read_runs import finished_runs

    evaluated(finished_run)
    shutil.copytree(finished_run, tmp_path / "outputs" / "digits_lt" / "erm" / finished_run.name)
    assert len(finished_runs([tmp_path / "outputs"]).runs) == 1
    assert len(finished_runs([tmp_path / "outputs", tmp_path / "outputs" / "evaluations"]).runs) == 2


# -- several --------------------------------------------------------------------------------------------------------


def test_several_checkpoints_are_one_table_with_the_best_marked(
    evaluated, finished_run, tmp_path, headline, monkeypatch
):
    monkeypatch.setattr("ltr.report.comparison.limits_of", lambda runs: "")  # the runs of the tests are short
    other = untrained(tmp_path / "untrained.ckpt", "dataset.val=train_fraction")
    results, out = evaluated(finished_run, other)
    assert [one["rows"][0]["metrics"]["accuracy"] == headline["accuracy"] for one in results] == [True, False]
    table = out[out.index("digits_lt · closed_set") :]
    first, second = (next(x for x in table.splitlines() if x.startswith(name)) for name in ("erm-s0-", "untrained"))
    assert f"{100 * results[0]['rows'][0]['metrics']['balanced_accuracy']:.1f} *" in first
    assert f"{100 * results[1]['rows'][0]['metrics']['balanced_accuracy']:.1f} *" not in second
    assert len(evaluations(tmp_path)) == 2


def test_a_table_has_a_row_for_each_scorer(evaluated, tmp_path):
    both = [untrained(tmp_path / f"{seed}.ckpt", "dataset=digits_open", f"seed={seed}") for seed in (0, 1)]
    results, out = evaluated(*both, "evaluation.scorers=[energy,entropy]")
    assert [len(one["rows"]) for one in results] == [2, 2]
    assert set(re.findall(r"^\d\.ckpt \w+", out, re.MULTILINE)) == {
        f"{seed}.ckpt {scorer}" for seed in (0, 1) for scorer in ("energy", "entropy")
    }


def test_validation_images_have_a_table_too(evaluated, finished_run, tmp_path):
    other = untrained(tmp_path / "untrained.ckpt", "dataset.val=train_fraction")
    _, out = evaluated(finished_run, other, "--split", "val")
    assert ", val\n" in out
    assert "47 test images" in out


def test_nothing_is_evaluated_if_one_of_several_checkpoints_cannot_be(refused, finished_run, tmp_path, altered_file):
    err = refused(finished_run, altered_file, tmp_path)
    assert "holds no finished run" in err
    assert "altered.ckpt" in refused(finished_run, altered_file)
    err = refused(finished_run, tmp_path / "no", "typo", "evaluation.top_k=0")
    for words in ("no: there is no such run", "typo: there is no such run", "evaluation.top_k=0: allowed"):
        assert words in err


def test_an_unknown_argument_is_reported_with_a_lone_checkpoint_too(refused, altered_file, tmp_path):
    assert "typo: there is no such run directory" in refused(altered_file, "typo", "dataset=digits")


@pytest.fixture
def altered_file(finished_run, tmp_path) -> Path:
    (tmp_path / "altered.ckpt").write_bytes((finished_run / "checkpoints" / "final.ckpt").read_bytes()[:5000])
    return tmp_path / "altered.ckpt"


# -- stages ---------------------------------------------------------------------------------------------------------


def test_a_stored_stage_is_evaluated_by_its_folder(evaluated, finished_run, headline, refused, tmp_path):
    stages = finished_run.parents[2] / "stages"
    (stage,) = [path.parent for path in stages.glob("*/weights.ckpt")]
    results, _ = evaluated(stage)
    assert results[0]["rows"][0]["metrics"]["accuracy"] == headline["accuracy"]
    assert results[0]["config"]["trainer.max_epochs"] == 2
    shutil.rmtree(tmp_path / "outputs")
    computed = tmp_path / "computed"
    computed.mkdir()
    (computed / "stage.json").write_text("{}")
    assert "a stage that computed arrays" in refused(computed)


def test_a_run_older_than_scorers_is_evaluated_with_the_default_ones(finished_run):
    import yaml

    from ltr.configuration.reuse import with_overrides

    config = yaml.safe_load((finished_run / "config.yaml").read_text())
    del config["evaluation"]["scorers"]
    assert with_overrides(config, [])["evaluation"]["scorers"] == ["msp", "max_logit"]


# -- other data sets ------------------------------------------------------------------------------------------------


def test_a_config_names_another_data_set_while_the_network_comes_from_the_run(evaluated, finished_run, headline):
    results, _ = evaluated(finished_run, "dataset=digits", "evaluation.many_above=500")
    (row,) = results[0]["rows"]
    config = results[0]["config"]
    assert row["metrics"]["accuracy"] == headline["accuracy"]
    assert row["metrics"]["many"] is None
    assert (config["dataset.name"], config["trained_on.name"]) == ("digits", "digits_lt")
    assert config["trainer.max_epochs"] == 2


def test_an_embedding_is_evaluated_on_files_and_on_grey_arrays(evaluated, cifar_embedding):
    results, out = evaluated(cifar_embedding, "dataset=cub_retrieval", "trainer.num_workers=0")
    assert results[0]["config"]["dataset.image_size"] == 32
    assert 0 <= results[0]["rows"][0]["metrics"]["recall_at_1"] <= 1
    episodes = ["evaluation.episodes=3", "evaluation.way=2", "evaluation.shot=2"]
    results, out = evaluated(
        cifar_embedding, "dataset=digits_retrieval", "dataset.protocols=[retrieval,few_shot]", *episodes
    )
    assert "8 x 8 pixels are resized to 32 x 32, their one channel is repeated 3 times" in out
    assert [row["protocol"] for row in results[0]["rows"]] == ["retrieval", "few_shot"]
    assert results[0]["rows"][1]["metrics"]["episodes"] == 3


def test_images_have_the_size_that_is_requested(evaluated, cifar_embedding):
    _, out = evaluated(cifar_embedding, "dataset=digits_retrieval", "dataset.image_size=16")
    assert "resized to 16 x 16" in out


def test_teacher_and_student_are_compared_in_one_table_on_another_data_set(evaluated, digits_embedding, tmp_path):
    student = untrained(tmp_path / "student.ckpt", "dataset=digits_retrieval", "method=triplet", "seed=1")
    _, out = evaluated(digits_embedding, student, "dataset=digits_retrieval", "dataset.n_train=3")
    assert re.search(r"^checkpoint +n +R@1", out, re.MULTILINE)
    assert len(re.findall(r"^(digits|student)\.ckpt ", out, re.MULTILINE)) == 2


def test_open_set_runs_are_evaluated_at_their_validation_threshold(ltr_train, ltr_eval, tmp_path):
    done = ltr_train("debug=fast", "dataset=digits_open", "dataset.val=train_fraction")
    assert done.code == 0, done.err
    code, _, err = ltr_eval(done.directory, "--json", tmp_path / "out.json")
    assert code == 0, err
    again = json.loads((tmp_path / "out.json").read_text())["rows"]
    expected = [
        row for row in json.loads((done.directory / "result.json").read_text())["rows"] if row["split"] == "test"
    ]
    assert again == expected


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("has 10 classes", ["RUN", "dataset=digits_open"]),
        ("'nowhere'", ["RUN", "dataset=nowhere"]),
        ("evaluation does not depend on 'seed'", ["RUN", "dataset=digits", "seed=1"]),
        ("no such images", ["RUN", "dataset=digits_lt", "--split", "val"]),
        ("evaluation.scorers", ["RUN", "evaluation.scorers=[mps]"]),
        ("figures=some: allowed is one of: none, two, all", ["RUN", "figures=some"]),
        ("has no distance", ["OPEN", "evaluation.scorers=[distance]"]),
        ("needs logits; EmbeddingNetwork gives none", ["DIGITS", "dataset=digits"]),
        ("the network takes images of 1 channel, those of cifar100 have 3", ["DIGITS", "dataset=cifar100_retrieval"]),
        ("takes images of 1 channel", ["DIGITS", "dataset=cub_retrieval"]),
        ("episode needs", ["DIGITS", "dataset=digits_retrieval", "dataset.protocols=[few_shot]", "evaluation.way=9"]),
        ("weights.map=3: allowed is", ["RUN", "weights.map=3"]),
        ("there is no key 'weights.mop'", ["RUN", "weights.mop={a: b}"]),
        ("there is no such folder", ["RUN", "--config-dir", "nowhere"]),
        ("--config-dir: no word names a config of it", ["RUN", "--config-dir", ".", "evaluation.top_k=3"]),
        ("--config-dir: no word names a config of it", ["DIGITS", "--config-dir", "."]),
        ("checkpoints are of this project", ["RUN", "dataset=digits", "backbone=digits_net"]),
    ],
)
def test_invalid_evaluations_end_in_one_line_and_write_nothing(
    refused, small_sources, finished_run, digits_embedding, tmp_path, words, arguments
):
    places = {"RUN": finished_run, "DIGITS": digits_embedding}
    if "OPEN" in arguments:
        places["OPEN"] = untrained(tmp_path / "open.ckpt", "dataset=digits_open")
    assert words in refused(*(places.get(argument, argument) for argument in arguments))


def test_an_open_set_without_unknown_images_is_refused(refused, tmp_path):
    checkpoint = untrained(tmp_path / "open.ckpt", "dataset=digits_open", "dataset.n_known=9")
    assert "unknown" in refused(checkpoint, "dataset=digits_open", "dataset.n_known=9", "dataset.n_unknown=0")


# -- images that were trained on --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits_checkpoint(tmp_path_factory) -> Path:
    """A lone checkpoint of a run without validation images."""
    return untrained(tmp_path_factory.mktemp("digits") / "erm.ckpt", "dataset=digits_lt", "trainer.precision=fp32")


def overlap(result: dict) -> tuple[int, int]:
    return result["data"]["trained_on_images"], result["data"]["evaluated_images"]


def test_an_evaluation_of_training_images_alone_is_refused_unless_it_is_requested(
    refused, evaluated, digits_checkpoint
):
    arguments = (digits_checkpoint, "dataset=digits_lt", "dataset.val=train_fraction", "--split", "val")
    assert "all 47 evaluated images were trained on" in refused(*arguments)
    (result,), _ = evaluated(*arguments, "--allow-overlap")
    assert overlap(result) == (47, 47)


def test_training_images_among_the_evaluated_ones_are_counted(ltr_eval, digits_checkpoint, tmp_path):
    arguments = ("dataset=digits", "dataset.val=train_fraction", "--split", "val", "--json", tmp_path / "found.json")
    code, _, err = ltr_eval(digits_checkpoint, *arguments)
    assert code == 0, err
    trained, of = overlap(json.loads((tmp_path / "found.json").read_text()))
    assert 0 < trained < of
    assert f"warning: erm.ckpt: {trained} of the {of} evaluated images were trained on" in err


@pytest.mark.parametrize("arguments", [("--split", "val"), ("dataset=digits",)])
def test_held_out_images_do_not_count_as_training_images(evaluated, finished_run, arguments):
    (result,), _ = evaluated(finished_run, *arguments)
    assert overlap(result)[0] == 0


def test_overlap_is_counted_with_the_training_split_of_the_run(ltr_eval, finished_run, tmp_path):
    code, _, err = ltr_eval(finished_run, "--split", "val", "dataset.split_seed=5", "--json", tmp_path / "found.json")
    assert code == 0
    trained, of = overlap(json.loads((tmp_path / "found.json").read_text()))
    assert 0 < trained < of == 47
    assert f"{trained} of the 47 evaluated images were trained on" in err


def pets(tmp_path: Path, where: str = ".") -> tuple[Path, Path]:
    """A folder of images, and a checkpoint that was trained on it."""
    root = trees.folder(tmp_path / where, each=6)
    for number, path in enumerate(sorted(root.rglob("*.jpg"))):  # those of a class are drawn alike
        path.write_bytes(path.read_bytes() + bytes([number]))
    options = (f"dataset.root={root}", "dataset.name=pets", "dataset.image_size=16", "backbone=digits_net")
    return root, untrained(tmp_path / "pets.ckpt", "dataset=folder", *options)


def test_the_same_files_in_another_data_set_count_as_training_images(ltr_eval, tmp_path):
    root, checkpoint = pets(tmp_path)
    rows = [f"./images/{path.relative_to(root)},{path.parent.name},test" for path in sorted(root.rglob("*.jpg"))]
    for number, name in enumerate(("cat", "dog", "eel")):
        trees.put(tmp_path / "more" / f"{name}.jpg", number + 3)
        rows.append(f"more/{name}.jpg,{name},train")
    trees.lines(tmp_path / "t.csv", ["path,label,split", *rows])
    code, _, err = ltr_eval(checkpoint, "dataset=table", f"dataset.file={tmp_path / 't.csv'}")
    assert code == 0, err
    assert "15 of the 18 evaluated images were trained on" in err


@pytest.mark.parametrize("key", ["dataset.test_fraction", "dataset.source.test_fraction"])
def test_another_division_of_a_folder_is_compared_with_the_training_images(ltr_eval, tmp_path, key):
    _, checkpoint = pets(tmp_path)
    code, _, err = ltr_eval(checkpoint, "dataset.fraction=0.5")
    assert code == 2
    assert "what can be changed: " in err
    assert "dataset.test_fraction" in err
    assert "dataset.source.test_fraction" not in err
    code, _, err = ltr_eval(checkpoint, f"{key}=0.5")
    assert code == 0, err
    assert re.search(r"warning: pets.ckpt: 6 of the 9 evaluated images were trained on", err)


def test_moved_data_count_as_the_same_images(ltr_eval, tmp_path):
    root, checkpoint = pets(tmp_path, "one")
    root.rename(tmp_path / "moved")
    elsewhere = ("dataset=folder", f"dataset.root={tmp_path / 'moved'}", "dataset.name=pets")
    results = ltr_eval(checkpoint, *elsewhere, "dataset.val=train_fraction", "--split", "val")
    assert "all 3 evaluated images were trained on" in results[2]


def test_missing_training_data_are_reported(ltr_eval, tmp_path):
    root, checkpoint = pets(tmp_path, "one")
    root.rename(tmp_path / "moved")
    other = trees.folder(tmp_path / "two", ("train", "test"), each=3)
    code, _, err = ltr_eval(checkpoint, "dataset=folder", f"dataset.root={other}", "dataset.name=pets")
    assert code == 0, err
    assert "cannot determine whether evaluated images were trained on" in err


# -- foreign weights ------------------------------------------------------------------------------------------------


@pytest.fixture
def foreign(tmp_path, small_sources) -> tuple[Path, torch.nn.Module]:
    """A file in the layout of published ResNet-32 weights, and the network that it is of."""
    from ltr.models.cifar_resnet import CifarResNet

    torch.manual_seed(0)
    network = torch.nn.Sequential(CifarResNet(3, depth=32), torch.nn.Linear(64, 10)).eval()
    state = {f"module.{name}": tensor for name, tensor in network[0].state_dict().items()}
    state |= {f"module.linear.{name}": tensor for name, tensor in network[1].state_dict().items()}
    torch.save({"epoch": 200, "arch": "resnet32", "state_dict": state}, tmp_path / "ckpt.best.pth.tar")
    return tmp_path / "ckpt.best.pth.tar", network


@torch.no_grad()
def test_published_weights_are_evaluated_to_the_numbers_of_their_network(evaluated, foreign, tmp_path):
    from ltr.data.sources.cifar import cifar10

    file, network = foreign
    own = untrained(tmp_path / "own.ckpt", "dataset=cifar10", "backbone=resnet32")
    results, out = evaluated(
        file, own, "dataset=cifar10", "backbone=resnet32", "dataset.mean=[0,0,0]", "trainer.precision=fp32"
    )
    (folder,) = [path for path in evaluations(tmp_path) if path.parent.name == "foreign"]
    images = cifar10(root="").images[1200:]
    std = np.array([0.2023, 0.1994, 0.2010])
    unit = torch.tensor(images / 255 / std, dtype=torch.float32).permute(0, 3, 1, 2)
    assert (read_run(folder).predictions["prediction"] == network(unit).argmax(1).numpy()).all()
    assert results[0]["config"]["backbone.depth"] == 32
    assert "optimizer.lr" not in results[0]["config"]
    assert re.search(r"^ckpt\.best\.pth\.tar ", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("ltr-eval FILE dataset=CONFIG backbone=CONFIG", []),
        ("Add dataset=CONFIG", ["backbone=resnet32"]),
        ("Add backbone=CONFIG", ["dataset=cifar10", "weights.entry=state_dict"]),
        ("the data set has 100 classes", ["dataset=cifar100", "backbone=resnet32"]),
        ("unexpected in the file", ["dataset=cifar10", "backbone=resnet20"]),
        ("linear.bias [10]", ["dataset=cifar10", "backbone=resnet32", "head=cosine"]),
        ("no named tensors in an entry 'ema'", ["dataset=cifar10", "backbone=resnet32", "weights.entry=ema"]),
        ("begins with 'last'", ["dataset=cifar10", "backbone=resnet32", "weights.map={module.last: head}"]),
        ("backbone.deep", ["dataset=cifar10", "backbone=resnet32", "backbone.deep=3"]),
        ("allowed: m2m, sla, arpl", ["dataset=cifar10", "backbone=resnet32", "weights.map=m2n"]),
        ("not those of ARPL's code", ["dataset=cifar10", "backbone=resnet32", "weights.map=arpl"]),
        (
            "shortcut_padding is 'after'",
            ["dataset=cifar10", "backbone=resnet32", "backbone.shortcut_padding=after", "weights.map=akamaster"],
        ),
    ],
)
def test_foreign_weights_that_do_not_fit_are_reported_in_a_line(refused, foreign, words, arguments):
    assert words in refused(foreign[0], *arguments)


class Trap:
    """Object that creates a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_foreign_weights_are_never_unpickled(refused, tmp_path):
    torch.save({"state_dict": {"weight": Trap(str(tmp_path / "sprung"))}}, tmp_path / "trap.pth")
    assert "is refused" in refused(tmp_path / "trap.pth", "dataset=digits", "backbone=digits_net")
    assert not (tmp_path / "sprung").exists()


# -- pictures -------------------------------------------------------------------------------------------------------


def test_a_lone_checkpoint_has_a_figure_of_selected_locations(evaluated, tmp_path):
    checkpoint = untrained(tmp_path / "herbs.ckpt", "method=herbs", "method.width=8")
    evaluated(checkpoint, "figures=two")
    (folder,) = evaluations(tmp_path)
    with np.load(folder / "artifacts" / "examples.npz") as arrays:
        assert arrays["images"].shape == (16, 8, 8, 1)
        assert any(name.startswith("selected_") for name in arrays.files)
    assert (folder / "figures" / "selected_locations.png").is_file()


@pytest.mark.parametrize("where", [("dataset=digits",), ("dataset.imbalance_factor=2",)])
def test_classes_are_grouped_by_what_the_network_was_trained_on(evaluated, tmp_path, where):
    checkpoint = untrained(tmp_path / "tail.ckpt", "dataset=digits_lt")
    trained = plan_of(load_config(["dataset=digits_lt"])).dataset_info.class_counts
    _, out = evaluated(checkpoint, *where, "evaluation.prior=uniform", "evaluation.prior_of_scores=train")
    assert "classes are grouped by the training images of the network" in out
    table = pq.read_table(evaluations(tmp_path)[0] / "per_class.parquet")
    assert table["train_count"].to_pylist() == list(trained)


def test_classes_that_differ_are_named(refused, tmp_path):
    checkpoint = untrained(tmp_path / "a.ckpt", "dataset=digits")
    assert "the data set lacks 8, 9." in refused(checkpoint, "dataset=digits", "dataset.num_classes=8")


def test_the_same_classes_in_another_order_are_matched_by_name(evaluated, tmp_path):
    root = trees.folder(tmp_path, ("train", "test"), classes=[str(number) for number in range(9, 12)])
    table = tmp_path / "table.csv"
    files = sorted(root.rglob("*.jpg"))
    rows = [f"{file.relative_to(tmp_path)},{file.parent.name},{file.parts[-3]}" for file in files]
    trees.lines(table, ["path,label,split", *rows])
    common = ("backbone=digits_net", "dataset.image_size=16")
    checkpoint = untrained(tmp_path / "folder.ckpt", "dataset=folder", f"dataset.root={root}", *common)
    evaluated(checkpoint, "--allow-overlap")
    evaluated(checkpoint, "--allow-overlap", "dataset=table", f"dataset.file={table}")
    tables = [pq.read_table(folder / "per_class.parquet") for folder in evaluations(tmp_path)]
    assert [table["class_name"].to_pylist() for table in tables] == [["10", "11", "9"]] * 2
    assert tables[0]["accuracy"].to_pylist() == tables[1]["accuracy"].to_pylist()
