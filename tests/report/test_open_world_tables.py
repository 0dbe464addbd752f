"""Tables of runs under the background and open-set protocols, and of a sweep over published trials."""

from __future__ import annotations

import pytest

from ltr.report.sweep import Job, sweep_table
from ltr.report.table import plain_table

OPEN = {
    "closed_set_accuracy": 0.95,
    "auroc": 0.871,
    "oscr": 0.83,
    "open_macro_f1_validation": None,
    "threshold_validation": 7.0,
}
BACKGROUND = {"map": 0.5, "macro_f1": 0.25, "false_alarms_per_thousand": 12.5, "map_few": 0.1}


def result(protocol, metrics, **config):
    row = {"protocol": protocol, "split": "test", "selection": "last", "variant": "default", "scorer": "msp"}
    config = {"method.name": "erm", "dataset.name": "made_up", "seed": 0} | config
    return {"config": config, "rows": [row | {"headline": True, "metrics": metrics}], "stages": []}


def test_open_set_runs_show_the_papers_columns_in_percent():
    text = plain_table(result("open_set", OPEN)).splitlines()
    assert text[1].split() == ["split", "selection", "known", "AUROC", "OSCR"]
    assert text[2].split()[-3:] == ["95.0", "87.1", "83.0"]
    assert "as they are" not in text[-1]


def test_a_validation_threshold_has_a_column_if_there_is_one():
    assert "F1 val" in plain_table(result("open_set", OPEN | {"open_macro_f1_validation": 0.7}))


def test_false_alarms_are_not_a_percentage():
    text = plain_table(result("background", BACKGROUND)).splitlines()
    assert text[2].split()[-3:] == ["50.0", "25.0", "12.5"]
    assert "alarms ‰ as they are" in text[-1]


def job(number, trial, auroc, seed=0, method="erm"):
    config = {"dataset.trial": trial, "dataset.split.trial": trial, "seed": seed, "method.name": method}
    content = result("open_set", OPEN | {"auroc": auroc}, **config) | {"group_hash": f"{method}{trial}"}
    return Job(number, (f"dataset.trial={trial}", f"method={method}", f"seed={seed}"), content)


def test_trials_share_a_line_with_mean_and_standard_deviation():
    table = sweep_table([job(0, 0, 0.80), job(1, 1, 0.90), job(2, 0, 0.6, method="rpl"), job(3, 1, 0.6, method="rpl")])
    first, second = table.splitlines()[1:3]
    assert first.split()[:2] == ["method=erm", "2"]
    assert "85.0 ± 7.1" in first
    assert second.split()[:2] == ["method=rpl", "2"]
    assert "mean ± s.d. over seeds and trials" in table


def test_one_trial_is_averaged_over_seeds_only():
    table = sweep_table([job(0, 3, 0.80), job(1, 3, 0.90, seed=1)])
    assert "85.0 ± 7.1" in table
    assert "trials" not in table


@pytest.mark.parametrize("protocol", ["open_set", "background"])
def test_a_sweep_shows_the_columns_of_its_protocol(protocol):
    one = result(protocol, {"open_set": OPEN, "background": BACKGROUND}[protocol]) | {"group_hash": "a"}
    heading, line = sweep_table([Job(0, ("seed=0",), one)]).splitlines()[:2]
    assert ("AUROC" if protocol == "open_set" else "mAP") in heading
    assert ("12.5" in line) == (protocol == "background")
