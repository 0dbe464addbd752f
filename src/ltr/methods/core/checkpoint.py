"""Checkpoint files: atomic writes, loading with ``weights_only=True``, and the description of the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins import CheckpointIO

from ltr.configuration.declared_defaults import with_defaults
from ltr.configuration.targets import class_name, locate
from ltr.errors import CheckpointError, ConfigError, TrainingError, first_line
from ltr.files import written_atomically
from ltr.identity import name_of, with_names
from ltr.methods.core.delta import base_file, check_base, without_base
from ltr.methods.core.description import check_description, read_description
from ltr.methods.core.settings import DatasetInfo, Settings, describe_other_names
from ltr.methods.core.stage import NetworkSpec, build_network
from ltr.models.heads import head_kind
from ltr.models.weights import describe_mismatch
from ltr.models.weights_file import finite_names, load_torch_file, refuse_unfit

FORMAT = "ltr-stage"
VERSION = 1


class AtomicCheckpointIO(CheckpointIO):
    """Checkpoint IO for Lightning that writes a temporary file, calls fsync and renames it.

    Lightning's default writes through $TMPDIR and does not call fsync.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        try:
            with written_atomically(Path(path)) as temporary:
                torch.save(checkpoint, temporary)
        except RuntimeError as error:  # torch reports a full disk as RuntimeError
            raise OSError(f"{path}: {first_line(error)}") from error

    def load_checkpoint(self, path: Any, map_location: Any | None = "cpu", weights_only: bool | None = True) -> Any:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint to the CPU with ``weights_only=True``.

    Raises:
        CheckpointError: the file is missing, damaged, or contains more than tensors and plain values.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such checkpoint. Name a run's folder or a file in its checkpoints/")
    loaded = load_torch_file(path)
    if not isinstance(loaded, dict):
        raise CheckpointError(
            f"{path}: holds a {type(loaded).__name__}, not a dictionary of weights. Name a checkpoint of a run"
        )
    return loaded


def network_checkpoint(
    network: Any, dataset: Mapping[str, Any], state: Mapping[str, torch.Tensor] | None = None, *, whole: bool = False
) -> dict[str, Any]:
    """Return the content of a weights file: state dict and description, from which `load_network` rebuilds the network.

    Args:
        network: an `ltr.methods.core.network.ImageClassifier`; its constructor arguments are in the description.
        state: weights to store instead of the network's current ones, such as the best epoch's.
        whole: also store the frozen part of a tuned backbone; see `ltr.methods.core.delta`.
    """
    if isinstance(network.settings.backbone.get("module"), torch.nn.Module):
        raise CheckpointError(
            "the network's backbone was given as a module, and a checkpoint describes only backbones that have a "
            "config. Save network.state_dict() with torch.save, and load it into the same ltr.build(...)"
        )
    # JSON text, so that the file holds only strings and tensors and loads with weights_only=True
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
    """Return the description in a stage's weights file, and its ``state_dict``.

    Raises:
        CheckpointError: the file is damaged, or ltr did not write it.
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
        CheckpointError: the file is damaged, has another format, names code outside the allow-list, or has weights that
            do not fit its architecture.
    """
    return network_from_description(describe(path), path, parents)


