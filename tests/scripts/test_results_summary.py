"""The summary in docs/results.md is that of results/, and the script writes it between its markers."""

from __future__ import annotations

import results_summary as script
from manual_pages import ROOT


def test_the_summary_is_up_to_date():
    assert script.is_up_to_date(ROOT / "docs" / "results.md", script.summary(ROOT / "results"))


def test_an_outdated_summary_is_detected(tmp_path, capsys):
    path = tmp_path / "results.md"
    path.write_text("# Results\n\n<!-- results:begin -->\n<!-- results:end -->\n\nmore\n")
    assert script.main(["--file", str(path), "--check"]) == 1
    assert "not up to date" in capsys.readouterr().out
    assert script.main(["--file", str(path)]) == 0
    assert script.main(["--file", str(path), "--check"]) == 0
    assert path.read_text().endswith("<!-- results:end -->\n\nmore\n")
