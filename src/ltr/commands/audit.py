"""``ltr-data audit``: likely label errors, outliers and copies in the data set of a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ltr.commands.evaluate import find
from ltr.commands.named_runs import outputs_folder
from ltr.commands.outputs import read_arguments, refuse_inputs
from ltr.console import plain_warnings, print_line, progress
from ltr.errors import ConfigError, DataError
from ltr.escaping import one_line
from ltr.files import write_csv
from ltr.names import counted
from ltr.writing import check_named_files

_SHOWN = 10
PARTS = ("train", "val", "test")
_COLUMNS = ("path", "part", "label", "issue", "suggested", "score", "copy_of", "box", "copy_of_box")
FILES = {"issues.csv": _COLUMNS, "sheet.html": ()}  # in the folder of --out, with the columns of a table


def run_audit(arguments: argparse.Namespace) -> int:
    """Audit the labels of a run's data set; return the exit code.

    Raises:
        CheckpointError: no such run, or weights that cannot be read.
        ConfigError: the run gives no features, or has no data set that can be read.
        DataError: the data set is missing, or too small.
    """
    import numpy as np

    from ltr.apply.audit import audit, label_errors
    from ltr.apply.cleanlab_errors import check_cleanlab, cleanlab_errors
    from ltr.data.splitting.groups import crop_groups, separate_unknown

    if arguments.method == "cleanlab":
        check_cleanlab()
    with plain_warnings():
        checkpoint, model, source, split, dataset = _run_of(arguments)
        folder = arguments.out or _default_folder(str(dataset["name"]), checkpoint)
        outputs = {folder / name: f"--out {folder}" for name in FILES}
        refuse_inputs(outputs, read_arguments(arguments, "out"), dataset)
        if arguments.out is not None:
            check_named_files(arguments.out, FILES, f"--out {arguments.out}")
        indices, part_of = _images(split, arguments.part)
        probabilities, features = _predicted(model, source, split, dataset, indices)
    labels = split.label_map[source.labels[indices]]
    grouping = source.groupings[source.group] if source.group is not None else crop_groups(source.images)
    groups = None if grouping is None else separate_unknown(grouping.codes[indices], grouping.values)[0]
    outcome = audit(
        features,
        labels,
        split.num_classes,
        seed=arguments.seed,
        number=arguments.folds,
        groups=groups,
        held_out=probabilities,
        is_held_out=part_of != PARTS.index("train"),
        find_errors=cleanlab_errors if arguments.method == "cleanlab" else label_errors,
    )
    issues = _write(folder, source, split, indices, part_of, labels, outcome)
    for line in _summary(split, labels, outcome, issues, (model.many_above, model.few_below)):
        print_line(line)
    print_line(folder / "issues.csv")
    print_line(folder / "sheet.html")
    unpredictable = int(np.count_nonzero(~outcome.is_predictable))
    if unpredictable:
        print_line(
            f"{unpredictable:,} images are the only ones of their class in a fold, so their labels are not audited"
        )
    return 0


def _default_folder(dataset: str, checkpoint: Path) -> Path:
    """Return the folder of a run's audit, so that the audits of two runs do not overwrite each other."""
    run = checkpoint.absolute().parent.parent
    return outputs_folder() / "audit" / dataset / run.parent.name / run.name


def _run_of(arguments: argparse.Namespace) -> tuple[Path, Any, Any, Any, dict[str, Any]]:
    """Return the checkpoint and network of a run, and the source and split that it was trained on."""
    from ltr.apply.model import load_model
    from ltr.configuration.reuse import with_overrides
    from ltr.data.packed_images.reading import read_source
    from ltr.data.split import load_split_file
    from ltr.data.splitting.exclusion import read_split
    from ltr.methods.core.checkpoint import describe

    checkpoint, config = find(Path(arguments.run))
    description = describe(checkpoint)
    if "source" not in (description.get("dataset") or {}):
        raise ConfigError(f"{arguments.run}: its checkpoint names no data set, so there are no labels to audit")
    dataset = with_overrides({"dataset": description["dataset"]}, ())["dataset"]
    source = read_source(dataset)
    file = checkpoint.absolute().parent.parent / "split.npz"
    split = load_split_file(file, source) if file.is_file() else read_split(dataset, source)
    if split.label_map.max() >= split.num_classes:
        raise ConfigError(
            f"{arguments.run}: its test classes are not those of training, so it predicts no label of them"
        )
    model = load_model(
        checkpoint,
        config,
        accelerator=arguments.accelerator,
        batch_size=arguments.batch_size,
        workers=arguments.workers,
    )
    return checkpoint, model, source, split, dataset


