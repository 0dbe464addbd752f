"""SLA, its baselines and the ensemble through the commands."""

from __future__ import annotations

import json

import pytest

SHORT = ["trainer.max_epochs=2", "trainer.precision=fp32", "optimizer.lr=0.05"]
DISTILLED = "method.self_distillation=true"
COMMANDS = {
    "sla": (["method=sla"], ["single", "aggregated"], "aggregated"),
    "sla_sd": (["method=sla", DISTILLED], ["single", "aggregated", "distilled"], "distilled"),
    "background": (["method=sla", "dataset=digits_bg"], ["single", "aggregated"], "aggregated"),
    "open_set": (["method=sla", "dataset=digits_open"], ["single", "aggregated"], "aggregated"),
    "data_augmentation": (["method=data_augmentation"], ["single", "aggregated"], "single"),
    "multi_task": (["method=multi_task"], ["single", "aggregated"], "single"),
    "ensemble": (["method=ensemble", "method.members=2"], ["ensemble", "single"], "ensemble"),
}
pytestmark = pytest.mark.slow


def on_test(result: dict) -> list[dict]:
    return [row for row in result["rows"] if row["split"] == "test"]


@pytest.mark.parametrize(("command", "variants", "headline"), COMMANDS.values(), ids=COMMANDS.keys())
def test_all_inferences_are_reported_and_a_checkpoint_gives_the_same_rows(
    ltr_train, ltr_eval, tmp_path, command, variants, headline
):
    done = ltr_train(*SHORT, *command)
    assert done.code == 0, done.err
    rows = on_test(done.result)
    assert list(dict.fromkeys(row["variant"] for row in rows)) == variants
    assert [row["variant"] for row in rows if row["headline"]] == [headline]
    code, _, err = ltr_eval(done.directory, "--json", tmp_path / "again.json", "trainer.precision=fp32")
    assert code == 0, err
    assert json.loads((tmp_path / "again.json").read_text())["rows"] == rows


@pytest.mark.parametrize("method", [["method=sla", DISTILLED], ["method=sla", "method.transform=rotation2"]])
def test_features_evaluate_few_shot_episodes_of_classes_that_were_not_trained_on(ltr_train, method):
    done = ltr_train(*SHORT, *method, "dataset=digits_retrieval", "dataset.protocols=[few_shot,retrieval]")
    assert done.code == 0, done.err
    rows = {(row["protocol"], row["variant"]): row["metrics"] for row in on_test(done.result)}
    assert {protocol for protocol, _ in rows} == {"few_shot", "retrieval"}
    accuracies = {metrics["accuracy"] for (protocol, _), metrics in rows.items() if protocol == "few_shot"}
    assert len(accuracies) == 1  # all inferences have the untransformed image's features
    assert accuracies.pop() > 0.4  # of five classes


def test_with_one_transformation_a_run_is_erms_to_the_bit(ltr_train, tmp_path):
    erm = ltr_train(*SHORT, outputs=tmp_path / "erm")
    sla = ltr_train(*SHORT, "method=sla", "method.transform=none", outputs=tmp_path / "sla")
    assert all(row["metrics"] == erm.headline for row in on_test(sla.result))


def test_the_ensembles_first_member_is_erms_network(ltr_train, tmp_path):
    store = f"paths.stages={tmp_path / 'stages'}"
    erm = ltr_train(*SHORT, store, outputs=tmp_path / "erm")
    done = ltr_train(*SHORT, store, "method=ensemble", "method.members=2", outputs=tmp_path / "ensemble")
    assert [stage["status"] for stage in done.result["stages"]] == ["reused", "trained", "trained"]
    (single,) = (row["metrics"] for row in on_test(done.result) if row["variant"] == "single")
    assert single == erm.headline


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("crt", ["method.classifier.epochs=2"]),
        ("lws", ["method.classifier.epochs=2", "method.representation.self_distillation=true"]),
        ("tau_norm", ["method.representation.self_distillation=true"]),
    ],
)
def test_decoupled_methods_start_from_an_sla_representation(ltr_train, method, more):
    done = ltr_train(*SHORT, f"method={method}", "+method@method.representation=sla", *more)
    assert done.code == 0, done.err
    assert done.result["stages"][0]["name"] == "representation"
    assert {row["variant"] for row in on_test(done.result)} == {"tau=1" if method == "tau_norm" else "default"}


def test_normalising_an_sla_representation_with_tau_zero_equals_the_single_pass(ltr_train, tmp_path):
    """tau=0 keeps the weights; with a head without bias it is then the network itself."""
    store = [f"paths.stages={tmp_path / 'stages'}", "head.bias=false"]
    sla = ltr_train(*SHORT, *store, "method=sla", "method.inference=single", outputs=tmp_path / "sla")
    nested = ["+method@method.representation=sla", "method.representation.inference=single"]
    tau = ltr_train(*SHORT, *store, "method=tau_norm", "method.tau=0", *nested, outputs=tmp_path / "tau")
    assert tau.result["stages"][0]["status"] == "reused"
    assert tau.headline["accuracy"] == sla.headline["accuracy"]
    assert tau.headline["nll"] == pytest.approx(sla.headline["nll"], rel=1e-5)


def test_transformations_that_the_data_do_not_allow_are_refused(ltr_train):
    done = ltr_train(*SHORT, "method=sla", "method.transform=colour")
    assert done.code == 2
    assert "three colour channels" in done.err
    assert "Traceback" not in done.err


def test_an_ensemble_cannot_be_a_representation(ltr_train):
    done = ltr_train(*SHORT, "method=ncm", "+method@method.representation=ensemble")
    assert done.code == 2
    assert "erm or sla" in done.err
