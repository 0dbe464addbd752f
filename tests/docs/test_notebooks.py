"""The notebooks of the documentation run in a new kernel and show their outputs."""

from __future__ import annotations

import os

import nbformat
import pytest
from nbclient import NotebookClient

from manual_pages import NOTEBOOKS, ROOT


def kinds_of_output(notebook: nbformat.NotebookNode) -> list[set[str]]:
    """Return for each code cell what it shows: ``stream``, ``image/png``, ...; warnings on stderr do not count."""
    return [
        {
            kind
            for output in cell.outputs
            if output.get("name") != "stderr"
            for kind in output.get("data", {output.output_type: ""})
        }
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    for name in ("LTR_DATA", "LTR_OUTPUTS", "LTR_ALLOW"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    saved = nbformat.read(path, as_version=4)
    run = NotebookClient(
        nbformat.from_dict(saved), timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert kinds_of_output(run) == kinds_of_output(nbformat.read(path, as_version=4))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_saved_with_its_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    assert {"stream", "image/png"} <= set().union(*kinds_of_output(notebook))
    assert str(ROOT) not in path.read_text(encoding="utf-8")
