"""Checkpoints: written whole or not at all, read without unpickling code, and self-describing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins import CheckpointIO

from ltr.configuration.targets import locate
from ltr.errors import CheckpointError, ConfigError, TrainingError
from ltr.escaping import one_line
from ltr.files import written_atomically
from ltr.identity import name_of, with_names
from ltr.methods.core.delta import check_base, found_base, without_base
from ltr.methods.core.description import check_description, read_description
from ltr.methods.core.stage import DatasetInfo, NetworkSpec, Settings, build_network
from ltr.models.weights_file import finite_names, load_torch_file, refuse_unfit

FORMAT = "ltr-stage"
VERSION = 1


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's checkpoints, beside their place and then renamed (its own go through $TMPDIR, without fsync)."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        try:
            with written_atomically(Path(path)) as temporary:
                torch.save(checkpoint, temporary)
        except RuntimeError as error:  # torch's own writer says so of a full disk
            raise OSError(f"{path}: {str(error).splitlines()[0]}") from error

    def load_checkpoint(self, path: Any, map_location: Any | None = "cpu", weights_only: bool | None = True) -> Any:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint to the CPU with ``weights_only=True``.

    Raises:
        CheckpointError: no such file, damaged, or holding anything but tensors and plain values.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such checkpoint")
    loaded = load_torch_file(path)
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path}: holds a {type(loaded).__name__}, expected a dictionary")
    return loaded


def network_checkpoint(
    network: Any, dataset: Mapping[str, Any], state: Mapping[str, torch.Tensor] | None = None, *, whole: bool = False
) -> dict[str, Any]:
    """Return the content of a weights file: enough to rebuild the network anywhere, and no object but tensors.

    Args:
        network: an `ltr.methods.core.network.ImageClassifier`, which remembers what it was built from.
        dataset: the data set's config, as a description.
        state: weights to store in place of the network's own (the best epoch's).
        whole: True stores the frozen part of a tuned backbone, too; see `ltr.methods.core.delta`.
    """
    if isinstance(network.settings.backbone.get("module"), torch.nn.Module):
        raise CheckpointError(
            "the network's backbone was given as a module, which a checkpoint cannot describe: only a backbone by its "
            "name is rebuilt from a file. Save network.state_dict() with torch.save, and load it into the same "
            "ltr.build(...)"
        )
    # structure as JSON text: no reader needs to trust anything but strings and tensors
    description = {
        "module": name_of(f"{type(network).__module__}.{type(network).__qualname__}"),
        "settings": with_names(network.settings.to_dict()),
        "facts": network.dataset_info.to_dict(),
        "seed": network.seed,
        "role": network.role,
        "options": with_names(dict(network.options)),
        "dataset": with_names(dict(dataset)),
    }
    kept, base = dict(state or network.state_dict()), None
    if not whole and getattr(network, "base", None) is not None:
        kept, base = without_base(kept, network.base)
    return {
        "format": FORMAT,
        "version": VERSION,
        "description": json.dumps(description),
        **({} if base is None else {"base": base}),
        "state_dict": {name: tensor.detach().cpu().contiguous() for name, tensor in kept.items()},
    }


def describe(path: Path) -> dict[str, Any]:
    """Return the description inside a stage's weights file, with ``state_dict`` beside it.

    Raises:
        CheckpointError: the file is not one of this project's.
    """
    loaded = read_checkpoint(path)
    if loaded.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: not a checkpoint of this project (no format '{FORMAT}'). "
            "To start from foreign weights use backbone.weights=FILE; to evaluate them, name their data and network: "
            "ltr-eval FILE dataset=CONFIG backbone=CONFIG"
        )
    version = loaded.get("version")
    if isinstance(version, int) and version > VERSION:
        raise CheckpointError(f"{path}: written by a newer version of ltr (format {version} > {VERSION})")
    is_version = isinstance(version, int) and not isinstance(version, bool) and version >= 1
    if not is_version or not isinstance(loaded.get("state_dict"), dict):
        raise CheckpointError(f"{path}: damaged: its version or its weights are missing")
    refuse_unfit(path, loaded["state_dict"], {}, frozenset())
    base = {"base": loaded["base"]} if "base" in loaded else {}
    return {**read_description(loaded.get("description"), path), **base, "state_dict": loaded["state_dict"]}


def load_network(path: Path, parents: Mapping[str, Any] | None = None) -> Any:
    """Return the network of a stage's weights file, in eval mode on the CPU.

    Raises:
        CheckpointError: damaged, of another format, naming code outside the allow-list, or weights that do not fit
            the architecture it names.
    """
    return described_network(describe(path), path, parents)


def described_network(description: Mapping[str, Any], path: Path, parents: Mapping[str, Any] | None = None) -> Any:
    """Return the network of a description with its weights, as `describe` gives it; see `load_network`.

    Args:
        path: where it comes from, for messages.
    """
    check_description(description, path)
    refuse_unfit(path, description["state_dict"], {}, frozenset())
    try:
        settings = Settings(**description["settings"])
        base = description.get("base")
        initial = without_initial_weights(settings.backbone)
        settings = settings.replaced(
            backbone={**settings.backbone, **(initial if base is None else {"weights": found_base(base, path)})},
            extras=(),  # of training alone: what they learnt beside the network, and their teachers, are not needed
        )
        module_class = locate(description["module"], str(path))
        if not (isinstance(module_class, type) and issubclass(module_class, torch.nn.Module)):
            raise CheckpointError(f"{path}: {description['module']} is no network")
        dataset_info = DatasetInfo.from_dict(description["facts"])
        spec = NetworkSpec(settings, dataset_info, description["seed"], description["role"], parents or {})
        network = build_network(module_class, spec, description["options"])
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except CheckpointError:
        raise
    except Exception as error:  # whatever the code that it names makes of what it says
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise CheckpointError(
            f"{path}: what it says of its network cannot be followed ({type(error).__name__}: {reason}). "
            "It is damaged, or was written by other code"
        ) from error
    kept = {name: tensor for name, tensor in description["state_dict"].items() if not name.startswith("extras.")}
    if base is not None:
        check_base(getattr(network, "base", None), base, path)
        own = network.state_dict()
        kept |= {name: own[name] for name in network.base.names}
    load_weights(network, kept, path)
    return network.eval()


def without_initial_weights(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Initial weights are inside the checkpoint already: read no file and download nothing."""
    return {
        key: value
        for key, value in (("weights", None), ("weights_map", None), ("pretrained", False))
        if key in backbone
    }


