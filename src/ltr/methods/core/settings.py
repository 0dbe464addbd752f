"""Settings of a stage's training, and the properties of a data set that networks depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ltr.configuration.allowed import as_text
from ltr.configuration.configs import config_names
from ltr.errors import ConfigError, nearest
from ltr.identity import name_of
from ltr.names import canonical, list_first

# settings of a stage other than the main one: method.<stage>.<key>
STAGE_KEYS = ("sampler", "loss", "optimizer", "scheduler", "epochs", "selection")
# those that are configs
_CONFIGS = ("sampler", "loss", "optimizer", "scheduler")


@dataclass(frozen=True)
class DatasetInfo:
    """Properties of a data set that a network depends on; plain values, stored in every checkpoint."""

    image_shape: tuple[int, int, int]  # (C, H, W)
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]  # images per class in the train split
    image_resize: int | list[int] | None = None  # of image files before the crop in evaluation; None: not set
    protocols: tuple[str, ...] = ("closed_set",)  # evaluation protocols of the split
    background: int | None = None  # the label of the background, in a background split
    matte: tuple[int, int, int] | None = None  # colour under transparent pixels, see `ltr.data.source.Decoding`
    white_level: int | None = None  # of 16-bit grey images
    interpolation: str | None = None  # of the resizing of image files; None: bilinear
    cut_by_box: bool | None = None  # whether the images are crops of boxes; None: the data set has no option for it

    @property
    def num_classes(self) -> int:
        return len(self.class_counts)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as lists and numbers, for checkpoints."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {key: value for key, value in plain.items() if key not in _LATER_FIELDS or value is not None}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> DatasetInfo:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
        # older checkpoints may hold names in another Unicode form
        fields["class_names"] = tuple(canonical(str(name)) for name in fields["class_names"])
        return cls(**fields)


# fields that later versions added: a description holds them only if they are set
_LATER_FIELDS = ("matte", "white_level", "interpolation", "cut_by_box")


@dataclass(frozen=True)
class Settings:
    """Training settings of a stage: resolved configs and numbers, as plain data.

    The main stage of a method uses the top level of the configuration (``sampler``, ``loss``, ...); other stages
    replace the settings in ``method.<stage>``.
    """

    sampler: Mapping[str, Any]
    loss: Mapping[str, Any]
    augment: Mapping[str, Any]
    head: Mapping[str, Any]
    backbone: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    epochs: int
    batch_size: int  # images per batch over all processes
    precision: str  # bf16 | fp16 | fp32, resolved
    selection: str  # last | best_val | best_test
    accumulate: int = 1
    gradient_clip: float | None = None
    ema_decay: float | None = None
    limit_train_batches: int | None = None
    extras: tuple[Mapping[str, Any], ...] = ()  # configs of further loss terms: method.extras
    tune: Mapping[str, Any] | None = None  # config of parameter-efficient tuning; None: all of the backbone is trained
    features: Mapping[str, Any] | None = None  # settings of stored features; None: train on images
    sharpness: Mapping[str, Any] | None = None  # config of a perturbed gradient; None: the gradient at the weights
    views: tuple[Mapping[str, Any], ...] = ()  # augmentations of further views of each image: `Batch.views`
    ema_warmup: bool = False  # the decay rises to ema_decay; False without one

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, for checkpoints; fields that later versions added only if they are set."""
        return {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in ("tune", "features", "sharpness", "views", "ema_warmup") or getattr(self, name)
        }

    @property
    def solver(self) -> str:
        """Name of the solver: ``minibatch``, or ``lbfgs`` on all stored features at once."""
        return "minibatch" if self.features is None else self.features["solver"]

    @property
    def chooses_l2(self) -> bool:
        """True if the weight of the L2 penalty is chosen on the validation split."""
        return self.solver == "lbfgs" and self.features is not None and self.features["l2"] == "auto"

    def replaced(self, **changes: Any) -> Settings:
        """Return a copy with some settings changed."""
        return replace(self, **changes)

    def for_stage(self, config: Mapping[str, Any], where: str, optional: Sequence[str] = ("augment",)) -> Settings:
        """Return a copy with the settings of another stage, without ``extras``, ``sharpness`` and ``views``.

        Args:
            config: the stage's settings; all of ``STAGE_KEYS`` are required.
            where: its key in the configuration, e.g. ``method.classifier``.
            optional: further configs that the stage may replace.

        Raises:
            ConfigError: a key is missing or unknown, or its value is not a config.
        """
        known = (*STAGE_KEYS, *optional)
        for key in config:
            if key not in (*known, "_allowed_"):
                raise ConfigError(
                    f"{where}.{key}: nothing reads it; {where} has {', '.join(known)}{nearest(key, known)}"
                )
        missing = [key for key in STAGE_KEYS if key not in config]
        if missing:
            raise ConfigError(f"{where}: {', '.join(missing)} must be given; the shipped configs of methods show how")
        present_keys = [key for key in known if key in config]
        check_configs(config, [key for key in present_keys if key in (*_CONFIGS, *optional)], where)
        return self.replaced(extras=(), sharpness=None, views=(), **{key: config[key] for key in present_keys})


def describe_other_names(trained: Sequence[str], names: Sequence[str]) -> str:
    """Describe how the class names of a data set differ from those of a network."""
    lacking = {"the data set lacks": set(trained) - set(names), "the network lacks": set(names) - set(trained)}
    texts = [f"{who} {list_first(sorted(missing))}" for who, missing in lacking.items() if missing]
    return "; ".join(texts) or "the same names, in another order"


def tune_of(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the config of the group ``tune``; None if all of the backbone is trained."""
    tune = config.get("tune")
    return None if tune is None or name_of(str(tune.get("_target_"))) == "tune/all" else tune


def check_configs(node: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    """Check that the values of some keys are configs with a ``_target_``.

    Args:
        node: a node of the configuration.
        keys: keys of the node, named like config groups.
        where: the key of the node, e.g. ``method.classifier``.

    Raises:
        ConfigError: a value is not a config, or has no ``_target_``.
    """
    for key in keys:
        if not isinstance(node[key], Mapping) or "_target_" not in node[key]:
            shown_value = "" if isinstance(node[key], Mapping) else f"={as_text(node[key])}"
            raise ConfigError(
                f"{where}.{key}{shown_value}: a config with a _target_ is needed. Choose one with {where}.{key}=NAME; "
                f"there are: {', '.join(config_names(key))}"
            )
