"""Plan of a run from its configuration and data: description of the data, settings and keys of the stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ltr.configuration.advice import hold_out
from ltr.configuration.allowed import as_text
from ltr.configuration.configs import canonical_json
from ltr.configuration.targets import instantiate
from ltr.data.packed_images.reading import read_source
from ltr.data.source import ImageFiles, Source
from ltr.data.sources.camera_traps import is_cut_by_box
from ltr.data.split import Split
from ltr.data.splitting.exclusion import read_split
from ltr.errors import ConfigError, DataError
from ltr.identity import name_of
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings, tune_of
from ltr.methods.core.stage import Method, Stage
from ltr.models.hub_weights import with_weights_file
from ltr.optim.libraries import check_optimizer
from ltr.runs.check_features import check_stored, frozen, stored_settings
from ltr.runs.check_networks import check_networks
from ltr.runs.evaluation.deployment_prior import evaluation_of
from ltr.runs.evaluation.protocols import check_method, protocols_of
from ltr.runs.evaluation.unused_options import warn_of_unused_options
from ltr.runs.image_size import check_backbones, check_configured_size
from ltr.runs.keys import code_configs_of, execution_spec, stage_key, stage_spec
from ltr.runs.processes.device import check_strategy, resolve_device, resolve_precision
from ltr.runs.training.doubts import warn_of_unused_trainer_options
from ltr.runs.training.micro_batch import check_plan
from ltr.runs.training.sharpness import check_sharpness
from ltr.runs.unread_settings import warn_of_unread_options, warn_of_unread_settings
from ltr.runs.unused_split_options import warn_of_unused_split_options


class NeedsValidation(ConfigError):
    """Error for a selection on validation images if the split has none.

    Args:
        otherwise: alternative to holding out images; `plan_of` appends it to the advice for the data set.
    """

    def __init__(self, message: str, otherwise: str = "") -> None:
        super().__init__(message)
        self.otherwise = otherwise


@dataclass(frozen=True, eq=False)
class RunPlan:
    """Stages of a run with their keys and data, before any training.

    Attributes:
        stages: stages in order, parents first.
        keys: key of every stage by name, with the specification that it is the hash of.
    """

    device: torch.device
    precision: str
    method: Method
    source: Source
    split: Split
    dataset_info: DatasetInfo
    stages: list[Stage]
    keys: dict[str, tuple[str, dict[str, Any]]]


class LastSource:
    """Cache of the last data set, which most jobs of a sweep share."""

    def __init__(self) -> None:
        self._kept: tuple[str, Source] | None = None

    def __call__(self, config: Mapping[str, Any]) -> Source:
        which = canonical_json(config)
        if self._kept is None or self._kept[0] != which:
            self._kept = None  # before reading the next one: two may not fit into memory
            self._kept = (which, instantiate(config))
        return self._kept[1]


def plan_of(
    config: Mapping[str, Any],
    source: Source | None = None,
    read: Callable[[Mapping[str, Any]], Source] = instantiate,
) -> RunPlan:
    """Read the data and return the plan of a checked, resolved, plain configuration.

    Args:
        source: data set of ``config`` if it is already read; runs that share it then share the memory.
        read: builds a source from its config if ``source`` is None.

    Raises:
        LtrError: a mistake for which the run would stop before its first stage; `NeedsValidation` if only validation
            images are missing.
    """
    device = resolve_device(config["trainer"]["accelerator"])
    check_strategy(config["strategy"], device)
    precision = resolve_precision(config["trainer"]["precision"], device)
    if precision == "fp16" and config["trainer"]["on_nonfinite"] == "skip":
        raise ConfigError("trainer.on_nonfinite=skip: fp16's loss scaling already skips such steps. Use raise")
    method: Method = instantiate(config["method"])
    check_configured_size(config)
    data: Source = read_source(config["dataset"], read) if source is None else source
    split = read_split(config["dataset"], data)
    _check_split(config, split, device)
    warn_of_unused_split_options(config["dataset"], data, split)
    dataset_info = describe_dataset(config, data, split)
    check_method(method, config["method"]["name"], split, data, config["evaluation"])
    warn_of_unused_options(config, split)
    warn_of_unused_trainer_options(config["trainer"])
    method.check(dataset_info)
    main = main_settings(config, precision, method)
    stages = method.stages(main, dataset_info)
    warn_of_unread_settings(config, method, stages, main, dataset_info)
    warn_of_unread_options(config, method)
    check_stored(config, method, stages, dataset_info)
    _check_prior(config, stages[-1], dataset_info, split, device)
    check_backbones(stages, dataset_info, config["dataset"])
    for stage in stages:
        if stage.module is not None and stage.checkpoint is None:
            check_optimizer(stage.settings.optimizer)
            _check_evaluations(stage, config)
    for stage in stages:
        check_sharpness(stage, config, dataset_info.class_counts)
    if config["trainer"]["auto_accumulate"]:
        for stage in stages:
            check_plan(stage, dataset_info)
    check_networks(config, stages, dataset_info, data, split)
    try:
        keys = plan_keys(
            stages, config["seed"], data, split, dataset_info, execution_spec(config), code_configs_of(config)
        )
    except NeedsValidation as error:
        raise NeedsValidation(f"{error}. {hold_out(config, error.otherwise)}") from error
    return RunPlan(device, precision, method, data, split, dataset_info, stages, keys)


def _check_split(config: Mapping[str, Any], split: Split, device: torch.device) -> None:
    if config["trainer"]["selection"] == "best_val" and not len(split.val):
        raise NeedsValidation(
            f"trainer.selection=best_val: the split '{split.name}' has no validation images. "
            f"{hold_out(config, 'select the last epoch: trainer.selection=last')}"
        )
    if not len(split.test) and not len(split.unknown):
        raise DataError(
            f"the split '{split.name}' has no test images, so there is nothing to evaluate after training. Give it "
            "at least one"
        )
    processes = config["trainer"]["devices"]
    for part in ("val", "test"):
        images = len(getattr(split, part))
        if 0 < images < processes:  # a process would have nothing to evaluate
            raise DataError(
                f"the split '{split.name}' has {images} {part} images for {processes} processes. Use fewer processes: "
                f"trainer.devices={images} at most"
            )
    protocols_of(split, evaluation_of(config), "softmax", device)  # raises for bounds that contradict each other


def _check_evaluations(stage: Stage, config: Mapping[str, Any]) -> None:
    """Refuse a selection of the best epoch in a training that is too short for an evaluation."""
    every, epochs = config["evaluation"]["every_n_epochs"], stage.settings.epochs
    if stage.module is not None and stage.settings.selection != "last" and every > epochs:
        raise ConfigError(
            f"evaluation.every_n_epochs={every}: stage '{stage.name}' has {epochs} epochs, so that none of them is "
            f"evaluated, and {stage.settings.selection} cannot select one. Lower it to at most {epochs}, or select the "
            "last epoch: trainer.selection=last"
        )


def _check_prior(
    config: Mapping[str, Any], last: Stage, dataset_info: DatasetInfo, split: Split, device: torch.device
) -> None:
    """Before training, refuse a deployment prior for scores that are not a softmax.

    Networks whose link does not come from their loss are checked in their evaluation.
    """
    if config["evaluation"].get("prior") is None or getattr(last.target, "link", None) is not ImageClassifier.link:
        return
    link = instantiate(last.settings.loss, dataset_info.class_counts).link
    protocols_of(split, evaluation_of(config), link, device)


def image_shape(config: Mapping[str, Any], source: Source) -> tuple[int, int, int]:
    """Return (C, H, W) of the network's input."""
    if isinstance(source.images, ImageFiles):
        size = config["dataset"]["image_size"]
        return (3, size, size)
    _, height, width, channels = source.images.shape
    side = config["dataset"].get("resize_to")
    return (channels, side or height, side or width)


