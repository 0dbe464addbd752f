"""Mapping of weights with unknown names to a network, by the order and the shapes of their tensors.

Files of other code for the same architecture often differ only in names. A state dict is in the order in which the
modules were created, so that tensor k of the file is tensor k of the network if all shapes agree. Shapes do not
distinguish the weight of batch normalisation from its bias; the last parts of the names must therefore agree too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ltr.errors import CheckpointError

BY_ORDER = "order"  # value of ``backbone.weights_map`` for this mapping
_KINDS = ("weight", "bias", "running_mean", "running_var")
_CLASSIFIER = 2  # number of tensors of a classifier: weight and bias


@dataclass(frozen=True)
class OrderedWeights:
    """Tensors of a file under a network's names.

    Attributes:
        left_out: names of the file's tensors after the network's last one, which belong to a classifier.
        first, last: (name in the file, name in the network) of the first and the last pair.
    """

    state: dict[str, Tensor]
    left_out: tuple[str, ...]
    first: tuple[str, str]
    last: tuple[str, str]

    def sentence(self, source: str | Path) -> str:
        """Return a line about the mapping of the tensors of ``source``."""
        rest = f"; left out: {', '.join(self.left_out)}" if self.left_out else ""
        return (
            f"Weights from '{source}': {len(self.state)} tensors mapped by their order, whose shapes agree "
            f"({self.first[0]} is {self.first[1]}, ..., {self.last[0]} is {self.last[1]}){rest}"
        )


def map_by_order(state: Mapping[str, Tensor], module: nn.Module, source: str | Path) -> OrderedWeights:
    """Map a file's tensors to a network's names by their order.

    Step counters of batch normalisation are ignored. The first convolution may have another number of input channels,
    see `ltr.models.weights.with_input_channels`.

    Args:
        state: state dict in the order of the file.

    Raises:
        CheckpointError: the file keeps no order, or a tensor differs in shape or kind from the network's tensor at its
            position.
    """
    if str(source).endswith(".safetensors"):
        raise CheckpointError(
            f"'{source}' is a safetensors file, which does not keep the order of tensors: they cannot be mapped by it. "
            "Save the state dict with torch.save under the order of its modules, or rename its tensors"
        )
    offered = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    expected = {
        name: tensor for name, tensor in module.state_dict().items() if not name.endswith("num_batches_tracked")
    }
    if unordered := _out_of_order(list(offered)):
        raise CheckpointError(
            f"'{source}': its tensors do not stand in the order of modules ({unordered[1]} after {unordered[0]}), so "
            "they cannot be mapped by it. Save them again in the order of the network's state dict"
        )
    stem = next((n for n, m in module.named_modules() if isinstance(m, nn.Conv2d) and m.groups == 1), None)
    for position, (file_name, network_name) in enumerate(zip(offered, expected), 1):
        is_stem = network_name == f"{stem}.weight"
        if fault := _fault(file_name, offered[file_name], network_name, expected[network_name], is_stem):
            raise CheckpointError(
                f"'{source}' cannot be mapped by the order of its tensors: tensor {position} of {len(offered)} is "
                f"{file_name} {list(offered[file_name].shape)}, and the network's is {network_name} "
                f"{list(expected[network_name].shape)}: {fault}"
            )
    rest = list(offered)[len(expected) :]
    if len(offered) < len(expected) or not _is_classifier([offered[name] for name in rest]):
        raise CheckpointError(
            f"'{source}' cannot be mapped by the order of its tensors: it has {len(offered)}, and the network "
            f"{len(expected)} (a classifier of {_CLASSIFIER} tensors may follow them)"
        )
    pairs = list(zip(offered, expected))
    return OrderedWeights(
        {network_name: offered[file_name] for file_name, network_name in pairs}, tuple(rest), pairs[0], pairs[-1]
    )


def contradicts_names(state: Mapping[str, Tensor], mapped: OrderedWeights) -> bool:
    """Return whether a tensor of the file that has a name of the network would be mapped to another name."""
    return any(name in state and state[name] is not tensor for name, tensor in mapped.state.items())


def _fault(file_name: str, offered: Tensor, network_name: str, expected: Tensor, is_stem: bool) -> str:
    shapes = [tuple(tensor.shape) for tensor in (offered, expected)]
    if is_stem:
        shapes = [shape[:1] + shape[2:] for shape in shapes]
    if shapes[0] != shapes[1]:
        return "their shapes differ"
    kinds = [name.rpartition(".")[2] for name in (file_name, network_name)]
    kinds = [kind if kind in _KINDS else "" for kind in kinds]
    return "" if kinds[0] == kinds[1] else "they are of different kinds"


def _out_of_order(names: list[str]) -> tuple[str, str] | None:
    """Return two names that differ only in their numbers, the larger one first: a sign of sorted names."""
    seen: dict[str, tuple[tuple[int, ...], str]] = {}
    for name in names:
        numbers = tuple(int(digits) for digits in re.findall(r"\d+", name))
        before = seen.get(pattern := re.sub(r"\d+", "#", name))
        if before is not None and before[0] > numbers:
            return before[1], name
        seen[pattern] = (numbers, name)
    return None


def _is_classifier(tensors: list[Tensor]) -> bool:
    if not tensors:
        return True
    shapes = [tuple(tensor.shape) for tensor in tensors]
    is_matrix = len(shapes[0]) in (2, 4) and all(side == 1 for side in shapes[0][2:])
    return len(shapes) <= _CLASSIFIER and is_matrix and shapes[1:] in ([], [shapes[0][:1]])
