"""Run the documentation's commands in this process.

A command that runs anywhere is run: ``ltr-train`` for two batches of an epoch (a sweep's runs are planned), everything
else as it stands. One that says what it needs is planned on small stand-ins of the data sets (``ltr-train``), or has
its arguments parsed. An unknown program is an error.
"""

from __future__ import annotations

import argparse
import logging
import re
import runpy
import sys
import tomllib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from packaging.requirements import Requirement

from ltr.configuration.command_line import read
from ltr.configuration.overrides import load_config
from ltr.configuration.targets import allow_packages, check_arguments
from ltr.runs.plan import plan_of
from manual_pages import ROOT, Command

WITHOUT_STAND_IN = ("inat_bg",)  # of published classes, which the miniature lacks
StandIns = Callable[[], AbstractContextManager[None]]  # within it, data sets are small stand-ins

TINY = (
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
    "scheduler=constant",
    "figures=none",
    "callbacks.progress=none",
    "trainer.num_workers=0",
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FLAGS_OF_TORCHRUN = re.compile(r"--(nproc-per-node|nnodes|rdzv-backend|rdzv-endpoint|rdzv-id|max-restarts)")


def tiny(arguments: list[str]) -> list[str]:
    """Return the overrides that make a command short; a command that chooses a schedule keeps it."""
    chosen = any(argument.startswith("scheduler=") for argument in arguments)
    return [override for override in TINY if not (chosen and override.startswith("scheduler="))]


class Parsed(BaseException):
    """Signal that a program's arguments are valid; no Exception, so that no program handles it."""


def type_in(command: Command, stand_ins: StandIns) -> None:
    """Run a command, or check that it could run; commands of several pages run once."""
    if command in _typed:
        return
    program, arguments = command.words[0], list(command.words[1:])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in command.environment:
            patch.setenv(name, value)
            if name == "PYTHONPATH":
                patch.syspath_prepend(str(Path(value).resolve()))
        if program in PROJECT["scripts"]:
            of_the_project(program, arguments, command.needs, stand_ins)
        elif program == "python" and arguments[0].startswith("scripts/"):
            script(arguments)
        elif program.startswith("scripts/"):
            script([program, *arguments])
        elif program in OTHERS:
            OTHERS[program](arguments, stand_ins)
        else:
            pytest.fail(f"'{command}': unknown program '{program}'; tests/docs/typist.py lists the known ones")
    if program == "ltr-train" and not command.environment:  # needs no files of the page, and leaves none that it needs
        _typed.add(command)


_typed: set[Command] = set()


def forget() -> None:
    """Forget which commands have run, for a page whose later commands need the files of earlier ones."""
    _typed.clear()


def of_the_project(program: str, arguments: list[str], needs: str, stand_ins: StandIns) -> None:
    if "--help" in arguments:
        assert entry_point(program, arguments) == 0
    elif needs and program != "ltr-train":
        parse(lambda: entry_point(program, arguments))
    elif needs:
        with stand_ins():
            plan(arguments)
    elif program == "ltr-train" and read(arguments).sweep and "+sweep=optuna" not in arguments:
        plan(arguments)
    else:
        code = entry_point(program, [*arguments, *(tiny(arguments) if program == "ltr-train" else [])])
        assert code == 0, f"{program} ended with exit code {code}"


def plan(arguments: list[str]) -> None:
    """Check everything that ``ltr-train`` checks before it trains.

    Of a sweep, each value of each key is planned once, with the others' first.
    """
    line = read(arguments)
    assert not line.mistakes, line.mistakes
    parsed = OverridesParser.create().parse_overrides(line.overrides)
    values = [
        [f"{o.input_line.partition('=')[0]}={value}" for value in o.sweep_string_iterator()]
        if o.is_choice_sweep()
        else [o.input_line]
        for o in parsed
    ]
    first = [options[0] for options in values]
    chosen = [first] + [[*first[:i], other, *first[i + 1 :]] for i, o in enumerate(values) for other in o[1:]]
    with allow_packages(line.allowed):
        for job in chosen:
            config = load_config(job, line.values.get("--config-dir"))
            assert check_arguments(config) == []
            if config["dataset"]["name"] not in WITHOUT_STAND_IN:
                plan_of(config)


def entry_point(program: str, arguments: Sequence[str]) -> int:
    """Run an installed command in this process and return its exit code."""
    module, _, name = PROJECT["scripts"][program].partition(":")
    before = logging.raiseExceptions
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [program, *arguments])
        try:
            getattr(import_module(module), name)()
        except SystemExit as ended:
            return int(ended.code or 0)
        finally:
            logging.raiseExceptions = before
    raise AssertionError(f"{program} did not end with an exit code")