def load_weights(network: torch.nn.Module, state: Mapping[str, torch.Tensor], where: Path) -> None:
    """Load weights, all of them, or say which do not fit; see `check_weights`."""
    check_weights(network, state, where)
    network.load_state_dict(dict(state))


def check_weights(network: torch.nn.Module, state: Mapping[str, torch.Tensor], where: Path) -> None:
    """Refuse weights that are not all of a network's, of its kinds of numbers and its shapes.

    Raises:
        CheckpointError: names the first missing, unexpected and differently shaped entries.
    """
    own = network.state_dict()
    refuse_unfit(where, state, own, finite_names(network))
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in state and own[name].shape != state[name].shape
    ]
    if missing or unexpected or shapes:
        parts = [
            f"{title} ({len(names)}): {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
            for title, names in (("missing", missing), ("not in this network", unexpected), ("other shape", shapes))
            if names
        ]
        raise CheckpointError(f"{where}: weights of another architecture; {one_line('; '.join(parts))}")


def check_fits(network: Any, settings: Settings, dataset_info: DatasetInfo, where: Path) -> None:
    """Refuse a network that cannot stand in for one of these settings and data.

    A cosine head and a linear one without bias have weights of the same names and shapes: kinds are compared, too.

    Raises:
        CheckpointError: another head or backbone, other classes, or images that are prepared otherwise.
    """
    theirs = {"head": network.settings.head, "backbone": network.settings.backbone}
    ours = {"head": settings.head, "backbone": settings.backbone}
    differences = [
        f"{part} is {_named(theirs[part])}, this run's is {_named(ours[part])}"
        for part in ours
        if _named(theirs[part]) != _named(ours[part])
    ]
    head_kind = getattr(locate(ours["head"]["_target_"], "head"), "head_kind", None)
    if not differences and getattr(network.head, "head_kind", None) != head_kind:
        differences.append(f"its head was replaced after training (by a head of kind '{network.head.head_kind}')")
    for name in ("class_names", "image_shape", "mean", "std"):
        mine, its = getattr(dataset_info, name), getattr(network.dataset_info, name)
        if mine != its:
            shown = (f"{len(its)} classes", f"{len(mine)}") if name == "class_names" else (str(its), str(mine))
            differences.append(f"{name}: {shown[0]}, this run's data has {shown[1]}")
    if differences:
        raise CheckpointError(f"{where}: a network of another kind; {'; '.join(differences)}")


def _named(config: Mapping[str, Any]) -> str:
    """Return a head's or backbone's config in short, without what a trained network no longer depends on."""
    no_matter = ("_target_", "_allowed_", "weights", "weights_map", "strict_weights", "pretrained", "trainable",
                 "initial")  # fmt: skip
    rest = ", ".join(f"{key}={value}" for key, value in config.items() if key not in no_matter)
    return f"{str(config['_target_']).rsplit('.', 1)[-1]}({rest})"


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    Raises:
        TrainingError: it cannot be written; what was there stays.
    """
    try:
        with written_atomically(path) as temporary:
            torch.save(content, temporary)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise TrainingError(f"{path}: could not be written: {error}") from error
