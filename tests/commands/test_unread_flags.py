"""Flags that the rest of a command line leaves without effect are refused before anything is read."""

from __future__ import annotations

from importlib import import_module

import pytest

from ltr.apply.acquisition import BY_CLASS, BY_DISTANCE, BY_SEED, STRATEGIES
from ltr.commands.arguments import Parser, parse_arguments
from ltr.errors import ConfigError

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
    *(("mine", f"run images --out m --strategy margin --budget 4 {flag}", flag.split()[0])
      for flag in ("--classes a", "--group few", "--few-below 3", "--top 100")),
    ("mine", "run images --out m --classes a --group many", "--group"),
    ("mine", "run images --out m --group all --few-below 3", "--few-below"),
    ("mine", "run images --out m --features images --stages s", "--stages"),
    *(("report", f"--leaderboard results {flag}", flag.split()[0])
      for flag in ("--by name", "--level 0.9", "--pictures 3")),
    ("report", "--leaderboard results --add run --out x.html", "--out"),
    ("report", "--leaderboard results --add=run --format=html", "--format"),
    ("report", "--leaderboard results --check --format markdown", "--format"),
    ("report", "--leaderboard results --out x.png", "--out x.png"),
    ("report", "--pictures 3", "--pictures"),
    ("report", "--out x.png", "--spread"),
    ("report", "--out x.html", "--format html"),
    ("report", "--format html --out x.png", "--out x.png"),
    ("report", "--spread --pictures 3", "--pictures"),
    ("report", "--spread --out x.png --format csv", "--format"),
    ("dashboard", "--update URL --name N", "--name"),
    ("dashboard", "--print --project p", "--project"),
    ("data", "pack digits --to x.pack --format raw --quality 80", "--quality"),
    ("data", "pack digits --to x.pack --format raw --qual=80", "--quality"),
]  # fmt: skip


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
