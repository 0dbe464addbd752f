"""Messages about unknown config names: the nearest names, then all names of the group."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

from ltr.configuration.configs import config_names
from ltr.configuration.field_names import CONFIGS
from ltr.configuration.provided_names import family_choices, provided_choices
from ltr.configuration.quoting import typed
from ltr.errors import nearest_name
from ltr.files import TABLE_SUFFIXES, WEIGHTS_SUFFIXES

# groups that users confuse: the method of a paper may be a loss, a sampler or an experiment in ltr
MIXED_UP = ("method", "loss", "sampler", "scheduler", "optimizer", "backbone", "head", "augment", "dataset",
            "experiment")  # fmt: skip
_MOST = 3  # suggestions
# group -> endings of files (none: any path), and the sentence with the override that takes such a path
_OF_PATHS = {
    "dataset": (
        (TABLE_SUFFIXES, "a table of images is given by dataset=table {}", "dataset.file"),
        ((), "a folder of images is given by dataset=folder {}", "dataset.root"),
    ),
    "backbone": (
        (
            WEIGHTS_SUFFIXES,
            "a file of weights is given by the key 'weights' of a backbone, e.g. {}",
            "backbone.weights",
        ),
    ),
}


def unknown_config(group: str, name: Any, options: Sequence[str]) -> str:
    """Return ``there is no method 'cRT'. Did you mean 'crt'? There are: ...``, as the end of a sentence.

    Case and punctuation do not matter, and a name that another group has is found there.

    Args:
        group: such as ``method``.
        name: the unknown name.
        options: the names of the group's configs.
    """
    written = "null" if name is None else str(name).lower() if isinstance(name, bool) else str(name)
    if choice := choice_of_path(group, written):
        return f"there is no {group} '{written}'; {choice}"
    provided = provided_choices(group, written) if name else []
    near = provided or (nearest_configs(group, written, options) if name else [])
    # without the group, if it is the same
    quoted = [f"'{choice.removeprefix(f'{group}=') if ' ' not in choice else choice}'" for choice in near]
    hint = f". Did you mean {' or '.join(quoted)}? There are: " if quoted else "; there are: "
    return f"there is no {group} '{written}'{hint}{', '.join(options) or 'none'}"


def choice_of_path(group: str | None, name: str) -> str | None:
    """Return a sentence with the override that takes a path of images, of a table or of weights.

    A name without a slash is one of images if there is such a folder. None for any other name or path.
    """
    ending = os.path.splitext(name)[1].lower()
    for endings, sentence, key in _OF_PATHS.get(group or "", ()):
        is_folder = ("/" in name or os.path.isdir(name)) and ending not in (".yaml", ".yml")
        if ending in endings if endings else is_folder:
            return sentence.format(typed(key, name))
    return None


def nearest_configs(group: str, name: str, options: Iterable[str]) -> list[str]:
    """Return up to three choices such as ``loss=ldam`` that may be meant by a name, the best first."""
    names = {group: list(options)}
    # recipes are named by data sets and are not suggested for other names
    if group in MIXED_UP:
        names |= {other: config_names(other) for other in MIXED_UP if other != group}
    wanted = _simplified(name)
    if wanted in CONFIGS.get(group, {}):
        return list(CONFIGS[group][wanted])
    same = [f"{other}={option}" for other in names for option in names[other] if _simplified(option) == wanted]
    if same:
        # a longer name of the group is more likely meant than the same name in another group
        is_here = any(choice.startswith(f"{group}=") for choice in same)
        longer_here = [] if is_here else [option for option in names[group] if _words(name) <= _words(option)]
        return [*(f"{group}={option}" for option in sorted(longer_here, key=len)), *same][:_MOST]
    if not any(option.startswith(name.lower()) for option in names[group]) and (family := family_choices(group, name)):
        return family
    simplified = {_simplified(option): option for option in names[group]}
    close = nearest_name(wanted, simplified, cutoff=0.75)
    if close is not None:
        return [f"{group}={simplified[close]}"]
    words = _words(name)
    says_something = any(character.isalpha() for character in name)
    every = [(other, option) for other in names for option in names[other]]
    every.sort(key=lambda choice: (choice[0] != group, len(choice[1])))
    longer = [f"{other}={option}" for other, option in every if says_something and words <= _words(option)]
    shorter = [
        f"{other}={option}"
        for other, option in sorted(every, key=_length)
        if words >= _words(option) and len(words) <= 2 * len(_words(option))
    ]
    if longer or shorter:
        return [*longer[: _MOST - 1], *shorter[:1]]
    close = nearest_name(wanted, simplified)
    return [] if close is None else [f"{group}={simplified[close]}"]


def _length(choice: tuple[str, str]) -> int:
    return -len(choice[1])


def _simplified(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name.lower()))
