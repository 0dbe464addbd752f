"""Weights of networks: loading by matching names and shapes, and reproducible initialisation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ltr.configuration.ranges import check_option
from ltr.errors import CheckpointError
from ltr.escaping import one_line
from ltr.models.published_names import LAYOUTS, check_shortcuts, layout_named, read_published
from ltr.models.state_file import State, read_state
from ltr.models.weights_file import finite_names, refuse_unfit
from ltr.models.weights_order import BY_ORDER, contradicts_names, map_by_order

log = logging.getLogger(__name__)

CLASSIFIER_NAMES = ("fc", "linear", "classifier", "head", "head_dist", "last_linear", "logits")
_PRINTED: set[str] = set()  # warnings about files
_LISTED = 5  # number of names printed for each kind of mismatch


def _warn_once(sentence: str) -> None:
    """Log a warning that this process has not logged yet: a run builds its network more than once."""
    if sentence not in _PRINTED:
        _PRINTED.add(sentence)
        log.warning("%s", sentence)


@contextmanager
def seeded_construction(seed: int) -> Iterator[None]:
    """Seed the initial values of modules built inside, and restore the global generator afterwards.

    Build on the CPU: only its generator is forked and seeded.

    Args:
        seed: in [0, 2**63), for example from `ltr.randomness.derive_seed`.
    """
    # torch.manual_seed would also reseed every GPU, which the fork does not restore
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def load_state(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    strict: bool = True,
    classifier_names: Iterable[str] = (),
) -> list[str]:
    """Copy ``state`` into ``module``; both must have the same names and shapes.

    Args:
        source: origin of the state, for messages.
        strict: False loads the tensors that match by name and shape, and logs the rest.
        classifier_names: modules that may be in the state but not in ``module``; their tensors are not loaded.

    Returns:
        Names of the classifier tensors that were not loaded.

    Raises:
        CheckpointError: a tensor is missing, unexpected or mis-shaped (``strict``), or no tensor matches.
    """
    expected = module.state_dict()
    prefixes = tuple(f"{name}." for name in classifier_names)
    ignored = [name for name in state if name not in expected and name.startswith(prefixes)]
    offered = {name: value for name, value in state.items() if name in expected or not name.startswith(prefixes)}
    common = {name: value for name, value in offered.items() if name in expected}
    fitting = {name: value for name, value in common.items() if value.shape == expected[name].shape}
    refuse_unfit(source, common, expected, finite_names(module))
    mismatches = describe_mismatch(expected, offered)
    if mismatches and (strict or not fitting):
        lines = [f"Weights from '{source}' belong to another architecture than {type(module).__name__}:", *mismatches]
        raise CheckpointError("\n  ".join(lines))
    for line in mismatches:
        _warn_once(f"Weights from '{source}' fit in part: {line}")
    if ignored:
        log.info("Weights from '%s': classifier entries left out: %s", source, ", ".join(ignored))
    module.load_state_dict(fitting, strict=False)
    return ignored


def load_backbone(
    module: nn.Module,
    path: str | Path,
    *,
    strict: bool = True,
    classifier_names: Iterable[str] = (),
    convert: Callable[[State], State] | None = None,
    layout: str | None = None,
) -> list[str]:
    """Load a backbone's weights from a file of the backbone, of a classifier, or of an ltr run.

    From a run's checkpoint only the entries under ``backbone.`` are loaded. Files with the tensor names of published
    code are recognised (see `ltr.models.published_names`). If the names of a file do not fit and all shapes agree, its
    tensors are mapped by order (see `ltr.models.weights_order`), with a logged warning.

    Args:
        strict, classifier_names: see `load_state`.
        convert: conversion that is tried if the file does not match, for example timm's renaming and resizing.
        layout: published code whose names the file uses, or ``order`` to map only by order; None: by names, then by
            order.

    Returns:
        Names of the tensors that were not loaded.

    Raises:
        CheckpointError: see `read_state` and `load_state`.
    """
    ordered = layout == BY_ORDER
    if layout is not None and not ordered:
        layout_named(layout, "backbone.weights_map")
    state, layout = (read_state(path), None) if ordered else read_published(Path(path), read_state, name=layout)
    if layout is not None:
        published = LAYOUTS[layout]
        padding = getattr(module, "shortcut_padding", published.shortcut_padding)
        if padding is not None:
            reduction = getattr(module, "shortcut_reduction", "stride")
            check_shortcuts(published, padding, reduction, f"'{path}'")
        log.info("Weights from '%s': names of %s's code", path, published.code)
        state = published.rename(state, None)
    outside = [name for name in state if not name.startswith("backbone.")]
    if len(outside) < len(state):
        log.info("Weights from '%s': entries outside the backbone left out: %s", path, ", ".join(outside) or "none")
        state = {name[len("backbone.") :]: value for name, value in state.items() if name.startswith("backbone.")}
    else:
        outside = []
    if all(name.startswith("net.") for name in state):  # written by this package's timm and torchvision backbones
        state = {name.removeprefix("net."): value for name, value in state.items()}
    left_out = (*CLASSIFIER_NAMES, *classifier_names)

    def load(candidate: State, exactly: bool) -> list[str]:
        candidate = with_input_channels(candidate, module, source=str(path))
        return outside + load_state(module, candidate, source=str(path), strict=exactly, classifier_names=left_out)

    def load_by_order() -> list[str]:
        mapped = map_by_order(state, module, path)
        if not ordered and contradicts_names(state, mapped):
            raise CheckpointError(f"'{path}': names and order of its tensors contradict each other")
        dropped = load(mapped.state, True)
        _warn_once(mapped.sentence(path))
        return [*dropped, *mapped.left_out]

    if ordered:
        return load_by_order()
    try:
        return load(state, True)
    except CheckpointError as error:
        mismatch = error
    attempts = [load_by_order] if convert is None else [lambda: load(convert(dict(state)), True), load_by_order]
    for attempt in attempts:
        try:
            return attempt()
        except Exception:  # these are for other files, and only the original mismatch helps the user
            continue
    if strict:
        raise mismatch
    return load(state, False)


def with_input_channels(state: State, module: nn.Module, *, source: str) -> State:
    """Adapt the first convolution of a state to the module's number of input channels by `filters_for_channels`.

    Args:
        source: origin of the state, for the log.
    """
    first = next(((n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv2d) and m.groups == 1), None)
    weight = state.get(f"{first[0]}.weight") if first else None
    if first is None or weight is None:
        return state
    expected = first[1].weight.shape
    channels, needed = weight.shape[1] if weight.ndim == 4 else 0, expected[1]
    if channels in (0, needed) or weight.shape[:1] + weight.shape[2:] != expected[:1] + expected[2:]:
        return state
    if channels not in (1, 3) or not weight.is_floating_point():
        return state
    adapted = filters_for_channels(weight, needed)
    change = "summed over channels" if needed == 1 else "repeated and rescaled"
    _warn_once(
        f"Weights from '{source}' are for {channels} input channels and the images have {needed}: the first layer's "
        f"({first[0]}.weight) are {change}"
    )
    return {**state, f"{first[0]}.weight": adapted}


def filters_for_channels(weight: Tensor, in_channels: int) -> Tensor:
    """Return the filters of a first convolution for another number of input channels, as timm adapts them.

    For grey images colour filters are summed, so that a grey image has the response of its colour version. Otherwise
    they are repeated over the channels and rescaled by their number, which keeps the response only on average.

    Args:
        weight: [C_out, C_in, H, W].

    Returns:
        [C_out, in_channels, H, W].
    """
    channels = weight.shape[1]
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    return weight.repeat(1, -(-in_channels // channels), 1, 1)[:, :in_channels] * (channels / in_channels)


Trainable = Literal["all", "last_block", "none"]


def set_trainable(backbone: nn.Module, trainable: Trainable, last_block: nn.Module) -> None:
    """Make ``all`` parameters trainable, only those of the ``last_block``, or ``none``.

    BatchNorm still updates its statistics in training mode, unless the method freezes them.
    """
    check_option("backbone.trainable", trainable, Trainable)
    if trainable == "all":
        return
    backbone.requires_grad_(False)
    if trainable == "last_block":
        last_block.requires_grad_(True)


def channel_note(offered: Tensor, expected: Tensor) -> str:
    """Return a note for convolution weights that differ only in their input channels, else an empty text."""
    is_convolution = offered.ndim == expected.ndim == 4
    if not is_convolution or offered.shape[:1] + offered.shape[2:] != expected.shape[:1] + expected.shape[2:]:
        return ""
    return f" (weights for {offered.shape[1]} input channels, not {expected.shape[1]})"


def describe_mismatch(
    expected: Mapping[str, Tensor], offered: Mapping[str, Tensor], optional: tuple[str, ...] = ("num_batches_tracked",)
) -> list[str]:
    """Return a line each for missing, unexpected and mis-shaped tensors of a state dict; empty if it fits.

    Args:
        optional: endings of names that may be missing; files older than torch 0.4.1 lack BatchNorm's step counters.
    """
    mis_shaped = []
    for name, tensor in offered.items():
        if name in expected and tensor.shape != (needed := expected[name]).shape:
            is_transposed = needed.ndim == 2 and tensor.T.shape == needed.shape
            note = " (transposed)" if is_transposed else channel_note(tensor, needed)
            mis_shaped.append(f"{name} is {list(tensor.shape)}, needs {list(needed.shape)}{note}")
    lines = {
        "missing in the file": [name for name in expected if name not in offered and not name.endswith(optional)],
        "unexpected in the file": [name for name in offered if name not in expected],
        "mis-shaped": mis_shaped,
    }
    return [
        one_line(
            f"{kind} ({len(names)}): {', '.join(names[:_LISTED])}"
            + (f", and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
        )
        for kind, names in lines.items()
        if names
    ]
