"""Finished runs as rows of a published table: averages, separate rows, and the written block."""

from __future__ import annotations

import json

import pytest
from made_up_runs import metrics_of, per_class_table, row

from ltr.errors import DataError
from ltr.report.published import markdown, write_between_markers
from ltr.report.published_lines import Entry, lines_of
from ltr.report.read_run import read_run


@pytest.fixture
def made(tmp_path):
    """Write a run directory with a made-up result and open it."""
    folders = iter(range(1000))

    def make(name="erm", accuracy=0.7, seed=0, group="g", split="whole", selection="last", dataset="c10", **more):
        folder = tmp_path / str(next(folders))
        folder.mkdir()
        metrics = {**metrics_of(per_class_table(10)), "accuracy": accuracy, "few": more.pop("few", 0.5)}
        metrics |= more.pop("metrics", {})
        config = {
            "name": name,
            "dataset.name": dataset,
            "seed": seed,
            "trainer.max_epochs": 30,
            **more.pop("config", {}),
        }
        data = {"split": split, "split_digest": f"digest of {split}", "val_rule": "none", "test_images": 9000}
        result = {
            "schema_version": 1,
            "config": config,
            "group_hash": group + name,
            "data": data | more.pop("data", {}),
            "stages": more.pop("stages", [{"name": "representation", "status": "trained", "seconds": 100.4}]),
            "rows": [row(metrics, selection=selection)],
        }
        (folder / "result.json").write_text(json.dumps(result))
        provenance = {"code": {"commit": "0123456789abcdef", "dirty": False}, "device": "A GPU", "precision": "bf16"}
        (folder / "provenance.json").write_text(json.dumps(provenance | more))
        return read_run(folder)

    return make


