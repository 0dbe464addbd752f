"""The result's table, for terminals and as plain text."""

import pytest
from made_up_runs import metrics_of, per_class_table, row
from rich.console import Console

from ltr.report.table import plain_table, result_table


def result(*rows, **config):
    return {"config": {"method.name": "erm", "dataset.name": "cifar10_lt", "seed": 3} | config, "rows": list(rows)}


METRICS = metrics_of(per_class_table(10)) | {"accuracy": 0.70361, "few": None}


def lines(*rows, **config):
    return plain_table(result(*rows, **config)).splitlines()


def rendered(*rows, width=100, colour=False):
    console = Console(width=width, force_terminal=colour, color_system="standard" if colour else None, record=True)
    with console.capture() as capture:
        console.print(result_table(result(*rows), width), soft_wrap=True)
    return capture.get()


def test_title_names_method_data_set_and_seed():
    assert lines(row(METRICS))[0] == "erm · cifar10_lt · seed 3"


def test_columns_are_the_compact_selection_in_order():
    assert lines(row(METRICS))[1].split() == [
        *("split", "selection"),
        *("all", "many", "medium", "few", "bACC", "GM", "F1", "ECE", "↓"),
    ]


def test_fractions_are_shown_in_percent():
    cells = lines(row(METRICS))[2].split()
    assert cells[3] == "70.4"
    assert cells[-1] == "6.2"


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_nothing_to_average_is_a_dash(nothing):
    assert lines(row(METRICS | {"few": nothing}))[2].split()[6] == "–"


def test_the_headline_is_marked_and_no_other_row():
    first, second = lines(row(METRICS, split="val", headline=False), row(METRICS))[2:4]
    assert not first.startswith("*")
    assert second.startswith("*")


def test_selected_on_test_is_flagged_and_other_rules_are_not():
    assert "best_test: selected on test" in lines(row(METRICS, selection="best_test"))[2]
    assert "selected on test" not in plain_table(result(row(METRICS, selection="best_val")))


def test_selected_on_test_is_red_in_a_terminal():
    assert "\x1b[1;31mselected on test" in rendered(row(METRICS, selection="best_test"), colour=True)


def test_variants_and_scorers_have_a_column_only_where_they_differ():
    assert "variant" not in lines(row(METRICS))[1]
    assert "variant" in lines(row(METRICS, variant="single"), row(METRICS, variant="aggregated"))[1]


def test_metrics_of_other_protocols_are_shown_unscaled():
    text = lines(row(METRICS), row({"novelty": 0.91234}, protocol="of_tomorrow", scorer="msp", headline=False))
    assert text[1].split()[-1] == "novelty"
    assert text[3].split()[-1] == "0.912"
    assert "novelty as they are" in text[-1]


def test_bounds_of_the_groups_are_those_of_the_run():
    caption = lines(row(METRICS), **{"evaluation.many_above": 30, "evaluation.few_below": 5})[-1]
    assert "many > 30, few < 5" in caption


def test_plain_columns_are_aligned():
    text = lines(row(METRICS), row(METRICS | {"accuracy": 0.05}, headline=False))[1:4]
    ends = {line.index(cell) + len(cell) for line, cell in zip(text, ("all", "70.4", " 5.0"))}
    assert len(ends) == 1


@pytest.mark.parametrize("width", [80, 100])
def test_the_terminal_table_cuts_no_cell(width):
    text = rendered(row(METRICS, selection="best_test"), row(METRICS, split="val", headline=False), width=width)
    assert "…" not in text
    for word in ("best_test:", "selected", "on test", "70.4", "bACC", "–"):
        assert word in text


def test_names_with_brackets_are_escaped():
    table = result(row(METRICS, split="[red]x"), **{"dataset.name": "[bold]y"})
    console = Console(width=120)
    with console.capture() as capture:
        console.print(result_table(table))
    assert "[red]x" in capture.get()
    assert "[bold]y" in capture.get()
