"""Write the tables of options in docs/methods/ from the declarations of the methods; run it after changing one."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from ltr.methods.core.options import table_of

DOCS = Path(__file__).parent.parent / "docs" / "methods"
TABLE = re.compile(r"(<!-- options of ([\w.]+) -->\n)(.*?)(<!-- end of options -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """Return a docs page with each table between its markers as the declaration that they name gives it."""

    def table(match: re.Match[str]) -> str:
        module, _, name = match[2].rpartition(".")
        return f"{match[1]}\n{table_of(getattr(importlib.import_module(module), name))}\n\n{match[4]}"

    return TABLE.sub(table, text)


if __name__ == "__main__":
    for path in sorted(DOCS.glob("*.md")):
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
