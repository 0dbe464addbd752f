"""Documentation pages: links, named files, and the required sections of method pages."""

from __future__ import annotations

import re

import pytest
import yaml
from mkdocs.exceptions import PluginError

from docs_site import mathml
from manual_pages import NOTEBOOKS, PAGES, ROOT, fences, without_fences
from results_summary import EXPERIMENTS

METHOD_PAGES = [page for page in PAGES if page.startswith("docs/methods/") and not page.endswith("index.md")]
HEADINGS = ["Equation", "Command", "Defaults", "Paper and code", "Numbers", "Result keys", "Reference"]
NOT_RUN = "not run yet"


def text(page: str) -> str:
    return PAGES[page].read_text(encoding="utf-8")


def section(page: str, heading: str) -> str:
    return re.split(r"^## ", text(page).partition(f"\n## {heading}\n")[2], flags=re.MULTILINE)[0]


def section_to_the_end(page: str, heading: str) -> str:
    return text(page).partition(f"\n## {heading}\n")[2]


@pytest.mark.parametrize("page", PAGES)
def test_links_have_a_target(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", without_fences(page)):
        if not target.startswith(("http:", "https:")):
            assert (PAGES[page].parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_files_named_in_the_docs_exist(page):
    for name in re.findall(r"`(conf/[\w/]+\.yaml|(?:scripts|tests|src/ltr)/[\w/]+\.py)", text(page)):
        assert (ROOT / name).is_file(), name


def test_every_figure_is_shown_by_a_page():
    pages = "".join(path.read_text(encoding="utf-8") for path in (*PAGES.values(), *NOTEBOOKS))
    figures = {path.name for path in (ROOT / "docs" / "figures").iterdir()}
    assert [name for name in sorted(figures) if f"figures/{name}" not in pages] == []


@pytest.mark.parametrize("page", PAGES)
def test_code_blocks_name_their_language(page):
    for fence in fences(page):
        assert fence.language in ("bash", "python", "yaml", "csv", "text"), f"line {fence.line}"


def test_the_index_links_every_page():
    index = text("docs/index.md")
    for page in [*PAGES, *(str(path.relative_to(ROOT)) for path in NOTEBOOKS)]:
        name = page.removeprefix("docs/")
        if page.startswith("docs/") and page not in METHOD_PAGES and name != "index.md":
            assert f"({name})" in index, name


def test_the_navigation_holds_every_page_once():
    class AnyTag(yaml.SafeLoader):
        pass

    AnyTag.add_multi_constructor("tag:", lambda loader, tag, node: None)
    named = re.findall(r"[\w/]+\.(?:md|ipynb)", str(yaml.load((ROOT / "mkdocs.yml").read_text(), AnyTag)["nav"]))
    pages = [*(path for path in PAGES.values() if path.parent != ROOT), *NOTEBOOKS]
    assert sorted(named) == sorted(str(path.relative_to(ROOT / "docs")) for path in pages)


@pytest.mark.parametrize("heading", re.findall(r"^### (.+)$", text("docs/troubleshooting.md"), re.MULTILINE))
def test_messages_quoted_in_the_troubleshooting_page_are_in_the_code(heading):
    assert any(heading in file.read_text(encoding="utf-8") for file in (ROOT / "src" / "ltr").rglob("*.py"))


def test_the_readme_is_shorter_than_two_screens():
    assert len(text("README.md").splitlines()) <= 110


@pytest.mark.parametrize("page", ["docs/add_a_method.md", "docs/add_a_scorer.md", "docs/add_a_dataset.md"])
def test_a_worked_example_takes_under_eighty_lines(page):
    files = [fence for fence in fences(page) if fence.title]
    assert {fence.language for fence in files} == {"python", "yaml"}
    assert sum(len(fence.text.splitlines()) for fence in files) < 80


@pytest.mark.parametrize("page", METHOD_PAGES)
def test_a_methods_page_has_its_headings_in_order(page):
    headings = re.findall(r"^## (.+)$", text(page), re.MULTILINE)
    assert [heading for heading in headings if heading in HEADINGS] == HEADINGS


@pytest.mark.parametrize("page", METHOD_PAGES)
def test_a_methods_equation_is_typeset(page):
    """In TeX, for the site's MathML; code and indented blocks are for what a reader types."""
    equation = section(page, "Equation")
    assert "$$" in equation
    assert not re.search(r"^(```|    )", equation, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_equations_can_be_converted(page):
    for block, inline in re.findall(
        r"\$\$(.+?)\$\$|(?<![\w$`])\$([^$\n`]+)\$(?![\w$])", without_fences(page), re.DOTALL
    ):
        assert mathml(block or inline, "block" if block else "inline").startswith("<math")


def test_an_equation_that_would_stay_as_source_is_an_error():
    for equation in (r"\arg\min x", r"\begin{aligned} a &= b \end{aligned}"):
        with pytest.raises(PluginError, match="cannot convert"):
            mathml(equation, "block")


@pytest.mark.parametrize("page", METHOD_PAGES)
def test_a_methods_idea_takes_three_sentences(page):
    idea = text(page).partition("\n")[2].partition("\n## ")[0]
    assert len(re.findall(r"[.!?](?=\s|$)", idea)) == 3, idea


@pytest.mark.parametrize("page", METHOD_PAGES)
def test_a_methods_numbers_are_those_of_the_results(page):
    numbers_section = section(page, "Numbers")
    written_by_hand = EXPERIMENTS.sub("", numbers_section)  # the other tables are tested in test_results_summary
    tables = re.findall(r"(?:^\|.*\n)+", written_by_hand + "\n", re.MULTILINE)
    assert tables or written_by_hand != numbers_section
    results = text("docs/results.md") + "".join(section_to_the_end(name, "Findings") for name in PAGES)
    for table in tables:
        head, rule, *rows = table.splitlines()
        assert (head, rule) == ("| | ltr | published |", "|---|---|---|")
        for row in rows:
            _, what, actual, published, _ = (cell.strip() for cell in row.split("|"))
            numbers = re.findall(r"\d+\.\d+", actual)
            assert actual == NOT_RUN or numbers, f"{what}: '{NOT_RUN}', or a number"
            assert published, what
            for number in numbers:
                assert number in results, f"{what}: {number} is neither in docs/results.md nor in findings (any more)"


def test_every_method_page_of_the_configuration_is_in_the_table_of_methods():
    index = text("docs/methods/index.md")
    named = re.findall(r"^\|.*?\| `(\w+)` \|", index, re.MULTILINE)
    assert sorted(named) == sorted(path.stem for path in (ROOT / "conf" / "method").glob("*.yaml"))
    for page in METHOD_PAGES:
        assert f"({page.removeprefix('docs/methods/')})" in index, page


@pytest.mark.parametrize("page", METHOD_PAGES)
def test_a_methods_reference_links_the_paper_and_gives_its_bibtex(page):
    reference = section(page, "Reference")
    links = set(re.findall(r"\]\((https://arxiv\.org/abs/[\d.]+)\)", reference))
    assert links
    assert links == set(re.findall(r"^  url = \{(.+)\}$", reference, re.MULTILINE))
