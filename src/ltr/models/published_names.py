"""Weights files of published code: recognition by tensor names, and renaming to the names of this package.

A layout renames a file's tensors to ``backbone.*`` and ``head.*``. Files of the CIFAR ResNets also differ in the
position of the zero channels of a widening shortcut, which the layout records because no tensor shows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from ltr.errors import CheckpointError, ConfigError, nearest

State = dict[str, Tensor]
Read = Callable[[Path, str | None], State]
_FEW = 4


@dataclass(frozen=True)
class Layout:
    """Tensor names of one published code.

    Attributes:
        code: name of the code, for messages.
        signs: patterns of tensor names; a file that matches all of them comes from this code. Empty: other codes use
            the same names, so that the user must name the code.
        rename: function of the file's tensors and the number of classes (None: unknown) that returns tensors under
            ``backbone.*`` and ``head.*``.
        shortcut_padding: option of `ltr.models.cifar_resnet.CifarResNet`; None for other architectures.
        entry: entry of the file with the tensors, unless it is ``state_dict`` or ``model``.
        method: config of the method if the file holds its whole network; None: backbone and classifier.
        normalised: True if a classifier without bias is L2-normalised.
    """

    code: str
    signs: tuple[str, ...]
    rename: Callable[[State, int | None], State]
    shortcut_padding: str | None = None
    entry: str | None = None
    method: str | None = None
    normalised: bool = False


def layout_named(name: str, key: str) -> Layout:
    """Return the layout with a name.

    Args:
        name: key of `LAYOUTS`.
        key: config key that has the name, for the message.

    Raises:
        ConfigError: no layout has this name.
    """
    if name not in LAYOUTS:
        allowed = f"allowed: {', '.join(LAYOUTS)}{nearest(name, LAYOUTS)}"
        raise ConfigError(f"{key}={name}: no published code has this name; {allowed}")
    return LAYOUTS[name]


def recognise_layout(state: State) -> str | None:
    """Return the name of the first layout that matches the tensor names of a file, or None."""
    for name, layout in LAYOUTS.items():
        if layout.signs and all(any(re.fullmatch(sign, tensor_name) for tensor_name in state) for sign in layout.signs):
            return name
    return None


def read_published(
    path: Path, read: Read, entry: str | None = None, name: str | None = None
) -> tuple[State, str | None]:
    """Read the tensors of a file under their original names, and the name of their layout.

    Args:
        read: function that returns the tensors of an entry, see `ltr.models.state_file.read_state`.
        entry: entry of the file with the tensors; None: the layout's.
        name: name of the layout; None: recognise it.

    Raises:
        CheckpointError: see ``read``, or the tensor names contradict ``name``.
    """
    try:
        state, error = read(path, entry), None
    except CheckpointError as failure:
        state, error = {}, failure
    # a training checkpoint may hold a few tensors outside its entry, such as a generator's state
    if entry is None and recognise_layout(state) is None and len(state) < _FEW:
        for layout in LAYOUTS.values():
            entry_state = _entry(path, read, layout.entry)
            if recognise_layout(entry_state) is not None:
                return entry_state, _agree_on_layout(path, name, recognise_layout(entry_state))
    if error is not None:
        raise error
    return state, _agree_on_layout(path, name, recognise_layout(state))


def _agree_on_layout(path: Path, name: str | None, recognised: str | None) -> str | None:
    """Return the named layout, or the recognised one if none is named; raise if they contradict."""
    if name is None or name == recognised or (recognised is None and not LAYOUTS[name].signs):
        return name or recognised
    names = f"those of {LAYOUTS[recognised].code}'s code" if recognised else f"not those of {LAYOUTS[name].code}'s code"
    advice = f"name {recognised}, or leave the name of the code out" if recognised else "leave the name of the code out"
    raise CheckpointError(
        f"{path}: '{name}' was given as the code of the weights, but the tensor names are {names}. "
        f"Allowed for this file: {advice}"
    )


def _entry(path: Path, read: Read, entry: str | None) -> State:
    if entry is None:
        return {}
    try:
        return read(path, entry)
    except CheckpointError:
        return {}


def check_shortcuts(layout: Layout, padding: str, reduction: str, where: str) -> None:
    """Refuse a CIFAR ResNet whose shortcuts differ from the code's.

    Args:
        padding, reduction: options of `ltr.models.cifar_resnet.CifarResNet`.

    Raises:
        ConfigError: the shortcuts differ.
    """
    if layout.shortcut_padding not in (None, padding):
        raise ConfigError(
            f"{where}: these weights are from {layout.code}'s code, which puts the zero channels of a shortcut on "
            f"the side '{layout.shortcut_padding}', and backbone.shortcut_padding is '{padding}': the network would "
            f"be another one. Set backbone.shortcut_padding={layout.shortcut_padding}"
        )
    if layout.shortcut_padding is not None and reduction != "stride":
        raise ConfigError(
            f"{where}: these weights are from {layout.code}'s code, whose shortcuts take every second pixel, and "
            f"backbone.shortcut_reduction is '{reduction}': the network would be another one. Set "
            "backbone.shortcut_reduction=stride"
        )


def _renamed(rules: Mapping[str, str | Callable[[re.Match], str] | None]) -> Callable[[State, int | None], State]:
    """Return a function that renames tensors by patterns of the beginnings of names; None leaves a tensor out."""
    compiled = [(re.compile(pattern), new) for pattern, new in rules.items()]

    def rename(state: State, classes: int | None) -> State:
        result: State = {}
        for name, tensor in state.items():
            pattern, new = next((rule for rule in compiled if rule[0].match(name)), (None, name))
            if new is not None:
                result[pattern.sub(new, name, count=1) if pattern else name] = tensor
        return result

    return rename


def _with_head(rename: Callable[[State, int | None], State]) -> Callable[[State, int | None], State]:
    """Extend a renaming for code that stores its normalised classifier (without bias) as [features, classes]."""

    def renamed(state: State, classes: int | None) -> State:
        result = rename(state, classes)
        weight = result.get("head.weight")
        if weight is not None and "head.bias" not in result:
            result["head.weight"] = weight.T.contiguous()
        return result

    return renamed


def _resnet_by_letters(prefix: str, first: int) -> dict[str, Callable[[re.Match], str]]:
    """Return the rule for blocks named ``<prefix><stage>.<block>.conv_a``, with stages counted from ``first``."""

    def rename(match: re.Match) -> str:
        stage, block, layer, letter = match.groups()
        return f"backbone.layer{int(stage) - first + 1}.{block}.{layer}{'ab'.index(letter) + 1}."

    return {rf"{prefix}(\d)\.(\d+)\.(conv|bn)_([ab])\.": rename}


_OWN_RESNET = _renamed({r"linear\.": "head.", r"(?=conv1\.|bn1\.|layer\d)": "backbone."})
_M2M = _renamed(
    {
        r"conv_1_3x3\.": "backbone.conv1.",
        r"bn_1\.": "backbone.bn1.",
        r"linear\.": "head.",
        **_resnet_by_letters("stage_", 1),
    }
)
_SLA_BACKBONE = _renamed(
    {
        r"base_model\.0\.": "backbone.conv1.",
        r"base_model\.1\.": "backbone.bn1.",
        r"classifiers\.": None,
        **_resnet_by_letters(r"base_model\.", 3),
    }
)


def _sla(state: State, classes: int | None) -> State:
    """Rename the tensors of SLA, and select the classifier of single inference.

    With self-distillation it is the second classifier. Without it, the only classifier has one row for each class and
    each of M transformations, ordered by class, and single inference reads the rows of the first transformation.
    """
    result = _SLA_BACKBONE(state, classes)
    student = any(name.startswith("classifiers.1.") for name in state)
    prefix = "classifiers.1." if student else "classifiers.0."
    for name, tensor in state.items():
        if name.startswith(prefix):
            step = len(tensor) // classes if classes and not student and len(tensor) % classes == 0 else 1
            result[f"head.{name.removeprefix(prefix)}"] = tensor[::step]
    return result


def _arpl(state: State, classes: int | None) -> State:
    """Rename the tensors of ARPL's ``classifier32``; of two batch normalisations, take the one for real images."""
    result: State = {}
    for name, tensor in state.items():
        match = re.fullmatch(r"(conv|bn)(\d+)\.(?:bns\.(\d)\.)?(.+)", name)
        if name == "fc.weight":
            result["head.weight"] = tensor
        elif match is None:
            result[name] = tensor
        elif int(match[2]) < 10 and match[3] in (None, "0"):  # bn10 is used nowhere, bns.1 is for generated images
            group, position = divmod(int(match[2]) - 1, 3)
            layer = 1 + 3 * position + (match[1] == "bn")
            result[f"backbone.group{group + 1}.{layer}.{match[4]}"] = tensor
    return result


