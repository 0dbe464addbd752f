"""``ltr-eval``: judge a trained run or a checkpoint again, on its own data set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from ltr.errors import CheckpointError, ConfigError


def main(argv: list[str]) -> int:
    """``ltr-eval RUN_OR_CHECKPOINT [key=value ...]``; returns the exit code.

    Raises:
        ConfigError: flags or overrides that are wrong.
        CheckpointError: no such run, or weights that cannot be read.
        DataError: the data set is missing or damaged.
    """
    parser = _Parser(
        prog="ltr-eval",
        description="Judge a finished run (its folder) or one checkpoint file on the test split.",
        epilog="Example: ltr-eval outputs/digits_lt/erm/erm-s0-1a2b3c4d evaluation.many_above=50",
        allow_abbrev=False,
    )
    # not required for argparse, whose message would name the overrides too
    parser.add_argument("run", nargs="?", help="a run directory, or a checkpoint file of this project")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values of the run's configuration to change")
    parser.add_argument("--split", choices=("test", "val"), default="test", help="which images (default: test)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="PREFIX", help="a package of yours that may be named"
    )
    try:
        arguments = parser.parse_intermixed_args(argv)
    except SystemExit as stopped:  # --help
        return stopped.code if isinstance(stopped.code, int) else 1
    if not arguments.run:
        raise ConfigError(f"which run? Give its folder or a checkpoint file\n{parser.format_usage().rstrip()}")
    if arguments.json and arguments.json.is_dir():
        raise ConfigError(f"--json {arguments.json}: that is a folder; the name of a file is needed")

    from ltr.configuration.targets import allowing

    with allowing(arguments.allow):
        _judge(Path(arguments.run), arguments.overrides, arguments.split, arguments.json)
    return 0


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing and exiting, so that a wrong flag is told like any other mistake."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}\n{self.format_usage().rstrip()}")


def _judge(path: Path, overrides: list[str], split: str, json: Path | None) -> None:
    from ltr.configuration.reuse import changed

    found = find(path)
    if found[1] is not None:
        changed(found[1], overrides)  # mistakes are told before what is heavy is imported
    from rich.console import Console

    from ltr.console import plain_warnings
    from ltr.files import write_json
    from ltr.report.table import plain_table, result_table
    from ltr.runs.judge import judge_again

    console = Console()
    with plain_warnings():
        result = judge_again(*found, overrides, split)
    if json:
        write_json(json, result)
    if console.is_terminal:
        console.print(result_table(result))
    else:
        console.print(plain_table(result), highlight=False, soft_wrap=True, markup=False)


def find(path: Path) -> tuple[Path, dict[str, Any] | None]:
    """The checkpoint that ``path`` means, and its run's configuration where there is one beside it.

    Raises:
        CheckpointError: neither a run directory nor a file.
        ConfigError: the run's configuration is damaged.
    """
    import yaml

    from ltr.files import JUDGED

    if path.is_dir():
        checkpoints = path / "checkpoints"
        candidates = [checkpoints / name for name in JUDGED]
        checkpoint = next((candidate for candidate in candidates if candidate.is_file()), None)
        if checkpoint is None:
            raise CheckpointError(f"{path} holds no finished run: {candidates[1]} is not there{_runs_below(path)}")
    elif path.is_file():
        checkpoint = path
    else:
        raise CheckpointError(f"{path}: there is no such run directory or checkpoint file")
    config_file = checkpoint.absolute().parent.parent / "config.yaml"
    if not config_file.is_file():
        return checkpoint, None
    try:
        config = yaml.safe_load(config_file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{config_file} is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{config_file} is damaged: it holds no configuration")
    return checkpoint, config


def _runs_below(path: Path) -> str:
    """The runs that a folder of runs holds: `outputs`, or a data set's or method's folder in it."""
    runs = [f.parent.parent for depth in ("*", "*/*", "*/*/*") for f in path.glob(f"{depth}/checkpoints/final.ckpt")]
    runs.sort(key=lambda run: run.stat().st_mtime, reverse=True)
    return f". Below it are, newest first: {', '.join(map(str, runs[:5]))}" if runs else ""
