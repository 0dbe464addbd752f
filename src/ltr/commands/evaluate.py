"""``ltr-eval``: evaluate trained runs, checkpoints or foreign weights, on their own data set or on another one."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltr.commands.arguments import Parser, add_allow, parse_arguments, refuse_unread
from ltr.commands.named_runs import outputs_folder, run_path, runs_below, runs_of_name
from ltr.commands.outputs import read_arguments, refuse_inputs
from ltr.console import plain_warnings, print_line
from ltr.errors import CheckpointError, ConfigError, LtrError, refuse
from ltr.escaping import one_line, printer
from ltr.files import EVALUATED, write_json
from ltr.identity import config_of_today
from ltr.writing import check_file, check_folder

if TYPE_CHECKING:
    from ltr.configuration.evaluation_overrides import EvaluationRequest
    from ltr.runs.evaluation.candidates import Candidate

EVALUATIONS = "evaluations"  # the folder of outputs
STAGE = ("weights.ckpt", "stage.json")  # of a cached stage: its network, and its record


def main(argv: list[str]) -> int:
    """Run ``ltr-eval CHECKPOINT ... [key=value ...]``; return the exit code.

    Raises:
        ConfigError: flags or overrides that are wrong.
        CheckpointError: no such run, or weights that cannot be read.
        DataError: the data set is missing or damaged.
    """
    outputs = outputs_folder()
    parser = Parser(
        prog="ltr-eval",
        description="Evaluate finished runs (their folders), checkpoint files or foreign weights: on the test split of "
        "their own data set, or of dataset=CONFIG.",
        epilog="Example: ltr-eval outputs/digits_lt/erm/erm-s0-1a2b3c4d evaluation.many_above=50",
        allow_abbrev=False,
    )
    # optional for argparse, whose message would name the overrides too
    parser.add_argument(
        "words",
        nargs="*",
        metavar="CHECKPOINT|key=value",
        help="runs (folder, name or 'last'), files; see docs/evaluate.md",
    )
    parser.add_argument("--split", choices=("test", "val"), default="test", help="split to evaluate (default: test)")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help=f"folder for the results (default: {outputs / EVALUATIONS})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the content of result.json to this file")
    parser.add_argument("--allow-overlap", action="store_true", help="evaluate even if all images were trained on")
    parser.add_argument(
        "--decide",
        action="append",
        default=[],
        metavar="RULE=LEVEL",
        help="choose class thresholds on validation images and store them: precision=0.9 or recall=0.9; sets: "
        "coverage=0.9; of one class: precision:CLASS=0.99; of many: precision=FILE.csv",
    )
    parser.add_argument(
        "--config-dir", metavar="FOLDER", help="folder with your own configs, for dataset=CONFIG or evaluation.scorers"
    )
    add_allow(parser)
    arguments = parse_arguments(parser, argv, intermixed=True)
    if arguments is None:
        return 0
    paths, overrides, mistakes = _sort_words(arguments.words)
    if not paths:
        raise ConfigError(f"which run? Give its folder or a checkpoint file\n{parser.format_usage().rstrip()}")
    if arguments.json:
        check_file(arguments.json, f"--json {arguments.json}")
        refuse_inputs({arguments.json: f"--json {arguments.json}"}, read_arguments(arguments, "json"))
    out = arguments.out or outputs / EVALUATIONS
    check_folder(out, f"--out {out}")
    if arguments.decide:
        because = (
            "--decide writes into the run's folder and measures validation and test images of the run's own data set. "
            "Leave it out"
        )
        refuse_unread(arguments, ["out", "split", "config_dir"], because)

    from ltr.configuration.evaluation_overrides import read_request
    from ltr.configuration.targets import allow_packages

    with allow_packages(arguments.allow):
        request = read_request(overrides, mistakes)
        if arguments.decide:
            _decide(paths, request, arguments)
            return 0
        _evaluate(paths, request, arguments, out)
    return 0


def _decide(paths: Sequence[Path], request: EvaluationRequest, arguments: argparse.Namespace) -> None:
    """Choose thresholds of one run on its validation images, store them in its folder, and print what they give."""
    from ltr.apply.decision_rules import read_rules
    from ltr.apply.decisions import choose, measure, table_lines, write_decisions
    from ltr.configuration.evaluation_overrides import for_run
    from ltr.runs.evaluation.candidates import Candidate
    from ltr.runs.evaluation.checkpoints import headline_probabilities

    rules = read_rules(arguments.decide)
    located = _locate(paths)
    checkpoint, config = located[0]
    if len(located) > 1 or config is None:
        raise ConfigError("--decide stores thresholds in the folder of one run: give a finished run")
    if request.config is not None:
        raise ConfigError("--decide takes the validation images of the run's own data set: leave dataset=CONFIG out")
    candidate_config = for_run(config, request, arguments.config_dir)
    _refuse_input_of_config(arguments.json, candidate_config)
    unused = [f"evaluation.{key}" for key in request.evaluation_keys if key != "batch_size"]
    unused += [*request.foreign_keys, *([] if request.figures == "none" else [f"figures={request.figures}"])]
    not_read = f"{' and '.join(unused)}: --decide reads the probabilities of the images alone. Leave them out"
    refuse([*request.mistakes, *([not_read] if unused else [])], "the command cannot be carried out")
    run = checkpoint.absolute().parent.parent
    check_folder(run, f"--decide writes into {run}")
    with plain_warnings():
        images, split = headline_probabilities(
            Candidate(run.name, checkpoint, candidate_config, run, allow_overlap=arguments.allow_overlap),
            check=lambda split: [levels.array(rule, split.class_names) for rule, levels in rules.items()],
        )
    decider = choose(rules, *images["val"], split.class_names)
    background = 0 if "background" in split.protocols else None
    measured = {part: measure(decider, *rows, background) for part, rows in images.items()}
    written = write_decisions(run, checkpoint, decider, rules, measured)
    for line in table_lines(decider, rules, measured):
        print_line(one_line(line))
    if arguments.json:
        write_json(arguments.json, measured)
    print_line(f"{written}")


def _refuse_input_of_config(json: Path | None, config: Any) -> None:
    """Refuse a file of ``--json`` that a config names, such as a table of images."""
    if json is not None:
        refuse_inputs({json: f"--json {json}"}, config)


def _sort_words(words: Sequence[str]) -> tuple[list[Path], list[str], list[str]]:
    """Return checkpoints, overrides, and words that are neither, each with the reason."""
    overrides = [word for word in words if not os.path.exists(word) and ("=" in word or word.startswith(("~", "+")))]
    paths = [Path(word) for word in words if os.path.exists(word) or (word not in overrides and runs_of_name(word))]
    neither = [word for word in words if word not in overrides and Path(word) not in paths]
    if not paths:
        return [Path(word) for word in neither], overrides, []
    missing = "there is no such run directory or checkpoint file; an override is written key=value"
    return list(dict.fromkeys(paths)), overrides, [f"{word or repr(word)}: {missing}" for word in neither]


def _evaluate(paths: Sequence[Path], request: EvaluationRequest, arguments: argparse.Namespace, out: Path) -> None:
    from ltr.configuration.evaluation_overrides import for_run
    from ltr.configuration.listed_configs import LISTS

    config_dir, json = arguments.config_dir, arguments.json
    located = _locate(paths)
    # mistakes are reported before heavy packages are imported
    configs = [None if config is None else for_run(config, request, config_dir) for _, config in located]
    refuse(request.mistakes, "the command cannot be carried out")  # of files without a run's configuration
    if request.config is None and not {one.key for one in request.parsed} & set(LISTS):
        because = "no word names a config of it. Add dataset=CONFIG or evaluation.scorers=[NAME], or leave it out"
        refuse_unread(arguments, ["config_dir"], because)
    _refuse_input_of_config(json, configs)
    from rich.console import Console

    from ltr.report.compose import evaluations_table
    from ltr.report.figures import draw
    from ltr.report.table import plain_table, result_table
    from ltr.runs.evaluation.checkpoints import evaluate_checkpoints
    from ltr.runs.evaluation.folder import write_evaluation

    console = Console()
    print_line = printer(console)

    results = []
    with plain_warnings():
        candidates = _candidates(paths, located, configs, request, config_dir, arguments.allow_overlap)
        for evaluation in evaluate_checkpoints(candidates, arguments.split, print_line):
            draw_figures = None if request.figures == "none" else lambda folder: draw(folder, request.figures)
            folder, result = write_evaluation(evaluation, out, draw_figures)
            results.append((evaluation.candidate.label, folder, result))
            if len(candidates) > 1:
                print_line(f"{folder}")
    if json:
        every = [result for _, _, result in results]
        write_json(json, every if len(every) > 1 else every[0])
    if len(results) > 1:
        print_line(f"\n{evaluations_table(results)}".rstrip())
        return
    (_, folder, result) = results[0]
    if console.is_terminal:
        console.print(result_table(result, console.width), soft_wrap=True)
    else:
        print_line(plain_table(result))
    print_line(f"{folder}")


def _locate(paths: Sequence[Path]) -> list[tuple[Path, dict[str, Any] | None]]:
    """Call `find` for each path; report all that are not there in one error."""
    located, errors = [], []
    for path in paths:
        try:
            located.append(find(path))
        except LtrError as error:
            errors.append(error)
    if len(errors) > 1:
        raise CheckpointError("\n  ".join(["not all of these can be evaluated:", *map(str, errors)]))
    if errors:
        raise errors[0]
    return located


def _candidates(
    paths: Sequence[Path],
    located: Sequence[tuple[Path, dict[str, Any] | None]],
    configs: Sequence[dict[str, Any] | None],
    request: EvaluationRequest,
    config_dir: str | None,
    allow_overlap: bool,
) -> list[Candidate]:
    """Return the candidates; a file outside of a run is read for its configuration."""
    from ltr.configuration.evaluation_overrides import for_foreign, for_run
    from ltr.runs.evaluation.candidates import Candidate, is_foreign, lone_config, with_layout

    labels = [label(path, checkpoint, config is not None) for path, (checkpoint, config) in zip(paths, located)]
    candidates = []
    for path, name, (checkpoint, _), config in zip(paths, labels, located, configs):
        if labels.count(name) > 1:
            name = str(path)
        elsewhere = request.config is not None
        options: dict[str, Any] = {
            "elsewhere": elsewhere,
            "image_size": request.image_size,
            "allow_overlap": allow_overlap,
            "options": request.evaluation_keys,
        }
        if config is not None:
            candidates.append(Candidate(name, checkpoint, config, checkpoint.parent.parent, **options))
        elif request.of_foreign and is_foreign(checkpoint):
            weights, method = with_layout(request.weights, checkpoint)
            foreign = for_foreign(request, config_dir, method)
            candidates.append(Candidate(name, checkpoint, foreign, None, **options, foreign=weights))
        else:
            described = lone_config(checkpoint)
            refuse_foreign(described, checkpoint)
            of_file = for_run(described, request, config_dir)
            candidates.append(Candidate(name, checkpoint, of_file, None, **options))
    if request.of_foreign and all(candidate.foreign is None for candidate in candidates):
        raise ConfigError(
            f"{', '.join(request.foreign_keys)}: the evaluated checkpoints are of this project and describe their "
            "network themselves. These keys are for weights of other code; leave them out"
        )
    return candidates


def label(path: Path, checkpoint: Path, in_run: bool) -> str:
    """Return a checkpoint's name in tables: its run's folder, a stage's key in short, or its file."""
    if in_run:
        run = checkpoint.absolute().parent.parent.name
        return f"{run}/{checkpoint.stem}" if path.is_file() else run
    return path.absolute().name[:12] if path.is_dir() else path.name


