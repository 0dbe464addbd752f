"""Convolution, BatchNorm, residual and activation as one operation, for predictions in bf16 on a CPU.

In eval mode a BatchNorm is an affine map of each channel, which folds into the convolution before it; oneDNN adds a
residual and applies the activation to the sums before it writes them. A ResNet then writes and rounds each map once
instead of up to four times. Results differ from those of separate operations by bf16's rounding.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ltr.models.backbones import Backbone

# ResNet-32 computes 7 % more images a second in batches of 128 than of 250, ResNet-50 at 96 pixels 24 % more in 32
PIXELS_OF_PART = 1 << 17
SMALLEST_PART = 32
MAX_DIFFERENCE = 0.1  # relative, of the first batch's features; rounding makes about 0.01 of it


@contextmanager
def fused_convolutions(network: Any) -> Iterator[None]:
    """Fuse the convolutions of a network's backbones within the block, for passes in bf16 on a CPU.

    This concerns passes of `Backbone.forward` in eval mode and without gradients, under bf16 autocast; all others
    compute as before. So do backbones whose operations depend on values of their input, compiled ones, and those with
    hooks. Weights are folded at the first pass: they must not change within the block.

    Args:
        network: a module with backbones; anything else is not changed.
    """
    with ExitStack() as stack:
        for module in list(network.modules()) if isinstance(network, nn.Module) else ():
            is_compiled = getattr(module, "_compiled_call_impl", None) is not None
            if isinstance(module, Backbone) and "forward" not in vars(module) and not is_compiled:
                stack.enter_context(_fused(module))
        yield


@contextmanager
def _fused(backbone: Backbone) -> Iterator[None]:
    plain = backbone.forward
    graphs: list[fx.GraphModule | None] = []  # empty until the first pass that may use it

    def forward(images: Tensor) -> Tensor:
        if not _is_eligible(backbone, images):
            return plain(images)
        if not graphs:
            del backbone.forward  # tracing calls the class's
            graph = fused_graph(backbone)
            backbone.forward = forward  # type: ignore[method-assign]
            features = plain(images)
            fused = None if graph is None else _checked(graph, images, features)
            graphs.append(None if fused is None else graph)
            return features if fused is None else fused
        return plain(images) if graphs[0] is None else _in_parts(graphs[0], images)

    backbone.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del backbone.forward


def _in_parts(graph: fx.GraphModule, images: Tensor) -> Tensor:
    """Return the features of images [B, C, H, W], computed for so many at a time that their maps stay in the caches."""
    size = max(SMALLEST_PART, PIXELS_OF_PART // (images.shape[2] * images.shape[3]))
    return graph(images) if len(images) <= size else torch.cat([graph(part) for part in images.split(size)])


def _checked(graph: fx.GraphModule, images: Tensor, features: Tensor) -> Tensor | None:
    """Return the features that a graph computes; None if they differ from the backbone's by more than rounding.

    A traced graph does not know which tensors share memory, and oneDNN refuses some shapes.
    """
    try:
        fused = _in_parts(graph, images)
    except RuntimeError:
        return None
    difference = (fused.float() - features.float()).norm() if fused.shape == features.shape else torch.inf
    return fused if bool(difference <= MAX_DIFFERENCE * features.float().norm()) else None


def _is_eligible(backbone: nn.Module, images: Tensor) -> bool:
    return (
        images.device.type == "cpu"
        and not torch.is_grad_enabled()
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") is torch.bfloat16
        and not any(module.training for module in backbone.modules())
    )


class Activation(NamedTuple):
    """An activation by oneDNN's name, with its parameters."""

    name: str = "none"
    parameters: tuple[float, ...] = ()


