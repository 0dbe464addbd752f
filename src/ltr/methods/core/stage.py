"""Methods: the stages they consist of, the settings of each, and the outputs of finished stages."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ltr.configuration.allowed import shown
from ltr.configuration.configs import config_names
from ltr.errors import ConfigError, nearest
from ltr.identity import name_of
from ltr.methods.core.options import Options, signature_of
from ltr.names import canonical

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ltr.data.source import Source
    from ltr.data.split import Split
    from ltr.evaluation.scores import Scores


# what a stage beside the main one has of its own: method.<stage>.<key>
STAGE_KEYS = ("sampler", "loss", "optimizer", "scheduler", "epochs", "selection")
# those of its keys that hold a config
_CONFIGS = ("sampler", "loss", "optimizer", "scheduler")


@dataclass(frozen=True)
class DatasetInfo:
    """The properties of a data set that a network depends on: plain values, stored with every checkpoint."""

    image_shape: tuple[int, int, int]  # (C, H, W)
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]  # images per class in the train split
    image_resize: int | list[int] | None = None  # of image files before evaluation's crop, where a config says
    protocols: tuple[str, ...] = ("closed_set",)  # what the split is evaluated by
    background: int | None = None  # the label of the background, in a background split
    matte: tuple[int, int, int] | None = None  # under transparent pixels, see `ltr.data.source.Decoding`
    white_level: int | None = None  # of 16-bit grey images
    interpolation: str | None = None  # of the resizing of image files; None: bilinear

    @property
    def num_classes(self) -> int:
        return len(self.class_counts)

    def to_dict(self) -> dict[str, Any]:
        """Return lists and numbers only, as a checkpoint stores them."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {key: value for key, value in plain.items() if key not in _UNSET_FACTS or value is not None}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> DatasetInfo:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
        # checkpoints from before names were compared in one form may hold another
        fields["class_names"] = tuple(canonical(str(name)) for name in fields["class_names"])
        return cls(**fields)


# left out while they are null: older checkpoints do not have them
_UNSET_FACTS = ("matte", "white_level", "interpolation")


@dataclass(frozen=True)
class Settings:
    """Training settings of a stage: the resolved configs and numbers, as plain data.

    A method's main stage takes these from the top level of the configuration (``sampler``, ``loss``, ...); its other
    stages replace what ``method.<stage>`` names.
    """

    sampler: Mapping[str, Any]
    loss: Mapping[str, Any]
    augment: Mapping[str, Any]
    head: Mapping[str, Any]
    backbone: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    epochs: int
    batch_size: int  # per optimiser step and over all processes
    precision: str  # bf16 | fp16 | fp32, resolved
    selection: str  # last | best_val | best_test
    accumulate: int = 1
    gradient_clip: float | None = None
    ema_decay: float | None = None
    limit_train_batches: int | None = None
    extras: tuple[Mapping[str, Any], ...] = ()  # further loss terms, each a config: method.extras
    tune: Mapping[str, Any] | None = None  # what of the backbone is trained; None: all of it
    features: Mapping[str, Any] | None = None  # how stored features are used, see `stored_features`; None: images

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as a checkpoint stores them; ``tune`` and ``features`` only where they are set."""
        return {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in ("tune", "features") or getattr(self, name) is not None
        }

    @property
    def solver(self) -> str:
        """Name of the solver: ``minibatch``, or ``lbfgs`` on all stored features at once."""
        return "minibatch" if self.features is None else self.features["solver"]

    @property
    def chooses_l2(self) -> bool:
        """True if the validation split chooses the weight of the penalty."""
        return self.solver == "lbfgs" and self.features is not None and self.features["l2"] == "auto"

    def replaced(self, **changes: Any) -> Settings:
        """Return these settings with some of them changed."""
        return replace(self, **changes)

    def for_stage(self, config: Mapping[str, Any], where: str, optional: Sequence[str] = ("augment",)) -> Settings:
        """Return these settings with what a further stage has of its own, without ``extras``.

        Args:
            config: the node of the configuration.
            where: its name there, e.g. ``method.classifier``.
            optional: configs that the stage may have of its own beside ``STAGE_KEYS``, which must all be given.

        Raises:
            ConfigError: a key is missing, nothing reads it, or it should hold a config and does not.
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
        return self.replaced(extras=(), **{key: config[key] for key in present_keys})


