"""Text from files in every kind of output: nothing in it steers, links, runs or hides."""

from __future__ import annotations

import ast
import csv
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import ltr
from ltr import escaping

ROOT = Path(ltr.__file__).parent
CODES = ["\x1b[31m", "\x07", "\x9b2J", "\x08", "\x7f", "\n", "\r", "\t", "\u202e", "\u2066", "\u2069", "\u200b",
         "\u200d", "\u2060", "\ufeff", "\u2028", "\u00ad", "\U000e0041", "\udcff", "\ud800", "\x00"]  # fmt: skip
KINDS = [escaping.one_line, escaping.name, escaping.markdown, escaping.latex, escaping.html, escaping.csv_cell]


@pytest.mark.parametrize("code", CODES, ids=ascii)
@pytest.mark.parametrize("write", KINDS, ids=lambda write: write.__name__)
def test_unprintable_characters_are_escaped_in_every_format(write, code):
    text = write(f"a{code}b")
    assert text.isprintable()
    assert text.startswith("a")
    text.encode("utf-8")


@pytest.mark.parametrize("name", ["Großer Tümmler", "日本語", "اسم", "🙂", "e\u0301", "a b"])
def test_letters_of_all_languages_are_unchanged(name):
    assert escaping.one_line(name) == name
    assert escaping.html(name) == name
    assert escaping.csv_cell(name) == name


def test_line_breaks_of_messages_are_kept():
    assert escaping.lines("a\n  b\x1b\r") == "a\n  b\\x1b\\x0d"


def test_long_names_are_shortened_in_the_middle():
    text = escaping.name("a" * 100_000 + "z")
    assert len(text) <= escaping._LONGEST
    assert text.endswith("z")


@pytest.mark.parametrize("cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "-"])
def test_cells_never_start_a_formula(cell):
    buffer = io.StringIO()
    csv.writer(buffer).writerow([escaping.csv_cell(cell)])
    (read,) = next(csv.reader(io.StringIO(buffer.getvalue())))
    assert read.startswith("'")


@pytest.mark.parametrize("text", ["=a.jpg", "-1.jpg", "+b/c.jpg", "@", "'a", "a.jpg", "", "'=a", "''=a", "\\x1b"])
def test_an_escaped_cell_is_read_back_unchanged(text):
    assert escaping.csv_text(escaping.csv_cell(text)) == text


@pytest.mark.parametrize("seed", range(4))
def test_every_text_is_read_back_from_its_cell(seed):
    letters = "\\x1b5cu20'=-+@ \t\n\r\x1b\xa0\u202f\u200b\udcff\udc80\x80a\"e\u0301,;U0\u2028\U000e0041"
    random = np.random.default_rng(seed)
    texts = ["".join(random.choice(list(letters), random.integers(10))) for _ in range(2000)]
    for text in texts:
        cell = escaping.csv_cell(text)
        cell.encode("utf-8")
        assert escaping.csv_text(cell) == text, ascii(text)


@pytest.mark.parametrize("space", ["\u00a0", "\u2007", "\u2009", "\u202f", "\u3000"])
def test_spaces_of_every_width_stay_in_cells(space):
    assert escaping.csv_cell(f"a{space}b") == f"a{space}b"


@pytest.mark.parametrize("cell", ["a\\x41.jpg", "D:\\photos\\1.jpg", "a\\U00110000", "'a", "'-1", "a\\xAD"])
def test_cells_of_other_programs_are_unchanged(cell):
    assert escaping.csv_text(cell) == cell


def test_paths_of_windows_are_read_with_slashes():
    assert escaping.csv_path("photos\\x84\\1.jpg") == "photos/x84/1.jpg"
    assert escaping.csv_path("'=a\\1.jpg") == "'=a/1.jpg"
    assert escaping.csv_path(escaping.csv_cell("a/=\x1b.jpg")) == "a/=\x1b.jpg"


@pytest.mark.parametrize("cell", ["-1.5", "+2", "-1e-05", "1.", "-inf", "nan", "", "a=b", "x-y", -1.5, 0, None])
def test_numbers_and_plain_words_are_unchanged(cell):
    assert escaping.csv_cell(cell) == cell


@pytest.mark.parametrize(
    "text", ["[a](http://x.org)", "![a](b)", "<b>", "a|b", "`c`", "**d**", "&lt;", "https://x.org", "www.x.org",
             "@team", "$x$"],
)  # fmt: skip
def test_names_have_no_effect_as_markdown(text):
    written = escaping.markdown(text)
    for letter in "|`<>[]*&$":
        assert written.count(letter) - written.count("&#") * (letter == "&") == written.count(f"\\{letter}"), written
    for link in ("http://", "https://", "www.", "@"):
        assert link not in written


def test_names_have_no_effect_as_latex():
    written = escaping.latex("\\input{x} & 5% $a$ #b _c {d} ~e ^f [g]")
    assert "\\input" not in written
    assert written.count("%") == written.count("\\%")
    assert written.count("&") == written.count("\\&")
    assert "{[}g{]}" in written


def test_names_have_no_effect_as_html():
    class Tags(HTMLParser):
        tags: list[str]

        def handle_starttag(self, tag, attrs):
            self.tags.append(tag)

    parser = Tags()
    parser.tags = []
    parser.feed(f'<p title="{escaping.html(chr(34) + " onload=x ")}">{escaping.html("<script>&</script>")}</p>')
    assert parser.tags == ["p"]


@pytest.mark.parametrize("text", ["x[/b]", "y[red]z", ":smile:", "[link=file:///etc]a[/link]", "a\x1b[2Jb"])
def test_brackets_and_colons_have_no_effect_as_terminal_markup(text):
    console = Console(file=io.StringIO(), force_terminal=True)
    escaping.printer(console)(text)
    assert console.file.getvalue().rstrip("\n") == escaping.one_line(text)  # type: ignore[attr-defined]


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def test_all_output_is_escaped():
    """``print`` where the text has been written for its format already, ``console.print`` of `rich_text` and tables."""
    own = {"console.py", "commands/report.py", "commands/report_leaderboard.py", "commands/report_spread.py"}
    own |= {"commands/dashboard.py", "cli.py", "runs/processes/launch.py"}
    for path in sorted(ROOT.rglob("*.py")):
        for call in calls(path):
            name = ast.unparse(call.func)
            if name == "print":
                assert str(path.relative_to(ROOT)) in own, f"{path}, line {call.lineno}: use ltr.console.print_line"
            elif name.endswith("console.print"):
                wanted = ("rich_text(", "result_table(")
                assert ast.unparse(call.args[0]).startswith(wanted), f"{path}, line {call.lineno}: use rich_text"
            elif name.rpartition(".")[2] == "TextColumn":
                assert "markup=False" in ast.unparse(call), f"{path}, line {call.lineno}: markup=False"
            assert not any(ast.unparse(one).endswith("console.print") for one in call.args), f"{path}, {call.lineno}"
