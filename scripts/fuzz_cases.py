"""A case of the fuzz: a command, how it is run in this process, and which outcomes are findings."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ltr import cli

NOT_FORESEEN = "not a mistake that ltr foresees"


@dataclass(frozen=True)
class Case:
    """A command to try: its words, whether it is certainly invalid, and the damage done to files before."""

    command: str  # of ltr
    arguments: tuple[str, ...]
    is_nonsense: bool = False
    prepare: Callable[[], None] | None = None

    def __str__(self) -> str:
        return " ".join([self.command, *(repr(one)[:300] for one in self.arguments)])


@dataclass
class Findings:
    """Outcomes of all cases: counts of exit codes, and the findings."""

    codes: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def examine(self, case: Case, code: int | None, output: str) -> None:
        """Count a finished case; None stands for a hang."""
        self.codes[code] += 1
        if reason := problem(case, code, output):
            self.wrong.append(f"{reason}: {case}\n    {output[-600:].strip()}")


def problem(case: Case, code: int | None, output: str) -> str | None:
    """Return the reason why an outcome is a finding; None if it is fine."""
    if code is None:
        return "hangs"
    if code < 0:
        return f"signal {-code}"
    if "Traceback (most recent call last)" in output:
        return "traceback"
    if NOT_FORESEEN in output:
        return "unforeseen"
    if code not in (0, 1, 2):
        return f"exit code {code}"
    # a check that finds something is no error
    if code and "error" not in output and case.command != "ltr-data":
        return "no error message"
    # jobs of a sweep that are refused make its exit code 1
    if case.is_nonsense and code not in ((1, 2) if "-m" in case.arguments else (2,)):
        return f"exit code {code} on nonsense"
    return None


def run_command(command: str, arguments: Sequence[str]) -> tuple[int, str]:
    """Return (exit code, standard error) of a command run in this process."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if command == "ltr-train":
            code = cli.train_main(list(arguments))
        else:
            module = importlib.import_module(f"ltr.commands.{command.removeprefix('ltr-').replace('eval', 'evaluate')}")
            code = cli.run_guarded(lambda: module.main(list(arguments)))
        out.flush()
        err.flush()
    return code, err.buffer.getvalue().decode()