def _backbone_alone(state: State, classes: int | None) -> State:
    """Return the tensors unchanged: they have timm's names, and `ltr.methods.herbs` translates the rest."""
    return state


# the names of `LAYOUTS`, and `ltr.models.weights_order`
WeightsMap = Literal["order", "m2m", "sla", "arpl", "herbs", "pim", "ldam", "akamaster"]
LAYOUTS: dict[str, Layout] = {
    "m2m": Layout("M2m", (r"conv_1_3x3\.weight",), _with_head(_M2M), "after", entry="net", normalised=True),
    "sla": Layout("SLA", (r"base_model\.0\.weight", r"base_model\.3\.0\.conv_a\.weight"), _sla, "after"),
    "arpl": Layout("ARPL", (r"conv9\.weight", r"bn9\.(bns\.0\.)?weight"), _arpl),
    "herbs": Layout("HERBS", (r"fpn_down\.Proj_.+", r"fpn_up\.Proj_.+"), _backbone_alone, method="herbs_released"),
    "pim": Layout("PIM", (r"fpn\.Proj_.+",), _backbone_alone, method="pim"),
    "ldam": Layout("LDAM-DRW", (), _with_head(_OWN_RESNET), "both", normalised=True),
    "akamaster": Layout("akamaster", (), _OWN_RESNET, "both"),
}
