"""Loading of weights that other code wrote: names are matched, and one message lists everything that does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ltr.errors import CheckpointError, ConfigError, nearest
from ltr.escaping import one_line
from ltr.methods.core.checkpoint import without_initial_weights
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import NetworkSpec
from ltr.methods.herbs.released_weights import read_herbs
from ltr.methods.metric import EmbeddingNetwork
from ltr.models.heads import head_kind
from ltr.models.published_names import LAYOUTS, Layout, check_shortcuts, read_published
from ltr.models.state_file import read_state
from ltr.models.weights import CLASSIFIER_NAMES, channel_note
from ltr.models.weights_file import finite_names, refuse_unfit

State = dict[str, Tensor]
_WRAPPERS = ("module", "_orig_mod")
_OPTIONAL = "num_batches_tracked"  # files older than torch 0.4.1 lack it


def foreign_network(
    path: Path,
    configs: Mapping[str, Any],
    dataset_info: DatasetInfo,
    *,
    entry: str | None = None,
    names: Mapping[str, str | None] | None = None,
    transposed: Sequence[str] = (),
    layout: str | None = None,
    padding: str | None = None,
) -> ImageClassifier:
    """Return a network of the configs ``backbone``, ``head`` and ``loss`` with the weights of a file, in eval mode.

    Names of the network are ``backbone.*`` and ``head.*``. In the file the backbone's names may lack that
    prefix, the classifier may have one of the usual names (``linear``, ``fc``, ...), and wrappers' prefixes are
    dropped; ``names`` maps all others.

    Args:
        dataset_info: description of the data set that it is evaluated on.
        entry, names, transposed, layout, padding: see `ltr.configuration.evaluation_overrides.ForeignWeights`. The
            config ``method`` is read only for files of a whole method (HERBS, PIM).

    Raises:
        CheckpointError: the file is missing or has no tensors, or names, shapes or the number of classes do not fit.
        ConfigError: a rule of ``names`` matches nothing, or the configs do not fit together.
    """
    if names:
        state = read_state(path, entry)
    else:
        state, layout = read_published(path, read_state, entry, layout)
    published = LAYOUTS[layout] if layout is not None else None
    backbone = {**configs["backbone"], **without_initial_weights(configs["backbone"])}
    if published is not None:
        state = published.rename(state, dataset_info.num_classes)
        _refuse_linear(state, published, configs["head"], path)
        backbone = _with_padding(backbone, published, padding, path)
    settings = Settings(
        head=configs["head"],
        loss=configs["loss"],
        backbone=backbone,
        sampler={},
        augment={},
        optimizer={},
        scheduler={},
        epochs=0,
        batch_size=0,
        precision="",
        selection="unknown",  # of the epoch, by whoever trained it
    )
    if published is not None and published.method is not None:
        return read_herbs(path, state, configs, settings, dataset_info)
    network_class = EmbeddingNetwork if head_kind(configs["head"]) == "embedding" else ImageClassifier
    network = network_class(NetworkSpec(settings, dataset_info, 0, "foreign"))
    expected = {n: t for n, t in network.state_dict().items() if n.startswith(("backbone.", "head."))}
    matches = _match_names(state, expected, names or {}, path)
    _transpose(matches, transposed, path)
    _refuse_misfits(path, matches, expected, dataset_info)
    renamed_state = {network_name: tensor for network_name, (_, tensor) in matches.items()}
    refuse_unfit(path, renamed_state, expected, finite_names(network))
    network.load_state_dict(renamed_state, strict=False)
    return network.eval()


def _with_padding(backbone: dict[str, Any], layout: Layout, padding: str | None, path: Path) -> dict[str, Any]:
    """Return the config of a backbone with the residual shortcuts of the file's code; refuse another ``padding``."""
    if layout.shortcut_padding is None or "CifarResNet" not in str(backbone["_target_"]):
        return backbone
    reduction = backbone.get("shortcut_reduction", "stride")
    check_shortcuts(layout, padding or layout.shortcut_padding, reduction, str(path))
    return {**backbone, "shortcut_padding": layout.shortcut_padding}


