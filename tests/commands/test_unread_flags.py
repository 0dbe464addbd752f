"""Flags that the rest of a command line leaves without effect are refused before anything is read."""

from __future__ import annotations

import argparse
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from ltr.apply.acquisition import BY_CLASS, BY_DISTANCE, BY_SEED, STRATEGIES
from ltr.commands.arguments import Parser, parse_arguments
from ltr.configuration.command_line import SWITCHES, WITH_VALUE, read
from ltr.errors import ConfigError

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from command_reference import ROOT, parser_of

STRATEGY_FLAGS = {
    "--min-distance 0.1": BY_DISTANCE,
    "--seed 3": BY_SEED,
    "--budget 4": tuple(strategy for strategy in STRATEGIES if strategy not in BY_CLASS),
    "--class-budget a=4": BY_CLASS,
    "--top 3": STRATEGIES,
    "--few-below 3": STRATEGIES,
    "--group many": STRATEGIES,
    "--classes a": STRATEGIES,
}
REFUSED = [
    ("predict", "run images --format megadetector --scorer energy --out x.json", "--scorer"),
    ("predict", "run images --format camtrap_dp --scorer msp --out x.csv", "--scorer"),
    ("predict", "run images --format camtrap_dp --top 3 --out x.csv", "--top"),
    ("predict", "run images --min-confidence 0.5", "--min-confidence"),
    ("predict", "run images --category animal", "--category"),
    ("evaluate", "results --decide recall=0.9 --out o", "--out"),
    ("evaluate", "results --decide recall=0.9 --split test", "--split"),
    ("evaluate", "results --decide recall=0.9 --config-dir .", "--config-dir"),
    ("export", "run --hub h --onnx", "--onnx"),
    *(("mine", f"run images --out m --strategy margin --budget 4 {flag}", flag.split()[0])
      for flag in ("--classes a", "--group few", "--few-below 3", "--top 100")),
    ("mine", "run images --out m --classes a --group many", "--group"),
    ("mine", "run images --out m --group all --few-below 3", "--few-below"),
    ("mine", "run images --out m --strategy coreset --min-distance 0.1", "--min-distance"),
    ("mine", "run images --out m --strategy margin --seed 0", "--seed"),
    ("mine", "run images --out m --strategy margin --class-budget a=3", "--class-budget"),
    ("mine", "run images --out m --strategy probability --budget 3", "--budget"),
    ("mine", "run images --out m --features images --stages s", "--stages"),
    *(("report", f"--leaderboard results {flag}", flag.split()[0])
      for flag in ("--by name", "--level 0.9", "--figure-runs 3")),
    ("report", "--leaderboard results --add run --out x.html", "--out"),
    ("report", "--leaderboard results --add=run --format=html", "--format"),
    ("report", "--leaderboard results --check --format markdown", "--format"),
    ("report", "--leaderboard results --format table", "--format table"),
    ("report", "--leaderboard results --out x.png", "--out x.png"),
    *(("report", f"--leaderboard results {flag}", flag.split()[0])
      for flag in ("--metric few", "--dataset a", "--against best", "--curve seed", "--figures two", "--spread")),
    ("report", "--leaderboard results --check --add run", "--check"),
    ("report", "--check", "--check"),
    ("report", "--add run", "--add"),
    ("report", "--figure-runs 3", "--figure-runs"),
    ("report", "--pictures 3", "--pictures"),  # the former name
    ("report", "--level 0.95", "--level"),
    ("report", "--out x.png", "--spread"),
    ("report", "--out x.html", "--format html"),
    ("report", "--format html --out x.png", "--out x.png"),
    ("report", "--spread --figure-runs 3", "--figure-runs"),
    ("report", "--spread --out x.png --format csv", "--format"),
    ("report", "--spread --out x.png --level 0.9", "--level"),
    ("report", "--spread --curve seed", "--curve"),
    ("report", "--spread --figures two", "--figures"),
    ("dashboard", "--update URL --name N", "--name"),
    ("dashboard", "--update URL --no-report", "--no-report"),
    *(("dashboard", f"--print {flag}", flag.split()[0])
      for flag in ("--project p", "--entity e", "--name N", "--update URL", "--no-report")),
    *(("data", f"check digits {flag}", flag.split()[0])
      for flag in ("--by hash", "--distance 3", "--pairs-to x.csv")),
    ("data", "audit run --part test --part val --folds 5", "--folds"),
    ("data", "audit run --part test --seed 1", "--seed"),
    ("data", "pack digits --to x.pack --format raw --quality 80", "--quality"),
    ("data", "pack digits --to x.pack --format raw --qual=80", "--quality"),
]  # fmt: skip


# flags whose effect depends on the run or the data set; the tests of these commands refuse them
OF_RUNS = {"data check": {"--max-pixels"}}
# Flags of each command that every command line reads. Bounds of what a command uses (--workers), permissions
# (--allow, --allow-overlap, --root, --again) and places are read even where they change nothing.
ALWAYS = {
    "evaluate": "--json --allow-overlap --decide --allow",
    "stages": "--stages",
    **dict.fromkeys(("stages list", "stages show"), "--stages"),
    "stages prune": "--stages --older-than --keep-last --dry-run",
    "data list": "--config-dir",
    "data describe": "--out --config-dir --allow",
    "data check": "--exclude-to --duplicates --workers --config-dir --allow",
    "data pack": "--to --size --format --workers --max-pixels --config-dir --allow",
    "data import": "--to --config-dir --allow",
    "data audit": "--out --part --method --batch-size --workers --accelerator --allow",
    "predict": "--out --format --detections --views --root --exif --no-exif --batch-size --workers --accelerator "
    "--precision --allow",
    "mine": "--out --strategy --thumbnails --exclude --chunk --again --features --root --exif --no-exif --batch-size "
    "--workers --accelerator --precision --allow",
    "export": "--out --hub --allow",
    "report": "--leaderboard",
    "dashboard": "--print",
}
TRAIN_REFUSED = [
    ("--resolve", "--resolve"),
    ("--info plugins --package optimizer", "--package"),
    ("--multirun hydra.mode=RUN", "--multirun"),
    ("--run +sweep=optuna", "--run"),
    ("--run hydra.mode=MULTIRUN", "--run"),
    ("--shell-completion", "--shell-completion"),
    ("--cfg job -m", "--cfg"),
    ("--info -m", "--info"),
]
# the first three are answered at once, as everywhere
TRAIN_ALWAYS = "--help --version --hydra-help --config-name --config-path --config-dir --allow"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "outputs").mkdir()