def describe_dataset(config: Mapping[str, Any], source: Source, split: Split) -> DatasetInfo:
    """Return the description of the data that the networks of a run need.

    Raises:
        ConfigError: ``dataset.mean`` or ``dataset.std`` do not fit the images' channels.
    """
    shape = image_shape(config, source)
    mean, std = config["dataset"]["mean"], config["dataset"]["std"]
    if len(mean) != shape[0] or len(std) != shape[0]:
        raise ConfigError(f"dataset.mean={mean} and dataset.std={std} need {shape[0]} numbers each, one per channel")
    if any(not value > 0 for value in std):
        raise ConfigError(f"dataset.std={std}: each must be above 0")
    return DatasetInfo(
        image_shape=shape,
        mean=tuple(float(value) for value in mean),
        std=tuple(float(value) for value in std),
        class_names=tuple(split.class_names),
        class_counts=tuple(int(count) for count in split.class_counts),
        image_resize=config["dataset"].get("image_resize"),
        protocols=split.protocols,
        background=0 if "background" in split.protocols else None,
        matte=source.decoding.matte,
        white_level=source.decoding.white_level,
        interpolation="bicubic" if config["dataset"].get("interpolation") == "bicubic" else None,
        cut_by_box=is_cut_by_box(source) if "crop" in config["dataset"] else None,
    )


