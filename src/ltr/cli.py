"""Entry points of the commands; nothing heavier than Hydra is imported before a task runs."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ltr import quick_torchmetrics
from ltr.console import ignore_unusable_width, open_closed_streams, print_line
from ltr.errors import ConfigError, Interrupted, LtrError
from ltr.runs.processes.interrupt import Stopped, stopped_by_signals
from ltr.runs.processes.openmp import choose_wait_policy
from ltr.runs.processes.rank_errors import print_once
from ltr.train_task import TrainTask

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ltr.configuration.command_line import CommandLine
    from ltr.runs.result import Outcome

FULL_ERROR = "HYDRA_FULL_ERROR"
HYDRA_VERSION = "1.3"  # whose defaults Hydra uses


def train() -> None:
    """Entry point of ``ltr-train``."""
    if "LTR_WATCHED" in os.environ:  # one of several processes
        from ltr.runs.processes.launch import end_with_parent

        end_with_parent()
    sys.exit(run_as_process(lambda: train_main(sys.argv[1:])))


def evaluate() -> None:
    """Entry point of ``ltr-eval``."""
    sys.exit(run_as_process(lambda: evaluate_main(sys.argv[1:])))


def _entry_point(name: str) -> Callable[[], None]:
    """Return the entry point of a command in `ltr.commands`."""

    def run() -> None:
        from importlib import import_module

        sys.exit(run_as_process(lambda: run_guarded(lambda: import_module(f"ltr.commands.{name}").main(sys.argv[1:]))))

    return run


stages, data, predict, mine = map(_entry_point, ("stages", "data", "predict", "mine"))
export, report_runs, dashboard = map(_entry_point, ("export", "report", "dashboard"))


def train_main(argv: list[str]) -> int:
    """Run ``ltr-train`` with these arguments; return the exit code."""
    return run_guarded(lambda: _train(argv))


def evaluate_main(argv: list[str]) -> int:
    """Run ``ltr-eval`` with these arguments; return the exit code."""
    from ltr.commands.evaluate import main

    return run_guarded(lambda: main(argv))


def run_as_process(command: Callable[[], int]) -> int:
    """Run a command as a process; a reader that closes the pipe early (``| head``) ends it without a message."""
    open_closed_streams()
    quick_torchmetrics.install()
    choose_wait_policy()
    ignore_unusable_width()
    logging.raiseExceptions = False  # Hydra prints through logging, which would report the closed pipe line by line
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # like standard error: a terminal may know fewer letters
    with stopped_by_signals():
        code = command()
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it exits
        if isinstance(error, BrokenPipeError):
            return 141
        print_line(f"error: the output cannot be written: {error.strerror}. Send it to another place", sys.stderr)
        return code or 1
    return code


def run_guarded(task: Callable[[], int | None]) -> int:
    """Run a task and turn exceptions into a message and an exit code; a traceback is printed only on request."""
    try:
        return task() or 0
    except (KeyboardInterrupt, Stopped) as stopped:
        cause = stopped.__cause__
        return report(cause if isinstance(cause, Interrupted) else Interrupted(2, "stopped by Ctrl-C"))
    except BrokenPipeError:
        return 141
    except Exception as error:
        return report(error)


guarded = run_guarded  # former name, for one more release


def report(error: Exception, of: str = "") -> int:
    """Print an error for people and give its exit code.

    Args:
        of: prefix that names what failed, such as a job of a sweep.
    """
    if os.environ.get(FULL_ERROR) == "1":
        traceback.print_exception(error)
    if isinstance(error, LtrError):
        if getattr(error, "is_reported", False):  # by another process
            return error.exit_code
        kind = "stopped" if isinstance(error, Interrupted) else "error"
        _print_error(str(error) if str(error).startswith("stopped ") else f"{kind}: {error}", of)
        return error.exit_code
    where = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, OSError):
        advice = "Check that the path is correct and can be written, and that the disk has space"
    else:
        advice = "This is not a mistake that ltr foresees"
    _print_error(
        f"error: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}\n"
        f"  in {os.path.basename(where.filename)}, line {where.lineno}. {advice}; {FULL_ERROR}=1 shows the traceback",
        of,
    )
    return 1


def _print_error(message: str, of: str) -> None:
    if of:  # a job of a sweep, after which the process continues
        print_line(f"{of}{message}", sys.stderr)
    else:
        print_once(message, lambda text: print_line(text, sys.stderr))


class _JobFailed(Exception):
    """A job of a sweep whose error has been printed; it reaches the sweep wherever the job ran."""


def _train(argv: list[str]) -> int:
    from ltr.configuration.command_line import read

    line = read(argv)
    if "--help" in line.flags and not line.mistakes:
        from ltr.commands.help import help_text

        print_line(help_text(line.overrides, line.config_dir))
        return 0

    if line.sweep and not line.mistakes:
        from ltr.local_jobs.server import start_early

        start_early(line.overrides)
    from ltr.configuration.forbidden import forbidden
    from ltr.configuration.former_keys import forget_notices
    from ltr.configuration.targets import allow_packages

    forget_notices()
    with allow_packages(line.allowed):
        if line.mistakes or forbidden(line.overrides, line.config_dir):
            raise _refusal(_mistakes_of(line))
        if line.values.get("--cfg") in ("job", "all") and line.config_name == "train":
            from ltr.configuration.overrides import load_config

            load_config(line.overrides, line.config_dir)  # Hydra prints a configuration without checking it
    if "--version" in line.flags:
        from ltr import __version__

        print(f"ltr {__version__}")
        return 0
    codes: list[int] = []
    task = TrainTask(line, os.environ.get(FULL_ERROR), codes)
    return _with_table(lambda: _hydra(line, task, codes))


def _with_table(command: Callable[[], int]) -> int:
    """Run a command and, if it was a sweep, end with its table; a job that failed makes the exit code 1."""
    from ltr.sweeps import conclude, sweep_folder

    with sweep_folder() as started:
        code = command()
        if not started:
            return code
        table, failed = conclude(started[0])
    if table:
        print_line(table)
    return code or failed


def _hydra(line: CommandLine, task: Callable[[DictConfig], float | None], codes: list[int]) -> int:
    """Compose and run the task by Hydra's rules; mistakes of the command line are explained."""
    import hydra

    from ltr.configuration.configs import conf_directory
    from ltr.configuration.hydra_nodes import guarded_hydra
    from ltr.configuration.launchers import refused_by_queue
    from ltr.configuration.nested import nested_choices
    from ltr.configuration.resolvers import register
    from ltr.configuration.swept_configs import defer_values
    from ltr.configuration.targets import allow_packages
    from ltr.sweeps import failed_jobs

    if line.sweep:
        from ltr.sweep_jobs import checked_jobs

    register()  # for --cfg job --resolve

    overrides = defer_values(line.overrides, line.config_dir) if line.sweep else line.overrides
    main = hydra.main(version_base=HYDRA_VERSION, config_path=str(conf_directory()), config_name="train")(task)
    before = sys.argv
    sys.argv = [before[0], *dataclasses.replace(line, overrides=overrides).for_hydra]
    try:
        # Hydra then raises instead of printing the first mistake and exiting
        with (
            environment_variable(FULL_ERROR, "1"),
            _unchanged_logging(),
            nested_choices(),
            guarded_hydra(tuple(line.allowed)),
            checked_jobs(line.allowed) if line.sweep else contextlib.nullcontext(),
        ):
            main()
    except _JobFailed:
        return 1
    except LtrError:
        raise
    except Exception as error:
        if line.sweep and isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            raise LtrError(
                f"the sweep's folder {error.filename} cannot be made ({error.strerror}). It lies in paths.outputs, "
                "unless hydra.sweep.dir says otherwise: set paths.outputs to a place that can be written"
            ) from error
        if failed_jobs():  # a sweeper that gives up because of them
            return 1
        refused = refused_by_queue(error)
        if refused is not None:
            raise refused from error
        with allow_packages(line.allowed):
            mistakes = _explain_mistakes(line, error)
        if mistakes is None and isinstance(error, OSError):
            raise
        raise mistakes or _hydra_error(error) from error
    except SystemExit as stopped:  # --hydra-help
        return stopped.code if isinstance(stopped.code, int) else 1
    finally:
        sys.argv = before
    return codes[0] if codes else 0


