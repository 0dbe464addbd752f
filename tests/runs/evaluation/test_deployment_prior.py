"""``evaluation.prior``: which prior the scores hold, files of priors, rows of results."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from ltr.errors import ConfigError, DataError
from ltr.runs.evaluation.deployment_prior import deployment_prior, evaluation_of, prior_of_scores

NAMES = ("owl", "jay", "kite")
COUNTS = np.array([6, 3, 1])
SHORT = ("dataset=digits_lt", "trainer.max_epochs=1")


def config(loss="CrossEntropy", sampler="Instance", method="erm", **options):
    return {
        "loss": {"_target_": f"ltr.losses.classification.{loss}", **options.pop("loss_options", {})},
        "sampler": {"_target_": f"ltr.data.sampling.samplers.{sampler}"},
        "method": {"name": method, **options},
        "evaluation": {"prior": "uniform"},
    }


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (config(), "train"),
        (config(sampler="ClassBalanced"), "uniform"),
        (config("BalancedSoftmax"), "uniform"),
        (config("LogitAdjusted", loss_options={"tau": 1.0}), "uniform"),
        (config("LogitAdjusted", loss_options={"tau": 0.5}), None),
        (config("BalancedSoftmax", loss_options={"defer_from": 0.8}), None),
        (config("BalancedSoftmax", sampler="ClassBalanced"), None),
        (config("FocalSoftmax"), None),
        (config(method="posthoc_la", tau=1.0), "uniform"),
        (config(method="posthoc_la", tau="auto"), None),
        (config(method="tau_norm", tau=1.0), None),
        (
            config("LDAM", method="crt", classifier=config(sampler="ClassBalanced")),
            "uniform",
        ),
    ],
)  # fmt: skip
def test_the_prior_of_the_scores_follows_from_loss_sampler_and_method_or_is_requested(of, expected):
    assert prior_of_scores(of) == expected
    if expected is None:
        with pytest.raises(ConfigError, match="Set evaluation"):
            evaluation_of(of)
    else:
        assert evaluation_of(of)["prior_of_scores"] == expected


def test_a_file_gives_weights_by_name(tmp_path):
    file = tmp_path / "prior.csv"
    file.write_text("class,weight\nkite,5\nowl,1\njay,4\n")
    assert deployment_prior(str(file), COUNTS, NAMES).tolist() == [0.1, 0.4, 0.5]
    assert deployment_prior("train", COUNTS, NAMES).tolist() == [0.6, 0.3, 0.1]
    assert deployment_prior("uniform", COUNTS, NAMES).tolist() == [1 / 3] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no such file"),
        ("class,weight\nowl,1\njay,1\n", "no weight for 'kite'"),
        ("class,weight\nowl,1\njay,1\nkite,1\nemu,1\n", "the class 'emu'"),
        ("class,weight\nowl,1\njay,1\nkite,1\nowl,1\n", "a class twice"),
        ("class,weight\nowl,much\n", "cannot be read"),
        ("name,n\nowl,1\n", "cannot be read"),
    ],
)
def test_a_file_that_is_not_a_prior_is_refused(tmp_path, text, message):
    file = tmp_path / "prior.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DataError, match=message):
        deployment_prior(str(file), COUNTS, NAMES)


def test_a_prior_adds_rows_and_changes_no_existing_row(ltr_train, tmp_path):
    plain = ltr_train(*SHORT, outputs=tmp_path / "a")
    adjusted = ltr_train(*SHORT, "evaluation.prior=uniform", outputs=tmp_path / "b")
    assert adjusted.code == 0, adjusted.err
    rows = [row for row in adjusted.result["rows"] if row["protocol"] == "label_shift"]
    assert [row["scorer"] for row in rows][:2] == ["test", "forward_50"]
    assert [row for row in adjusted.result["rows"] if row not in rows] == plain.result["rows"]
    unadjusted = next(row for row in rows if row["scorer"] == "test")["metrics"]["unadjusted_accuracy"]
    assert unadjusted == plain.headline["accuracy"]


def test_a_method_whose_scores_hold_an_unknown_prior_is_refused_before_training(ltr_train):
    done = ltr_train(*SHORT, "evaluation.prior=uniform", "loss=focal_softmax")
    assert done.code != 0
    assert "evaluation.prior_of_scores=train" in done.err
    assert "Traceback" not in done.err


def test_a_prior_without_the_closed_set_protocol_is_refused(ltr_train):
    done = ltr_train("dataset=digits_open", "trainer.max_epochs=1", "evaluation.prior=uniform")
    assert done.code != 0
    assert "a class prior is for closed_set only" in done.err


def test_a_sigmoid_loss_is_refused_before_training(ltr_train):
    done = ltr_train(*SHORT, "loss=focal_sigmoid", "evaluation.prior=uniform", "evaluation.prior_of_scores=train")
    assert done.code == 2
    assert "softmax" in done.err
    assert "epoch" not in done.out


def test_a_file_from_a_spreadsheet_is_read(tmp_path):
    file = tmp_path / "prior.csv"
    decomposed = unicodedata.normalize("NFD", "Käuzchen")
    file.write_text(f"class;weight\n{decomposed};3\njay;1\n", encoding="utf-8-sig")
    prior = deployment_prior(str(file), np.array([5, 5]), ("Käuzchen", "jay"))
    assert prior.tolist() == [0.75, 0.25]
