"""``ltr-train --help``: every group, config and key, in lines that fit the terminal."""

from __future__ import annotations

import functools
import re
import subprocess
import sys

import pytest

from ltr.cli import train_main
from ltr.commands.help import help_text
from ltr.configuration.configs import conf_directory, config_names, read_config
from ltr.configuration.descriptions import described, groups
from ltr.errors import ConfigError

GROUPS = groups()
CONFIGS = [f"{group.name}/{name}" for group in GROUPS.values() for name in group.configs]
WIDTHS = (60, 80, 120)


@pytest.fixture
def configs_are_read_once(monkeypatch):
    """Let all helps of a test share one list of the groups and their configs."""
    monkeypatch.setattr("ltr.commands.help.groups", functools.cache(groups))


@functools.cache
def unwrapped_words(topic: tuple[str, ...]) -> set[str]:
    """Return the words of a help that has all the width that it needs."""
    return words(help_text(topic, width=1000))


@pytest.fixture
def shown(capsys):
    """Run ``ltr-train`` with these arguments alone; returns what it printed."""

    def command(*arguments: str) -> str:
        assert train_main([*arguments]) == 0
        return capsys.readouterr().out

    return command


def topics() -> list[list[str]]:
    return [[], ["train"], *([group] for group in GROUPS), *([config] for config in CONFIGS)]


def words(text: str) -> set[str]:
    return set(text.split())


def test_the_help_is_one_screen(shown, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = shown("--help")
    assert len(text.splitlines()) <= 55
    assert sum(line.startswith("  ltr-train ") for line in text.splitlines()) == 3
    for name in (*GROUPS, "ltr-eval", "ltr-report", "ltr-data", "--allow PREFIX", "docs/index.md"):
        assert name in text


def test_every_folder_of_configs_is_a_group_of_the_help():
    folders = {
        str(path.parent.relative_to(conf_directory()))
        for path in conf_directory().rglob("*.yaml")
        if path.parent != conf_directory() and path.parent.name != "base"
    }
    assert set(GROUPS) == folders
    assert all(group.meaning and group.default for group in GROUPS.values())


def test_the_help_names_the_default_configs():
    defaults = {
        group: str(name).replace("None", "null")
        for entry in read_config("train")["defaults"]
        if isinstance(entry, dict)
        for group, name in entry.items()
        if "/" not in group.replace("recipe/shared", "") and "@" not in group and "$" not in str(name)
    }
    assert {name: GROUPS[name].default for name in defaults} == defaults


@pytest.mark.usefixtures("configs_are_read_once")
@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal_and_no_word_is_broken(width):
    for topic in topics():
        text = help_text(topic, width=width)
        assert max(map(len, text.splitlines())) <= width, topic
        assert words(text) == unwrapped_words(tuple(topic)), topic


@pytest.mark.parametrize("group", GROUPS)
def test_the_help_on_a_group_lists_every_config_with_its_first_comment_line(group):
    text = " ".join(help_text([group], width=80).split())
    for name in config_names(group):
        lines = (conf_directory() / group / f"{name}.yaml").read_text().splitlines()
        first = next(line for line in lines if line.startswith("# ") and not line.startswith("# @"))
        assert f"{name} {' '.join(first[2:].split())}" in text


@pytest.mark.parametrize("flag", ["loss/ldam", "loss=ldam", "+loss=ldam"])
def test_the_help_on_a_config_has_default_rule_and_meaning_of_every_key(shown, flag):
    text = " ".join(shown(flag, "--help").split())
    assert "It chooses head=cosine" in text
    assert "loss.max_margin = 0.5 allowed: [0, inf)" in text
    assert "loss.scale = head.scale, else 1.0" in text
    assert "loss.reduction = weight_sum allowed: batch, weight_sum" in text
    assert {key.path for key in described("loss", "ldam").keys} == {
        f"loss.{key}" for key in read_config("loss/ldam") if key not in ("defaults", "_target_", "_allowed_")
    }


def test_a_methods_keys_are_explained_by_its_declaration():
    text = " ".join(help_text(["method/m2m"], width=80).split())
    assert "method.beta = 0.999 allowed: [0, 1) Base of the acceptance probability" in text
    assert ".md" not in text


def test_the_keys_of_the_local_launcher_are_listed():
    text = " ".join(help_text(["launcher/local"], width=80).split())
    assert "hydra.launcher.n_jobs = auto allowed: int [1, inf) or auto jobs at a time" in text
    assert "hydra.launcher.jobs_per_gpu = 2 allowed: int [1, inf)" in text


def test_options_left_at_their_defaults_are_listed_separately():
    _, _, further = help_text(["augment/none"], width=80).partition("Further options")
    assert "+augment.files=VALUE" in further
    assert "augment.cutout" not in further


def test_a_key_is_a_topic_too():
    assert help_text(["trainer.max_epochs"], width=80).splitlines()[0] == "A key of trainer=default"
    assert help_text(["loss.max_margin=1"], width=80).splitlines()[0] == "A key of loss=ldam"
    assert help_text(["hydra.launcher.threads=2"], width=80).splitlines()[0] == "A key of launcher=local"
    assert help_text(["seed=3"], width=80).splitlines()[0] == "A key of the top level"


def test_configs_of_the_user_are_listed_and_explained(shown, tmp_path):
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text(
        "# My loss.\n_target_: mine.Loss\nwidth: 3  # how wide\n_allowed_:\n  width: 'int [1, inf)'\n"
    )
    assert "mine" in shown("--config-dir", str(tmp_path), "--help", "loss")
    text = shown("--config-dir", str(tmp_path), "--help", "loss/mine")
    assert "loss.width = 3\n    allowed: int [1, inf)\n    how wide" in text


@pytest.mark.parametrize(
    ("topic", "first"),
    [
        ("mehtod", "did you mean method?"),
        ("lr", "did you mean optimizer.lr?"),
        ("Method", "did you mean method?"),
        ("cRT", "did you mean method/crt?"),
        ("ldam", "did you mean loss/ldam or scheduler/ldam?"),
        ("loss/LDAM", "did you mean loss/ldam?"),
        ("loss/lda", "did you mean loss/ldam?"),
        ("qqqq", "there is no such group"),
    ],
)
def test_the_answer_to_an_unknown_topic_begins_with_the_nearest_name(refused, topic, first):
    done = refused("--help", topic)
    assert done.code == 2
    assert " ".join(done.err.split()).startswith(f"error: --help {topic}: {first}")


def test_an_unknown_topic_fits_the_terminal():
    with pytest.raises(ConfigError) as error:
        help_text(["experiment/nothing"], width=60)
    assert max(map(len, str(error.value).splitlines())) <= 60


def test_the_help_of_hydra_still_works(shown):
    assert "--cfg,-c" in shown("--hydra-help")


def test_the_help_imports_neither_hydra_nor_anything_heavy():
    code = (
        "import sys; from ltr.cli import train_main; train_main(['--help', 'loss/ldam']); "
        "sys.exit(bool({'hydra', 'torch', 'numpy', 'omegaconf'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.usefixtures("configs_are_read_once")
def test_control_characters_of_config_files_are_escaped_in_the_help():
    for config in CONFIGS:
        text = help_text([config], width=80)
        assert not re.search(r"\$\{(oc\.|of_weights)|``|\]\([^)]*\.md|@package", text), config
