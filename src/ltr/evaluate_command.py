"""``ltr-eval``: judge a trained run or a checkpoint again, on its own data set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ltr.errors import CheckpointError, ConfigError


def main(argv: list[str]) -> int:
    """``ltr-eval RUN_OR_CHECKPOINT [key=value ...]``; returns the exit code.

    Raises:
        ConfigError: an override that is not one, or a key that the run's configuration does not have.
        CheckpointError: no such run, or weights that cannot be read.
    """
    parser = argparse.ArgumentParser(
        prog="ltr-eval",
        description="Judge a finished run (its folder) or one checkpoint file on the test split.",
        epilog="Example: ltr-eval outputs/digits_lt/erm/erm-s0-1a2b3c4d evaluation.many_above=50",
    )
    parser.add_argument("run", type=Path, help="a run directory, or a checkpoint file of this project")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values of the run's configuration to change")
    parser.add_argument("--split", choices=("test", "val"), default="test", help="which images (default: test)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="PREFIX", help="a package of yours that may be named"
    )
    try:
        arguments = parser.parse_intermixed_args(argv)
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else 1

    from ltr.configuration.targets import allow

    for prefix in arguments.allow:
        allow(prefix)
    from rich.console import Console

    from ltr.console import plain_warnings
    from ltr.files import write_json
    from ltr.report.table import plain_table, result_table
    from ltr.runs.judge import judge_again

    console = Console()
    with plain_warnings():
        result = judge_again(*find(arguments.run), arguments.overrides, arguments.split)
    if console.is_terminal:
        console.print(result_table(result))
    else:
        console.print(plain_table(result), highlight=False, soft_wrap=True, markup=False)
    if arguments.json:
        write_json(arguments.json, result)
    return 0


def find(path: Path) -> tuple[Path, dict[str, Any] | None]:
    """The checkpoint that ``path`` means, and its run's configuration where there is one beside it.

    Raises:
        CheckpointError: neither a run directory nor a file.
    """
    import yaml

    if path.is_dir():
        checkpoints = path / "checkpoints"
        candidates = [checkpoints / "best.ckpt", checkpoints / "final.ckpt"]
        checkpoint = next((candidate for candidate in candidates if candidate.is_file()), None)
        if checkpoint is None:
            raise CheckpointError(f"{path} holds no finished run: {candidates[1]} is not there")
    elif path.is_file():
        checkpoint = path
    else:
        raise CheckpointError(f"{path}: there is no such run directory or checkpoint file")
    config_file = checkpoint.parent.parent / "config.yaml"
    if not config_file.is_file():
        return checkpoint, None
    config = yaml.safe_load(config_file.read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ConfigError(f"{config_file} is damaged: it holds no configuration")
    return checkpoint, config