def tune_of(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the config of the group ``tune`` of a configuration; None where all of the backbone is trained."""
    tune = config.get("tune")
    return None if tune is None or name_of(str(tune.get("_target_"))) == "tune/all" else tune


def check_configs(node: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    """Refuse values in the place of configs.

    Args:
        node: of the configuration.
        keys: of the node, each named like the group that its config is of.
        where: the node's name, e.g. ``method.classifier``.

    Raises:
        ConfigError: a key holds something else, or a config that names no code.
    """
    for key in keys:
        if not isinstance(node[key], Mapping) or "_target_" not in node[key]:
            shown_value = "" if isinstance(node[key], Mapping) else f"={shown(node[key])}"
            raise ConfigError(
                f"{where}.{key}{shown_value}: a config with a _target_ is needed. Choose one with {where}.{key}=NAME; "
                f"there are: {', '.join(config_names(key))}"
            )


@dataclass(frozen=True)
class NetworkSpec:
    """All that a network is built from beside the options of its method: ``Network(spec, **options)``.

    Attributes:
        settings: how the stage is trained.
        dataset_info: image shape, normalisation, classes and their counts.
        seed: the run's seed.
        role: the stage's role; initial weights are a function of (seed, role).
        parents: the finished stages that the network starts from, by name; empty where a checkpoint is loaded into it
            next.
    """

    settings: Settings
    dataset_info: DatasetInfo
    seed: int
    role: str
    parents: Mapping[str, StageOutput] = field(default_factory=dict)

    def replaced(self, **changes: Any) -> NetworkSpec:
        """Return this specification with some of its fields changed."""
        return replace(self, **changes)


def build_network(network: Callable[..., Any], spec: NetworkSpec, options: Mapping[str, Any]) -> Any:
    """Return ``network(spec, **options)``.

    Raises:
        ConfigError: its constructor takes other arguments.
    """
    try:
        inspect.signature(network).bind(spec, **options)
    except TypeError as mismatch:
        name = getattr(network, "__qualname__", str(network))
        raise ConfigError(
            f"{name}: its constructor does not take (spec, {', '.join(options) or 'no options'}): {mismatch}. A "
            "network takes one NetworkSpec by position, which super().__init__(spec) needs, and its options by keyword"
        ) from mismatch
    return network(spec, **options)


@dataclass(frozen=True)
class Stage:
    """One step of a method whose outcome is stored and reused: a network that is trained, or arrays that are computed.

    Attributes:
        name: within the method: ``representation``, ``classifier``, ...
        role: what the random draws derive from, with the run's seed. Two stages of the same role, settings and data
            are the same network to the bit; networks that must not be twins have roles of their own.
        settings: how it is trained; a computed stage needs of them what draws its data.
        module: a train stage's LightningModule class, called with (a `NetworkSpec`, **options).
        compute: a compute stage's function, called with (a `Computation`, **options), that returns named arrays; a text
            among them called ``summary`` is printed in every run. Just one of ``module`` and ``compute`` is given.
        parents: names of earlier stages of this method that it starts from.
        options: anything else that determines it, as plain data.
        reads: parts of the split beside ``train`` that the computation looks at (``val``): they are in its key.
        checkpoint: a run's directory or weights file whose network is taken instead of training one.
        foreign: the checkpoint's network need not fit the stage's settings and data (a teacher of other classes).
        of_source: computed from the source alone: neither the seed nor the split is in the key.
    """

    name: str
    role: str
    settings: Settings
    module: type | None = None
    compute: Callable[..., Mapping[str, np.ndarray]] | None = None
    parents: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    checkpoint: str | None = None
    foreign: bool = False
    of_source: bool = False

    @property
    def target(self) -> Any:
        """The class or function that trains or computes the stage."""
        work = self.module or self.compute
        if work is None or (self.module and self.compute):
            raise ValueError(f"stage '{self.name}' needs either a module or a compute function")
        return work

    def network(self, dataset_info: DatasetInfo, seed: int, parents: Mapping[str, StageOutput] | None = None) -> Any:
        """Return the network that this stage trains, as it is initialised.

        Args:
            dataset_info: of the data.
            seed: the run's seed.
            parents: finished stages by name; None where a checkpoint is loaded into the network next.
        """
        spec = NetworkSpec(self.settings, dataset_info, seed, self.role, parents or {})
        return build_network(self.target, spec, self.options)


@dataclass(frozen=True)
class Computation:
    """Inputs of a compute stage.

    Attributes:
        parents: the finished stages that it starts from, by name.
        settings: of the stage.
        dataset_info: of the data.
        source, split: the data; what is computed per image is indexed by the image's place in the source.
        loader: part of the split (``train``, ``val``, ``test``), or source indices -> their batches in order,
            un-augmented.
        device: where to compute.
        autocast: the run's precision, as a context manager.
        seed: the run's seed; draws derive from (seed, role).
        role: of the stage.
    """

    parents: Mapping[str, StageOutput]
    settings: Settings
    dataset_info: DatasetInfo
    source: Source
    split: Split
    loader: Callable[[str | np.ndarray], Iterable[Any]]
    device: torch.device
    autocast: Callable[[], Any]
    seed: int
    role: str


@dataclass(frozen=True)
class StageOutput:
    """A finished stage: its network on demand, its arrays, and how it came about."""

    name: str
    key: str
    load: Callable[[], Any]  # the network with the weights that a train stage provides, in eval mode
    load_last: Callable[[], Any] | None = None  # the last epoch's, where another epoch was selected
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    reused: bool = False
    seconds: float = 0.0
    micro_batch: int | None = None  # images at once in training, where memory did not do for a batch


class Predictor:
    """Base class for predictors: images in, `Scores` by variant out.

    A LightningModule that has `predict` serves as one. ``headline`` names the variant that a run is evaluated by; it is
    declared here, before any test image is seen.
    """

    headline: str = "default"
    link: str = "softmax"

    def predict(self, images: torch.Tensor) -> dict[str, Scores]:
        """Return the scores of uint8 or [0, 1] images [B, C, H, W], one entry per variant."""
        raise NotImplementedError


class Method:
    """A method of a paper: the stages it consists of and how a trained one predicts.

    A light object: building it and its stages costs nothing, so that a plan can be made without training.

    Attributes:
        Options: the declaration of its options, from which its constructor follows; None for a method without any, or
            with a constructor of its own.
        provides: what its predictions hold, of ``logits``, ``features``, ``knownness``; protocols need some of these.
        accepts_extras: whether its main stage takes the further loss terms of ``method.extras``.
        needs_background: whether the data must have a background class.
        takes_stored_features: whether its networks can be trained on stored features of a frozen backbone: all that
            they do with a batch's images is to pass them through `ltr.methods.core.network.ImageClassifier.features`.
    """

    Options: ClassVar[type[Options] | None] = None
    options: Any  # an instance of `Options`
    provides: tuple[str, ...] = ("logits",)
    accepts_extras: bool = False
    needs_background: bool = False
    takes_stored_features: bool = False

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        is_declared = cls.__dict__.get("Options") is not None or cls.__init__ is Method.__init__
        if is_declared:
            signature = inspect.Signature() if cls.Options is None else signature_of(cls.Options)
        else:
            signature = inspect.signature(cls.__init__)
            signature = signature.replace(parameters=list(signature.parameters.values())[1:])  # without self
        cls.__signature__ = signature  # type: ignore[attr-defined]

    def __init__(self, **options: Any) -> None:
        if self.Options is not None:
            self.options = self.Options(**options)
        elif options:
            raise TypeError(f"{type(self).__name__} takes no options: {', '.join(options)}")

    def check(self, dataset_info: DatasetInfo) -> None:
        """Raise ConfigError where the method cannot be used on such data; called before anything is trained."""

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        """Return the stages in order, parents first."""
        raise NotImplementedError

    def predictor(self, outputs: Mapping[str, StageOutput]) -> Any:
        """Return the trained method, an ImageClassifier that is a `Predictor`; by default the last stage's network.

        Where the last stage is a computed one, this network is what the run keeps as its final checkpoint.
        """
        return outputs[list(outputs)[-1]].load()
