"""Former names of configs: each has a successor, which messages name, and old runs keep their rules."""

from __future__ import annotations

import pytest

from ltr.configuration.configs import conf_directory, read_config
from ltr.configuration.overrides import compose_config
from ltr.configuration.removed import REMOVED, current_name
from ltr.configuration.rules import read_rules
from ltr.errors import ConfigError

COPIED = """# The digits, copied from a version whose recipes were all named after their data set.
defaults:
  - base/long_tail
  - _self_
name: digits_lt
mean: [0.3]
std: [0.4]
beta: 0.999
source:
  _target_: ltr.data.sources.digits.digits
"""


@pytest.fixture
def own(tmp_path):
    """Write a user config; returns its folder."""

    def write(path: str, text: str) -> str:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        return str(tmp_path)

    return write


def test_a_removed_config_does_not_exist_and_its_successor_does():
    for group, names in REMOVED.items():
        for name, new in names.items():
            assert not (conf_directory() / group / f"{name}.yaml").exists()
            successor_group, _, successor = new.split()[0].partition("=")
            assert (conf_directory() / successor_group / f"{successor}.yaml").is_file()


def test_an_experiment_with_a_removed_data_set_is_refused_with_the_new_command(own):
    folder = own("experiment/mine.yaml", "# @package _global_\ndefaults:\n  - override /dataset: inat_bg_1_3\n")
    with pytest.raises(ConfigError) as error:
        compose_config(["experiment=mine"], folder)
    assert "no dataset 'inat_bg_1_3' any more. Write dataset=inat_bg_1 dataset.trial=3 instead" in str(error.value)


def test_a_user_data_set_named_like_a_removed_recipe_is_refused_with_the_line_to_add(own):
    folder = own("dataset/digits_lt.yaml", COPIED)
    with pytest.raises(ConfigError, match=r"'- override /recipe/shared@_global_\.recipe\.shared: digits'"):
        compose_config(["dataset=digits_lt"], folder)
    own("recipe/digits_lt.yaml", "# @package _global_\ntrainer:\n  max_epochs: 7\n")
    assert compose_config(["dataset=digits_lt"], folder).trainer.max_epochs == 7


def test_the_runs_of_a_removed_config_keep_its_rules():
    assert current_name("dataset", "inat_bg_1_3") == "inat_bg_1"
    assert current_name("dataset", "digits_lt") == "digits_lt"
    assert read_rules("dataset", {**read_config("dataset/inat_bg_1"), "name": "inat_bg_1_3"})["trial"] == "int [0, 9]"
