"""The language of the house: the rules that a machine can hold, over the rooms that keep them."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
QUESTION_AND_PERIOD = re.compile(r"nearest\([^}\n]*\)\}\.")  # "Did you mean 'x'?."
RIDDLES = re.compile(  # in test names
    r"_(told|is_said|are_said|of_(ones|your)_own|nobody|somebody|whatever|goes_on|page|pictures?|in_the_place_of"
    r"|says?_so|as_(it|they)_(is|are|was|were)|anew|twins?)(_|$)"
)
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
    "src/ltr/sweep_jobs.py",
    "src/ltr/sweeps.py",
    "src/ltr/writing.py",
    "scripts",
    "tests/apply",
    "tests/camera_trap_files.py",
    "tests/cli",
    "tests/commands",
    "tests/configuration",
    "tests/conftest.py",
    "tests/contract",
    "tests/data",
    "tests/docs/test_published_numbers.py",
    "tests/evaluation",
    "tests/faults",
    "tests/golden",
    "tests/killed_extraction.py",
    "tests/local_jobs",
    "tests/local_tasks.py",
    "tests/losses",
    "tests/methods",
    "tests/models",
    "tests/optim",
    "tests/plain_network.py",
    "tests/quick_hydra.py",
    "tests/recorded_steps.py",
    "tests/report",
    "tests/resuming.py",
    "tests/runs",
    "tests/scripts",
    "tests/several.py",
    "tests/test_api.py",
    "tests/test_atomic_files.py",
    "tests/test_build.py",
    "tests/test_escaping.py",
    "tests/test_floors.py",
    "tests/test_former_modules.py",
    "tests/test_identity.py",
    "tests/test_names.py",
    "tests/test_python_use.py",
    "tests/test_quick_torchmetrics.py",
    "tests/test_randomness.py",
    "tests/test_results_folder.py",
    "tests/test_writing.py",
    "tests/trees.py",
)
SUMMARY_OPENINGS = re.compile(r"(What|Whether|How|Where|Which|Who)\b")
CLAUSE = re.compile(  # a sentence, or a verb in the third person
    r"(?:(?!that\b|which\b|whose\b|where\b|with\b)[\w`'*-]+ ){1,6}?(?:is|are|was|were)\b"
    r"|(?:Appl|Check|Collect|Creat|Evaluat|Find|Giv|Hold|Keep|Load|Mak|Obtain|Rais|Read|Record|Sav|Skip|Writ)(?:e?s|ies)\b"
)
UNNAMED = {"found", "given", "told", "ours", "theirs", "said", "place"}  # names that do not say what they hold
UNNAMED_IN_CODE = UNNAMED | {"own", "others", "around", "here", "there", "how"}  # tests compare an image with others
DATED_PHRASES = re.compile(  # in texts of the code; each has a plain word of the field or of the language
    r"(?i)\b(in the (place|face) of|matter of course|by heart|of one's own|what it came to|one is told|gone on with"
    r"|ha(nd|nded|nds) on|as it likes|let(s|ting)? it go|(runs|versions) of then|a word too many)\b"
)
ELLIPSIS = re.compile(  # an argument, attribute or constant that is described without its noun: "width: of the table"
    r"^\s*(?:\w+, )*\w+: of (?!ltr\b)"
)
NEGATIONS = re.compile(  # "is no number": English negates the verb
    r"(?<!there )(?<!There )(?<!if )\b(?:is|are) no (?!longer|more|need|such|way)"
)
OTHER_IDIOMS = re.compile(  # "appears twice", "continues", "is skipped"
    r"\b(?:comes? twice|(?:come|may come) once|goes on (?:from|in|with|after)\b|going on (?:from|in)\b|passed over"
    r"|starts? anew|(?:was|is) at work|for the time of a block)\b"
)
OLD_WORDS = re.compile(r"(?i)\bjudg|_judg|(?<![a-z])pages?(?![a-z])")
OLD_WORDS_OF_DOCS = re.compile(
    r"(?i)\bjudg|\bpictures?\b|\bunfair|\bin the place of\b|\b(published row|stored stage)s?\b"
)
CODE_IN_DOCS = re.compile(r"^ *```.*?^ *```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
PAGES_OF_TEXT = re.compile(r"(?i)\b(web|docs|html|man|manual|memory) pages?\b|\bpages? of the docs\b")

Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def clean_files() -> list[Path]:
    paths = [ROOT / room for room in CLEAN]
    writers = ("command_reference", "configuration_reference", "docs_site", "results_summary")  # of pages of the docs
    scripts, tests = ROOT / "scripts", ROOT / "tests" / "scripts"
    docs = {path for name in writers for path in (scripts / f"{name}.py", tests / f"test_{name}.py")}
    files = (file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py")))
    return sorted(file for file in files if file not in docs)


def is_test_file(path: Path) -> bool:
    return described(path).startswith("tests/")


def described(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_public(name: str) -> bool:
    return not name.startswith("_") or name.startswith("__")


def public_definitions(tree: ast.Module) -> Iterator[Definition]:
    """The module, and the classes and functions whose names do not begin with one underscore."""
    for node in ast.walk(tree):
        if isinstance(node, Definition) and is_public(getattr(node, "name", "")):
            yield node


@functools.lru_cache(maxsize=1)  # all rules look at one file after the other
def parsed(source: str) -> ast.Module:
    return ast.parse(source)


def relative_summaries(source: str) -> list[str]:
    """Docstring summaries that begin as a relative clause."""
    docstrings = (ast.get_docstring(node) for node in public_definitions(parsed(source)))
    summaries = (docstring.splitlines()[0] for docstring in docstrings if docstring)
    return [summary for summary in summaries if SUMMARY_OPENINGS.match(summary)]


def clause_summaries(source: str) -> list[str]:
    """Return the summaries of classes that are sentences instead of noun phrases."""
    classes = (node for node in ast.walk(parsed(source)) if isinstance(node, ast.ClassDef))
    summaries = ((ast.get_docstring(node) or "").partition("\n")[0] for node in classes)
    return [summary for summary in summaries if CLAUSE.match(summary)]


def assigned_names(source: str) -> set[str]:
    """Names that a file binds: variables, parameters, functions, classes."""
    names: set[str] = set()
    for node in ast.walk(parsed(source)):
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
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield from node.value.splitlines()


def old_words(source: str) -> list[str]:
    """Uses of judge (for evaluate) and page (for config) in names and texts."""
    lines = [*assigned_names(source), *prose(source)]
    return [line for line in lines if OLD_WORDS.search(PAGES_OF_TEXT.sub("", line))]


def dated_phrases(source: str) -> list[str]:
    """Return the lines of texts with a phrase that no paper or library of the field would use."""
    return [line for line in prose(source) if DATED_PHRASES.search(line)]


def elliptical_entries(source: str) -> list[str]:
    """Return the entries of docstrings that begin with "of" where the noun belongs."""
    docstrings = (ast.get_docstring(node) or "" for node in ast.walk(ast.parse(source)) if isinstance(node, Definition))
    return [line.strip() for docstring in docstrings for line in docstring.splitlines() if ELLIPSIS.search(line)]


def foreign_idioms(source: str) -> list[str]:
    """Return the lines of texts with word-for-word translations from another language."""
    return [line for line in prose(source) if NEGATIONS.search(line) or OTHER_IDIOMS.search(line)]


def old_words_of_docs(text: str) -> list[str]:
    """Lines of running text, without code, that use a word which the field has a better one for."""
    return [line for line in CODE_IN_DOCS.sub("", text).splitlines() if OLD_WORDS_OF_DOCS.search(line)]


def unnamed_results(path: Path, source: str) -> list[str]:
    """Return the names of a file that do not say what they hold."""
    return sorted(assigned_names(source) & (UNNAMED if is_test_file(path) else UNNAMED_IN_CODE))


def riddles(path: Path, source: str) -> list[str]:
    """Return the names of a file's tests that do not say what is asserted."""
    if not path.name.startswith("test_"):
        return []
    return [name for name in assigned_names(source) if name.startswith("test_") and RIDDLES.search(name)]


