"""Construction of networks by method name from Python: `ltr.build`."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torchvision
from torch import nn

from ltr.configuration.allowed import as_text
from ltr.configuration.configs import config_names
from ltr.configuration.overrides import load_config
from ltr.configuration.quoting import quoted
from ltr.configuration.targets import check_arguments, instantiate, locate
from ltr.configuration.unknown_configs import unknown_config
from ltr.errors import ConfigError, nearest, refuse
from ltr.files import checkpoint_file
from ltr.methods.core.checkpoint import load_network
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo
from ltr.methods.core.stage import Method, Stage, StageOutput
from ltr.models.backbones import Backbone
from ltr.runs.plan import main_settings

# options of `build` that name a config of a group
CHOICES = ("head", "loss", "sampler", "optimizer", "scheduler", "tune")
TRAINING = {"batch_size": "batch_size", "epochs": "trainer.max_epochs"}  # and those that say how long it is trained
_PLAIN_DATASET = "svhn"  # no recipe changes its schedule or batch size, nor those of its pair with any method
_IMAGES_PER_CLASS = 100  # where class_counts are not given
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build(
    method: str = "erm",
    *,
    num_classes: int,
    backbone: str | nn.Module = "resnet32",
    image_size: int | tuple[int, int] | None = None,
    channels: int = 3,
    class_counts: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    **options: Any,
) -> ImageClassifier:
    """Build the untrained network of a method with the defaults that its config has.

    ```python
    network = ltr.build("herbs", num_classes=200, backbone="convnext_tiny", dropout=0.2)
    network = ltr.build("crt", num_classes=10, head="cosine", classifier={"optimizer": "adamw"})
    ```

    The network is the one that the method's last training trains, in evaluation mode: ``network(images)`` gives logits
    of images with pixels in [0, 1], ``network.predict(images)`` what the method evaluates, and
    ``network.training_step(batch, 0)`` a loss. Of a method that computes something after its training (class means, a
    chosen tau, the mean of an ensemble) it is the network that this starts from.

    Args:
        method: name of a config of the group ``method``.
        num_classes: C; of `background_splitting` with the background, which is class 0.
        backbone: name of a config of the group ``backbone``, of a timm model or of a torchvision model; or a module
            that maps normalised images [B, C, H, W] to features [B, D]. The network has a copy of the module.
        image_size: side of the images in pixels, or (H, W); None is the usual one of the backbone.
        channels: channels of the images.
        class_counts: training images of each class, for losses and methods that use them; None is the same for all.
        mean: per channel, of pixels in [0, 1]; None is ImageNet's for three channels, else 0.5.
        std: the same for the standard deviation.
        seed: seed of the initial weights.
        options: those of ``method.*``, nested ones as dictionaries; ``head``, ``loss``, ``sampler``, ``optimizer``,
            ``scheduler`` or ``tune``, each the name of a config of that group; and ``batch_size`` and ``epochs``.

    Raises:
        ConfigError: names everything that is wrong with the arguments.
    """
    if method not in (methods := config_names("method")):
        raise ConfigError(f"method={method}: {unknown_config('method', method, methods)}")
    is_module = isinstance(backbone, nn.Module)
    config = _composed(method, [] if is_module else _backbone_overrides(str(backbone)), options)
    size = image_size or _usual_size(backbone if is_module else config["backbone"])
    height, width = (size, size) if isinstance(size, int) else size
    dataset_info = _dataset_info((channels, height, width), num_classes, class_counts, mean, std)
    if is_module:
        module = {"module": backbone, "image_shape": dataset_info.image_shape}
        config["backbone"] = {"_target_": "ltr.models.module_backbone.backbone_from", **module}
    built: Method = instantiate(config["method"])
    if built.needs_background:
        dataset_info = DatasetInfo(**{**vars(dataset_info), "background": 0, "protocols": ("background",)})
    with warnings.catch_warnings():
        if class_counts is None:  # a method's warning of equal counts would be about ours
            warnings.simplefilter("ignore")
        built.check(dataset_info)
        stages = built.stages(main_settings(config, "fp32", built), dataset_info)
    return _network_of(stages, dataset_info, seed).eval()


def _composed(method: str, backbone: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a method with options, checked."""
    chosen = {key: value for key, value in options.items() if key in CHOICES and isinstance(value, str)}
    of_run = {TRAINING[key]: value for key, value in options.items() if key in TRAINING}
    of_method = {key: value for key, value in options.items() if key not in chosen and key not in TRAINING}
    overrides = [
        f"dataset={_PLAIN_DATASET}",
        *(f"{key}={value}" for key, value in chosen.items()),
        f"method={method}",
        *backbone,
        *(f"{key}={_written(value)}" for key, value in of_run.items()),
        *(f"{key}={_written(value)}" for key, value in _leaves(of_method, "method")),
    ]
    config = load_config(overrides)
    refuse(check_arguments({key: config[key] for key in ("method", "backbone", *CHOICES)}), "the options do not fit")
    return config