def _hydra_error(error: Exception) -> LtrError:
    """Return the error for one that Hydra, its launcher or its sweeper raised; a run has reported its own."""
    from ltr.configuration.parsing import in_short
    from ltr.sweeps import has_jobs

    kind = LtrError if has_jobs() else ConfigError
    return kind(
        f"Hydra cannot carry this out: {type(error).__name__}: {in_short(error)}\n  Look at what the command says of "
        f"hydra.* and hydra/*, and at docs/sweeps.md; {FULL_ERROR}=1 shows the traceback"
    )


def run_job(config: DictConfig, codes: list[int], line: CommandLine) -> float | None:
    """Carry out one run; errors are printed here, where Hydra cannot add to them.

    Returns:
        The value that a choosing sweeper maximises, see `ltr.report.read_run.validation_value`.
    """
    from hydra.core.hydra_config import HydraConfig

    from ltr.sweeps import in_sweep, is_search, job_overrides, own_gpu, record_job

    job = HydraConfig.get().job
    try:
        if in_sweep():
            own_gpu()
            if config.stages == "plan":  # whose lines name no run
                swept = " ".join(text for text in job_overrides() if text not in line.overrides)
                print_line(f"job {job.num} ({swept}):" if swept else f"job {job.num}:")
        outcome = _train_task(config, line)
        if in_sweep():
            record_job(job.num, job_overrides(), outcome, None)
        if outcome is None or outcome.result is None:
            return None
        from ltr.report.read_run import validation_value  # imports NumPy, which refused options do not need

        return validation_value(outcome.result)
    except Interrupted as stopped:
        raise Stopped from stopped
    except Exception as error:
        if not in_sweep():
            codes.append(report(error))
            return None
        report(error, f"job {job.num} ({' '.join(job_overrides()) or 'no overrides'}): ")
        record_job(job.num, job_overrides(), None, str(error) or type(error).__name__)
        if is_search():
            raise _JobFailed("its error is printed above") from None
        return None  # or Hydra would add a line of its own about the first of them