def _refuse_linear(state: State, layout: Layout, head: Mapping[str, Any], path: Path) -> None:
    """Refuse a linear head for a normalised classifier: the weights would fit, and the logits would be wrong."""
    is_normalised = layout.normalised and "head.weight" in state and "head.bias" not in state
    if is_normalised and head_kind(head) == "linear":
        raise ConfigError(
            f"{path}: its classifier has no bias and so is {layout.code}'s normalised one, whose logits are cosines; "
            "the head is linear. Set head=cosine"
        )


Matches = dict[str, tuple[str, Tensor]]  # name in the network -> name in the file, tensor


def _match_names(state: State, expected: State, names: Mapping[str, str | None], path: Path) -> Matches:
    rules = {tuple(_plain(old).split(".")): new for old, new in names.items()}
    unused = dict.fromkeys(rules)
    matches: Matches = {}
    for name, tensor in state.items():
        rule = _rule(tuple(name.split(".")), rules)
        renamed = name
        if rule is not None:
            unused.pop(rule, None)
            if (new := rules[rule]) is None:
                continue
            renamed = _rename(name, rule, new)
        network_name = _network_name(renamed, expected)
        if network_name in matches:
            raise ConfigError(
                f"{path}: both {matches[network_name][0]} and {name} map to {network_name}. Leave one out with "
                "weights.map='{NAME: null}'"
            )
        matches[network_name] = (name, tensor)
    if unused:
        first = ".".join(next(iter(unused)))
        known = list(dict.fromkeys(part for name in state for part in (name.split(".")[0], name.rpartition(".")[0])))
        listed = f"{', '.join(known[:12])}{', ...' if len(known) > 12 else ''}"
        raise ConfigError(
            f"weights.map: no name in {path} begins with '{first}'; there are {listed}{nearest(first, known)}"
        )
    return matches


def _plain(name: str) -> str:
    """Return a name without the prefixes of wrappers, as for the names of the file."""
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        parts = parts[1:]
    return ".".join(parts)


def _rule(parts: tuple[str, ...], rules: Iterable[tuple[str, ...]]) -> tuple[str, ...] | None:
    """Return the longest rule that a name begins with; ``*`` in a rule matches any single part."""
    fitting = [
        rule
        for rule in rules
        if len(rule) <= len(parts) and all(pattern in ("*", part) for pattern, part in zip(rule, parts))
    ]
    return max(fitting, key=lambda rule: (len(rule), -rule.count("*")), default=None)


def _rename(name: str, rule: tuple[str, ...], new: str) -> str:
    parts = name.split(".")
    starred = iter([part for pattern, part in zip(rule, parts) if pattern == "*"])
    beginning = [next(starred, "*") if part == "*" else part for part in new.split(".") if part]
    return ".".join([*beginning, *parts[len(rule) :]])


def _network_name(name: str, expected: Mapping[str, Tensor]) -> str:
    """Return the network's name for a tensor, or the name itself if there is none."""
    first, _, parameter = name.partition(".")
    candidates = [name, f"backbone.{name}", f"backbone.net.{name}"]
    if first in CLASSIFIER_NAMES:
        candidates.append(f"head.{parameter}")
    return next((candidate for candidate in candidates if candidate in expected), name)


def _transpose(matches: Matches, transposed: Sequence[str], path: Path) -> None:
    unmatched = {_plain(name) for name in transposed}
    for network_name, (name, tensor) in matches.items():
        if name in unmatched:
            unmatched.discard(name)
            matches[network_name] = (name, tensor.T.contiguous() if tensor.ndim == 2 else tensor)
    if unmatched:
        names = [name for name, _ in matches.values()]
        first = sorted(unmatched)[0]
        raise ConfigError(f"weights.transposed: {path} has no tensor '{first}'{nearest(first, names)}")


