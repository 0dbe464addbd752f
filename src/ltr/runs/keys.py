"""Identity of stages and runs: hashes over exactly the settings and data that determine them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltr.configuration.configs import digest, without_private
from ltr.configuration.own_code import identities, own_code
from ltr.configuration.targets import locate
from ltr.errors import CheckpointError
from ltr.files import checkpoint_file, file_digest
from ltr.former_paths import LATER_OPTIONS
from ltr.identity import (
    as_first_written,
    config_as_first_written,
    first_path_of,
    name_of,
    options_as_first_written,
    path_of,
    with_names,
)
from ltr.methods.core.initial_head import initial_file
from ltr.methods.core.settings import DatasetInfo, Settings, tune_of
from ltr.methods.core.stage import Stage
from ltr.models.hub_weights import weights_file
from ltr.runs.evaluation.protocols import selecting_options

if TYPE_CHECKING:
    from ltr.data.source import Source
    from ltr.data.split import Split

# not part of a run's identity: paths and display
_NOT_IDENTITY = ("logger", "paths", "figures", "callbacks", "checkpoint", "resume", "stages", "hydra", "compile")
_NOT_IDENTITY_TRAINER = ("num_workers", "log_every", "profiler", "on_error", "max_skipped", "max_nonfinite",
                         "check_files")  # fmt: skip
# trainer keys that are left out at their default, so that runs of earlier versions keep their identity
_TRAINER_DEFAULTS = {"on_nonfinite": "raise", "auto_accumulate": False}
_NOT_IDENTITY_EVALUATION = ("batch_size",)
_NOT_IDENTITY_SOURCE = ("root", "roots", "download")
_NOT_IDENTITY_DATASET = ("roots", "download")


def array_digest(array: np.ndarray) -> str:
    """Return the SHA-256 (hex) of an integer array's values as little-endian int64, the same on all platforms."""
    return hashlib.sha256(np.ascontiguousarray(array, dtype="<i8").tobytes()).hexdigest()


