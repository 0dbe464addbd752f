"""Whole networks of HERBS's and PIM's released code: what their files say of the options, and their tensors in ours.

The code merges 2x2 locations at the end of a stage of Swin by a LayerNorm and a linear layer, behind which a projection
begins with another; ours merges in the pyramid, where one linear layer stands for both: their product.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ltr.configuration.targets import instantiate
from ltr.errors import CheckpointError, ConfigError
from ltr.methods.core.stage import DatasetInfo, NetworkSpec, Settings
from ltr.methods.herbs.network import HerbsNetwork

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
_MERGED = "backbone.layers.{}.downsample."  # of Swin's stage, at its end


def herbs_of(
    path: Path, state: State, configs: Mapping[str, Any], settings: Settings, dataset_info: DatasetInfo
) -> HerbsNetwork:
    """Return the network of a file of HERBS or PIM, in eval mode.

    The file decides what it shows: paths, widths, joints, learned or interpolated levels and Swin's merging. How many
    locations of each level are selected it does not; the config ``method`` says so, and their sum must be the file's.

    Raises:
        CheckpointError: another backbone or image size, other selected locations or classes.
        ConfigError: a config ``method`` that is none of HERBS or PIM.
    """
    config = configs.get("method") or {}
    if "_target_" not in config:
        raise ConfigError(f"{path}: a network of HERBS or PIM needs method=herbs_released or method=pim")
    ours = instantiate({**config, **options_of(state, path)}).options
    if ours["paths"] == "none":
        raise ConfigError(f"{path}: a network of HERBS or PIM has no method.paths=none")
    network = HerbsNetwork(NetworkSpec(settings, dataset_info, 0, "foreign"), **ours)
    translated = translated_state(state, network)
    _refuse_misfits(path, translated, network)
    network.load_state_dict(translated, strict=False)
    return network.eval()


def options_of(state: State, path: Path) -> dict[str, Any]:
    """Return the options of `ltr.methods.herbs.method.HERBS` that the tensors of a file show.

    Raises:
        CheckpointError: a part of the network is not there.
    """
    both = "fpn_up.Proj_layer1.0.weight" in state
    down = _prefix_down(state)
    last = f"{down}Proj_layer{_levels(state)}.2.weight"
    try:
        width, joints = len(state[last]), len(state["combiner.param_pool0.weight"])
    except KeyError as error:
        raise CheckpointError(f"{path}: no tensor {error}: a network without pyramid or combiner is not read") from None
    learned = any(name.startswith(f"{down}Up_") for name in state)
    merges = _MERGED.format(0) + "norm.weight" in state
    return {
        "paths": "both" if both else "top_down",
        "suppression": True,
        "refinement": both,
        "levels": _levels(state),
        "width": width,
        "hidden_width": "level",
        "resampling": "learned" if learned else "interpolate",
        "mix_equal_levels": f"{down}Up_layer{_levels(state)}.weight" in state,
        "maps": "merged" if merges else "stages",
        "level_norm": "merging" if merges else "none",
        "classifier": "conv",
        "joints": joints,
    }


def translated_state(state: State, network: HerbsNetwork) -> State:
    """Return the file's tensors under the names and in the shapes of a network."""
    assert network.pyramid is not None
    levels, down = _levels(state), _prefix_down(state)
    result = _backbone(state, network)
    for level in range(levels):
        layer = f"layer{level + 1}"
        _copy(result, state, f"{down}Proj_{layer}.", f"pyramid.top_down.projections.{level}.")
        _copy(result, state, f"fpn_up.Proj_{layer}.", f"pyramid.bottom_up.projections.{level}.")
        _copy(result, state, f"{down}Up_{layer}.", f"pyramid.top_down.steps.{levels - 1 - level}.mixing.")
        _copy(result, state, f"fpn_up.Down_{layer}.", f"pyramid.bottom_up.steps.{level}.mixing.")
        for theirs, name in _CLASSIFIER.items():
            last = "fpn_classifier_up_" if "fpn_up.Proj_layer1.0.weight" in state else "fpn_classifier_"
            _copy(result, state, f"{last}{layer}.{theirs}.", f"classifiers.{level}.{name}.")
            _copy(result, state, f"fpn_classifier_down_{layer}.{theirs}.", f"student_classifiers.{level}.{name}.")
        _merge(result, state, level, network.pyramid.levels.merges[level])
    for theirs, name in _COMBINER.items():
        _copy(result, state, f"combiner.{theirs}", f"combiner.{name}")
    _copy(result, state, "combiner.classifier.", "head.")
    return result


def _backbone(state: State, network: HerbsNetwork) -> State:
    """Return the backbone's tensors without its unused classifier, as timm of today names them."""
    classifier = ("head.", "fc.", "classifier.")
    bare = {name.removeprefix("backbone."): t for name, t in state.items() if name.startswith("backbone.")}
    bare = {name: tensor for name, tensor in bare.items() if not name.startswith(classifier)}
    convert = getattr(network.backbone, "_convert", None)
    if convert is None:
        return {f"backbone.{name}": tensor for name, tensor in bare.items()}
    return {f"backbone.net.{name}": tensor for name, tensor in convert(bare).items()}


def _merge(result: State, state: State, level: int, factor: int) -> None:
    """Put Swin's merging after a stage into the level's norm and the first layer of its projection."""
    merged = _MERGED.format(level)
    reduction = state.get(merged + "reduction.weight")
    first = f"pyramid.top_down.projections.{level}.0.weight"
    if reduction is None or first not in result or factor == 1:
        return
    for name in ("weight", "bias"):
        result[f"pyramid.levels.norms.{level}.{name}"] = _rows_first(state[f"{merged}norm.{name}"], factor)
    product = result[first].double() @ reduction.double()
    result[first] = _rows_first(product, factor).to(reduction.dtype)


def _rows_first(tensor: Tensor, factor: int) -> Tensor:
    """[..., f^2 C] whose blocks go down the columns, as in Swin, to blocks that go along the rows."""
    blocks = tensor.unflatten(-1, (factor, factor, -1))
    return blocks.transpose(-3, -2).flatten(-3).contiguous()


def _copy(result: State, state: State, old: str, new: str) -> None:
    """Take the tensors that begin with ``old``; 1x1 convolutions become linear layers."""
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
    missing = [name for name in expected if name not in translated and not name.endswith("num_batches_tracked")]
    unknown = [name for name in translated if name not in expected]
    shapes = [
        f"{name} is {list(tensor.shape)}, needed is {list(expected[name].shape)}"
        for name, tensor in translated.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    lines = [
        f"{title} ({len(names)}): {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        for title, names in (("missing in the file", missing), ("in the file alone", unknown), ("other shape", shapes))
        if names
    ]
    if any("to_joints" in line for line in shapes):
        chosen = translated["combiner.to_joints.weight"].shape[1]
        lines.append(
            f"the file joins {chosen} locations, and {sum(network.counts)} are selected (of levels {network.counts}): "
            "set method.selected=[...] or dataset.image_size to those of its training"
        )
    if lines:
        raise CheckpointError("\n  ".join([f"{path}: these weights of HERBS or PIM do not fit the network:", *lines]))
