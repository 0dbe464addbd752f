"""Judging weights that exist already: what ``ltr-eval`` and `ltr.load` do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ltr.configuration.check import checked
from ltr.configuration.pages import conf_directory, leaves
from ltr.configuration.targets import check_arguments, instantiate
from ltr.data.module import DataModule
from ltr.errors import CheckpointError, ConfigError, nearest
from ltr.runs.checkpoint import load_network
from ltr.runs.device import resolve_device, resolve_precision
from ltr.runs.evaluate import evaluate
from ltr.runs.protocols import protocol_of
from ltr.runs.result import result_rows


def judge_again(
    checkpoint: Path, config: Mapping[str, Any] | None, overrides: Sequence[str], split_name: str
) -> dict[str, Any]:
    """Judge a checkpoint on a split of its data set.

    Args:
        checkpoint: a stage's weights file.
        config: its run's configuration, or None for a lone file (its own description of the data set is used, and
            the shipped defaults for the rest).
        overrides: ``key=value`` changes of existing keys.
        split_name: ``test`` or ``val``.

    Returns:
        A dictionary like ``result.json`` with the rows of this evaluation.
    """
    network = load_network(checkpoint)
    changed = with_overrides(config or lone_config(checkpoint), overrides)
    mistakes = check_arguments({"dataset": changed["dataset"]})
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    source = instantiate(changed["dataset"]["source"])
    split = instantiate(changed["dataset"]["split"], source)
    if tuple(split.class_names) != network.facts.class_names:
        raise CheckpointError(
            f"{checkpoint} knows {network.facts.num_classes} classes ({', '.join(network.facts.class_names[:3])}, "
            f"...), the data set has {len(split.class_names)} ({', '.join(split.class_names[:3])}, ...)"
        )
    if not len(getattr(split, split_name)):
        raise ConfigError(f"--split {split_name}: the split '{split.name}' has no such images")
    device = resolve_device(changed["trainer"]["accelerator"])
    precision = resolve_precision(changed["trainer"]["precision"], device)
    data = DataModule(
        source,
        split,
        sampler=instantiate({"_target_": "ltr.data.samplers.Instance"}),
        augment=None,
        batch_size=changed["evaluation"]["batch_size"],
        eval_batch_size=changed["evaluation"]["batch_size"],
        seed=0,
        role="evaluation",
        epochs=1,
        device=device,
        num_workers=changed["trainer"]["num_workers"],
        image_size=changed["dataset"].get("image_size"),
    )
    judged = evaluate(
        network,
        data.evaluation_loader(split_name),
        lambda link: protocol_of(split, changed["evaluation"], link, device),
        device,
        precision,
    )
    which = checkpoint.stem if checkpoint.stem in ("best", "final") else "final"
    selection = changed["trainer"]["selection"] if which == "best" else "last"
    flat = dict(leaves({k: v for k, v in changed.items() if k != "paths"}))
    rows = result_rows(judged, split=split_name, checkpoint=which, selection=selection)
    return {"schema_version": 1, "config": flat, "stages": [], "rows": rows}


def lone_config(checkpoint: Path) -> dict[str, Any]:
    """A configuration for a checkpoint file without a run: the defaults, with the file's own data set."""
    import json

    from hydra import compose, initialize_config_dir

    from ltr.runs.checkpoint import read_checkpoint

    dataset = json.loads(read_checkpoint(checkpoint)["description"])["dataset"]
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_directory())):
        config = checked(compose("train"))
    return {**config, "dataset": dataset}


def with_overrides(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A configuration with some existing values changed, and checked again.

    Raises:
        ConfigError: not ``key=value``, an unknown key, or a value that is not allowed.
    """
    known = [key for key, _ in leaves(config)]
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or key not in known:
            raise ConfigError(f"{override}: not a key=value of this run's configuration{nearest(key, known)}")
    tree = OmegaConf.merge(OmegaConf.create(dict(config)), OmegaConf.from_dotlist(list(overrides)))
    assert OmegaConf.is_dict(tree)
    return checked(tree)  # type: ignore[arg-type]