def _images(split: Any, parts: list[str]) -> tuple[Any, Any]:
    """Return the indices of the audited images, and the part of each."""
    import numpy as np

    arrays = {part: getattr(split, part) for part in (parts or PARTS)}
    indices = np.concatenate(list(arrays.values()))
    part_of = np.concatenate([np.full(len(array), PARTS.index(part)) for part, array in arrays.items()])
    if len(indices) < 2:
        raise DataError(f"{split.name} has {len(indices)} images in {', '.join(arrays)}: nothing to compare")
    return indices, part_of


def _predicted(model: Any, source: Any, split: Any, dataset: dict[str, Any], indices: Any) -> tuple[Any, Any]:
    """Return probabilities float32 [n, C] and features float32 [n, D] of the images."""
    import numpy as np

    from ltr.data.module import DataModule
    from ltr.evaluation.scores import log_normaliser, probabilities

    data = DataModule.for_evaluation(
        source, split, dataset, model.batch_size, device=model.device, num_workers=model.workers
    )
    tables, features = [], []
    with progress("predicting", len(indices)) as advance, model.predicting():
        for batch in data.evaluation_loader(indices):
            scores = model.scores(batch.images)
            if scores.features is None:
                raise ConfigError("the run's network gives no features to compare images by. Audit a run of erm or crt")
            normaliser = log_normaliser(scores.logits, model.link)
            tables.append(probabilities(scores.logits, normaliser, model.link).float().cpu().numpy())
            features.append(scores.features.float().cpu().numpy())
            advance(len(batch.images))
    return np.concatenate(tables), np.concatenate(features)


def _write(
    folder: Path, source: Any, split: Any, indices: Any, part_of: Any, labels: Any, outcome: Any
) -> list[dict[str, Any]]:
    """Write ``issues.csv`` and ``sheet.html``; return the issues."""
    from ltr.apply.audit_sheet import write_audit_sheet
    from ltr.data.source import ImageFiles

    def name(row: int) -> str:
        index = int(indices[row])
        return source.images.relative(index) if isinstance(source.images, ImageFiles) else f"image {index}"

    def box(row: int) -> str:
        crops = source.images.crops if isinstance(source.images, ImageFiles) else None
        numbers = [] if crops is None else crops.boxes[int(indices[row])].tolist()
        return "" if not numbers or numbers[0] != numbers[0] else " ".join(f"{number:.7g}" for number in numbers)

    issues = [
        {
            "path": name(issue["row"]),
            "part": PARTS[part_of[issue["row"]]],
            "label": split.class_names[labels[issue["row"]]],
            "issue": issue["issue"],
            "suggested": split.class_names[issue["suggested"]] if issue["suggested"] >= 0 else "",
            "score": round(issue["score"], 4),
            "copy_of": name(issue["other"]) if issue["other"] >= 0 else "",
            "box": box(issue["row"]),
            "copy_of_box": box(issue["other"]) if issue["other"] >= 0 else "",
            "index": int(indices[issue["row"]]),
        }
        for issue in outcome.issues()
    ]
    write_csv(folder / "issues.csv", ({key: issue[key] for key in _COLUMNS} for issue in issues), _COLUMNS)
    write_audit_sheet(folder / "sheet.html", f"Audit of {split.name}", issues, source, split.class_names)
    return issues


def _summary(split: Any, labels: Any, outcome: Any, issues: list[dict[str, Any]], bounds: tuple[int, int]) -> list[str]:
    import numpy as np

    from ltr.evaluation.groups import shot_groups

    kinds = {kind: sum(issue["issue"] == kind for issue in issues) for kind in ("label", "copy", "outlier")}
    lines = [
        f"{len(labels):,} images: {counted(kinds['label'], 'likely label error')}, "
        f"{counted(kinds['outlier'], 'outlier')}, {counted(kinds['copy'], 'copy', 'copies')} under another label"
    ]
    groups = shot_groups(split.class_counts, *bounds)
    flagged = outcome.errors.is_error
    for group, of in groups.items():
        members = of[labels]
        if members.any():
            count = int(np.count_nonzero(flagged & members))
            lines.append(f"  {group}: {count:,} of {int(members.sum()):,} labels ({count / members.sum():.1%})")
    for issue in issues[:_SHOWN]:
        what = f" -> {issue['suggested']}" if issue["suggested"] else ""
        what += f" = {issue['copy_of']}" if issue["copy_of"] else ""
        lines.append(f"  {issue['issue']}: {one_line(issue['path'])} ({issue['label']}{what}, {issue['score']:.2f})")
    return lines
