"""Base class of backbones, which map images to feature vectors and, if a method needs them, to feature maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ltr.configuration.targets import locate
from ltr.configuration.unwritten import left_to_subclasses
from ltr.errors import CheckpointError, ConfigError, first_line
from ltr.models.hub_weights import weights_file
from ltr.models.preprocessing import Preprocessing, checkpoint_preprocessing
from ltr.models.published_names import WeightsMap
from ltr.models.state_file import State, is_state
from ltr.models.weights import Trainable, load_backbone, set_trainable


class ImageSizeError(ConfigError):
    """The network cannot take images of the configured size."""


class Backbone(nn.Module):
    """Base class of backbones; a subclass sets the attributes and implements `features_and_maps` and `last_block`.

    Attributes:
        num_features: width D of the feature vector.
        map_channels: channels of each feature map, finest first; empty for a network without spatial maps.
        map_strides: stride of each map in input pixels.
        usual_size: usual side in pixels of the network's input.
        num_prefix_tokens: tokens of a vision transformer before those of the patches (class token, registers).

    Constructors of subclasses take the number of input channels and, by keyword, further options and these:

    Args:
        weights: initial weights: a state dict, a checkpoint of a run or a safetensors file, see
            `ltr.models.weights.load_backbone`; or ``local-dir:FOLDER``, ``hf-hub:OWNER/NAME``, see
            `ltr.models.hub_weights`.
        weights_map: published code whose tensor names the file uses, see `ltr.models.published_names`, or ``order``;
            None: by names, else by the order of tensors if all shapes agree.
        strict_weights: False loads tensors that match by name and shape, and warns of the rest.
        trainable: parameters to train; ``none`` freezes the backbone.
    """

    usual_size = 224
    num_prefix_tokens = 0
    num_features: int
    map_channels: tuple[int, ...]
    map_strides: tuple[int, ...]

    @left_to_subclasses("forward")
    def features_and_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the features [B, D] and the feature maps [B, C_l, H_l, W_l] of one pass, coarsest map last.

        Args:
            images: normalised, [B, C, H, W].

        Raises:
            ConfigError: the network has no feature maps.
        """
        raise NotImplementedError

    def last_block(self) -> nn.Module:
        """Return the last residual (or similar) block, for a separate learning rate and for partial training.

        Kang et al. (ICLR 2020) train only this block and the classifier on Places-LT.
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Return the features [B, D] of normalised images [B, C, H, W]."""
        return self.features_and_maps(images)[0]

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Return only the feature maps [B, C_l, H_l, W_l], coarsest last; errors as in `features_and_maps`."""
        return self.features_and_maps(images)[1]

    def final_map(self, images: Tensor) -> Tensor:
        """Return the last feature map [B, C, H, W], the one that the network's own pooling reads.

        Raises:
            ConfigError: the network has no feature maps.
        """
        return self.feature_maps(images)[-1]

    def tokens(self, images: Tensor) -> Tensor:
        """Return the tokens [B, num_prefix_tokens + N, D] after the last block of a vision transformer.

        Raises:
            ConfigError: the network has no tokens.
        """
        raise no_tokens_error(str(getattr(self, "name", type(self).__name__)))

    @staticmethod
    def options_for(config: Mapping[str, Any], image_shape: tuple[int, int, int]) -> dict[str, Any]:
        """Return values for the config's null options that depend on the image size.

        Args:
            image_shape: (C, H, W).
        """
        return {}

    @staticmethod
    def preprocessing(config: Mapping[str, Any]) -> Preprocessing | None:
        """Return the preprocessing that the initial weights describe; None without a description."""
        return checkpoint_preprocessing(config["weights"]) if config.get("weights") else None

    def nearest_architecture(self, weights: str) -> str:
        """Return a sentence that names the architecture of a weights file that does not fit; '' if none is known."""
        return ""

    def finish(
        self,
        weights: str | None,
        strict: bool,
        trainable: Trainable,
        *,
        into: nn.Module | None = None,
        classifier_names: tuple[str, ...] = (),
        convert: Callable[[State], State] | None = None,
        weights_map: WeightsMap | None = None,
    ) -> None:
        """Load weights from a file and set the trainable parameters; constructors call this last.

        Args:
            weights: weights file; None: keep the initial weights.
            strict: see `ltr.models.weights.load_state`.
            trainable: see `ltr.models.weights.set_trainable`.
            into: submodule that the weights are for; None: the whole backbone.
            classifier_names: names of further classifiers, whose tensors are not loaded.
            convert: see `ltr.models.weights.load_backbone`.
            weights_map: published code whose names the file uses, see `ltr.models.published_names`, or ``order``.

        Raises:
            ConfigError: see `check_weights_map`.
        """
        check_weights_map(weights, weights_map)
        if weights is not None:
            weights = weights_file(weights)
            try:
                load_backbone(
                    self if into is None else into,
                    weights,
                    strict=strict,
                    classifier_names=classifier_names,
                    convert=convert,
                    layout=weights_map,
                )
            except CheckpointError as error:
                hint = self.nearest_architecture(weights) if Path(weights).is_file() and is_state(weights) else ""
                if not hint:
                    raise
                raise CheckpointError(f"{error}\n  {hint}") from error
        set_trainable(self, trainable, self.last_block())


def check_one_origin(pretrained: bool, weights: str | None) -> None:
    """Raise ConfigError if initial weights are both to be downloaded and in a file."""
    if pretrained and weights is not None:
        raise ConfigError(
            f"backbone.pretrained=true and backbone.weights={weights} are both set. Choose one: pretrained=false for "
            "the file, or weights=null for the library's weights"
        )


def check_weights_map(weights: str | None, weights_map: str | None) -> None:
    """Raise ConfigError if ``weights_map`` is set without a weights file."""
    if weights_map is not None and weights is None:
        raise ConfigError(
            f"backbone.weights_map={weights_map}: it describes the tensor names of a weights file, and none is set. "
            "Name one with backbone.weights=FILE, or leave weights_map out"
        )


def config_for_image_size(config: Mapping[str, Any], image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Fill in the options of a backbone's config that depend on the image size, see `Backbone.options_for`."""
    options_for = getattr(locate(config["_target_"], "backbone"), "options_for", None)
    return {**config, **(options_for(config, image_shape) if options_for else {})}


