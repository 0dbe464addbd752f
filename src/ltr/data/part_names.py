"""Names of parts of a data set, such as ``train2017``, ``PublicTest`` and ``test-1``, and values that mark a part."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import cache
from typing import Literal

Role = Literal["train", "evaluated"]

_TRAIN = {"train", "training", "trn", "trainval", "learn", "learning"}
_EVALUATED = {
    *("val", "valid", "validation", "dev", "test", "testing", "tst", "eval", "evaluation", "holdout", "heldout"),
    *("query", "queries", "gallery", "probe"),  # parts of retrieval and of re-identification
}
# words beside the role; other words, as in "bullet train" and "test tube", make the name one of a class
_BESIDE = {
    *("set", "sets", "split", "part", "partition", "subset", "fold", "phase", "data", "dataset", "images", "image"),
    *("imgs", "img", "pics", "photos", "labels", "files", "list", "public", "private", "seen", "unseen", "known"),
    *("unknown", "small", "large", "mini", "tiny", "full", "all", "clean", "noisy", "easy", "hard", "id", "ood", "in"),
    *("out", "of", "domain", "distribution", "iid", "std", "final", "official", "new", "old", "source", "target"),
    *("labeled", "labelled", "unlabeled", "unlabelled", "cis", "trans", "open", "closed", "base", "novel", "random"),
    *("balanced", "imbalanced", "raw", "real", "original", "orig", "bounding", "box", "boxes", "cropped", "crops"),
    *("crop", "other", "resized", "aug", "augmented", "held", "hold", "extra", "challenge", "internal", "external"),
}
# only in a column whose name says that it divides: tr and te are also languages
_ABBREVIATIONS: dict[str, Role] = {"tr": "train", "te": "evaluated", "ts": "evaluated", "va": "evaluated"}
# beside parts, these hold images of no part
_UNUSED = {"extra", "extras", "unlabeled", "unlabelled", "unused", "unassigned", "ignore", "ignored", "exclude",
           "excluded", "none", "nan", "na", "null"}  # fmt: skip
_JOINED = re.compile(
    r"(?:mini|sub|public|private|seen|unseen|known|unknown)?"
    r"(training|train|trn|trainval|validation|valid|val|testing|test|tst|eval|dev)"
    r"(?:sets?|images?|imgs?|img|data|split|part|dev|val)?"
)
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_a-zA-Z]+|\d+")
# as CUB's is_training_image; alone, such a name needs values that mark images
_MARK = re.compile(r"is[ _]?(train|training|val|valid|validation|test)([ _]?(img|image|set))?", re.IGNORECASE)
_BARE_MARK = re.compile(
    r"(?:is|in|for|used? ?for|use ?in)? ?(train|training|val|validation|test|testing|eval|evaluation|hold ?out)"
    r"(?: ?(?:img|image|images|set|split|mask|flag|part|data))?"
)
_TRUTHS = {"0", "1", "-1", "true", "false", "t", "f", "yes", "no", "y", "n", "x", ""}


@cache
def role_of(name: str) -> Role | None:
    """Return the role of a name of a part, with what is beside it, such as ``seen_test`` and ``train-1``; else None."""
    if len(name) > 60:
        return None
    words = [word.lower() for word in _WORDS.findall(name)]
    if words[:2] in (["hold", "out"], ["held", "out"]):
        return "evaluated"
    roles: list[Role] = []
    for word in words:
        role = _role_of_word(word)
        if role is not None:
            roles.append(role)
        elif not (word in _BESIDE or word.isdigit() or len(word) == 1):
            return None
    return roles[0] if roles else None


def _role_of_word(word: str) -> Role | None:
    if word in _TRAIN:
        return "train"
    if word in _EVALUATED:
        return "evaluated"
    match = _JOINED.fullmatch(word)
    return None if match is None else "train" if match[1] in _TRAIN else "evaluated"


def are_parts(names: Iterable[str]) -> bool:
    """Return whether among some names are one for training images and one for others, such as ``Train`` and ``dev``."""
    return {"train", "evaluated"} <= {role_of(name.strip()) for name in names}


def are_abbreviated_parts(names: Iterable[str]) -> bool:
    """Return whether all names are abbreviations such as ``tr`` and ``te``, for training images and for others."""
    roles = {_ABBREVIATIONS.get(name.casefold()) for name in names if name}
    return roles == {"train", "evaluated"}


def are_parts_of_classes(names: Collection[str]) -> bool:
    """Return whether all names are of a part and a class, as ``train_cat`` and ``test_cat``; one class is in both."""
    classes: dict[str, set[str]] = {"train": set(), "evaluated": set()}
    for name in names:
        words = [word.lower() for word in _WORDS.findall(name)]
        outer = [(_role_of_word(words[0]), words[1:]), (_role_of_word(words[-1]), words[:-1])] if words else []
        parts_and_rest = [(role, " ".join(rest)) for role, rest in outer if role is not None and rest]
        if not parts_and_rest:
            return False
        classes[parts_and_rest[0][0]].add(parts_and_rest[0][1])
    return bool(classes["train"] & classes["evaluated"])


def are_only_parts(names: Iterable[str], *, unused: bool = False) -> bool:
    """Return whether all names are names of parts, or blank.

    Args:
        unused: True allows names of images beside the parts, such as ``extra`` and ``unlabeled``, too.
    """
    stripped = (name.strip() for name in names)
    return all(not name or role_of(name) is not None or (unused and name.casefold() in _UNUSED) for name in stripped)


def is_mark(name: str) -> bool:
    """Return whether a column of this name marks the images of a part, whatever its values, such as ``is_train``."""
    return _MARK.fullmatch(name) is not None


def may_be_mark(name: str) -> bool:
    """Return whether a column of this name marks the images of a part if its values are truth values, as ``test``."""
    return _BARE_MARK.fullmatch(_spaced(name)) is not None


def are_truths(values: Collection[str]) -> bool:
    """Return whether values are two truth values or more, such as ``0`` and ``1`` or ``True`` and blank."""
    plain = {_plain(value) for value in values}
    return 2 <= len(plain) <= 3 and plain <= _TRUTHS


def are_numbers_of_parts(values: Collection[str], most: int = 3) -> bool:
    """Return whether values number two or more parts from 0 or 1, at most ``most``."""
    numbers = {_plain(value) for value in values} - {""}
    return 2 <= len(numbers) <= most and any(
        numbers <= {str(number) for number in range(first, first + most)} for first in (0, 1)
    )


def kind_of_division(name: str) -> Literal["split", "part", "fold"] | None:
    """Return what a column's name says: certainly a division, perhaps one, the folds of a cross-validation, or None."""
    words = _spaced(name).split(" ")
    if len({_role_of_word(word) for word in words} - {None}) > 1 and not set(words) - _TRAIN - _EVALUATED - {"or"}:
        return "split"  # as train_test
    joined = "".join(word for word in words if word not in _OF_DIVISION)
    for kind, names in _DIVISIONS.items():
        if joined in names:
            return kind
    return None


_OF_DIVISION = {"data", "dataset", "image", "img", "sample", "eval", "evaluation", "id", "name", "type", "no", "number",
                "index", "idx", "label", "train", "val", "test", "official", "default"}  # fmt: skip
_DIVISIONS: dict[Literal["split", "part", "fold"], set[str]] = {
    "split": {
        "split",
        "splits",
        "partition",
        "partitions",
        "datasplit",
        "splitset",
        "splitid",
        "traintest",
        "trainval",
        "trainvaltest",
    },
    "part": {"usage", "subset", "subsets", "set", "sets", "setid", "imageset", "phase", "part", "datasubset"},
    "fold": {"fold", "folds", "kfold", "cvfold", "foldid", "cv", "crossvalidation"},
}


def _spaced(name: str) -> str:
    """Return a name in lower case, its words separated by single spaces."""
    return " ".join(word.lower() for word in _WORDS.findall(name))


def _plain(value: str) -> str:
    """Return a value in lower case, whole numbers without a decimal point."""
    text = value.strip().casefold()
    return text[:-2] if re.fullmatch(r"-?\d+\.0", text) else text
