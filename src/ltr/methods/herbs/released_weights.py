"""Reader of networks from HERBS's and PIM's released code: their options, and their tensors under ltr's names.

The released code merges 2x2 locations at the end of a Swin stage by a LayerNorm and a linear layer; the projection of
the level begins with another linear layer. ltr merges in the pyramid, where one linear layer holds their product.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ltr.configuration.targets import instantiate
from ltr.errors import CheckpointError, ConfigError
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import NetworkSpec
from ltr.methods.herbs.network import HerbsNetwork
from ltr.models.weights import describe_mismatch

State = dict[str, Tensor]
_COMBINER = {
    "param_pool0": "to_joints",
    "adj1": "adjacency",
    "alpha1": "alpha",
    "conv_q1": "query",
    "conv_k1": "key",
    "conv1": "convolution",
    "batch_norm1": "norm",
    "param_pool1": "to_one",
}
_CLASSIFIER = {"0": "hidden", "1": "norm", "3": "out"}
_MERGED = "backbone.layers.{}.downsample."  # Swin's patch merging at the end of a stage


def read_herbs(
    path: Path, state: State, configs: Mapping[str, Any], settings: Settings, dataset_info: DatasetInfo
) -> HerbsNetwork:
    """Build the network of a HERBS or PIM file, in eval mode.

    The tensors determine paths, widths, joints, learned or interpolated levels and Swin's merging. The method config
    gives the number of selected locations per level; their sum must agree with the file.

    Raises:
        CheckpointError: backbone, image size, selected locations or classes differ from the file's.
        ConfigError: the config ``method`` is neither HERBS nor PIM.
    """
    config = configs.get("method") or {}
    if "_target_" not in config:
        raise ConfigError(f"{path}: the file holds a network of HERBS or PIM. Set method=herbs_released or method=pim")
    options = instantiate({**config, **options_of(state, path)}).options
    if options["paths"] == "none":
        raise ConfigError(f"{path}: method.paths=none is no network of HERBS or PIM. Leave method.paths out")
    network = HerbsNetwork(NetworkSpec(settings, dataset_info, 0, "foreign"), **options)
    translated = translated_state(state, network)
    _refuse_misfits(path, translated, network)
    network.load_state_dict(translated, strict=False)
    return network.eval()


def options_of(state: State, path: Path) -> dict[str, Any]:
    """Derive options of `ltr.methods.herbs.method.HERBS` from the tensors of a file.

    Raises:
        CheckpointError: the pyramid or the combiner is missing.
    """
    has_bottom_up = "fpn_up.Proj_layer1.0.weight" in state
    down = _prefix_down(state)
    last_projection = f"{down}Proj_layer{_levels(state)}.2.weight"
    try:
        width, joints = len(state[last_projection]), len(state["combiner.param_pool0.weight"])
    except KeyError as error:
        raise CheckpointError(
            f"{path}: the tensor {error} is missing. Use a file with HERBS's or PIM's pyramid and combiner"
        ) from None
    is_learned = any(name.startswith(f"{down}Up_") for name in state)
    has_merging = _MERGED.format(0) + "norm.weight" in state
    return {
        "paths": "both" if has_bottom_up else "top_down",
        "suppression": True,
        "refinement": has_bottom_up,
        "levels": _levels(state),
        "width": width,
        "hidden_width": "level",
        "resampling": "learned" if is_learned else "interpolate",
        "mix_equal_levels": f"{down}Up_layer{_levels(state)}.weight" in state,
        "maps": "merged" if has_merging else "stages",
        "level_norm": "merging" if has_merging else "none",
        "classifier": "conv",
        "joints": joints,
    }


def translated_state(state: State, network: HerbsNetwork) -> State:
    """Return the file's tensors with the names and shapes of ``network``."""
    assert network.pyramid is not None
    levels, down = _levels(state), _prefix_down(state)
    result = _backbone(state, network)
    for level in range(levels):
        layer = f"layer{level + 1}"
        _copy(result, state, f"{down}Proj_{layer}.", f"pyramid.top_down.projections.{level}.")
        _copy(result, state, f"fpn_up.Proj_{layer}.", f"pyramid.bottom_up.projections.{level}.")
        _copy(result, state, f"{down}Up_{layer}.", f"pyramid.top_down.steps.{levels - 1 - level}.mixing.")
        _copy(result, state, f"fpn_up.Down_{layer}.", f"pyramid.bottom_up.steps.{level}.mixing.")
        for released_name, name in _CLASSIFIER.items():
            last = "fpn_classifier_up_" if "fpn_up.Proj_layer1.0.weight" in state else "fpn_classifier_"
            _copy(result, state, f"{last}{layer}.{released_name}.", f"classifiers.{level}.{name}.")
            _copy(
                result, state, f"fpn_classifier_down_{layer}.{released_name}.", f"student_classifiers.{level}.{name}."
            )
        _merge_projection(result, state, level, network.pyramid.levels.merges[level])
    for released_name, name in _COMBINER.items():
        _copy(result, state, f"combiner.{released_name}", f"combiner.{name}")
    _copy(result, state, "combiner.classifier.", "head.")
    return result