def find(path: Path) -> tuple[Path, dict[str, Any] | None]:
    """Return the checkpoint that ``path`` names, and the configuration of its run, if there is one.

    Args:
        path: a run directory, a cached stage's directory, a file, or a run's name (`run_path`).

    Raises:
        CheckpointError: none of them, or a stage without a network.
        ConfigError: the run's configuration is damaged.
    """
    import yaml

    path = run_path(path)
    if path.is_dir():
        checkpoints = path / "checkpoints"
        candidates = [checkpoints / name for name in EVALUATED]
        stored = [path / name for name in STAGE]
        checkpoint = next((candidate for candidate in (*candidates, stored[0]) if candidate.is_file()), None)
        if checkpoint is None and stored[1].is_file():
            raise CheckpointError(f"{path} is a stage that computed arrays: it has no network to evaluate")
        if checkpoint is None:
            raise CheckpointError(f"{path} holds no finished run: {candidates[1]} is not there{runs_below(path)}")
    elif path.is_file():
        checkpoint = path
    else:
        raise CheckpointError(f"{path}: there is no such run directory or checkpoint file")
    config_file = checkpoint.absolute().parent.parent / "config.yaml"
    if checkpoint.absolute().parent.name != "checkpoints" or not config_file.is_file():
        return checkpoint, None
    try:
        config = yaml.safe_load(config_file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{config_file} is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{config_file} is damaged: it holds no configuration")
    config = config_of_today(config)
    refuse_foreign(config, config_file)
    method = config.get("method")
    if not isinstance(method, dict) or "name" not in method:
        raise ConfigError(
            f"{config_file} is damaged: method.name is missing. Restore it, or name the checkpoint itself"
        )
    return checkpoint, config


def refuse_foreign(config: dict[str, Any], file: Path) -> None:
    """Refuse values of a file that the command line could not have given: names become folders, numbers sizes.

    Raises:
        CheckpointError: names each of them.
    """
    from ltr.configuration.structure import check_foreign

    mistakes = check_foreign(config)
    if mistakes:
        lines = "\n  ".join(mistakes)
        raise CheckpointError(f"{file} is damaged, or was not written by ltr:\n  {lines}\n  Restore it, or train anew")
