"""Parameter-efficient tuning of a pretrained backbone: selection of trained parameters, and added modules.

A tuning is applied once to a backbone with its initial weights. It freezes all other parameters, and batch
normalisation layers with a frozen weight keep their statistics. If no parameter is trained, the whole backbone stays in
eval mode, so that its features are bit-equal to those of the pretrained network.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ltr.configuration.unwritten import left_to_subclasses
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.models.backbones import Backbone

_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.instancenorm._InstanceNorm)
_NORMS_OF_TIMM = ("RmsNorm", "RmsNorm2d")  # names, because importing timm takes a second and most runs do not need it
ImageShape = tuple[int, int, int]


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a normalisation layer of torch or timm."""
    kind = type(module)
    return isinstance(module, _NORMS) or (kind.__module__.startswith("timm.") and kind.__name__ in _NORMS_OF_TIMM)


class Tuning:
    """Base class of tunings; a subclass implements `prepare`, and `merge` if its modules can be merged.

    Attributes:
        name: name of its config in the group ``tune``.
    """

    name: str

    @left_to_subclasses()
    def prepare(self, backbone: Backbone, image_shape: ImageShape) -> None:
        """Freeze all parameters of the backbone that the tuning does not train, and insert its modules.

        Args:
            backbone: backbone with its initial weights.
            image_shape: (C, H, W) of the training images.

        Raises:
            ConfigError: the backbone has none of the layers that the tuning trains or changes.
        """
        raise NotImplementedError

    def merge(self, backbone: Backbone) -> None:
        """Merge added modules into the backbone's weights if the function stays the same; otherwise do nothing."""


@named("tune/all")
class TuneAll(Tuning):
    """Full fine-tuning: train every parameter."""

    name = "all"

    def prepare(self, backbone: Backbone, image_shape: ImageShape) -> None:
        return None


@named("tune/none")
class TuneNone(Tuning):
    """Linear probe: keep the backbone frozen and in eval mode."""

    name = "none"

    def prepare(self, backbone: Backbone, image_shape: ImageShape) -> None:
        backbone.requires_grad_(False)


@named("tune/last_block")
class TuneLastBlock(Tuning):
    """Train the last block (Kang et al., ICLR 2020, on Places-LT); see `Backbone.last_block`."""

    name = "last_block"

    def prepare(self, backbone: Backbone, image_shape: ImageShape) -> None:
        backbone.requires_grad_(False)
        backbone.last_block().requires_grad_(True)


@named("tune/norm")
class TuneNorm(Tuning):
    """Train weights and biases of normalisation layers (Frankle et al., ICLR 2021, for batch normalisation)."""

    name = "norm"

    def prepare(self, backbone: Backbone, image_shape: ImageShape) -> None:
        backbone.requires_grad_(False)
        parameters = [p for module in backbone.modules() if is_norm(module) for p in module.parameters(False)]
        if not parameters:
            raise ConfigError(
                f"tune=norm: {_called(backbone)} has no normalisation layer with weights. Use tune=bias, lora or "
                "last_block"
            )
        for parameter in parameters:
            parameter.requires_grad_(True)


@named("tune/bias")
class TuneBias(Tuning):
    """BitFit (Ben Zaken et al., ACL 2022): train biases, including those of normalisation layers.

    Batch normalisation keeps its statistics, for its weights are frozen.
    """

    name = "bias"

    def prepare(self, backbone: Backbone, image_shape: ImageShape) -> None:
        backbone.requires_grad_(False)
        biases = [parameter for name, parameter in backbone.named_parameters() if name.endswith("bias")]
        if not biases:
            raise ConfigError(f"tune=bias: {_called(backbone)} has no biases. Use tune=norm, lora or last_block")
        for bias in biases:
            bias.requires_grad_(True)


def hold_frozen_parts(backbone: nn.Module) -> None:
    """Put the parts that a tuning froze into eval mode, after `train` was called on the network.

    These are the whole backbone if none of its parameters is trained, else all batch normalisation layers with a frozen
    weight.
    """
    if not any(parameter.requires_grad for parameter in backbone.parameters()):
        backbone.eval()
        return
    for module in backbone.modules():
        if isinstance(module, _BatchNorm) and (module.weight is None or not module.weight.requires_grad):
            module.eval()


def transformer_blocks(backbone: Backbone, tuning: str) -> list[tuple[str, nn.Module]]:
    """Return (path, block) of every transformer block: a module with an ``mlp`` after a second normalisation.

    Raises:
        ConfigError: the backbone has no such block.
    """
    blocks = [(path, module) for path, module in backbone.named_modules() if is_transformer_block(module)]
    if not blocks:
        raise ConfigError(
            f"tune={tuning}: {_called(backbone)} has no transformer blocks. Use a vision transformer, or tune=lora, "
            "norm, bias or last_block"
        )
    return blocks


def is_transformer_block(module: nn.Module) -> bool:
    """Return whether a module has the parts of a transformer block of timm or torchvision."""
    norm = getattr(module, "norm2", None) or getattr(module, "ln_2", None)
    return (
        isinstance(norm, nn.Module) and isinstance(getattr(module, "mlp", None), nn.Module) and hasattr(norm, "weight")
    )


def called_modules(backbone: Backbone, kinds: tuple[type[nn.Module], ...], call: Callable[[], object]) -> list[str]:
    """Return paths of the modules of some types that a forward pass calls.

    Some attention modules read the weights of their layers instead of calling them; an update of such a layer would
    have no effect.
    """
    called: dict[str, None] = {}
    handles = [
        module.register_forward_pre_hook(lambda _, inputs, path=path: called.setdefault(path))
        for path, module in backbone.named_modules()
        if isinstance(module, kinds)
    ]
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    return [path for path, _ in backbone.named_modules() if path in called]


def _called(backbone: nn.Module) -> str:
    return str(getattr(backbone, "name", None) or type(backbone).__name__)
