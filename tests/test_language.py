"""The language of the house: the rules that a machine can hold, over the rooms that keep them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RIDDLES = re.compile(
    r"_(told|is_said|are_said|ones_own|nobody|somebody|whatever_it|goes_on|page)(_|$)"
)  # in test names
CLEAN = (  # folders and files, relative to the repository; a room is listed here once it keeps the rules
    "src/ltr/api.py",
    "src/ltr/apply",
    "src/ltr/cli.py",
    "src/ltr/commands",
    "src/ltr/configuration",
    "src/ltr/console.py",
    "src/ltr/data",
    "src/ltr/errors.py",
    "src/ltr/escaping.py",
    "src/ltr/evaluation",
    "src/ltr/files.py",
    "src/ltr/losses",
    "src/ltr/methods",
    "src/ltr/models",
    "src/ltr/names.py",
    "src/ltr/networks.py",
    "src/ltr/optim",
    "src/ltr/randomness.py",
    "src/ltr/report",
    "src/ltr/results.py",
    "src/ltr/runs",
    "src/ltr/sweeps.py",
    "src/ltr/writing.py",
    "scripts",
    "tests/apply",
    "tests/cli",
    "tests/configuration",
    "tests/conftest.py",
    "tests/contract",
    "tests/data",
    "tests/docs/test_published_numbers.py",
    "tests/evaluation",
    "tests/faults",
    "tests/golden",
    "tests/losses",
    "tests/methods",
    "tests/models",
    "tests/optim",
    "tests/quick_hydra.py",
    "tests/report",
    "tests/resuming.py",
    "tests/runs",
    "tests/scripts",
    "tests/several.py",
    "tests/test_api.py",
    "tests/test_build.py",
    "tests/test_floors.py",
    "tests/test_identity.py",
    "tests/test_names.py",
    "tests/test_python_use.py",
    "tests/test_results_folder.py",
    "tests/trees.py",
)
SUMMARY_OPENINGS = re.compile(r"(What|Whether|How|Where|Which|Who)\b")
UNNAMED = {"found", "given", "told"}  # names of results that do not say what they hold
OLD_WORDS = re.compile(r"(?i)\bjudg|_judg|(?<![a-z])pages?(?![a-z])")
OLD_WORDS_OF_DOCS = re.compile(
    r"(?i)\bjudg|\bpictures?\b|\bunfair|\bin the place of\b|\b(published row|stored stage)s?\b"
)
CODE_IN_DOCS = re.compile(r"^ *```.*?^ *```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
PAGES_OF_TEXT = re.compile(r"(?i)\b(web|docs|html|man|manual) pages?\b|\bpages? of the docs\b")

Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def clean_files() -> list[Path]:
    paths = [ROOT / room for room in CLEAN]
    docs = ROOT / "scripts/configuration_reference.py"  # its pages are those of the docs
    return sorted(file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py")) if file != docs)


def described(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_public(name: str) -> bool:
    return not name.startswith("_") or name.startswith("__")


def public_definitions(tree: ast.Module) -> Iterator[Definition]:
    """The module, and the classes and functions whose names do not begin with one underscore."""
    for node in ast.walk(tree):
        if isinstance(node, Definition) and is_public(getattr(node, "name", "")):
            yield node


def relative_summaries(source: str) -> list[str]:
    """Docstring summaries that begin as a relative clause."""
    docstrings = (ast.get_docstring(node) for node in public_definitions(ast.parse(source)))
    summaries = (docstring.splitlines()[0] for docstring in docstrings if docstring)
    return [summary for summary in summaries if SUMMARY_OPENINGS.match(summary)]


def assigned_names(source: str) -> set[str]:
    """Names that a file binds: variables, parameters, functions, classes."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
    return names


def prose(source: str) -> Iterator[str]:
    """Comments, docstrings and other texts of a file, line by line; a single word may be a key of a file format."""
    for line in source.splitlines():
        if "#" in line:
            yield line.partition("#")[2]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield from node.value.splitlines()


def old_words(source: str) -> list[str]:
    """Uses of judge (for evaluate) and page (for config) in names and texts."""
    lines = [*assigned_names(source), *prose(source)]
    return [line for line in lines if OLD_WORDS.search(PAGES_OF_TEXT.sub("", line))]


def old_words_of_docs(text: str) -> list[str]:
    """Lines of running text, without code, that use a word which the field has a better one for."""
    return [line for line in CODE_IN_DOCS.sub("", text).splitlines() if OLD_WORDS_OF_DOCS.search(line)]


@pytest.mark.parametrize("path", clean_files(), ids=described)
def test_summaries_are_imperatives_or_noun_phrases(path):
    assert relative_summaries(path.read_text()) == []


@pytest.mark.parametrize("path", clean_files(), ids=described)
def test_names_of_results_say_what_they_hold(path):
    assert assigned_names(path.read_text()) & UNNAMED == set()


@pytest.mark.parametrize("path", clean_files(), ids=described)
def test_a_config_is_no_page_and_a_checkpoint_is_evaluated(path):
    assert old_words(path.read_text()) == []


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=described)
def test_the_docs_use_the_words_of_the_field(path):
    assert old_words_of_docs(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", [file for file in clean_files() if file.name.startswith("test_")], ids=described)
def test_names_of_tests_say_what_is_asserted(path):
    tests = [name for name in assigned_names(path.read_text()) if name.startswith("test_")]
    assert [name for name in tests if RIDDLES.search(name)] == []


def test_every_listed_room_has_files():
    assert all(any((ROOT / room).rglob("*.py")) or (ROOT / room).is_file() for room in CLEAN)


def test_the_rules_see_what_they_forbid():
    assert relative_summaries('"""Whether it ends."""\ndef f():\n    """How it ends."""') == [
        "Whether it ends.",
        "How it ends.",
    ]
    assert relative_summaries('"""Return whether it ends."""\ndef _f():\n    """How it ends."""') == []
    assert assigned_names("def f(told):\n    for found in told:\n        given = found") == {"f", *UNNAMED}
    assert old_words("def judged(): return 'a page'  # a docs page") == ["judged", "a page"]
    assert old_words("x = 'a docs page', ['page']") == []
    assert old_words_of_docs("A picture.\n`picture`\n```bash\nls pictures\n```\nStored stages.") == [
        "A picture.",
        "Stored stages.",
    ]