def run(command: str, line: str) -> None:
    import_module(f"ltr.commands.{command}").main(line.split())


@pytest.mark.parametrize(("command", "line", "named"), REFUSED)
def test_a_flag_without_effect_is_refused(monkeypatch, command, line, named):
    monkeypatch.setattr("ltr.commands.mine.run_path", lambda path: path)
    with pytest.raises(ConfigError) as error:
        run(command, line)
    assert named in str(error.value)
    assert len(str(error.value).splitlines()) == 1  # no usage, as of a flag that there is none of


def commands() -> dict[str, set[str]]:
    """Return the flags of every command but ltr-train, by the name of its module and its subcommand."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    flags = {}
    for program in set(scripts) - {"ltr-train"}:
        name = {"ltr-eval": "evaluate"}.get(program, program.removeprefix("ltr-"))
        parsers = {name: parser_of(program)}
        for action in parsers[name]._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers |= {f"{name} {command}": parser for command, parser in action.choices.items()}
        for command, parser in parsers.items():
            flags[command] = {flag for action in parser._actions for flag in action.option_strings} - {"-h", "--help"}
    return {command: names for command, names in flags.items() if names or command in ALWAYS}


def test_every_flag_of_a_command_is_always_read_or_is_refused_somewhere():
    refused: dict[str, set[str]] = {}
    for command, line, named in REFUSED:
        name = f"{command} {line.split()[0]}" if command == "data" else command
        refused.setdefault(name, set()).add(named.split()[0])
    refused["mine"] |= {flag.split()[0] for flag in STRATEGY_FLAGS}
    for command, flags in OF_RUNS.items():
        refused[command] |= flags
    for command, flags in commands().items():
        always = set(ALWAYS[command].split())
        assert flags - always - refused.get(command, set()) == set(), command
        assert always <= flags, command


def test_every_flag_of_training_is_always_read_or_is_refused_somewhere():
    refused = {named for _, named in TRAIN_REFUSED}
    assert {*SWITCHES, *WITH_VALUE} == refused | set(TRAIN_ALWAYS.split())


@pytest.mark.parametrize(("line", "named"), TRAIN_REFUSED)
def test_a_flag_of_training_without_effect_is_refused(line, named):
    (mistake,) = read(line.split()).mistakes
    assert named in mistake.partition(":")[0]


@pytest.mark.parametrize(
    "command", ["list", "describe digits", "check digits", "pack digits --to x", "import digits --to x"]
)
def test_a_folder_of_configs_that_does_not_exist_is_refused(command):
    with pytest.raises(ConfigError, match=r"--config-dir nowhere: there is no such folder"):
        run("data", f"{command} --config-dir nowhere")


def test_the_number_of_each_class_is_refused_where_every_class_has_one(monkeypatch):
    import numpy as np

    from ltr.commands.mine import _select

    model = argparse.Namespace(class_names=["a", "b"], background=None)
    arguments = argparse.Namespace(
        strategy="margin_of_classes", top=3, class_budget=["a=1", "b=2"], budget=None, typed_flags={"top": "--top"}
    )
    monkeypatch.setattr("ltr.apply.acquisition.check_strategy", lambda *_, **__: None)
    with pytest.raises(ConfigError, match="--top: --class-budget sets the number of every class"):
        _select(arguments, model, None, np.arange(2), None, None, Path(), None)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("flag", STRATEGY_FLAGS)
def test_a_strategy_reads_a_flag_or_refuses_it(monkeypatch, strategy, flag):
    mined = []
    monkeypatch.setattr("ltr.commands.mine.run_path", lambda path: path)
    monkeypatch.setattr("ltr.commands.mine._mine", lambda arguments: mined.append(arguments) or 0)
    line = f"run images --out m --strategy {strategy} {flag}"
    if strategy in STRATEGY_FLAGS[flag]:
        run("mine", line)
        assert len(mined) == 1
    else:
        with pytest.raises(ConfigError, match=flag.split()[0]):
            run("mine", line)
        assert not mined


def test_only_the_flags_of_the_command_line_count():
    parser = Parser(prog="x")
    for flag in ("--out", "--top", "--to"):
        parser.add_argument(flag)
    parser.add_argument("words", nargs="*")
    arguments = parse_arguments(parser, ["--to=3", "--ou", "a", "--", "b"])
    assert arguments.typed_flags == {"to": "--to", "out": "--out"}


def test_decisions_that_a_format_has_no_columns_for_are_named(tmp_path, capsys):
    from argparse import Namespace

    from ltr.commands.predict import _report_unused_decisions

    checkpoint = tmp_path / "checkpoints" / "final.ckpt"
    _report_unused_decisions(Namespace(format="megadetector"), checkpoint)
    assert capsys.readouterr().err == ""
    (tmp_path / "decisions.json").touch()
    _report_unused_decisions(Namespace(format="megadetector"), checkpoint)
    assert "has no columns for the decisions of" in capsys.readouterr().err