def parse(program: Callable[[], object]) -> None:
    """Call a program until it has parsed its arguments."""
    nested = False  # the methods call each other, and the parsers of subcommands
    with pytest.MonkeyPatch.context() as patch:
        for name in ("parse_args", "parse_intermixed_args", "parse_known_args"):
            original = getattr(argparse.ArgumentParser, name)

            def and_no_further(self, *arguments, _original=original, **named):
                nonlocal nested
                if nested:
                    return _original(self, *arguments, **named)
                nested = True
                result = _original(self, *arguments, **named)
                unknown = [word for word in result[1] if word.startswith("-")] if isinstance(result, tuple) else []
                assert not unknown, f"there is no flag {' '.join(unknown)}"
                raise Parsed

            patch.setattr(argparse.ArgumentParser, name, and_no_further)
        try:
            program()
        except Parsed:
            return
        except SystemExit:
            pytest.fail("the arguments are wrong")
    pytest.fail("the program has not parsed its arguments")


def script(arguments: Sequence[str]) -> None:
    """Check that a script exists and accepts these arguments."""
    path = ROOT / arguments[0]
    assert path.is_file(), f"{arguments[0]}: there is no such script"
    if "ArgumentParser" not in path.read_text(encoding="utf-8"):
        assert len(arguments) == 1, f"{arguments[0]} takes no arguments"
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(path), *arguments[1:]])
        patch.syspath_prepend(str(path.parent))
        parse(lambda: runpy.run_path(str(path), run_name="__main__"))


def torchrun(arguments: list[str], stand_ins: StandIns) -> None:
    """``torchrun --flag value ... -m ltr.cli key=value ...``: plan the run of each process."""
    flags, program, overrides = arguments[: (at := arguments.index("-m"))], arguments[at + 1], arguments[at + 2 :]
    assert program == "ltr.cli"
    assert all(FLAGS_OF_TORCHRUN.fullmatch(flag) for flag in flags[::2]), flags
    type_in(Command(("ltr-train", *overrides), needs="several processes"), stand_ins)


def srun(arguments: list[str], stand_ins: StandIns) -> None:
    rest = [*arguments]
    while rest and rest[0].startswith("--"):
        rest.pop(0)
    type_in(Command(tuple(rest), needs="a queue"), stand_ins)


def sbatch(arguments: list[str], stand_ins: StandIns) -> None:
    assert Path(arguments[-1]).is_file()


def pip(arguments: list[str], stand_ins: StandIns) -> None:
    assert arguments[0] == "install"
    for word in arguments[1:]:
        if word.startswith("-"):
            continue
        named = Requirement(word.replace(".[", "ltr[") if word.startswith(".") else word)
        if named.name == "ltr":
            assert named.extras <= set(PROJECT["optional-dependencies"]), f"pip install {word}: no such extra"


def make(arguments: list[str], stand_ins: StandIns) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(arguments) <= set(targets), f"make {' '.join(arguments)}: no such target"


def source(arguments: list[str], stand_ins: StandIns) -> None:
    assert arguments == [".venv/bin/activate"]


def wandb(arguments: list[str], stand_ins: StandIns) -> None:
    assert arguments[0] in ("login", "sync", "offline", "sweep", "agent")


def mkdocs(arguments: list[str], stand_ins: StandIns) -> None:
    assert arguments[0] in ("serve", "build")
    assert (ROOT / "mkdocs.yml").is_file()


OTHERS = {
    "torchrun": torchrun,
    "srun": srun,
    "sbatch": sbatch,
    "pip": pip,
    "make": make,
    "source": source,
    "wandb": wandb,
    "mkdocs": mkdocs,
}
