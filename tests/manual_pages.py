"""The documentation as data: its pages, their fenced blocks, and the commands in blocks and in running text."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
}

NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))

_FENCE = re.compile(
    r"(?:^<!-- needs: ([^\n]+) -->\n)?^( *)```(\S*)[ \t]*([^\n]*)\n(.*?)^\2```[ \t]*$", re.DOTALL | re.MULTILINE
)
_TITLE = re.compile(r'title="([^"]+)"')
_IN_TEXT = re.compile(r"(?<!`)`((?:\w+=\S+ )?(?:ltr-[a-z]+|python|scripts/\w+\.py|torchrun)\s[^`]+)`(?!`)")


@dataclass(frozen=True)
class Fence:
    """A fenced block.

    Attributes:
        line: where it begins, from 1.
        language: bash, python, yaml, csv or text.
        title: the file that a reader makes of it, "" where it is no file.
        needs: what all its commands need, as a comment ``<!-- needs: ... -->`` above it says.
    """

    line: int
    language: str
    title: str
    text: str
    needs: str = ""


@dataclass(frozen=True)
class Command:
    """A line that a reader may type.

    Attributes:
        words: program and arguments; placeholders such as ``RUN`` stand as they are written.
        environment: what is set before the program, as in ``LTR_ALLOW=mine ltr-train``.
        needs: what the line says that it needs, by a comment ``# needs CIFAR-10``; "" where it runs anywhere.
    """

    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    needs: str = ""

    def __str__(self) -> str:
        return shlex.join(self.words)


def fences(page: str) -> list[Fence]:
    """All fenced blocks of a page, in order."""
    text = PAGES[page].read_text(encoding="utf-8")
    blocks = []
    for match in _FENCE.finditer(text):
        needs, indent, language, rest, body = match.groups()
        title = _TITLE.search(rest)
        body = "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))
        line = text.count("\n", 0, match.start()) + 1
        blocks.append(Fence(line, language, title[1] if title else "", body, needs or ""))
    return blocks


def without_fences(page: str) -> str:
    """A page's running text."""
    return _FENCE.sub("", PAGES[page].read_text(encoding="utf-8"))


def commands(text: str) -> list[Command]:
    """The lines of a block of commands; a backslash joins a line with the next."""
    parsed = []
    for line in text.replace("\\\n", " ").splitlines():
        spoken = re.search(r"\s# needs (.+)$", line)
        words = shlex.split(line, comments=True)
        environment = []
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            name, _, value = words.pop(0).partition("=")
            environment.append((name, value))
        if words:
            parsed.append(Command(tuple(words), tuple(environment), spoken[1] if spoken else ""))
    return parsed


def commands_in_text(page: str) -> list[Command]:
    """Commands that stand between backticks in running text; they may need anything."""
    parsed = []
    for match in _IN_TEXT.finditer(without_fences(page)):
        (command,) = commands(re.sub(r"\[(-[^\]]*)\]", r"\1", " ".join(match[1].split())))  # [--flag]: if you like
        parsed.append(Command(command.words, command.environment, "what the text says"))
    return parsed
