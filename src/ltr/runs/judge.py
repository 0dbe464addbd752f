"""Judging weights that exist already: what ``ltr-eval`` and `ltr.load` do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltr.configuration.check import checked, refuse
from ltr.configuration.overrides import composed
from ltr.configuration.pages import leaves
from ltr.configuration.reuse import changed
from ltr.configuration.targets import check_arguments, instantiate
from ltr.data.exclusion import read_split
from ltr.data.module import DataModule
from ltr.data.packed import read_source
from ltr.errors import CheckpointError, ConfigError
from ltr.methods.checkpoint import describe, load_network
from ltr.runs.device import keep_freed_memory, resolve_device, resolve_precision
from ltr.runs.evaluate import evaluate
from ltr.runs.protocols import parts_judged, protocol_class, protocols_of
from ltr.runs.result import result_rows


def judge_again(
    checkpoint: Path, config: Mapping[str, Any] | None, overrides: Sequence[str], split_name: str
) -> dict[str, Any]:
    """Judge a checkpoint on a split of its data set.

    Args:
        checkpoint: a stage's weights file.
        config: its run's configuration, or None for a lone file (its own description of the data set is used, and
            the shipped defaults for the rest).
        overrides: ``key=value`` changes, see `ltr.configuration.reuse.changed`.
        split_name: ``test`` or ``val``.

    Returns:
        A dictionary like ``result.json`` with the rows of this evaluation.

    Raises:
        CheckpointError: weights that cannot be read, or of other classes than the data set's.
        ConfigError: overrides that are wrong, or a split without such images.
        DataError: the data set is missing or damaged.
    """
    network = load_network(checkpoint)
    used = changed(config or lone_config(checkpoint), overrides)
    refuse(check_arguments({"dataset": used["dataset"]}), "the data set's page does not fit the code")
    source = read_source(used["dataset"])
    split = read_split(used["dataset"], source)
    by_features = not any("logits" in protocol_class(name, split).needs for name in split.protocols)
    if tuple(split.class_names) != network.facts.class_names and not by_features:
        raise CheckpointError(
            f"{checkpoint} knows {network.facts.num_classes} classes ({', '.join(network.facts.class_names[:3])}, "
            f"...), the data set has {len(split.class_names)} ({', '.join(split.class_names[:3])}, ...)"
        )
    if not len(getattr(split, split_name)):
        raise ConfigError(f"--split {split_name}: the split '{split.name}' has no such images")
    device = resolve_device(used["trainer"]["accelerator"])
    if device.type == "cpu":
        keep_freed_memory()
    precision = resolve_precision(used["trainer"]["precision"], device)
    data = DataModule(
        source,
        split,
        sampler=instantiate({"_target_": "ltr.data.samplers.Instance"}),
        augment=None,
        batch_size=used["evaluation"]["batch_size"],
        eval_batch_size=used["evaluation"]["batch_size"],
        seed=0,
        role="evaluation",
        epochs=1,
        device=device,
        num_workers=used["trainer"]["num_workers"],
        image_size=used["dataset"].get("image_size"),
        image_resize=used["dataset"].get("image_resize"),
    )
    judged = evaluate(
        network,
        {part: data.evaluation_loader(part) for part in parts_judged(split, split_name)},
        lambda link, keep: protocols_of(split, used["evaluation"], link, device, keep),
        device,
        precision,
    )
    which = "best" if checkpoint.stem == "best" else "final"
    # beside the best epoch's weights lie the last one's; alone, weights are those that their stage's rule selected
    others = checkpoint.stem == "last" or (which == "final" and checkpoint.with_name("best.ckpt").is_file())
    selection = "last" if others else network.settings.selection
    flat = dict(leaves({k: v for k, v in used.items() if k != "paths"}))
    if config is None:
        flat["method.name"] = type(network).__name__  # all that a lone file says of its method
    rows = result_rows(judged, split=split_name, checkpoint=which, selection=selection)
    return {"schema_version": 1, "config": flat, "stages": [], "rows": rows}


def lone_config(checkpoint: Path) -> dict[str, Any]:
    """A configuration for a checkpoint file without a run: the defaults, with the file's own data set and seed."""
    description = describe(checkpoint)
    return {**checked(composed([])), "dataset": description["dataset"], "seed": description["seed"]}
