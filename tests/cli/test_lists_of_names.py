"""Flags that list names: a name may hold commas, quotes and letters that Unicode writes in two ways."""

from __future__ import annotations

import pytest

from ltr.commands.arguments import chosen_names
from ltr.errors import ConfigError

KNOWN = ("tench, Tinca tinca", "cat", "cat, big", 'the "red" one', "café", "7", "a\\b", "C")


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["tench, Tinca tinca"], ["tench, Tinca tinca"]),
        (['"tench, Tinca tinca"'], ["tench, Tinca tinca"]),
        (["tench\\, Tinca tinca"], ["tench, Tinca tinca"]),
        (['"tench, Tinca tinca",cat'], ["tench, Tinca tinca", "cat"]),
        (["7, tench, Tinca tinca , cat"], ["7", "tench, Tinca tinca", "cat"]),
        (["tench, Tinca tinca", "cat"], ["tench, Tinca tinca", "cat"]),
        (["cat, big"], ["cat, big"]),
        (['"cat","cat, big"'], ["cat", "cat, big"]),
        (["cat", "cat", "cat,7"], ["cat", "7"]),
        (['the "red" one'], ['the "red" one']),
        (['"the ""red"" one",7'], ['the "red" one', "7"]),
        (['the "red" one,7'], ['the "red" one', "7"]),
        (["cafe\u0301"], ["café"]),
        (["7,cafe\u0301"], ["7", "café"]),
        (["a\\b"], ["a\\b"]),
        (["dog,cat, bigger"], ["dog", "cat", "bigger"]),
        (["", "cat", "  "], ["cat"]),
        ([], []),
        (['"unfinished,7'], ['"unfinished', "7"]),
    ],
)
def test_lists_of_names_are_split_at_commas_but_whole_and_quoted_names_stay(texts, names):
    assert chosen_names(texts, KNOWN) == names


@pytest.mark.parametrize("texts", [[""], [","], [" ", ""], ['""']])
def test_an_empty_list_of_names_is_refused(texts):
    with pytest.raises(ConfigError, match="an empty list of names"):
        chosen_names(texts, KNOWN)
