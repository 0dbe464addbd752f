"""Base class of methods, and the stages of a method with their inputs and outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ltr.configuration.unwritten import left_to_subclasses
from ltr.errors import ConfigError
from ltr.methods.core.options import Options, signature_of
from ltr.methods.core.settings import DatasetInfo, Settings

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ltr.data.source import Source
    from ltr.data.split import Split


class NeedsParents(ConfigError):
    """Error for a network whose constructor needs the arrays of finished parents."""


@dataclass(frozen=True)
class NetworkSpec:
    """Constructor arguments that all networks share: ``Network(spec, **options)``.

    Attributes:
        dataset_info: image shape, normalisation, classes and their counts.
        role: the stage's role; initial weights are a function of (seed, role).
        parents: the finished stages that the network starts from, by name; empty if a checkpoint is loaded next.
    """

    settings: Settings
    dataset_info: DatasetInfo
    seed: int
    role: str
    parents: Mapping[str, StageOutput] = field(default_factory=dict)

    def replaced(self, **changes: Any) -> NetworkSpec:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


def build_network(network: Callable[..., Any], spec: NetworkSpec, options: Mapping[str, Any]) -> Any:
    """Return ``network(spec, **options)``.

    Raises:
        ConfigError: the constructor takes other arguments.
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
    """One step of a method with a cached result: a network to train, or arrays to compute.

    Attributes:
        name: name within the method: ``representation``, ``classifier``, ...
        role: seed of all random numbers, together with the run's seed. Stages with equal role, settings and data are
            bit-identical; networks that must differ have different roles.
        settings: training settings; a computed stage uses those of the data loader.
        module: LightningModule class of a train stage, called with (a `NetworkSpec`, **options).
        compute: function of a compute stage, called with (a `Computation`, **options). It returns named arrays; a text
            called ``summary`` is printed in every run. Exactly one of ``module`` and ``compute`` is set.
        parents: names of earlier stages of this method that it starts from.
        options: all other inputs of the stage, as plain data.
        reads: parts of the split that the computation reads besides ``train`` (``val``); they are in its key.
        checkpoint: a run's directory or weights file to load instead of training.
        foreign: the checkpoint may differ from the stage's settings and data (a teacher of other classes).
        of_source: the computation depends on the source only: neither seed nor split is in the key.
        taxonomy_rank: rank of the source's taxonomy that the computation reads; its names are in the key.
        check: refuses data and weights that the stage cannot use, before the first stage: a function of (source, split,
            dataset information, outputs of the parents that are checkpoints by name) that raises LtrError.
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
    taxonomy_rank: str | None = None
    check: Callable[[Source, Split, DatasetInfo, Mapping[str, StageOutput]], None] | None = None

    @property
    def target(self) -> Any:
        """Class or function of the stage."""
        work = self.module or self.compute
        if work is None or (self.module and self.compute):
            raise ValueError(f"stage '{self.name}' needs either a module or a compute function")
        return work

    def network(self, dataset_info: DatasetInfo, seed: int, parents: Mapping[str, StageOutput] | None = None) -> Any:
        """Build the stage's network with its initial weights.

        Args:
            parents: finished stages by name; None if a checkpoint is loaded next.
        """
        spec = NetworkSpec(self.settings, dataset_info, seed, self.role, parents or {})
        return build_network(self.target, spec, self.options)


@dataclass(frozen=True)
class Computation:
    """Inputs of a compute stage.

    Attributes:
        parents: the finished stages that it starts from, by name.
        source, split: the data; arrays with a value per image are indexed by source index.
        loader: function from a part of the split (``train``, ``val``, ``test``) or source indices to batches in order,
            without augmentation.
        autocast: context manager of the run's precision.
        seed: the run's seed; random numbers derive from (seed, role).
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
    """Output of a finished stage: its network, loaded on demand, and its arrays."""

    name: str
    key: str
    load: Callable[[], Any]  # the network with the weights that a train stage provides, in eval mode
    load_last: Callable[[], Any] | None = None  # the last epoch's, where another epoch was selected
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    reused: bool = False
    seconds: float = 0.0
    micro_batch: int | None = None  # images per forward pass in training, if a batch did not fit into memory
    # replaced images and skipped steps of its training and of those that it builds on, by stage
    incidents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Method:
    """Base class for methods: the stages of a method, and its predictor.

    Building a method and its stages is cheap; nothing is trained or loaded.

    Attributes:
        Options: declaration of the options, which defines the constructor; None for a method without options, or with
            its own constructor.
        provides: fields of its predictions, of ``logits``, ``features``, ``knownness``; protocols need some of these.
        accepts_extras: whether its main stage supports the loss terms of ``method.extras``.
        needs_background: whether the data must have a background class.
        takes_stored_features: whether its networks can be trained on stored features of a frozen backbone, because they
            use a batch's images only through `ltr.methods.core.network.ImageClassifier.features`.
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
        """Raise ConfigError if the method does not support the data set; called before training."""

    @left_to_subclasses()
    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        """Return the stages in order, parents first."""
        raise NotImplementedError

    def plain_head_obstacle(self, settings: Settings) -> str | None:
        """Return why the trained network's `as_classifier` has no plain head of the head's config; None if it has."""
        return None

    def predictor(self, outputs: Mapping[str, StageOutput]) -> Any:
        """Return the trained predictor; by default the network of the last stage.

        Its `predict` maps uint8 or [0, 1] images [B, C, H, W] to `Scores` by variant, ``headline`` names the variant of
        the run's headline result, and ``link`` is ``softmax`` or ``sigmoid``; see `ImageClassifier`. If the last stage
        is a compute stage, the run stores this network as its final checkpoint.
        """
        return outputs[list(outputs)[-1]].load()
