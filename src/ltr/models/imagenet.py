"""The outputs of a classifier of ImageNet-1k by the names of their classes."""

from __future__ import annotations

from collections.abc import Sequence

from ltr.errors import ConfigError, nearest

NUM_CLASSES = 1000


def outputs_of(class_names: Sequence[str]) -> list[int]:
    """Places of ImageNet's classes of these names among its 1000, in the order of their WordNet ids; sorted.

    A class's name is the first of its WordNet words (Tiny-ImageNet's class names are these). Two names, crane and
    maillot, stand for two classes each: both are found.

    Raises:
        ConfigError: ImageNet has no class of some name.
    """
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    places: dict[str, list[int]] = {}
    for place in range(NUM_CLASSES):
        places.setdefault(_first(info.index_to_description(place)), []).append(place)
    unknown = [name for name in class_names if _first(name) not in places]
    if unknown:
        raise ConfigError(
            f"method.aux.exclude_classes=[foreground]: ImageNet has no class '{unknown[0]}'"
            + (f" (nor {len(unknown) - 1} more of the foreground)" if len(unknown) > 1 else "")
            + f"{nearest(_first(unknown[0]), tuple(places))}. Give the numbers of the teacher's outputs instead"
        )
    return sorted(place for name in class_names for place in places[_first(name)])


def _first(words: str) -> str:
    return words.partition(",")[0].strip()
