"""Weights under the names of the authors' code: which code a file is from, and its tensors under this package's names.

A layout renames a file's tensors to ``backbone.*`` and ``head.*``. Files of the CIFAR ResNets also differ in where a
widening shortcut has its zero channels, which no tensor shows: the layout knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ltr.errors import CheckpointError, ConfigError, nearest

State = dict[str, Tensor]
Read = Callable[[Path, str | None], State]
_FEW = 4


@dataclass(frozen=True)
class Layout:
    """The names of one published code.

    Attributes:
        code: whose it is, for messages.
        signs: patterns of names; a file that has a name for each of them is of this code. Empty: its names are those
            of others too, so that only the user can say.
        rename: the file's tensors and the number of classes (None: unknown) to ``backbone.*`` and ``head.*``.
        shortcut_padding: of `ltr.models.cifar_resnet.CifarResNet`; None: another architecture.
        entry: of the file that holds the tensors, where it is not ``state_dict`` or ``model``.
        method: config of the method whose network the whole file is; None: backbone and classifier.
        normalised: a classifier without bias is the code's normalised one.
    """

    code: str
    signs: tuple[str, ...]
    rename: Callable[[State, int | None], State]
    shortcut_padding: str | None = None
    entry: str | None = None
    method: str | None = None
    normalised: bool = False


def layout_named(name: str, key: str) -> Layout:
    """The layout of a name.

    Args:
        key: of the configuration that gives the name, for the message.

    Raises:
        ConfigError: there is none.
    """
    if name not in LAYOUTS:
        allowed = f"allowed: {', '.join(LAYOUTS)}{nearest(name, LAYOUTS)}"
        raise ConfigError(f"{key}={name}: no published code has this name; {allowed}")
    return LAYOUTS[name]


def recognised(state: State) -> str | None:
    """The name of the layout that a file's names are of, None if they are of none or of several."""
    for name, layout in LAYOUTS.items():
        if layout.signs and all(any(re.fullmatch(sign, found) for found in state) for sign in layout.signs):
            return name
    return None


def read_published(
    path: Path, read: Read, entry: str | None = None, name: str | None = None
) -> tuple[State, str | None]:
    """A file's tensors under their own names, and the name of the layout that they have.

    Args:
        read: gives the tensors of a file's entry, see `ltr.models.weights.read_state`.
        entry: of the file; None: where the code puts them.
        name: of the layout; None: it is recognised.

    Raises:
        CheckpointError: see ``read``; names that are not those of the code that was named.
    """
    try:
        state, error = read(path, entry), None
    except CheckpointError as failure:
        state, error = {}, failure
    # beside its entry of tensors a training checkpoint may hold a few more, such as a generator's state
    if entry is None and recognised(state) is None and len(state) < _FEW:
        for layout in LAYOUTS.values():
            inner = _entry(path, read, layout.entry)
            if recognised(inner) is not None:
                return inner, _agreed(path, name, recognised(inner))
    if error is not None:
        raise error
    return state, _agreed(path, name, recognised(state))


def _agreed(path: Path, name: str | None, found: str | None) -> str | None:
    """The layout of a file: the one that was named, where the file's names do not contradict it, else the found one."""
    if name is None or name == found or (found is None and not LAYOUTS[name].signs):
        return name or found
    theirs = f"those of {LAYOUTS[found].code}'s code" if found else f"not those of {LAYOUTS[name].code}'s code"
    advice = f"name {found}, or leave the name of the code out" if found else "leave the name of the code out"
    raise CheckpointError(
        f"{path}: '{name}' was given as the code that its weights are from, and the names in the file are {theirs}. "
        f"Allowed for this file: {advice}"
    )


def _entry(path: Path, read: Read, entry: str | None) -> State:
    if entry is None:
        return {}
    try:
        return read(path, entry)
    except CheckpointError:
        return {}


def check_padding(layout: Layout, padding: str, where: str) -> None:
    """Refuse a CIFAR ResNet whose zero channels are on another side than the code's.

    Raises:
        ConfigError: they are.
    """
    if layout.shortcut_padding not in (None, padding):
        raise ConfigError(
            f"{where}: these are weights of {layout.code}'s code, where the zero channels of a widening shortcut are "
            f"on the side '{layout.shortcut_padding}', and backbone.shortcut_padding is '{padding}': the network would "
            f"be another one. Set backbone.shortcut_padding={layout.shortcut_padding}"
        )


def _renamed(rules: Mapping[str, str | Callable[[re.Match], str] | None]) -> Callable[[State, int | None], State]:
    """A renaming of the beginnings of names that match a pattern; None leaves a tensor out."""
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
    """The same for code whose normalised classifier, which has no bias, is stored as [features, classes]."""

    def renamed(state: State, classes: int | None) -> State:
        result = rename(state, classes)
        weight = result.get("head.weight")
        if weight is not None and "head.bias" not in result:
            result["head.weight"] = weight.T.contiguous()
        return result

    return renamed


def _resnet_by_letters(prefix: str, first: int) -> dict[str, Callable[[re.Match], str]]:
    """The rule for blocks ``<prefix><stage>.<block>.conv_a`` and their like, whose stages begin at ``first``."""

    def ours(match: re.Match) -> str:
        stage, block, layer, letter = match.groups()
        return f"backbone.layer{int(stage) - first + 1}.{block}.{layer}{'ab'.index(letter) + 1}."

    return {rf"{prefix}(\d)\.(\d+)\.(conv|bn)_([ab])\.": ours}


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
    """SLA's sequence of modules, and the classifier of single inference.

    With self-distillation it is the second classifier. Without, the only classifier has a row for each class and each
    of M transformations, the class first, and single inference reads the rows of the first transformation.
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
    """The nine convolutions of ``classifier32``; of its variant with two batch normalisations, the one for images."""
    result: State = {}
    for name, tensor in state.items():
        match = re.fullmatch(r"(conv|bn)(\d+)\.(?:bns\.(\d)\.)?(.+)", name)
        if name == "fc.weight":
            result["head.weight"] = tensor
        elif match is None:
            result[name] = tensor
        elif int(match[2]) < 10 and match[3] in (None, "0"):  # bn10 is used nowhere, bns.1 is for generated images
            group, place = divmod(int(match[2]) - 1, 3)
            layer = 1 + 3 * place + (match[1] == "bn")
            result[f"backbone.group{group + 1}.{layer}.{match[4]}"] = tensor
    return result


def _backbone_alone(state: State, classes: int | None) -> State:
    """The names are those of a backbone of timm already; `ltr.methods.herbs.released_weights` translates the rest."""
    return state


LAYOUTS: dict[str, Layout] = {
    "m2m": Layout("M2m", (r"conv_1_3x3\.weight",), _with_head(_M2M), "after", entry="net", normalised=True),
    "sla": Layout("SLA", (r"base_model\.0\.weight", r"base_model\.3\.0\.conv_a\.weight"), _sla, "after"),
    "arpl": Layout("ARPL", (r"conv9\.weight", r"bn9\.(bns\.0\.)?weight"), _arpl),
    "herbs": Layout("HERBS", (r"fpn_down\.Proj_.+", r"fpn_up\.Proj_.+"), _backbone_alone, method="herbs_released"),
    "pim": Layout("PIM", (r"fpn\.Proj_.+",), _backbone_alone, method="pim"),
    "ldam": Layout("LDAM-DRW", (), _with_head(_OWN_RESNET), "both", normalised=True),
    "akamaster": Layout("akamaster", (), _OWN_RESNET, "both"),
}
