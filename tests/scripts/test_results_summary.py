"""The summary in docs/results.md is that of results/, and the script writes it between its markers."""

from __future__ import annotations

import results_summary as script
from manual_pages import ROOT


def test_the_page_is_up_to_date():
    assert script.is_up_to_date(ROOT / "docs" / "results.md", script.summary(ROOT / "results"))


def test_a_page_is_written_checked_and_found_out_of_date(tmp_path, capsys):
    page = tmp_path / "results.md"
    page.write_text("# Results\n\n<!-- results:begin -->\n<!-- results:end -->\n\nmore\n")
    assert script.main(["--page", str(page), "--check"]) == 1
    assert "not up to date" in capsys.readouterr().out
    assert script.main(["--page", str(page)]) == 0
    assert script.main(["--page", str(page), "--check"]) == 0
    assert page.read_text().endswith("<!-- results:end -->\n\nmore\n")
