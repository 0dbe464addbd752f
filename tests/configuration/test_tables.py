"""Rows of tables and their published numbers; private keys stay private."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ltr.configuration.configs import conf_directory, leaves, mappings, without_private
from ltr.configuration.overrides import load_config
from ltr.configuration.tables import TableRow, chosen_rows, narrowed, table_rows
from ltr.configuration.targets import check_arguments, instantiate
from ltr.errors import ConfigError
from ltr.runs.keys import group_hash, run_hash

HYDRAS_OWN = ("_target_",)
ROWS = table_rows()


@pytest.fixture
def own_configs(tmp_path):
    """Write a user's configs; return the folder."""

    def write(**configs: str) -> str:
        (tmp_path / "experiment").mkdir(exist_ok=True)
        for name, text in configs.items():
            (tmp_path / "experiment" / f"{name}.yaml").write_text(text)
        return str(tmp_path)

    return write


def test_the_table_cifar_lt_has_the_rows_of_both_cifars():
    configs = {
        table: {row.config for row in chosen_rows([table])} for table in ("cifar_lt", "cifar10_lt", "cifar100_lt")
    }
    assert configs["cifar_lt"] == configs["cifar10_lt"] | configs["cifar100_lt"]
    methods = [
        {config.removeprefix(f"{table}_") for config in configs[table]} for table in ("cifar10_lt", "cifar100_lt")
    ]
    assert methods[0] == methods[1]
    assert {"erm", "crt", "lws", "tau_norm", "ncm", "posthoc_la", "ldam_drw"} <= methods[0]


def test_patterns_over_tables_and_single_configs_are_accepted():
    assert chosen_rows(["cifar1*_lt"]) == chosen_rows(["cifar10_lt", "cifar100_lt"])
    assert [row.config for row in chosen_rows(["cifar10_lt_erm"])] == ["cifar10_lt_erm"]


def test_rows_are_sorted_by_published_accuracy_with_unpublished_ones_last():
    numbers = [row.published for row in chosen_rows(["cifar10_lt"])]
    known = [number for number in numbers if number is not None]
    assert known == sorted(known)
    assert numbers[len(known) :] == [None] * (len(numbers) - len(known))


def test_an_unknown_table_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"cifar10_l: neither a table nor an experiment.*Did you mean 'cifar10_lt'"):
        chosen_rows(["cifar10_l"])


@pytest.mark.parametrize(("pattern", "configs"), [("*_a", ["x_a"]), ("x", ["x_a", "x_b"]), ("_b", ["x_b"])])
def test_rows_are_narrowed_by_a_pattern_or_a_part_of_their_name(pattern, configs):
    assert [row.config for row in narrowed([TableRow("x_a"), TableRow("x_b")], pattern)] == configs


def test_a_config_name_selects_that_config_only():
    rows = [TableRow("x"), TableRow("x_a")]
    assert narrowed(rows, "x") == rows[:1]
    assert narrowed(rows[1:], "x") == rows[1:]


def test_a_pattern_that_fits_nothing_is_refused():
    with pytest.raises(ConfigError, match="no row fits 'y'; there are: x_a"):
        narrowed([TableRow("x_a")], "y")


def test_user_configs_form_a_table_and_override_shipped_ones(own_configs):
    folder = own_configs(mine="_table_: [my_table]\n", cifar10_lt_erm="_table_: [my_table]\n")
    assert [row.config for row in chosen_rows(["my_table"], folder)] == ["cifar10_lt_erm", "mine"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("_table_: mine\n", "_table_ is 'mine'; a list of names is needed"),
        ("_published_: 70.3\n", "_published_ is 70.3"),
        ("_published_: {accuracy: 0.703, source: a}\n", "in percent"),
        ("_published_: {accuracy: 70.3}\n", "source: TEXT"),
        ("_published_: {auroc: 70.3, oscr: 60.1, source: a}\n", "one of the metrics accuracy, auroc, map, recall_at_1"),
        ("_table_: [\n", "cannot be read"),
    ],
)
def test_wrong_private_keys_of_a_config_are_refused(own_configs, text, words):
    with pytest.raises(ConfigError) as refused:
        table_rows(own_configs(mine=text))
    assert words in str(refused.value)
    assert "mine.yaml" in str(refused.value)