def kaiming_convolutions(module: nn.Module) -> None:
    """Initialise convolutions Kaiming-normal (He et al., ICCV 2015; fan-in, ReLU gain) instead of as in torch."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)


def glorot_convolutions(module: nn.Module) -> None:
    """Initialise convolutions uniformly as TensorFlow does (Glorot and Bengio, AISTATS 2010)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.xavier_uniform_(part.weight)


def no_feature_maps_error(name: str, alternatives: tuple[str, str, str]) -> ConfigError:
    """Return the error for a network without spatial feature maps."""
    first, second, third = alternatives
    return ConfigError(
        f"Backbone '{name}' has no multi-scale feature maps. Set backbone.name to one that has, such as {first}, "
        f"{second} or {third}"
    )


def no_tokens_error(name: str) -> ConfigError:
    """Return the error for a network that is asked for tokens and has maps."""
    return ConfigError(
        f"features.output=tokens: the backbone '{name}' has no tokens. Use features.output=map, or a vision "
        "transformer of timm or torchvision"
    )


def no_final_map_error(name: str) -> ConfigError:
    """Return the error for a network that is asked for its last map and has tokens or vectors."""
    return ConfigError(
        f"features.output=map: the backbone '{name}' ends with no feature map [C, H, W]. Use features.output=tokens "
        "for a vision transformer, or features.output=vector"
    )


def download_error(model: str, key: str, error: Exception) -> CheckpointError:
    """Return the error for pretrained weights that could not be downloaded.

    Args:
        model: library and name, such as ``timm's resnet50``.
        key: the model's key in the configuration.
    """
    return CheckpointError(
        f"{key}.pretrained=true: the weights of {model} could not be downloaded ({first_line(error)}). Fetch them on a "
        f"machine with network and set {key}.weights=FILE {key}.pretrained=false"
    )


def deepest_block(root: nn.Module, path: str) -> nn.Module:
    """Return the last block at or before ``path``, the module that outputs the coarsest feature map.

    If ``path`` is a normalisation or an activation, the search continues at the weighted module before it; if it is a
    stage (a sequence of blocks, or a module with ``blocks``), at its last block.
    """
    parent_path, _, name = path.rpartition(".")
    parent = root.get_submodule(parent_path)
    block = parent.get_submodule(name)
    if not _is_weighted(block):
        before = []
        for sibling_name, sibling in parent.named_children():
            if sibling_name == name:
                break
            if _is_weighted(sibling):
                before.append(sibling)
        if not before:
            return block if not parent_path else deepest_block(root, parent_path)
        block = before[-1]
    while True:
        layers = getattr(block, "layers", None)
        inner = getattr(block, "blocks", layers if isinstance(layers, nn.ModuleList) else block)
        if not isinstance(inner, nn.Sequential | nn.ModuleList) and not type(inner).__name__.endswith("Stage"):
            return block
        candidates = [child for child in inner.children() if _is_weighted(child)]
        # a sequence of single layers (convolution, norm, activation) is itself the block
        if not candidates or not any(True for _ in candidates[-1].children()):
            return block
        block = candidates[-1]


def _is_weighted(module: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters())


@torch.no_grad()
def dry_run(network: nn.Module, call: Callable[[Tensor], Any], image_shape: tuple[int, int, int]) -> Any:
    """Return the output of ``call`` for one blank image, with the network in eval mode.

    It uses meta tensors (shapes only, no computation) if the network supports them.

    Args:
        network: module whose parameters ``call`` uses.
        call: a function of images [1, C, H, W].
        image_shape: (C, H, W).
    """
    runner = _Runner(network, call)
    shapes = {
        name: tensor.to("meta")
        for tensors in (runner.named_parameters(), runner.named_buffers())
        for name, tensor in tensors
    }
    with eval_mode(network):
        try:
            return torch.func.functional_call(runner, shapes, torch.empty(1, *image_shape, device="meta"))
        except (RuntimeError, NotImplementedError):  # the network creates tensors on the CPU
            return call(torch.zeros(1, *image_shape))


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Put a network into eval mode during a block; each module gets its own mode back."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class _Runner(nn.Module):
    """Module that holds ``network`` and has ``call`` as its forward, as `functional_call` requires."""

    def __init__(self, network: nn.Module, call: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.network = network
        self.calls = (call,)  # a tuple, because a module as an attribute would be registered twice

    def forward(self, images: Tensor) -> Any:
        return self.calls[0](images)