def breaches(path: Path, source: str) -> dict[str, list[str]]:
    """Return what a file of code has against each rule, if anything."""
    lines = {
        "summaries are imperatives or noun phrases": [*relative_summaries(source), *clause_summaries(source)],
        "names of results say what they hold": unnamed_results(path, source),
        "texts are free of dated phrases": [] if is_test_file(path) else dated_phrases(source),
        "a config is no page, and a checkpoint is evaluated": old_words(source),
        "names of tests say what is asserted": riddles(path, source),
        "no period follows the question of a nearest name": QUESTION_AND_PERIOD.findall(source),
    }
    return {rule: broken for rule, broken in lines.items() if broken}


@pytest.mark.parametrize("path", clean_files(), ids=described)
def test_a_file_keeps_the_rules_of_language(path):
    assert breaches(path, path.read_text()) == {}


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=described)
def test_the_docs_use_the_words_of_the_field(path):
    assert old_words_of_docs(path.read_text(encoding="utf-8")) == []


def test_every_listed_room_has_files():
    assert all(any((ROOT / room).rglob("*.py")) or (ROOT / room).is_file() for room in CLEAN)


def test_the_rules_detect_what_they_forbid():
    assert relative_summaries('"""Whether it ends."""\ndef f():\n    """How it ends."""') == [
        "Whether it ends.",
        "How it ends.",
    ]
    assert relative_summaries('"""Return whether it ends."""\ndef _f():\n    """How it ends."""') == []
    assert assigned_names("def f(told):\n    for found in told:\n        given = found") == {
        "f",
        "found",
        "given",
        "told",
    }
    assert old_words("def judged(): return 'a page'  # a docs page") == ["judged", "a page"]
    assert old_words("x = 'a docs page', ['page']") == []
    assert QUESTION_AND_PERIOD.findall('f"no such key{nearest' + '(key, keys)}. Leave it out"') != []
    assert QUESTION_AND_PERIOD.findall("f\"no such key{nearest(key, keys) or '.'} Leave it out\"") == []
    assert dated_phrases("x = 1  # handed on\ny = 'a b in the place of c', 'in place'") == [
        " handed on",
        "a b in the place of c",
    ]
    assert elliptical_entries(
        'def f():\n    """F.\n\n    Args:\n        a: of a table.\n        b: width of it."""'
    ) == ["a: of a table."]
    assert foreign_idioms("x = 'a is no number', 'there is no number', 'b comes twice', 'c appears twice'") == [
        "a is no number",
        "b comes twice",
    ]
    assert clause_summaries('class A:\n    """Weights are inside."""\n') == ["Weights are inside."]
    assert clause_summaries('class A:\n    """Network whose weights are inside."""\n') == []
    assert old_words_of_docs("A picture.\n`picture`\n```bash\nls pictures\n```\nStored stages.") == [
        "A picture.",
        "Stored stages.",
    ]


@pytest.mark.parametrize(
    ("file", "source", "rule"),
    [
        ("src/ltr/a.py", '"""Whether it ends."""', "summaries are imperatives or noun phrases"),
        ("src/ltr/a.py", 'class A:\n    """Weights are inside."""', "summaries are imperatives or noun phrases"),
        ("src/ltr/a.py", "others = 1", "names of results say what they hold"),
        ("tests/test_a.py", "told = 1", "names of results say what they hold"),
        ("src/ltr/a.py", "x = 1  # handed on", "texts are free of dated phrases"),
        ("src/ltr/a.py", "def judged(): ...", "a config is no page, and a checkpoint is evaluated"),
        ("tests/test_a.py", "def test_nobody_waits(): ...", "names of tests say what is asserted"),
    ],
)
def test_a_breach_of_each_rule_is_detected(file, source, rule):
    assert list(breaches(ROOT / file, source)) == [rule]


def test_rules_apply_to_their_files_only():
    assert breaches(ROOT / "tests/test_a.py", "others = 1  # handed on") == {}
    assert breaches(ROOT / "tests/trees.py", "def test_nobody_waits(): ...") == {}
