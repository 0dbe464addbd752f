"""A folder with the files that the commands of the documentation use."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typist
from PIL import Image

import camera_trap_files
from manual_pages import ROOT

ENVIRONMENT = ("LTR_DATA", "LTR_OUTPUTS", "LTR_ALLOW", "HYDRA_FULL_ERROR")  # of whoever runs the tests


@pytest.fixture(scope="session")
def shared_docs_folder(tmp_path_factory) -> Path:
    """A finished run as ``outputs/digits_lt/erm/RUN`` (and ``RUN``), photographs, lists, and a file of weights."""
    from ltr.data.sources.digits import digits

    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ENVIRONMENT:
            patch.delenv(name, raising=False)
        typist.of_the_project("ltr-train", [], "", None)
    run = next(path.parent for path in folder.glob("outputs/digits_lt/erm/*/result.json"))
    run.rename(run.with_name("RUN"))
    (folder / "RUN").symlink_to(run.with_name("RUN"))
    (folder / "FILE").symlink_to(run.with_name("RUN") / "checkpoints" / "final.ckpt")
    for number in range(12):
        photo = Image.fromarray(digits().images[number, :, :, 0])
        for path in (f"photos/{number}.png", f"birds/{('robin', 'wren')[number % 2]}/{number}.png"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            photo.convert("RGB").resize((24, 24)).save(folder / path)
    rows = [f"{('robin', 'wren')[number % 2]}/{number}.png,{('robin', 'wren')[number % 2]}" for number in range(12)]
    (folder / "birds" / "images.csv").write_text("\n".join(["path,label", *rows, ""]))
    (folder / "photos" / "labels.csv").write_text("path,label\n0.png,robin\n1.png,wren\n")
    camera_trap_files.write(folder / "traps", camera_trap_files.shots(frames=1))
    (folder / "labelled.csv").write_text("path,label\n0.png,0\n")
    (folder / "scripts").symlink_to(ROOT / "scripts")
    return folder


@pytest.fixture
def docs_folder(shared_docs_folder, tmp_path, monkeypatch) -> Iterator[Path]:
    """A copy of the shared folder as the working folder of one test; all copies share finished stages."""
    folder = tmp_path / "docs"
    shutil.copytree(
        shared_docs_folder, folder, symlinks=True, copy_function=os.link, ignore=shutil.ignore_patterns("stages")
    )
    (folder / "outputs" / "stages").symlink_to(shared_docs_folder / "outputs" / "stages")
    monkeypatch.chdir(folder)
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    yield folder
    for name, module in list(sys.modules.items()):  # what a page has written
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]