@contextlib.contextmanager
def environment_variable(name: str, value: str | None) -> Iterator[None]:
    """Set an environment variable during a block; None leaves it unset."""

    def set_to(new: str | None) -> None:
        if new is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = new

    before = os.environ.get(name)
    set_to(value)
    try:
        yield
    finally:
        set_to(before)


@contextlib.contextmanager
def _unchanged_logging() -> Iterator[None]:
    """Restore the logging handlers that Hydra replaces, for ``--info`` even with noisy ones."""
    loggers = [logging.getLogger(), logging.getLogger("hydra")]
    before = [(logger, list(logger.handlers), logger.level) for logger in loggers]
    try:
        yield
    finally:
        for logger, handlers, level in before:
            logger.handlers[:] = handlers
            logger.setLevel(level)


def _explain_mistakes(line: CommandLine, error: Exception) -> ConfigError | None:
    """Return all mistakes of a refused command line, or Hydra's own words; None if it has no mistake."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from ltr.configuration.parsing import in_short

    mistakes = _mistakes_of(line)
    if not mistakes:
        if not isinstance(error, (HydraException, OmegaConfBaseException)):
            return None
        mistakes = [in_short(error)]
    return _refusal(mistakes)


def _mistakes_of(line: CommandLine) -> list[str]:
    from ltr.configuration.overrides import explain

    return line.mistakes + explain(line.overrides, line.config_dir, line.config_name, line.sweep)


def _refusal(mistakes: Sequence[str]) -> ConfigError:
    lines = [f"  {mistake}" for mistake in dict.fromkeys(mistakes)]
    return ConfigError("\n".join(["the command cannot be carried out:", *lines]))


def _train_task(config: DictConfig, line: CommandLine) -> Outcome:
    """Check the composed configuration, then import heavy packages and run."""
    from omegaconf import OmegaConf

    from ltr.configuration.check import check_config
    from ltr.configuration.overrides import refused_overrides
    from ltr.configuration.run_lengths import shortened_lengths
    from ltr.runs.processes.process_info import with_processes
    from ltr.sweeps import check_sweep, in_sweep, job_overrides

    plain = check_config(config, refused_overrides(job_overrides()), job_overrides())
    raw: Any = OmegaConf.to_container(config, resolve=False)
    for length in shortened_lengths(raw, plain):
        print_line(length)
    if in_sweep():
        check_sweep(plain)
    plain = with_processes(plain)
    from rich.console import Console

    from ltr.commands.train import carry_out

    return carry_out(plain, Console(), lambda: _single_run_arguments(line))


def _single_run_arguments(line: CommandLine) -> list[str]:
    """Return the arguments of ``ltr-train`` for the running job only."""
    from ltr.configuration.command_line import is_sweep_config
    from ltr.sweeps import in_sweep, job_overrides

    flags = [flag for flag in line.flags if flag != "--multirun"]
    chosen = job_overrides() if in_sweep() else line.overrides
    # a config of the group sweep asks for a sweep; its choices of other configs are those of the job
    mode = ["hydra.mode=RUN"] if any(is_sweep_config(one) for one in chosen) else []
    return [*flags, *(f"--allow={name}" for name in line.allowed), "--", *chosen, *mode]


if __name__ == "__main__":
    train()
