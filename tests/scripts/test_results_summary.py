"""Pages of the documentation show the results of results/, and the script writes them between their markers."""

from __future__ import annotations

import pytest

import results_summary as script
from ltr.errors import ConfigError

PAGE = """# Page

<!-- results:begin -->
<!-- results:end -->

<!-- short-schedules:begin -->
<!-- short-schedules:end -->

<!-- results of cifar100_lt_crt cifar10_lt_crt -->
<!-- end of results -->

more
"""


def test_every_page_is_up_to_date():
    assert script.main(["--check"]) == 0


def test_an_outdated_page_is_detected_and_rewritten(tmp_path, capsys):
    path = tmp_path / "methods" / "crt.md"
    path.parent.mkdir()
    path.write_text(PAGE)
    arguments = ["--docs", str(tmp_path)]
    assert script.main([*arguments, "--check"]) == 1
    assert "crt.md: not up to date" in capsys.readouterr().out
    assert path.read_text() == PAGE
    assert script.main(arguments) == 0
    assert script.main([*arguments, "--check"]) == 0
    text = path.read_text()
    assert text.endswith("<!-- end of results -->\n\nmore\n")
    assert "| `cifar100_lt_crt` | 200 epochs + classifier 10 | 40.34 | 61.77 | 40.40 | 15.27 | 40.26 (Bag of" in text


def test_an_experiment_without_a_result_is_listed_with_its_published_number():
    published = {row.config: row for row in script.table_rows()}
    table = script.experiments_table(["cifar10_lt_crt"], [], published)
    assert "| `cifar10_lt_crt` | not run yet | – | – | – | – | 74.99 (Bag of" in table


def test_a_marker_of_an_unknown_experiment_is_refused():
    with pytest.raises(ConfigError, match="nothing_here"):
        script.experiments_table(["nothing_here"], [], {})
