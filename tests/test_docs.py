"""The documentation is true: its commands run, its links lead somewhere, its pages exist."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TINY = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "scheduler=constant"]
SET_UP = ("make ", "pip ", "git ", "source ", "wandb ", "python ")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, its text, and what a comment before it says it needs."""

    page: str
    line: int
    language: str
    text: str
    needs: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(language: str) -> list[Block]:
    found = []
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"(?:<!-- needs: (\w+) -->\n)?```(\w+)\n(.*?)```", text, re.DOTALL):
            line = text.count("\n", 0, match.start()) + 1
            page = str(path.relative_to(ROOT))
            found.append(Block(page, line, match[2], match[3], match[1] or ""))
    return [block for block in found if block.language == language]


def commands() -> list:
    found = []
    for block in blocks("bash"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and not line.startswith(SET_UP):
                found.append(pytest.param(words, block.needs, id=f"{block} {' '.join(words)[:60]}"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("words", "needs"), commands())
def test_a_command_of_the_documentation_runs(
    words, needs, ltr_train, ltr_eval, small_sources, capsys, tmp_path, monkeypatch
):
    if needs != "cifar":  # small stand-ins are there
        pytest.importorskip(needs or "ltr")
    program, arguments = words[0], words[1:]
    if program == "ltr-train":
        flags = [a for a in arguments if a.startswith("-")]
        overrides = [a for a in arguments if not a.startswith("-") and not a.startswith("dataset.download")]
        done = ltr_train(*flags, *overrides, *TINY)
        assert done.code == 0, done.err
    elif program == "ltr-eval":
        run = ltr_train(*TINY)
        assert ltr_eval(run.directory, *[a for a in arguments if "=" in a])[0] == 0
    elif program == "ltr-stages":
        from ltr.stages_command import main

        run = ltr_train(*TINY)
        assert main(["--stages", str(run.outputs / "stages"), *arguments]) == 0
    elif program == "ltr-data":
        from ltr.data_command import main

        monkeypatch.chdir(tmp_path)
        assert main(arguments) == 0
    elif program in ("ltr-predict", "ltr-mine", "ltr-export", "ltr-report"):
        on_a_run(program, arguments, ltr_train(*TINY).directory, tmp_path)
    else:
        pytest.fail(f"nobody runs '{program}' in the tests")


def on_a_run(program: str, arguments: list[str], run: Path, folder: Path) -> None:
    """Carry out a command about a finished run (``outputs/.../RUN``), beside a folder ``photos`` of digits."""
    from importlib import import_module

    from PIL import Image

    from ltr.data.sources.digits import digits

    (folder / "photos").mkdir()
    for number in range(3):
        Image.fromarray(digits().images[number, :, :, 0]).save(folder / "photos" / f"{number}.png")
    (folder / "labelled.csv").write_text("path,label\n0.png,0\n")
    words = [str(run) if word.endswith("/RUN") else word for word in arguments]
    assert import_module(f"{program.replace('-', '.')}_command").main(words) == 0


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_a_python_block_of_the_documentation_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, str(block), "exec"), {})


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:")):
            assert (path.parent / target).exists(), target


def test_the_index_names_every_page():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for path in (ROOT / "docs").rglob("*.md"):
        name = str(path.relative_to(ROOT / "docs"))
        assert name == "index.md" or f"({name})" in index, name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_configuration_files_that_are_named_exist(path):
    for name in re.findall(r"`(conf/[\w/]+\.yaml)`", path.read_text(encoding="utf-8")):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"`((?:scripts|tests|src/ltr)/[\w/]+\.py)", path.read_text(encoding="utf-8")):
        assert (ROOT / name).is_file(), name
