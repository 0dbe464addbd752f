"""Output indices of an ImageNet-1k classifier by class name."""

from __future__ import annotations

from collections.abc import Sequence

from ltr.errors import ConfigError, nearest

NUM_CLASSES = 1000


def output_indices(class_names: Sequence[str]) -> list[int]:
    """Return the sorted indices of named classes among the 1000 of ImageNet, which are ordered by WordNet id.

    The name of a class is the first of its WordNet words, as in Tiny-ImageNet. The names crane and maillot have two
    classes each; the result contains both indices.

    Raises:
        ConfigError: a name is not a class of ImageNet.
    """
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    indices: dict[str, list[int]] = {}
    for index in range(NUM_CLASSES):
        indices.setdefault(_first(info.index_to_description(index)), []).append(index)
    unknown = [name for name in class_names if _first(name) not in indices]
    if unknown:
        raise ConfigError(
            f"method.aux.exclude_classes=[foreground]: ImageNet has no class '{unknown[0]}'"
            + (f" (nor {len(unknown) - 1} more of the foreground)" if len(unknown) > 1 else "")
            + f"{nearest(_first(unknown[0]), tuple(indices)) or '.'} Give the numbers of the teacher's outputs instead"
        )
    return sorted(index for name in class_names for index in indices[_first(name)])


def _first(words: str) -> str:
    return words.partition(",")[0].strip()