def _refuse_misfits(path: Path, matches: Matches, expected: State, dataset_info: DatasetInfo) -> None:
    missing = [name for name in expected if name not in matches and not name.endswith(_OPTIONAL)]
    unexpected = dict(matches[name] for name in matches if name not in expected)  # by their names in the file
    lines = []
    if missing:
        lines.append(f"missing in the file ({len(missing)}): {', '.join(_abbreviate(missing, expected))}")
    if unexpected:
        names = _abbreviate(list(unexpected), dict(matches.values()))
        lines.append(f"unexpected in the file ({len(unexpected)}): {', '.join(names)}")
    for network_name, (name, tensor) in matches.items():
        if network_name in expected and tensor.shape != (needed := expected[network_name].shape):
            if tensor.ndim == 2 and tensor.T.shape == needed:
                advice = f" (transposed: add weights.transposed=[{name}])"
            elif network_name.startswith("head.") and tensor.shape[1:] == needed[1:]:
                advice = f" (the data set has {dataset_info.num_classes} classes)"
            else:
                advice = channel_note(tensor, expected[network_name])
            lines.append(f"mis-shaped: {name} is {list(tensor.shape)}, {network_name} needs {list(needed)}{advice}")
    if not lines:
        return
    rules = _suggest_rules(missing, unexpected, expected)
    if rules:
        lines.append(f"perhaps: weights.map='{{{', '.join(f'{old}: {new}' for old, new in rules.items())}}}'")
    elif missing or unexpected:
        lines.append("weights.map='{NAME_IN_FILE: NAME_IN_NETWORK, ...}' renames tensors; null leaves one out")
    lines = [one_line(line) for line in lines]
    raise CheckpointError("\n  ".join([f"{path}: these weights do not fit the network:", *lines]))


def _abbreviate(names: Sequence[str], everything: Mapping[str, Tensor]) -> list[str]:
    """Return names with shapes; a module whose tensors are all listed is abbreviated, as ``layer1.* (30)``."""
    remaining = dict.fromkeys(names)
    lines = []
    while remaining:
        name = next(iter(remaining))
        parts = name.split(".")
        for depth in range(1, len(parts)):
            beginning = ".".join(parts[:depth]) + "."
            below = [other for other in everything if other.startswith(beginning) and not other.endswith(_OPTIONAL)]
            if len(below) > 4 and all(other in remaining for other in below):
                lines.append(f"{beginning}* ({len(below)})")
                for other in [other for other in remaining if other.startswith(beginning)]:
                    del remaining[other]
                break
        else:
            lines.append(f"{name} {list(everything[name].shape)}")
            del remaining[name]
    return lines


def _suggest_rules(missing: Sequence[str], unexpected: State, expected: State) -> dict[str, str]:
    """Return suggested rules: prefixes of unmatched names in the file -> prefixes of missing ones of equal shapes."""
    votes: dict[tuple[str, str], int] = {}
    for missing_name in missing:
        for name, tensor in unexpected.items():
            if tensor.shape == expected[missing_name].shape:
                old, new = name.split("."), missing_name.split(".")
                while len(old) > 1 and len(new) > 1 and old[-1] == new[-1]:
                    old, new = old[:-1], new[:-1]
                pair = (".".join(old), ".".join(new))
                votes[pair] = votes.get(pair, 0) + 1
    rules: dict[str, str] = {}
    for old_prefix, new_prefix in sorted(votes, key=lambda pair: -votes[pair]):
        if _is_free(old_prefix, rules) and new_prefix not in rules.values():
            rules[old_prefix] = new_prefix
    return dict(list(rules.items())[:4])


def _is_free(name: str, rules: Mapping[str, str]) -> bool:
    """Return whether no rule is a prefix of this name or has it as a prefix."""
    return not any(name == other or name.startswith(f"{other}.") or other.startswith(f"{name}.") for other in rules)