def network_from_description(
    description: Mapping[str, Any], path: Path, parents: Mapping[str, Any] | None = None
) -> Any:
    """Build the network of a description and load its weights.

    Args:
        description: the result of `describe`.
        parents: finished stages by name, if the network needs them.

    Raises:
        CheckpointError: see `load_network`.
    """
    check_description(description, path)
    refuse_unfit(path, description["state_dict"], {}, frozenset())
    try:
        settings = Settings(**description["settings"])
        base = description.get("base")
        initial = without_initial_weights(settings.backbone)
        settings = settings.replaced(
            backbone={**settings.backbone, **(initial if base is None else {"weights": base_file(base, path)})},
            extras=(),  # loss terms and their teachers are only needed in training
        )
        module_class = locate(description["module"])
        if not (isinstance(module_class, type) and issubclass(module_class, torch.nn.Module)):
            raise CheckpointError(f"{path}: {description['module']} is not a network")
        dataset_info = DatasetInfo.from_dict(description["facts"])
        spec = NetworkSpec(settings, dataset_info, description["seed"], description["role"], parents or {})
        network = build_network(module_class, spec, description["options"])
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except CheckpointError:
        raise
    except Exception as error:  # a damaged description can raise anything in the constructors
        raise CheckpointError(
            f"{path}: the network cannot be built from its description ({type(error).__name__}: {first_line(error)}). "
            "The file is damaged, or other code wrote it"
        ) from error
    kept = {name: tensor for name, tensor in description["state_dict"].items() if not name.startswith("extras.")}
    if base is not None:
        check_base(getattr(network, "base", None), base, path)
        initial_state = network.state_dict()
        kept |= {name: initial_state[name] for name in network.base.names}
    check_weights(network, kept, path)
    network.load_state_dict(kept)
    return network.eval()


def without_initial_weights(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Return overrides of a backbone's config that neither read nor download initial weights."""
    return {
        key: value
        for key, value in (("weights", None), ("weights_map", None), ("pretrained", False))
        if key in backbone
    }


def check_weights(network: torch.nn.Module, state: Mapping[str, torch.Tensor], where: Path) -> None:
    """Refuse a state dict whose names, dtypes or shapes differ from the network's.

    Raises:
        CheckpointError: lists the first missing, unexpected and differently shaped entries.
    """
    expected = network.state_dict()
    refuse_unfit(where, state, expected, finite_names(network))
    if lines := describe_mismatch(expected, state, optional=()):
        raise CheckpointError(f"{where}: weights of another architecture; {'; '.join(lines)}")


def check_fits(network: Any, settings: Settings, dataset_info: DatasetInfo, where: Path) -> None:
    """Refuse a network that cannot replace one trained with these settings on this data.

    Kinds of heads are compared too: a cosine head and a linear head without bias have the same names and shapes.

    Raises:
        CheckpointError: the head, backbone, classes or preprocessing differ.
    """
    differences = []
    for part in ("head", "backbone"):
        network_value, run_value = (
            _config_summary(part, getattr(owner, part)) for owner in (network.settings, settings)
        )
        if network_value != run_value:
            differences.append(f"{part} is {network_value}, this run's is {run_value}")
    if not differences and getattr(network.head, "head_kind", None) != head_kind(settings.head):
        differences.append(f"its head was replaced after training (by a head of kind '{network.head.head_kind}')")
    for name in ("class_names", "image_shape", "mean", "std"):
        network_value, run_value = getattr(network.dataset_info, name), getattr(dataset_info, name)
        if network_value != run_value:
            if name == "class_names":
                other_names = describe_other_names(network_value, run_value)
                network_value, run_value = f"{len(network_value)} classes", f"{len(run_value)} ({other_names})"
            differences.append(f"{name}: {network_value}, this run's data has {run_value}")
    if differences:
        raise CheckpointError(f"{where}: a network of another kind; {'; '.join(differences)}")


def _config_summary(part: str, config: Mapping[str, Any]) -> str:
    """Return a head's or backbone's config as one line, without keys that only matter before training.

    Options that were added after the network was saved have their defaults.
    """
    ignored = ("_target_", "_allowed_", "weights", "weights_map", "strict_weights", "pretrained", "trainable",
               "initial")  # fmt: skip
    options = ", ".join(
        f"{key}={value}" for key, value in with_defaults(part, config, {}).items() if key not in ignored
    )
    return f"{class_name(config)}({options})"


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    Raises:
        TrainingError: the file cannot be written; an existing file is unchanged.
    """
    try:
        with written_atomically(path) as temporary:
            torch.save(content, temporary)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise TrainingError(f"{path}: could not be written: {error}") from error
