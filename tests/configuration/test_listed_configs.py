"""Configs that are listed by name: allowed entries, and the content that replaces them."""

from __future__ import annotations

import pytest

from ltr.configuration.allowed import find_problem
from ltr.configuration.configs import config_names, read_config
from ltr.configuration.listed_configs import config_of, listed_names, reader, with_own
from ltr.configuration.overrides import load_config
from ltr.configuration.reuse import with_overrides
from ltr.configuration.targets import allow_packages
from ltr.errors import ConfigError

OWN = "_target_: mine.Scorer\nfactor: 2\n"


@pytest.fixture
def own_configs(tmp_path):
    """A user folder with a scorer, a protocol and a method that names the scorer."""
    for group, name, text in (
        ("scorer", "gap", OWN),
        ("protocol", "depth", "_target_: mine.Protocol\n"),
        ("method", "scored", "defaults: [erm]\nscorers: [gap, msp]\n"),
    ):
        (tmp_path / group).mkdir()
        (tmp_path / group / f"{name}.yaml").write_text(text)
    with allow_packages(["mine"]):
        yield str(tmp_path)


def evaluation(overrides, folder):
    return load_config(overrides, folder)["evaluation"]


def test_names_of_shipped_configs_are_unchanged(own_configs):
    assert evaluation(["evaluation.scorers=[energy,pytorch_ood.KNN]"], own_configs)["scorers"] == [
        "energy",
        "pytorch_ood.KNN",
    ]
    assert evaluation([], own_configs)["scorers"] == ["msp", "max_logit"]


def test_a_user_config_is_listed_under_its_name(own_configs):
    chosen = evaluation(["evaluation.scorers=[msp,gap]", "evaluation.extra_protocols=[depth]"], own_configs)
    assert chosen["scorers"] == ["msp", {"name": "gap", "_target_": "mine.Scorer", "factor": 2}]
    assert chosen["extra_protocols"] == [{"name": "depth", "_target_": "mine.Protocol"}]


def test_a_user_method_may_name_a_scorer_of_the_same_folder(own_configs):
    assert evaluation(["method=scored"], own_configs)["scorers"][0]["_target_"] == "mine.Scorer"


def test_user_scorers_are_found_when_a_run_is_evaluated_again(own_configs):
    config = load_config([])
    again = with_overrides(config, ["evaluation.scorers=[gap]"], config_dir=own_configs)
    assert again["evaluation"]["scorers"] == [{"name": "gap", "_target_": "mine.Scorer", "factor": 2}]


def test_a_user_config_replaces_the_shipped_one_of_its_name(tmp_path):
    (tmp_path / "scorer").mkdir()
    (tmp_path / "scorer" / "msp.yaml").write_text(OWN)
    read = reader("scorer", str(tmp_path))
    assert with_own("scorer", ["msp", "energy"], read) == [
        {"name": "msp", "_target_": "mine.Scorer", "factor": 2},
        "energy",
    ]


@pytest.mark.parametrize("text", ["- a\n", "{", "7"])
def test_a_file_that_is_not_a_config_is_named(tmp_path, text):
    (tmp_path / "scorer").mkdir()
    (tmp_path / "scorer" / "gap.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"gap\.yaml"):
        reader("scorer", str(tmp_path))("gap")


@pytest.mark.parametrize(
    "entry", ["msp", "pytorch_ood.ViM", {"_target_": "mine.Scorer"}, {"_target_": "mine.Scorer", "name": "gap"}]
)
def test_allowed_entries_pass(entry):
    assert find_problem([entry], "configs of scorer") is None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (["mps"], "allowed is one of: .*Did you mean 'msp'"),
        (["../scorer/msp"], "allowed is one of"),
        (["pytorch_ood"], "allowed is one of"),
        (["pytorch_ood.*"], "allowed is one of"),
        (["energy.KNN"], "allowed is one of"),
        ([7], "allowed is one of"),
        ([{"name": "gap"}], "needs a _target_"),
        ("msp", r"a list is needed, such as \[msp\]"),
        (None, "a list is needed"),
    ],
)
def test_other_entries_are_refused(value, reason):
    import re

    assert re.search(reason, find_problem(value, "configs of scorer") or "")


def test_null_passes_if_the_rule_allows_it():
    assert find_problem(None, "configs of protocol or null") is None


@pytest.mark.parametrize("group", ["scorer", "protocol"])
def test_every_shipped_config_is_listed_and_has_a_target(group):
    assert len(listed_names(group)) == len(config_names(group)) > 4
    for name in config_names(group):
        assert read_config(f"{group}/{name}")["_target_"].startswith("ltr.evaluation.")


def test_an_unknown_name_is_refused_with_the_list_of_names():
    with pytest.raises(ConfigError, match=r"no protocol 'closd_set'. Did you mean 'closed_set'. There are: .*_target_"):
        config_of("protocol", "closd_set")
