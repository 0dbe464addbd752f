"""The commands. Thin: nothing heavier than Hydra is imported before a task runs."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from ltr.errors import ConfigError, Interrupted, LtrError

if TYPE_CHECKING:
    from omegaconf import DictConfig

_FULL = "HYDRA_FULL_ERROR"
_FLAGS_WITH_VALUE = ("--config-name", "-cn", "--config-path", "-cp", "--package", "-p", "--cfg", "-c", "--info", "-i")


def train() -> None:
    """Entry point of ``ltr-train``."""
    sys.exit(train_main(sys.argv[1:]))


def evaluate() -> None:
    """Entry point of ``ltr-eval``."""
    from ltr.evaluate_command import main

    sys.exit(guarded(lambda: main(sys.argv[1:])))


def guarded(task: Callable[[], int | None]) -> int:
    """Run a task and turn what goes wrong into a message and an exit code; a traceback only on request."""
    try:
        return task() or 0
    except LtrError as error:
        return report(error)
    except KeyboardInterrupt:
        return report(Interrupted(2, "stopped by Ctrl-C"))
    except BrokenPipeError:
        return 141
    except Exception as error:
        if os.environ.get(_FULL) == "1":
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        print(
            f"error: {type(error).__name__}: {error}\n"
            f"  in {os.path.basename(where.filename)}, line {where.lineno}. This is not a mistake that ltr foresees: "
            f"{_FULL}=1 shows the traceback",
            file=sys.stderr,
        )
        return 1


def report(error: LtrError) -> int:
    """Print an error for people and give its exit code."""
    if os.environ.get(_FULL) == "1":
        traceback.print_exception(error)
    print(f"{'stopped' if isinstance(error, Interrupted) else 'error'}: {error}", file=sys.stderr)
    return error.exit_code


def train_main(argv: list[str]) -> int:
    """``ltr-train`` with these arguments; returns the exit code."""
    return guarded(lambda: _train(argv))


def _train(argv: list[str]) -> int:
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from ltr.configuration.pages import conf_directory

    argv = _take_allowed(argv)
    codes: list[int] = []
    wanted_traceback = os.environ.get(_FULL)

    def task(config: DictConfig) -> float | None:
        with _environment(_FULL, wanted_traceback):
            try:
                return _train_task(config)
            except Interrupted:
                raise
            except LtrError as error:
                codes.append(report(error))
                return None

    main = hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="train")(task)
    before = sys.argv
    sys.argv = ["ltr-train", *argv]
    try:
        with _environment(_FULL, "1"):  # Hydra then raises instead of printing the first mistake and exiting
            main()
    except (HydraException, OmegaConfBaseException) as error:
        with _environment(_FULL, wanted_traceback):
            raise _explained(error, argv) from error
    except SystemExit as stopped:  # argparse: --help, or flags it does not know
        return stopped.code if isinstance(stopped.code, int) else 1
    finally:
        sys.argv = before
    return 0 if not codes else codes[0] if len(codes) == 1 else 1


class _environment:
    """An environment variable set for the time of a block; None leaves it unset."""

    def __init__(self, name: str, value: str | None) -> None:
        self.name, self.value = name, value

    def __enter__(self) -> None:
        self.before = os.environ.get(self.name)
        self._set(self.value)

    def __exit__(self, *exception: object) -> None:
        self._set(self.before)

    def _set(self, value: str | None) -> None:
        if value is None:
            os.environ.pop(self.name, None)
        else:
            os.environ[self.name] = value


def _take_allowed(argv: list[str]) -> list[str]:
    """Remove ``--allow PREFIX`` (which Hydra does not know) and remember the prefixes."""
    from ltr.configuration.targets import allow

    rest, arguments = [], iter(argv)
    for argument in arguments:
        if argument == "--allow" or argument.startswith("--allow="):
            prefix = argument.partition("=")[2] or next(arguments, "")
            if not prefix or prefix.startswith("-") or "=" in prefix:
                raise ConfigError("--allow needs a package prefix, e.g. --allow my_project")
            allow(prefix)
        else:
            rest.append(argument)
    return rest


def _explained(error: Exception, argv: list[str]) -> ConfigError:
    """All mistakes of the command line that Hydra refused, or its own words where we find none."""
    from ltr.configuration.overrides import explain

    config_dir, overrides, skip = None, [], False
    for position, argument in enumerate(argv):
        if skip:
            skip = False
        elif argument in ("--config-dir", "-cd"):
            config_dir, skip = argv[position + 1] if position + 1 < len(argv) else None, True
        elif argument.startswith("--config-dir="):
            config_dir = argument.partition("=")[2]
        elif argument in (
            "--config-name",
            "-cn",
            "--config-path",
            "-cp",
            "--package",
            "-p",
            "--cfg",
            "-c",
            "--info",
            "-i",
        ):
            skip = True
        elif not argument.startswith("-"):
            overrides.append(argument)
    mistakes = explain(overrides, config_dir, "train") or [str(error).strip()]
    return ConfigError("\n".join(["the command cannot be carried out:", *(f"  {m}" for m in dict.fromkeys(mistakes))]))


def _train_task(config: DictConfig) -> float | None:
    """Check the composed configuration cheaply, then import what is heavy and run."""
    from ltr.configuration.check import checked

    plain = checked(config)
    from rich.console import Console

    from ltr.train_command import carry_out

    return carry_out(plain, Console())