def _leaves(options: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{path}.{key}")
        else:
            yield f"{path}.{key}", value


def _written(value: Any) -> str:
    """Return a value as an override writes it."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_written(entry) for entry in value)}]"
    if isinstance(value, str) and not value.replace("_", "").replace("-", "").isalnum():
        return quoted(value)
    return as_text(value)


def _backbone_overrides(name: str) -> list[str]:
    """Return the overrides that choose a backbone by the name of its config, or of timm's or torchvision's model."""
    configs = config_names("backbone")
    if name in configs:
        return [f"backbone={name}"]
    import timm

    if timm.is_model(name):
        return ["backbone=timm", f"backbone.name={quoted(name)}"]
    of_torchvision = torchvision.models.list_models(module=torchvision.models)
    if name in of_torchvision:
        return ["backbone=torchvision", f"backbone.name={name}"]
    known = [*configs, *timm.list_models(), *of_torchvision]
    raise ConfigError(
        f"backbone={name}: there is no such backbone. Allowed are the configs {', '.join(configs)}, the models of timm "
        f"and torchvision by name, or a torch.nn.Module{nearest(name, known)}"
    )


def _usual_size(backbone: Any) -> int:
    """Return the side in pixels of the images that a module or the class of a config is made for."""
    if isinstance(backbone, Mapping):
        return int(locate(backbone["_target_"], "backbone").usual_size)
    size = getattr(backbone, "usual_size", None) or (getattr(backbone, "pretrained_cfg", None) or {}).get("input_size")
    return int(size[-1] if isinstance(size, Sequence) else size or Backbone.usual_size)


def _dataset_info(
    shape: tuple[int, int, int],
    num_classes: int,
    class_counts: Sequence[int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> DatasetInfo:
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 2:
        raise ConfigError(f"num_classes={num_classes}: a whole number of at least 2 is needed")
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in shape):
        raise ConfigError(
            f"channels={shape[0]}, image_size={list(shape[1:])}: whole numbers of at least 1 are needed, such as "
            "channels=3, image_size=224"
        )
    counts = [_IMAGES_PER_CLASS] * num_classes if class_counts is None else [int(count) for count in class_counts]
    if len(counts) != num_classes or min(counts) < 0:
        raise ConfigError(
            f"class_counts={counts}: num_classes={num_classes} whole numbers of at least 0 are needed, the training "
            "images of each class"
        )
    is_colour = shape[0] == 3
    means = mean if mean is not None else _IMAGENET_MEAN if is_colour else [0.5] * shape[0]
    stds = std if std is not None else _IMAGENET_STD if is_colour else [0.5] * shape[0]
    for name, values in (("mean", means), ("std", stds)):
        if len(values) != shape[0] or (name == "std" and min(values) <= 0):
            above = " above 0" if name == "std" else ""
            raise ConfigError(f"{name}={list(values)}: channels={shape[0]} numbers{above} are needed, one per channel")
    return DatasetInfo(
        image_shape=shape,
        mean=tuple(float(value) for value in means),
        std=tuple(float(value) for value in stds),
        class_names=tuple(str(label) for label in range(num_classes)),
        class_counts=tuple(counts),
    )


def _network_of(stages: Sequence[Stage], dataset_info: DatasetInfo, seed: int) -> ImageClassifier:
    """Return the network of the last stage that trains one, with the untrained ones of its parents."""
    outputs: dict[str, StageOutput] = {}
    for stage in stages:
        if stage.module is not None:
            load = functools.cache(functools.partial(_untrained, stage, dict(outputs), dataset_info, seed))
            outputs[stage.name] = StageOutput(stage.name, "", load)
    return outputs[next(reversed(outputs))].load()


def _untrained(stage: Stage, outputs: Mapping[str, StageOutput], dataset_info: DatasetInfo, seed: int) -> Any:
    """Return a stage's network; without its parents where one of them is computed, which needs images."""
    if stage.checkpoint is not None:
        return load_network(checkpoint_file(Path(stage.checkpoint)))
    are_built = all(name in outputs for name in stage.parents)
    parents = {name: outputs[name] for name in stage.parents} if are_built else None
    return stage.network(dataset_info, seed, parents).eval()
