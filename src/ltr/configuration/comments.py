"""Comments of config files: the description of the config, and the meaning of each key."""

from __future__ import annotations

import re
from collections.abc import Iterable

_KEY = re.compile(r"^(?P<indent> *)(?P<key>[\w.]+):(?P<value>.*)$")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")


def comments_of(text: str) -> tuple[list[str], dict[str, str]]:
    """Return the opening comment of a config by line, and the comment of each key by its dotted path.

    The opening comment ends at the first line without a comment. The comment of a key is on its line, and continues in
    the lines below that start in the same column; or it is on the lines above with the key's indentation.
    """
    opening: list[str] = []
    comments: dict[str, str] = {}
    above: list[str] = []
    path: list[tuple[int, str]] = []  # indentation and name of each key around the line
    column = -1  # of the comment behind the last key
    is_opening = True
    for line in text.splitlines():
        comment = line.strip()
        if comment.startswith("#"):
            content = comment[1:].removeprefix(" ")
            if content.startswith("@"):
                continue
            if is_opening:
                opening.append(content)
            elif line.index("#") == column and path:
                key = ".".join(name for _, name in path)
                comments[key] = f"{comments[key]} {content.strip()}"
            else:
                above.append(content.strip())
            continue
        is_opening, column = False, -1
        match = _KEY.match(line)
        if match is None:
            above = []
            continue
        indent = len(match["indent"])
        path = [(other, name) for other, name in path if other < indent] + [(indent, match["key"])]
        start = _comment_start(match["value"])
        texts = above
        if start is not None:
            column = len(line) - len(match["value"]) + start
            texts = [*above, match["value"][start + 1 :].strip()]
        if texts:
            comments[".".join(name for _, name in path)] = " ".join(texts)
        above = []
    return opening, comments


def opening_line(lines: Iterable[str]) -> str:
    """Return the first line of the opening comment of a config; '' if it has none. Later lines are not read."""
    for line in lines:
        comment = line.strip()
        if not comment.startswith("#"):
            return ""
        content = comment[1:].removeprefix(" ")
        if not content.startswith("@"):
            return content
    return ""


def _comment_start(value: str) -> int | None:
    """Return where the comment behind a value begins; None if there is none."""
    hidden = _QUOTED.sub(lambda quoted: "x" * len(quoted[0]), value)
    match = re.search(r"(?:^|\s)#", hidden)
    return None if match is None else match.end() - 1
