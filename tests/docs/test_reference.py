"""The references of configuration and commands: current, and complete."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import pytest
import typist

from ltr.configuration.command_line import SWITCHES, WITH_VALUE
from ltr.configuration.configs import config_names
from ltr.configuration.descriptions import PRIMARY, described, groups

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import command_reference
from configuration_reference import COLLECTIONS, PAGE, page

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_configuration_reference_is_up_to_date():
    assert page() == TEXT, "run python scripts/configuration_reference.py"


@pytest.mark.parametrize("group", groups())
def test_every_config_and_key_is_in_the_configuration_reference(group):
    section = TEXT.partition(f"\n## {group}\n")[2].partition("\n## ")[0]
    for name in config_names(group):
        assert f"| `{name}` | " in section
        keys = () if group in COLLECTIONS else described(group, name).keys
        assert [key.path for key in keys if f"| `{key.path}` | " not in section] == []


@pytest.mark.parametrize("group", ["", *(group for group in groups() if group not in COLLECTIONS)])
def test_every_key_has_a_meaning(group):
    configs = [described(group, name) for name in (config_names(group) if group else [PRIMARY])]
    keys = [key for config in configs for key in (*config.keys, *config.more)]
    assert [key.path for key in keys if not key.meaning] == []


def test_the_command_reference_is_up_to_date():
    text = command_reference.PAGE.read_text(encoding="utf-8")
    assert command_reference.page() == text, "run python scripts/command_reference.py"


def test_every_flag_is_in_the_command_reference():
    assert set(command_reference.TRAIN_FLAGS) == {*SWITCHES, *WITH_VALUE}
    sections = dict(re.findall(r"^## (ltr-\S+)\n(.*?)(?=^## |\Z)", command_reference.page(), re.MULTILINE | re.DOTALL))
    assert set(sections) == set(typist.PROJECT["scripts"])
    for name in set(sections) - {"ltr-train"}:
        actions = [one for one in command_reference.parser_of(name)._actions if one.help != argparse.SUPPRESS]
        flags = {flag for action in actions for flag in action.option_strings}  # without former names
        assert [flag for flag in flags - {"-h", "--help"} if f"`{flag}" not in sections[name]] == []