def test_a_published_number_may_be_of_another_metric_than_the_accuracy(own_configs):
    (row,) = chosen_rows(["t"], own_configs(mine="_table_: [t]\n_published_: {auroc: 82.7, source: a}\n"))
    assert (row.metric, row.published, row.source) == ("auroc", 82.7, "a")


LISTED = "row,table,metric,value,source,verified\n"


def test_a_user_table_is_listed_like_the_shipped_ones(own_configs):
    folder = own_configs(mine="# Mine.\nname: mine\n", other="# Other.\nname: other\n")
    text = 'mine,t u,accuracy,70.36,"a paper, Table 2",read in the paper\nother,t,,,,\n'
    Path(folder, "published.csv").write_text(LISTED + text)
    mine, other = chosen_rows(["t"], folder)
    assert (mine.config, mine.tables, mine.published, mine.metric) == ("mine", ("t", "u"), 70.36, "accuracy")
    assert mine.citation == "a paper, Table 2; read in the paper"
    assert (other.config, other.published, other.source) == ("other", None, "")
    assert [row.config for row in chosen_rows(["u"], folder)] == ["mine"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("mine,t,accuracy,70.3,a paper,read\nmine,t,,,,\n", "line 3: row=mine appears twice"),
        ("mien,t,,,,\n", "line 2: row=mien: there is no experiment of this name. Did you mean 'mine'?"),
        ("mine,t,accuracy,70.3,,\n", "only metric, value; metric, value, source and verified are given together"),
        ("mine,t,top1,70.3,a,b\n", "metric=top1: allowed is one of: accuracy, auroc, map, recall_at_1"),
        ("mine,t,accuracy,0.703,a,b\n", "value=0.703: a number in percent is needed"),
        ("mine,t,accuracy,many,a,b\n", "value=many: a number in percent is needed"),
        ("mine,t,accuracy\n", "in a line of 6 cells each"),
        ("mine,t,accuracy,70.3,a,b,c\n", "in a line of 6 cells each"),
        ('mine,t,accuracy,70.3,"a,b\n', "cannot be read"),
    ],
)
def test_a_wrong_line_of_published_numbers_is_refused(own_configs, lines, words):
    folder = own_configs(mine="# Mine.\nname: mine\n")
    Path(folder, "published.csv").write_text(LISTED + lines)
    with pytest.raises(ConfigError) as refused:
        table_rows(folder)
    assert words in str(refused.value)
    assert "published.csv" in str(refused.value)


def test_every_shipped_experiment_is_a_row_of_some_table():
    assert [row.config for row in ROWS if not row.tables] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.config)
def test_a_shipped_experiment_repeats_no_published_number(row):
    text = (conf_directory() / "experiment" / f"{row.config}.yaml").read_text()
    assert not {"_table_", "_published_"} & set(yaml.safe_load(text))
    assert row.published is None or not re.search(rf"(?<![\d.]){row.published:g}\d?(?![\d.])", text)


def test_shipped_configs_have_no_private_keys_but_their_rules():
    for path in conf_directory().rglob("*.yaml"):
        for where, node in mappings(yaml.safe_load(path.read_text()) or {}):
            private = {key for key in node if re.fullmatch(r"_\w+_", str(key))} - {"_self_"}
            assert private <= {"_allowed_", *HYDRAS_OWN}, f"{path}: {where}"


def test_private_keys_reach_neither_identity_nor_result_nor_target(own_configs):
    node = "# @package _global_\nname: mine\nloss:\n  _published_: {{accuracy: {0}, source: a}}\n"
    node += "_table_: [t{0}]\n_published_: {{accuracy: {0}, source: a}}\n"
    folder = own_configs(one=node.format(10), two=node.format(20), three="# @package _global_\nname: mine\n")
    configs = [load_config([f"experiment={name}"], folder) for name in ("one", "two", "three")]
    assert configs[0]["_table_"] == ["t10"]
    assert len({run_hash(config) for config in configs}) == 1
    assert len({group_hash(config) for config in configs}) == 1
    assert "_published_" not in str(without_private(configs[0]))
    assert "_published_" not in str(dict(leaves(configs[0])))
    assert check_arguments(configs[0]) == []
    instantiate(configs[0]["loss"], [3, 2, 1])
