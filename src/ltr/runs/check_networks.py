"""Check of every stage of a run before the first: networks, augmentations, optimisers and schedules are built.

What a network, a loss or an augmentation refuses in its constructor, and weights that do not fit, are then refused by
``stages=plan``, and before the first stage of a run instead of between two of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ltr.configuration.targets import class_name, instantiate
from ltr.data.module import DataModule
from ltr.data.source import Source
from ltr.data.split import Split
from ltr.errors import ConfigError, LtrError
from ltr.methods.core.checkpoint import without_initial_weights
from ltr.methods.core.initial_head import check_initial_head
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import NeedsParents, Stage, StageOutput
from ltr.models.backbones import ImageSizeError
from ltr.models.hub_weights import HUB
from ltr.runs.check_weights import check_initial_weights, read_checkpoints
from ltr.runs.image_size import check_images
from ltr.runs.single_images import join_single_images
from ltr.runs.training.micro_batch import check_network
from ltr.runs.unread_settings import warn_of_unread_rates


def check_networks(
    config: Mapping[str, Any], stages: Sequence[Stage], dataset_info: DatasetInfo, source: Source, split: Split
) -> None:
    """Build what each training of a run needs, without pixels, computation and downloads, and drop it again.

    Args:
        config: the run's configuration.
        stages: stages of the run.

    Raises:
        LtrError: see the classes that the settings of a stage name.
    """
    checkpoints = read_checkpoints(stages, dataset_info)
    trainings: list[tuple[Settings, list[str]]] = []  # settings, and names of the optimiser's groups
    are_all_built = True
    for stage in stages:
        if stage.checkpoint is not None:
            continue
        parents = {parent: checkpoints[parent] for parent in stage.parents if parent in checkpoints}
        if stage.check is not None:
            stage.check(source, split, dataset_info, parents)
        if stage.module is None:
            continue
        check_initial_weights(stage.settings.backbone, dataset_info.image_shape)
        data = _data_module(config, stage, dataset_info, source, split)
        if len(parents) < len(stage.parents):
            parents = {}
        try:
            network = _built(stage, dataset_info, config["seed"], "cpu" if parents else "meta", parents)
            norms = None if network is None else check_images(stage, network, dataset_info, config["dataset"])
        except ImageSizeError:  # or the network makes tensors on the CPU
            network = _built(stage, dataset_info, config["seed"], "cpu", parents)
            norms = None if network is None else check_images(stage, network, dataset_info, config["dataset"])
        if network is None or norms is None:
            are_all_built = False
            continue
        _check_processes(network, config)
        _check_mixing(network, data)
        join_single_images(stage, data, norms, config["strategy"], lambda text: None)
        check_initial_head(network)
        optimizer, _ = network.optimisation(data.steps_per_epoch)
        trainings.append((stage.settings, [group.get("name", "") for group in optimizer.param_groups]))
        if config["trainer"]["auto_accumulate"]:
            check_network(stage, network)
    if are_all_built:
        warn_of_unread_rates(config, trainings)


def _data_module(
    config: Mapping[str, Any], stage: Stage, dataset_info: DatasetInfo, source: Source, split: Split
) -> DataModule:
    """Return the data of a stage, from which no image is read."""
    settings, shape = stage.settings, dataset_info.image_shape
    data = DataModule(
        source,
        split,
        sampler=instantiate(settings.sampler),
        augment=instantiate(settings.augment, shape),
        views=[instantiate(view, shape) for view in settings.views],
        batch_size=settings.batch_size,
        eval_batch_size=config["evaluation"]["batch_size"],
        seed=config["seed"],
        role=stage.role,
        epochs=settings.epochs,
    )
    data.processes = (0, config["trainer"]["devices"])
    return data


def _built(stage: Stage, dataset_info: DatasetInfo, seed: int, device: str, parents: Mapping[str, StageOutput]) -> Any:
    """Return a stage's network without initial weights, on the CPU if it cannot be built on the meta device.

    None for a network that only the training itself can build: with finished parents, or from a hub's layout.

    Args:
        parents: outputs of all parents if each is a checkpoint; else {}.
    """
    settings = stage.settings
    if str(settings.backbone.get("name", "")).startswith(HUB):
        return None
    backbone = {**settings.backbone, **without_initial_weights(settings.backbone)}
    bare = replace(stage, settings=settings.replaced(backbone=backbone), parents=tuple(parents))
    for of_tensors in ("meta", "cpu") if device == "meta" else ("cpu",):
        try:
            with warnings.catch_warnings(), torch.device(of_tensors):
                warnings.simplefilter("ignore")  # the training repeats them
                return bare.network(dataset_info, seed, parents)
        except NeedsParents:  # raised after the checks of what the settings name
            return None
        except LtrError:
            raise
        except Exception:  # values of meta tensors or of parents are missing; code of users may raise anything
            continue
    return None


def _check_processes(network: Any, config: Mapping[str, Any]) -> None:
    """Refuse several processes for a network whose training is in one."""
    devices, obstacle = config["trainer"]["devices"], getattr(network, "processes_obstacle", None)
    if devices > 1 and obstacle is not None:
        raise ConfigError(
            f"trainer.devices={devices}: {obstacle}, and is trained in one process. Set trainer.devices=1 and "
            "strategy=single"
        )


def _check_mixing(network: Any, data: DataModule) -> None:
    """Refuse mixed images for a loss that compares images of different classes."""
    mix = getattr(data.augment, "mix", None)
    if mix is None or getattr(getattr(network, "loss", None), "takes_mixed_images", True):
        return
    raise ConfigError(
        f"augment.mix={mix}: {class_name(network.settings.loss)} cannot use mixed images. Set "
        "augment.mix=null, or use an augmentation without mixup, remix and cutmix"
    )