class FusedConvolution(nn.Module):
    """A convolution in bf16 with the BatchNorm after it, and where given a residual and an activation."""

    def __init__(self, convolution: nn.Conv2d, norm: _BatchNorm, activation: Activation) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        weight, bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        self.weight = _as_bf16(weight)
        self.bias = bias.detach().bfloat16()
        self.geometry = (convolution.padding, convolution.stride, convolution.dilation, convolution.groups)
        self.activation = activation

    def forward(self, images: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return activation(BatchNorm(convolution(images)) + residual), all [B, C, H, W]."""
        name, parameters = self.activation.name, list(self.activation.parameters)
        images, operation = _as_bf16(images), torch.ops.mkldnn._convolution_pointwise
        if residual is None:
            return operation(images, self.weight, self.bias, *self.geometry, name, parameters, "")
        unary = None if name == "none" else name  # this variant has no name for it
        return operation.binary(
            images, _as_bf16(residual), self.weight, self.bias, *self.geometry, "add", 1.0, unary, parameters, ""
        )


def _as_bf16(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.bfloat16).contiguous(memory_format=torch.channels_last)


class _Tracer(fx.Tracer):
    """Tracer that does not look into convolutions and BatchNorms, whose subclasses may branch on shapes."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d | _BatchNorm) or super().is_leaf_module(m, module_qualified_name)


def fused_graph(backbone: nn.Module) -> fx.GraphModule | None:
    """Return a module that computes a backbone's `forward` with fused operations; None if there is nothing to fuse.

    Args:
        backbone: in eval mode; its other operations are shared, not copied.
    """
    modules = dict(backbone.named_modules())
    if any(map(_has_hooks, modules.values())) or not _is_available():
        return None
    try:
        graph = _Tracer().trace(backbone)
    except Exception:  # models raise different errors where their operations depend on values
        return None
    parts: dict[str, Any] = {**modules, **dict(backbone.named_parameters()), **dict(backbone.named_buffers())}
    count = 0
    for node in list(graph.nodes):
        chain = _chain(node, parts)
        if chain is None:
            continue
        convolution, norm, last = chain.nodes[0], chain.nodes[1], chain.nodes[-1]
        name, count = f"fused_{count}", count + 1
        parts[name] = FusedConvolution(parts[convolution.target], parts[norm.target], chain.activation)
        with graph.inserting_before(last):
            last.replace_all_uses_with(graph.call_module(name, (convolution.args[0], *chain.residual)))
        for replaced in reversed(chain.nodes):
            graph.erase_node(replaced)
    return fx.GraphModule(parts, graph).eval() if count else None


class _Chain(NamedTuple):
    """Operations that one takes the place of."""

    nodes: tuple[Any, ...]  # of a graph: convolution, BatchNorm, then where fused the sum and the activation
    residual: tuple[Any, ...] = ()  # node of the sum's other term
    activation: Activation = Activation()


def _chain(node: fx.Node, parts: Mapping[str, Any]) -> _Chain | None:
    """Return the operations from a convolution on that can be fused; None without a BatchNorm after it."""
    if node.op != "call_module" or not _is_plain(parts[str(node.target)]) or len(node.args) != 1:
        return None
    norm = _only_user(node)
    if norm is None or norm.op != "call_module":
        return None
    layer = parts[str(norm.target)]
    if not _folds(layer):
        return None
    if type(layer) is not nn.BatchNorm2d:  # timm's, which ends with an activation
        activation = _of_module(layer.act)
        return None if activation is None else _Chain((node, norm), (), activation)
    chain = _Chain((node, norm))
    following = _only_user(norm)
    residual = None if following is None else _residual(following, norm)
    if following is not None and residual is not None and _is_unchanged(node, following):
        chain = chain._replace(nodes=(*chain.nodes, following), residual=(residual,))
        following = _only_user(following)
    activation = None if following is None else _activation(following, parts)
    return chain if activation is None else chain._replace(nodes=(*chain.nodes, following), activation=activation)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_plain(layer: nn.Module) -> bool:
    return type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _folds(layer: nn.Module) -> bool:
    timm_layers = sys.modules.get("timm.layers.norm_act")  # not imported without a model of timm
    kinds = (nn.BatchNorm2d, getattr(timm_layers, "BatchNormAct2d", nn.BatchNorm2d))
    return type(layer) in kinds and isinstance(layer, nn.BatchNorm2d) and layer.running_var is not None


def _residual(node: fx.Node, norm: fx.Node) -> fx.Node | None:
    """Return the other term if a node is a sum of two maps, one of them the BatchNorm's."""
    if node.op != "call_function" or node.target not in (operator.add, torch.add) or node.kwargs or len(node.args) != 2:
        return None
    terms = [term for term in node.args if term is not norm]
    return terms[0] if len(terms) == 1 and isinstance(terms[0], fx.Node) else None


def _is_unchanged(convolution: fx.Node, later: fx.Node) -> bool:
    """Return whether a convolution may also be computed at a later node: nothing between may change its input."""
    source = convolution.args[0]
    node = convolution.next
    while node is not later:
        if source in node.all_input_nodes:
            return False
        node = node.next
    return True


def _activation(node: fx.Node, parts: Mapping[str, Any]) -> Activation | None:
    """Return the activation that a node computes, if oneDNN can fuse it."""
    if node.op == "call_module":
        return _of_module(parts[str(node.target)])
    is_relu = node.op == "call_function" and node.target in (F.relu, torch.relu, torch.relu_)
    is_relu_method = node.op == "call_method" and node.target in ("relu", "relu_")
    return Activation("relu") if is_relu or is_relu_method else None


def _of_module(layer: nn.Module) -> Activation | None:
    match layer:
        case nn.Identity():
            return Activation()
        case nn.ReLU6():
            return Activation("hardtanh", (0.0, 6.0))
        case nn.ReLU():
            return Activation("relu")
        case nn.LeakyReLU():
            return Activation("leaky_relu", (layer.negative_slope,))
        case nn.SiLU():
            return Activation("swish")
    return None


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _is_available() -> bool:
    operations = torch.ops.mkldnn  # torch's own compiler fuses with them, but they have no public names
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(operations, "_convolution_pointwise")
        and bool(operations._is_mkldnn_bf16_supported())
    )