def rows_of(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def table(*entries: Entry, **more) -> list[dict[str, str]]:
    """The first table's lines, each a heading to its cell."""
    text = markdown(entries, "command", **more)
    rows = rows_of(text.split("Not to be compared")[0])
    return [dict(zip(rows[0], cells)) for cells in rows[1:]]


def test_seeds_are_averaged_next_to_the_published_number(made):
    runs = (made(accuracy=0.71, seed=1), made(accuracy=0.69, seed=0))
    (line,) = table(Entry("config", runs, 70.36, "a paper"))
    assert line["method"] == "erm"
    assert line["all"] == "70.0 ± 1.4"
    assert line["published"] == "70.36 [1]"
    assert line["cost"] == "201 s; 2 + 0"
    assert "seeds: 0, 1;" in markdown([Entry("config", runs)], "command")


def test_one_seed_has_no_deviation_and_an_empty_group_is_a_dash(made):
    (line,) = table(Entry("config", (made(few=None),)))
    assert line["all"] == "70.0"
    assert line["few"] == "–"
    assert line["published"] == "–"


def test_selection_metrics_have_columns_if_some_row_has_them(made):
    looks = {"selected_in_box": 0.8, "all_in_box": 0.5, "dropped_in_box": 0.4, "dropped_tanh": -0.9876}
    looking, plain = table(Entry("a", (made(metrics=looks),)), Entry("b", (made("plain"),)))
    assert [looking[name] for name in ("selected in box", "all in box", "dropped in box ↓")] == ["80.0", "50.0", "40.0"]
    assert looking["dropped tanh ↓"] == "-0.988"
    assert plain["selected in box"] == plain["dropped tanh ↓"] == "–"
    assert "all in box" not in markdown([Entry("b", (made("plain"),))], "command")


def test_settings_shared_by_all_rows_are_stated_once_and_differing_ones_have_a_column(made):
    classifier = {"method.classifier.epochs": 10, "method.classifier.scheduler.warmup_epochs": 0}
    entries = [Entry("a", (made("erm"),)), Entry("b", (made("crt", config=classifier, device="A CPU"),))]
    lines = table(*entries)
    assert [line["schedule"] for line in lines] == ["30 epochs", "30 epochs + classifier 10"]
    assert [line["hardware"] for line in lines] == ["A GPU, bf16", "A CPU, bf16"]
    text = markdown(entries, "command")
    assert "Seeds: 0; split: whole; selection: last; commit: 0123456789." in text


def test_a_tau_that_was_searched_and_uncommitted_changes_show(made):
    run = made(config={"method.tau": "auto"}, code={"commit": "abc", "dirty": True})
    text = markdown([Entry("a", (run,))], "command")
    assert "selection: last, tau on val" in text
    assert "commit: abc with uncommitted changes" in text


def test_reused_stages_have_no_cost(made):
    stages = [
        {"name": "representation", "status": "reused", "seconds": 3600.0},
        {"name": "classifier", "status": "trained", "seconds": 12.0},
    ]
    (line,) = table(Entry("a", (made(stages=stages),)))
    assert line["cost"] == "12 s; 1 + 1"


def test_another_split_has_a_separate_table(made):
    entries = [Entry(name, (made(name, split=split),)) for name, split in (("a", "x"), ("b", "y"), ("c", "x"))]
    assert [line["method"] for line in table(*entries)] == ["a", "c"]
    apart = markdown(entries, "command").split("Not to be compared with the rows above:")[1]
    assert rows_of(apart)[1][0] == "b"
    assert rows_of(apart)[1][-1] == "another split: y"


@pytest.mark.parametrize("others", [1, 0])
def test_runs_selected_on_test_are_separate_and_marked(made, others):
    entries = [Entry("a", (made("a", selection="best_test"),)), *[Entry("b", (made("b"),))] * others]
    text = markdown(entries, "command")
    assert ("Not to be compared with the rows above:" in text) == bool(others)
    assert rows_of(text.split("Not to be compared")[1])[1][-1] == "selected on test"
    assert [line["method"] for line in table(*entries)] == ["b"] * others


@pytest.mark.parametrize("difference", [{"group": "h"}, {"split": "other"}, {"selection": "best_val"}])
def test_runs_that_differ_in_more_than_their_seed_are_not_averaged(made, difference):
    assert len(lines_of([Entry("a", (made(), made(seed=1), made(seed=2, **difference)))])) == 2


def test_each_data_set_has_a_separate_table(made):
    text = markdown([Entry("a", (made(),)), Entry("b", (made(dataset="c100", split="other"),))], "command")
    assert text.index("**c10**") < text.index("**c100**")
    assert "Not to be compared" not in text


def test_images_that_the_test_set_lacks_are_reported(made):
    run = made(data={"val_rule": "test_fraction", "val_images": 1000})
    text = markdown([Entry("a", (run,))], "command")
    assert "Test images: 9,000 (1,000 more are validation images; published numbers count all)." in text


OPEN = {"auroc": 0.8, "aupr_known": 0.7, "aupr_unknown": 0.6, "oscr": 0.5, "closed_set_accuracy": 0.9}


def open_set(made, auroc=(0.8, 0.9), **more):
    """A run of the open-set protocol, evaluated by two scorers, the first is the headline."""
    run = made(dataset="c10_open", **more)
    names = ("msp", "max_logit")
    rows = [
        row({**OPEN, "auroc": value}, protocol="open_set", scorer=name, headline=name == "msp")
        for name, value in zip(names, auroc)
    ]
    (run.path / "result.json").write_text(json.dumps({**run.result, "rows": rows}))
    return read_run(run.path)


def test_an_open_set_table_has_a_line_per_scorer_and_the_published_auroc_in_the_first(made):
    lines = table(
        Entry("config", (open_set(made, seed=0), open_set(made, (0.9, 0.9), seed=1)), 82.7, "a paper", "auroc")
    )
    assert [line["scorer"] for line in lines] == ["msp", r"max\_logit"]
    assert [line["AUROC"] for line in lines] == ["85.0 ± 7.1", "90.0 ± 0.0"]
    assert [line["published AUROC"] for line in lines] == ["82.70 [1]", "–"]
    assert list(lines[0])[2:7] == ["known", "AUROC", "OSCR", "AUPR known", "AUPR unknown"]
    assert [line["cost"] for line in lines] == ["201 s; 2 + 0", "–"]


def test_trials_of_an_open_set_data_set_are_averaged_and_reported(made):
    runs = [
        open_set(made, (0.7 + 0.1 * trial, 0.5), group=f"{trial}", split=f"{trial}", config={"dataset.trial": trial})
        for trial in range(2)
    ]
    text = markdown([Entry("config", tuple(runs))], "command")
    assert rows_of(text)[1][3] == "75.0 ± 7.1"
    assert r"split: c10\_open, trials 0, 1;" in text
    assert "mean ± s.d. over seeds and trials" in text


def test_a_background_table_has_map_and_f1_and_names_the_score(made):
    run = made(dataset="c100_bg")
    rows = [row({"map": 0.25, "macro_f1": None}, protocol="background", scorer="probability")]
    (run.path / "result.json").write_text(json.dumps({**run.result, "rows": rows}))
    entry = Entry("config", (read_run(run.path),))
    (line,) = table(entry)
    assert (line["mAP"], line["F1"]) == ("25.0", "–")
    assert "scorer: probability" in markdown([entry], "command")


def test_rows_without_a_result_are_named(made):
    text = markdown([Entry("a", (made(),))], "command", missing=["b", "c (seed 1)"], left_out=["d"])
    assert "No result yet: b, c (seed 1)." in text
    assert "Left out, because they choose on validation images: d." in text


def test_sources_are_numbered_once(made):
    entries = [Entry(n, (made(n),), 70.0, source) for n, source in (("a", "X"), ("b", "Y"), ("c", "X"))]
    assert [line["published"] for line in table(*entries)] == ["70.00 [1]", "70.00 [2]", "70.00 [1]"]
    assert "[1] X.\n[2] Y." in markdown(entries, "command")


def test_a_block_replaces_only_the_text_between_its_markers(tmp_path):
    config = tmp_path / "config.md"
    config.write_text("a\n<!-- t:begin -->\nold\n<!-- t:end -->\nb\n<!-- u:begin -->\nkept\n<!-- u:end -->\n")
    write_between_markers(config, "t", "new")
    wanted = "a\n<!-- t:begin -->\nnew\n<!-- t:end -->\nb\n<!-- u:begin -->\nkept\n<!-- u:end -->\n"
    assert config.read_text() == wanted
    write_between_markers(config, "t", "new")
    assert config.read_text() == wanted


@pytest.mark.parametrize(("before", "after"), [("a\n", "a\n\n"), (None, "")])
def test_a_file_without_markers_gets_them_at_its_end(tmp_path, before, after):
    config = tmp_path / "config.md"
    if before is not None:
        config.write_text(before)
    write_between_markers(config, "t", "new")
    assert config.read_text() == f"{after}<!-- t:begin -->\nnew\n<!-- t:end -->\n"


@pytest.mark.parametrize("text", ["<!-- t:begin -->", "<!-- t:end -->\n<!-- t:begin -->", "<!-- t:begin -->\n" * 2])
def test_markers_that_do_not_pair_are_refused_and_the_file_stays(tmp_path, text):
    config = tmp_path / "config.md"
    config.write_text(text)
    with pytest.raises(DataError, match="once each"):
        write_between_markers(config, "t", "new")
    assert config.read_text() == text


def test_a_damaged_provenance_is_reported(made):
    run = made()
    (run.path / "provenance.json").write_text("{")
    with pytest.raises(DataError, match=r"provenance\.json cannot be read"):
        markdown([Entry("a", (run,))], "command")