def main_settings(config: Mapping[str, Any], precision: str, method: Method) -> Settings:
    """Return the settings of a method's main stage, from the top level of the configuration.

    Raises:
        ConfigError: ``method.extras`` for a method without further loss terms.
    """
    trainer = config["trainer"]
    extras = _extras(config["method"].get("extras"))
    if extras and not method.accepts_extras:
        raise ConfigError(
            f"method.extras: method={config['method']['name']} takes no further loss terms; erm and the methods that "
            "start from a representation do"
        )
    stored = stored_settings(config)
    backbone = with_weights_file(config["backbone"])
    return Settings(
        sampler=config["sampler"],
        loss=config["loss"],
        augment=config["augment"],
        head=config["head"],
        backbone=backbone if stored is None else frozen(backbone),
        optimizer=config["optimizer"],
        scheduler=config["scheduler"],
        epochs=trainer["max_epochs"],
        batch_size=config["batch_size"],
        precision=precision,
        selection=trainer["selection"],
        accumulate=trainer["accumulate"],
        gradient_clip=trainer["gradient_clip"],
        ema_decay=trainer["ema_decay"],
        ema_warmup=trainer["ema_decay"] is not None and trainer["ema_warmup"],
        limit_train_batches=trainer["limit_train_batches"],
        extras=extras,
        tune=_tune(config, stored is not None),
        features=stored,
        sharpness=config.get("sharpness"),
    )


def _tune(config: Mapping[str, Any], is_stored: bool) -> Mapping[str, Any] | None:
    """Return the config ``tune``; None if the whole backbone is trained, and on stored features.

    Raises:
        ConfigError: ``tune`` contradicts ``backbone.trainable`` or stored features, which need a frozen backbone.
    """
    tune, trainable = tune_of(config), config["backbone"].get("trainable", "all")
    if tune is None:
        return None
    if trainable != "all":
        raise ConfigError(
            f"tune and backbone.trainable={trainable} both choose the trainable part of the backbone. Leave out "
            "backbone.trainable; tune has none, last_block, norm, bias, lora, adapter, vpt and all"
        )
    chosen = name_of(str(tune["_target_"])).rpartition("/")[2]
    if is_stored and chosen != "none":
        raise ConfigError(
            f"tune={chosen} trains a part of the backbone, and features=stored keeps the backbone fixed. Use "
            "features=images, or tune=none"
        )
    return None if is_stored else tune


def _extras(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Return the further loss terms of ``method.extras``.

    Raises:
        ConfigError: the value is not a list of configs.
    """
    terms = [] if value is None else value
    if not isinstance(terms, list) or any(not isinstance(one, Mapping) or "_target_" not in one for one in terms):
        raise ConfigError(
            f"method.extras={as_text(value)}: a list of configs is needed, each with a _target_, such as "
            "[{_target_: ltr.methods.distillation.terms.RKD, teacher: RUN}]"
        )
    return tuple(terms)


def plan_keys(
    stages: Sequence[Stage],
    seed: int,
    source: Source,
    split: Split,
    dataset_info: DatasetInfo,
    execution: Mapping[str, Any] | None = None,
    code_configs: Mapping[str, Any] | None = None,
) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return key and specification of every stage, parents first.

    Args:
        execution: execution of trainings, see `ltr.runs.keys.execution_spec`.
        code_configs: see `ltr.runs.keys.code_configs_of`.

    Raises:
        ConfigError: a stage does not come after its parent, or needs images that the split does not have.
        CheckpointError: a stage's checkpoint does not exist.
    """
    keys: dict[str, str] = {}
    planned = {}
    for stage in stages:
        for parent in stage.parents:
            if parent not in keys:
                raise ConfigError(
                    f"stage '{stage.name}' starts from '{parent}', which does not come before it; "
                    f"earlier stages: {', '.join(keys) or 'none'}"
                )
        _check_parts(stage, split)
        spec = stage_spec(stage, seed, source, split, dataset_info, keys, execution, code_configs)
        keys[stage.name] = stage_key(spec)
        planned[stage.name] = (keys[stage.name], spec)
    return planned


def _check_parts(stage: Stage, split: Split) -> None:
    for part in stage.reads:
        if not len(getattr(split, part)):
            raise NeedsValidation(
                f"stage '{stage.name}' is computed on the {part} images, and the split '{split.name}' has none",
                f"set method.{stage.name} to a number",
            )
    if stage.module is not None and stage.settings.chooses_l2 and not len(split.val):
        raise NeedsValidation(
            f"features.l2=auto chooses the regularisation of stage '{stage.name}' on validation images, and the split "
            f"'{split.name}' has none",
            "set features.l2 to a number, such as features.l2=1e-2",
        )
    if stage.settings.selection == "best_val" and not len(split.val) and stage.checkpoint is None:
        raise NeedsValidation(
            f"stage '{stage.name}' selects its weights by selection=best_val, and the split '{split.name}' has no "
            "validation images",
            "select the last epoch",
        )
