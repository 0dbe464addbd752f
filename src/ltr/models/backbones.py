"""What a backbone is: images in, one feature vector per image out, and feature maps where a method asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ltr.configuration.targets import locate
from ltr.errors import ConfigError
from ltr.models.weights import State, load_backbone, set_trainable


class ImageSizeError(ConfigError):
    """A network that cannot take images of the configured size."""


class Backbone(nn.Module):
    """The base of every backbone; a subclass sets the four attributes and gives two methods.

    Attributes:
        num_features: width D of the feature vector.
        map_channels: channels of each feature map, finest first; empty for a network without spatial maps.
        map_strides: pixels of the input per location of each map.
        usual_size: side in pixels of the images that networks of this kind are made for.
    """

    usual_size = 224
    num_features: int
    map_channels: tuple[int, ...]
    map_strides: tuple[int, ...]

    def features_and_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Features [B, D] and the feature maps [B, C_l, H_l, W_l] from one pass, coarsest map last.

        ``images`` [B, C, H, W] are normalised.

        Raises:
            ConfigError: the network has no feature maps.
        """
        raise NotImplementedError

    def last_block(self) -> nn.Module:
        """The last residual block (or its like), for a learning rate of its own and for partial training.

        Kang et al. (ICLR 2020) train only this and the classifier on Places-LT.
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] -> features [B, D]."""
        return self.features_and_maps(images)[0]

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps [B, C_l, H_l, W_l] alone, coarsest last; raises as `features_and_maps`."""
        return self.features_and_maps(images)[1]

    @staticmethod
    def options_for(config: Mapping[str, Any], image_shape: tuple[int, int, int]) -> dict[str, Any]:
        """Options of a backbone's config that follow from the size of the images, in place of those it leaves null.

        Args:
            config: of the backbone.
            image_shape: (C, H, W).
        """
        return {}

    def finish(
        self,
        weights: str | None,
        strict: bool,
        trainable: str,
        *,
        into: nn.Module | None = None,
        classifier_names: tuple[str, ...] = (),
        convert: Callable[[State], State] | None = None,
        weights_map: str | None = None,
    ) -> None:
        """Last act of a constructor: weights from a file into the network (or ``into`` a part), then what trains.

        Args:
            weights_map: the published code whose names the file has, see `ltr.models.published_names`.
        """
        if weights is not None:
            target = self if into is None else into
            load_backbone(
                target,
                weights,
                strict=strict,
                classifier_names=classifier_names,
                convert=convert,
                layout=weights_map,
            )
        set_trainable(self, trainable, self.last_block())


def sized(config: Mapping[str, Any], image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """A backbone's config with what follows from the size of the images, see `Backbone.options_for`."""
    options_for = getattr(locate(config["_target_"], "backbone"), "options_for", None)
    return {**config, **(options_for(config, image_shape) if options_for else {})}


def kaiming_convolutions(module: nn.Module) -> None:
    """Kaiming-normal convolution weights (He et al., ICCV 2015; fan-in, gain of ReLU) in place of torch's default."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)


def no_maps(name: str, alternatives: tuple[str, str, str]) -> ConfigError:
    """The error for a network without spatial feature maps."""
    listed = f"{alternatives[0]}, {alternatives[1]} or {alternatives[2]}"
    return ConfigError(f"Backbone '{name}' gives no multi-scale feature maps; {listed} do. Set backbone.name to one.")


def deepest_block(root: nn.Module, path: str) -> nn.Module:
    """The last block at or before ``path``, the module that makes the coarsest feature map.

    A normalisation or activation there stands for the weighted module before it; a stage that is a plain sequence of
    blocks (or keeps them in ``blocks``) stands for its last one.
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
        # a sequence of bare layers (convolution, norm, activation) is itself the block
        if not candidates or not any(True for _ in candidates[-1].children()):
            return block
        block = candidates[-1]


def _is_weighted(module: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters())


@torch.no_grad()
def dry_run(network: nn.Module, call: Callable[[Tensor], Any], image_shape: tuple[int, int, int]) -> Any:
    """What ``call`` gives for one blank image, computed on shapes alone (meta tensors) where the network allows it, in
    evaluation mode.

    Args:
        network: the module whose parameters ``call`` uses.
        call: a function of images [1, C, H, W].
        image_shape: (C, H, W).
    """
    runner = _Runner(network, call)
    shapes = {
        name: tensor.to("meta")
        for tensors in (runner.named_parameters(), runner.named_buffers())
        for name, tensor in tensors
    }
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        try:
            return torch.func.functional_call(runner, shapes, torch.empty(1, *image_shape, device="meta"))
        except (RuntimeError, NotImplementedError):  # a network that makes tensors of its own on the CPU
            return call(torch.zeros(1, *image_shape))
    finally:
        for module, training in modes:  # some may be frozen
            module.training = training


class _Runner(nn.Module):
    """``call`` as the forward of a module that holds ``network``, which is what `functional_call` asks for."""

    def __init__(self, network: nn.Module, call: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.network = network
        self.calls = (call,)  # in a tuple: as an attribute a module would be registered twice

    def forward(self, images: Tensor) -> Any:
        return self.calls[0](images)