def stage_spec(
    stage: Stage,
    seed: int,
    source: Source,
    split: Split,
    dataset_info: DatasetInfo,
    parent_keys: Mapping[str, str],
    execution: Mapping[str, Any] | None = None,
    code_configs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return everything that determines a stage's outcome, as plain data.

    The specification excludes test and unknown images, loggers, paths, workers and figures. It contains validation
    images only if they select the weights or enter the computation. For a training it contains the execution
    (`execution_spec`), which determines the order in which gradients are summed; a computation always runs in one
    process. A stage from a checkpoint is determined by the content of the file.

    Args:
        parent_keys: keys of the stage's parents, by name.
        execution: see `execution_spec`.
        code_configs: configs of method and data set (`code_configs_of`). If these, the settings or the stage's class
            name code outside ltr, the identity of that code is part of the key.
    """
    if stage.checkpoint is not None:
        return {"checkpoint": file_digest(checkpoint_file(Path(stage.checkpoint)))}
    settings, options = without_private(_identity_of(stage.settings)), without_private(dict(stage.options))
    spec: dict[str, Any] = {
        "target": name_of(f"{stage.target.__module__}.{stage.target.__qualname__}"),
        "numerics_version": getattr(stage.target, "numerics_version", 1),
        "seed": seed,
        "role": stage.role,
        "settings": with_names(settings),
        "options": with_names(options),
        "parents": {name: parent_keys[name] for name in stage.parents},
        "world_size": 1,
        "source": source.fingerprint,
        "train": array_digest(split.train),
        "label_map": array_digest(split.label_map),
        "input": input_spec(dataset_info),
    }
    if stage.module is not None and execution:
        spec |= execution
        distributed_version = getattr(stage.target, "distributed_numerics_version", 1)
        if execution.get("world_size", 1) > 1 and distributed_version > 1:
            spec["distributed_numerics_version"] = distributed_version
        loss_version = _of_loss(stage.settings)
        if execution.get("world_size", 1) > 1 and loss_version > 1:
            spec["loss_distributed_numerics_version"] = loss_version
    if stage.module is not None and stage.settings.accumulate > 1:
        spec["accumulation"] = "mean over images"  # earlier versions computed the last step of an epoch differently
    selecting = spec.pop("selecting", {})
    if stage.module is not None and (options := _selecting_options(stage.settings, selecting, split)):
        spec["selecting"] = options
    if stage.settings.selection == "best_val" or (stage.module is not None and stage.settings.chooses_l2):
        spec["val"] = array_digest(split.val)
    elif stage.settings.selection == "best_test":
        spec["test"] = array_digest(split.test)
    if stage.of_source:
        for key in ("seed", "train", "label_map"):
            del spec[key]
    if stage.taxonomy_rank is not None:  # fingerprints leave the taxonomy out
        spec["taxonomy"] = digest(list(source.taxonomy.get(stage.taxonomy_rank, ())))
    code = own_code([settings, options, code_configs or {}]) | identities(_modules_of(stage.target))
    if code:
        spec["code"] = code
    for part in stage.reads:
        spec[part] = array_digest(getattr(split, part))
    return spec


def _selecting_options(settings: Settings, evaluation: Mapping[str, Any], split: Split) -> dict[str, Any]:
    """Return the options of the evaluation that decide which weights are selected, unless all have their default."""
    if not evaluation or (settings.selection == "last" and not settings.chooses_l2):
        return {}
    options = selecting_options(split, evaluation)
    if settings.selection != "last" and evaluation["every_n_epochs"] != 1:
        options["every_n_epochs"] = evaluation["every_n_epochs"]
    return options


def _of_loss(settings: Settings) -> int:
    """Return the ``distributed_numerics_version`` of the class of a stage's loss."""
    loss = locate(str(settings.loss["_target_"]), "loss") if "_target_" in settings.loss else None
    return int(getattr(loss, "distributed_numerics_version", 1))


def input_spec(dataset_info: DatasetInfo) -> dict[str, Any]:
    """Return the shape, normalisation and evaluation resizing of a network's input."""
    spec: dict[str, Any] = {
        "shape": list(dataset_info.image_shape),
        "mean": list(dataset_info.mean),
        "std": list(dataset_info.std),
    }
    if dataset_info.image_resize is not None:
        spec["resize"] = dataset_info.image_resize
    if dataset_info.interpolation is not None:
        spec["interpolation"] = dataset_info.interpolation
    return spec


def _modules_of(target: Any) -> list[str]:
    """Return the modules of a class and its bases, or of a function."""
    classes = getattr(target, "__mro__", (target,))
    return [str(getattr(cls, "__module__", "")) for cls in classes]


def code_configs_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configs of method and data set, on whose code a stage depends in addition to its settings."""
    return {"method": config["method"], "dataset": config["dataset"]}


def with_code(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with the identity of code outside ltr as ``code``; unchanged without any.

    A command determines it once, when it starts: an edit during the run changes neither the running code nor the hash.
    """
    code = own_code(config) if "code" not in config else {}
    return {**config, "code": code} if code else dict(config)


def execution_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of execution that may change a bit of a training's outcome.

    The entry ``selecting`` is the whole config ``evaluation``; `stage_spec` keeps of it what selects the weights of a
    stage, nothing by default.
    """
    trainer, strategy = config["trainer"], config["strategy"]
    spec: dict[str, Any] = {"selecting": without_private(config["evaluation"])}
    if trainer["devices"] > 1:
        spec["world_size"] = trainer["devices"]
        spec |= {"sync_batchnorm": True} if strategy["sync_batchnorm"] else {}
    if strategy["name"] == "fsdp":
        spec["strategy"] = "fsdp"
    if trainer["on_nonfinite"] == "skip":
        spec["on_nonfinite"] = "skip"
    if trainer["auto_accumulate"]:
        spec["auto_accumulate"] = True
    return spec


def _identity_of(settings: Settings) -> dict[str, Any]:
    """Return the settings with file digests instead of the paths to weights and teachers."""
    plain = {name: without_unset(value) for name, value in settings.to_dict().items()}
    if not settings.extras:
        del plain["extras"]
    else:
        plain["extras"] = [
            {**config, "teacher": file_digest(checkpoint_file(Path(config["teacher"])))}
            if "teacher" in config
            else config
            for config in settings.extras
        ]
    if (embeddings := initial_file(settings.head)) is not None:
        plain["head"] = {**plain["head"], "initial": file_digest(embeddings)}
    weights = weights_file(settings.backbone["weights"]) if settings.backbone.get("weights") else None
    if weights:
        if not os.path.isfile(weights):  # unlike Path.is_file, False for a text that cannot be a path
            raise CheckpointError(f"backbone.weights={weights}: there is no such file")
        plain["backbone"] = {**plain["backbone"], "weights": file_digest(Path(weights))}
    return plain


def stage_key(spec: Mapping[str, Any]) -> str:
    """Return the SHA-256 in hex over the canonical JSON of `stage_spec`, with names and keys as first written."""
    original = as_first_written(spec)
    if "target" in spec:
        original["target"] = first_path_of(spec["target"])
        original["options"] = options_as_first_written(spec["target"], original["options"])
    return digest(original)


def run_identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a plain configuration that identifies the run."""
    identity = {key: value for key, value in without_private(config).items() if key not in _NOT_IDENTITY}
    identity["trainer"] = {
        key: value
        for key, value in identity["trainer"].items()
        if key not in _NOT_IDENTITY_TRAINER and _TRAINER_DEFAULTS.get(key, ...) != value
    }
    if identity["trainer"].get("ema_decay") is None:  # nothing reads it
        identity["trainer"].pop("ema_warmup", None)
    if tune_of(identity) is None:  # as in runs of earlier versions, which had no such choice
        identity.pop("tune", None)
    if (identity.get("features") or {}).get("name") == "images":
        del identity["features"]  # as in runs of earlier versions
    identity["evaluation"] = {k: v for k, v in identity["evaluation"].items() if k not in _NOT_IDENTITY_EVALUATION}
    prior = identity["evaluation"].get("prior")
    if prior is not None and Path(str(prior)).is_file():
        identity["evaluation"]["prior"] = file_digest(Path(str(prior)))
    dataset = {k: v for k, v in identity["dataset"].items() if k not in _NOT_IDENTITY_DATASET}
    dataset["source"] = {k: v for k, v in dataset["source"].items() if k not in _NOT_IDENTITY_SOURCE}
    return without_unset({**identity, "dataset": dataset})


def without_unset(config: Any, is_from_ltr: bool = True) -> Any:
    """Return a config without the options, at any depth, that later versions of ltr added and that change nothing.

    An option of other code, whose ``_target_`` lies outside ltr, is another one even if it has such a name.

    Args:
        is_from_ltr: whether a config without a ``_target_`` belongs to ltr, as the one around it does.
    """
    if not isinstance(config, Mapping):
        return config
    if "_target_" in config:
        is_from_ltr = path_of(str(config["_target_"])).partition(".")[0] == "ltr"
    later = LATER_OPTIONS if is_from_ltr else {}
    return {key: without_unset(value, is_from_ltr) for key, value in config.items() if value not in later.get(key, ())}


def run_hash(config: Mapping[str, Any]) -> str:
    """Return the hash in the run directory's name; runs of the same hash are the same run."""
    return digest(config_as_first_written(run_identity(config)))


def group_hash(config: Mapping[str, Any]) -> str:
    """Return the hash of the run's identity without its seed; runs that are averaged share it.

    The data's fingerprint and the digests of files are not part of it: each result holds them, which distinguishes
    changed data and files.
    """
    identity = {key: value for key, value in run_identity(config).items() if key not in ("seed", "data", "files")}
    return digest(config_as_first_written(identity))