def _backbone(state: State, network: HerbsNetwork) -> State:
    """Return the backbone's tensors with timm's current names, without its unused classifier."""
    classifier = ("head.", "fc.", "classifier.")
    tensors = {name.removeprefix("backbone."): t for name, t in state.items() if name.startswith("backbone.")}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(classifier)}
    convert = getattr(network.backbone, "_convert", None)
    if convert is None:
        return {f"backbone.{name}": tensor for name, tensor in tensors.items()}
    return {f"backbone.net.{name}": tensor for name, tensor in convert(tensors).items()}


def _merge_projection(result: State, state: State, level: int, factor: int) -> None:
    """Fold Swin's merging after a stage into the level's norm and the first layer of its projection."""
    merged = _MERGED.format(level)
    reduction = state.get(merged + "reduction.weight")
    projection = f"pyramid.top_down.projections.{level}.0.weight"
    if reduction is None or projection not in result or factor == 1:
        return
    for name in ("weight", "bias"):
        result[f"pyramid.levels.norms.{level}.{name}"] = _rows_first(state[f"{merged}norm.{name}"], factor)
    product = result[projection].double() @ reduction.double()
    result[projection] = _rows_first(product, factor).to(reduction.dtype)


def _rows_first(tensor: Tensor, factor: int) -> Tensor:
    """Reorder the f x f blocks of [..., f^2 C] from column-major (Swin) to row-major."""
    blocks = tensor.unflatten(-1, (factor, factor, -1))
    return blocks.transpose(-3, -2).flatten(-3).contiguous()


def _copy(result: State, state: State, old: str, new: str) -> None:
    """Copy tensors with the prefix ``old`` to the prefix ``new``; 1x1 convolutions become linear layers."""
    for name, tensor in state.items():
        rest = name.removeprefix(old)
        if name.startswith(old) and (old.endswith(".") or rest[:1] in ("", ".")):
            is_convolution = rest.endswith("weight") and tensor.ndim > 2
            result[new + rest] = tensor.flatten(1) if is_convolution else tensor


def _prefix_down(state: State) -> str:
    return "fpn_down." if any(name.startswith("fpn_down.") for name in state) else "fpn."


def _levels(state: State) -> int:
    return sum(name.startswith(f"{_prefix_down(state)}Proj_") and name.endswith(".0.weight") for name in state)


def _refuse_misfits(path: Path, translated: State, network: HerbsNetwork) -> None:
    parts = tuple(f"{part}." for part in ("backbone", "head", *network.parameter_modules()))
    expected = {name: tensor for name, tensor in network.state_dict().items() if name.startswith(parts)}
    lines = describe_mismatch(expected, translated)
    joints = "combiner.to_joints.weight"
    if joints in translated and translated[joints].shape != expected[joints].shape:
        joined = translated[joints].shape[1]
        lines.append(
            f"the file joins {joined} locations, and {sum(network.counts)} are selected (of levels {network.counts}): "
            "set method.selected=[...] or dataset.image_size to those of its training"
        )
    if lines:
        raise CheckpointError("\n  ".join([f"{path}: these weights of HERBS or PIM do not fit the network:", *lines]))
