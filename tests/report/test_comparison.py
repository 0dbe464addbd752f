"""Averages, tables of comparable lines and best lines, against calculations by hand."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
from made_up_outputs import composed_config, write
from made_up_runs import row

from ltr.configuration.tables import table_rows
from ltr.errors import ConfigError, DataError
from ltr.evaluation.metrics import METRICS
from ltr.report.comparison import marks, sections
from ltr.report.compose import Options, compose_report
from ltr.report.published_lookup import PublishedNumbers
from ltr.report.read_runs import finished_runs
from ltr.report.series import curves
from ltr.report.sheet import section_sheet


def tables(outputs, **options):
    return sections(finished_runs([outputs]).runs, **options)


def bacc(*values: float) -> list[dict[str, float]]:
    return [{"balanced_accuracy": value} for value in values]


def seeds(outputs, method, *values, **more):
    for seed, value in enumerate(values):
        write(outputs, method, seed, metrics={"balanced_accuracy": value}, **more)


# -- averages -----------------------------------------------------------------------------------------------------


def test_a_line_is_the_mean_and_standard_deviation_over_seeds(tmp_path):
    seeds(tmp_path, "erm", 0.70, 0.72, 0.77)
    (table,) = tables(tmp_path)
    (line,) = table.lines
    assert line.seeds == [0, 1, 2]
    assert line.mean("balanced_accuracy") == pytest.approx(0.73)
    # by hand: ((3^2 + 1^2 + 4^2) / 2)^0.5 = 13^0.5 percent
    assert line.deviation("balanced_accuracy") == pytest.approx(math.sqrt(13) / 100)


def test_one_run_has_no_standard_deviation(tmp_path):
    write(tmp_path)
    (table,) = tables(tmp_path)
    assert math.isnan(table.lines[0].deviation("accuracy"))


def test_runs_are_grouped_by_everything_but_their_seed(tmp_path):
    seeds(tmp_path, "erm", 0.7, 0.8)
    write(tmp_path, "erm", 2, config={"optimizer.lr": 0.2})
    (table,) = tables(tmp_path)
    assert sorted(len(line.runs) for line in table.lines) == [1, 2]


def test_a_mean_over_seeds_with_a_missing_value_is_none(tmp_path):
    write(tmp_path, "erm", 0, metrics={"few": 0.2})
    write(tmp_path, "erm", 1, metrics={"few": None})
    (table,) = tables(tmp_path)
    assert math.isnan(table.lines[0].mean("few"))
    assert math.isnan(table.lines[0].deviation("few"))


def test_the_same_run_in_two_folders_counts_once(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b")
    collection = finished_runs([tmp_path / "a", tmp_path / "b"])
    assert (len(collection.runs), collection.duplicates) == (1, 1)


def on_data(folder, fingerprint, **changes):
    """Set the fingerprint of the data, and other keys, of a run's result."""
    result = json.loads((folder / "result.json").read_text())
    result["data"]["fingerprint"] = fingerprint
    (folder / "result.json").write_text(json.dumps({**result, **changes}))


def test_one_run_on_two_data_is_two_runs(tmp_path):
    for fingerprint in ("aaaaaaaa", "bbbbbbbb"):
        on_data(write(tmp_path / fingerprint), fingerprint)
    collection = finished_runs([tmp_path / "aaaaaaaa", tmp_path / "bbbbbbbb"])
    assert (len(collection.runs), collection.duplicates) == (2, 0)


@pytest.mark.parametrize("first", [None, "aaaaaaaa"])
@pytest.mark.parametrize("value", [0.7, 0.8])
def test_a_seed_counts_once(tmp_path, recwarn, first, value):
    on_data(write(tmp_path / "a", metrics={"balanced_accuracy": 0.7}), first)
    on_data(write(tmp_path / "b", metrics={"balanced_accuracy": value}), "aaaaaaaa", run_hash="another")
    (table,) = sections(finished_runs([tmp_path / "a", tmp_path / "b"]).runs)
    assert table.lines[0].seeds == [0]
    assert any("the same settings and seed and different results" in str(w.message) for w in recwarn) == (value != 0.7)


def test_seeds_that_chose_different_values_of_a_number_are_one_line(tmp_path):
    for seed, chosen in enumerate(("0.5", "0.7")):
        write(tmp_path, "tau_norm", seed, variant=f"tau={chosen}", metrics={"balanced_accuracy": 0.5 + seed / 10})
    (table,) = tables(tmp_path)
    (line,) = table.lines
    assert line.mean("balanced_accuracy") == pytest.approx(0.55)
    assert line.variant == "tau chosen"


# -- what may be compared -----------------------------------------------------------------------------------------


def test_other_test_images_form_another_table_with_a_warning(tmp_path):
    write(tmp_path, "erm", split="cifar10-exp100-cao")
    write(tmp_path, "crt", split="cifar10-exp100-cao-val_test_fraction0.1", config={"dataset.val": "test_fraction"})
    report = compose_report(finished_runs([tmp_path]), Options())
    assert len(report.parts) == 2
    assert any("2 different splits" in line for line in report.warnings)


@pytest.mark.parametrize(
    ("fingerprints", "tables_made"), [(("a" * 8, "b" * 8), 2), (("a" * 8, None), 1), ((None, None), 1)]
)
def test_other_images_of_the_same_split_form_another_table(tmp_path, fingerprints, tables_made):
    for method, fingerprint in zip(("erm", "crt"), fingerprints):
        on_data(write(tmp_path, method), fingerprint)
    report = compose_report(finished_runs([tmp_path]), Options())
    assert len(report.parts) == tables_made
    assert any("2 different splits" in line for line in report.warnings) == (tables_made == 2)


def test_runs_selected_on_test_are_separate_and_never_the_best(tmp_path):
    write(tmp_path, "erm", metrics={"balanced_accuracy": 0.5})
    write(tmp_path, "crt", metrics={"balanced_accuracy": 0.6})
    write(tmp_path, "lws", metrics={"balanced_accuracy": 0.9}, selection="best_test")
    report = compose_report(finished_runs([tmp_path]), Options())
    (part,) = report.parts
    assert [line.label for line in part.section.lines] == ["crt", "erm"]
    assert [line.label for line in part.section.selected_on_test] == ["lws"]
    last = part.sheet.rows[-1]
    assert last[0].text == "lws (selected on test)"
    assert all(cell.mark != "best" for cell in last)
    assert any("selected on the test set" in line for line in report.warnings)


def test_protocols_have_separate_tables_and_scorers_separate_lines(tmp_path):
    rows = [row({"accuracy": 0.5, "balanced_accuracy": 0.5})]
    rows += [
        row({"auroc": value, "fpr95_id_pos": 1 - value}, protocol="open_set", scorer=scorer, headline=False)
        for scorer, value in (("msp", 0.8), ("max_logit", 0.9))
    ]
    write(tmp_path, rows=rows)
    closed, opened = tables(tmp_path)
    assert (closed.protocol, opened.protocol) == ("closed_set", "open_set")
    assert sorted(line.label for line in opened.lines) == ["erm max_logit", "erm msp"]


def test_only_headline_weights_and_variants_have_lines(tmp_path):
    rows = [
        row({"accuracy": 0.5}, variant="one", checkpoint="best", selection="best_val"),
        row({"accuracy": 0.6}, variant="two", checkpoint="best", selection="best_val", headline=False),
        row({"accuracy": 0.7}, variant="one", headline=False),
    ]
    write(tmp_path, rows=rows)
    (table,) = tables(tmp_path)
    assert [line.mean("accuracy") for line in table.lines] == [0.5]


def test_rows_of_the_validation_split_are_excluded(tmp_path):
    rows = [row({"accuracy": 0.9}, split="val", headline=False), row({"accuracy": 0.5})]
    write(tmp_path, rows=rows)
    (table,) = tables(tmp_path)
    assert table.lines[0].mean("accuracy") == 0.5


# -- best and ties ------------------------------------------------------------------------------------------------


def test_ties_are_within_one_standard_deviation_of_the_best(tmp_path):
    seeds(tmp_path, "best", 0.78, 0.80, 0.82)  # 0.80 ± 0.02
    seeds(tmp_path, "near", 0.79, 0.79, 0.79)  # 0.01 away
    seeds(tmp_path, "far", 0.77, 0.77, 0.77)  # 0.03 away
    seeds(tmp_path, "wide", 0.66, 0.76, 0.86)  # 0.04 away, its own s.d. is 0.10
    (table,) = tables(tmp_path)
    labels = [line.label for line in table.lines]
    best_lines = marks(table.lines, METRICS.find("balanced_accuracy"))
    assert {labels[index] for index in best_lines.best} == {"best"}
    assert {labels[index] for index in best_lines.ties} == {"near", "wide"}


def test_the_smallest_value_of_a_lower_is_better_metric_is_the_best(tmp_path):
    for method, value in (("a", 0.1), ("b", 0.2)):
        write(tmp_path, method, metrics={"ece": value})
    (table,) = tables(tmp_path, sort_by="ece")
    assert [line.label for line in table.lines] == ["a", "b"]
    assert marks(table.lines, METRICS.find("ece")).best == {0}


def test_embeddings_are_compared_by_recall_and_counts_have_no_best(tmp_path):
    for method, value in (("a", 0.5), ("b", 0.4)):
        metrics = {"recall_at_1": value, "queries": 3800.0, "nmi": value}
        metrics |= {"accuracy_ci95": value, "all_in_box": value}
        write(tmp_path, method, rows=[row(metrics, protocol="retrieval")])
    (part,) = compose_report(finished_runs([tmp_path]), Options()).parts
    assert part.sheet.headings[2:4] == ("R@1", "NMI")
    assert "queries" not in part.sheet.headings
    (part,) = compose_report(finished_runs([tmp_path]), Options(metrics=("queries",))).parts
    assert [(cells[2].text, cells[2].mark) for cells in part.sheet.rows] == [("3,800", "")] * 2
    (part,) = compose_report(finished_runs([tmp_path]), Options(metrics=("accuracy_ci95", "all_in_box"))).parts
    assert {cell.mark for cells in part.sheet.rows for cell in cells[2:4]} == {""}


def test_equal_lines_are_all_the_best_and_a_single_one_is_unmarked(tmp_path):
    write(tmp_path, "a")
    (table,) = tables(tmp_path)
    assert not marks(table.lines, METRICS.find("accuracy")).best
    write(tmp_path, "b")
    (table,) = tables(tmp_path)
    assert marks(table.lines, METRICS.find("accuracy")).best == {0, 1}


def test_a_line_without_a_number_is_neither_best_nor_tied(tmp_path):
    write(tmp_path, "a", metrics={"few": None})
    for method, value in (("b", 0.1), ("c", 0.2)):
        write(tmp_path, method, metrics={"few": value})
    (table,) = tables(tmp_path, sort_by="few")
    assert [line.label for line in table.lines] == ["c", "b", "a"]
    assert marks(table.lines, METRICS.find("few")).best == {0}


# -- names --------------------------------------------------------------------------------------------------------


def test_lines_of_one_name_are_distinguished_by_what_differs(tmp_path):
    write(tmp_path, "erm", config={"loss._target_": "ltr.losses.classification.LDAM", "loss.scale": 30})
    write(tmp_path, "erm", config={"loss.gamma": 1})
    write(tmp_path, "crt", config={"optimizer.lr": 0.1})
    write(tmp_path, "crt", config={"optimizer.lr": 0.2})
    (table,) = tables(tmp_path)
    assert {line.label for line in table.lines} == {
        "erm loss=ldam", "erm loss=cross_entropy", "crt optimizer.lr=0.1", "crt optimizer.lr=0.2",
    }  # fmt: skip


def test_lines_are_named_after_any_setting(tmp_path):
    write(tmp_path, "erm", config={"optimizer.lr": 0.1})
    (table,) = tables(tmp_path, by=("method", "loss", "optimizer.lr"))
    assert table.lines[0].label == "erm CrossEntropy 0.1"


def test_lines_with_equal_labels_show_part_of_their_hash(tmp_path):
    write(tmp_path, "erm")
    write(tmp_path, "erm", config={"new.key": 1})
    (table,) = tables(tmp_path)
    assert len({line.label for line in table.lines}) == 2


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (Options(by=("metod",)), "Did you mean 'method'"),
        (Options(metrics=("feww",)), "Did you mean 'few'"),
        (Options(datasets=("cifar10",)), "Did you mean 'cifar10_lt'"),
        (Options(against="er"), "no row has this name"),
    ],
)
def test_unknown_names_are_refused_with_a_hint(tmp_path, options, hint):
    write(tmp_path)
    with pytest.raises(ConfigError, match=hint):
        compose_report(finished_runs([tmp_path]), options)


# -- what is read -------------------------------------------------------------------------------------------------


def test_unfinished_and_damaged_runs_are_counted_and_skipped(tmp_path):
    write(tmp_path, "erm")
    unfinished = tmp_path / "cifar10_lt" / "erm" / "erm-s9-0"
    unfinished.mkdir()
    (unfinished / "config.yaml").write_text("{}")
    damaged = write(tmp_path, "crt")
    (damaged / "result.json").write_text('{"schema_version": 1, "rows"')
    collection = finished_runs([tmp_path])
    assert (len(collection.runs), collection.unfinished, len(collection.damaged)) == (1, 1, 1)
    report = compose_report(collection, Options())
    assert any("1 unfinished" in line for line in report.warnings)
    assert any("cannot be read" in line for line in report.warnings)


def test_a_run_directory_itself_and_nothing_in_the_store_is_read(tmp_path):
    folder = write(tmp_path, "erm")
    write(tmp_path / "stages", "crt")
    assert len(finished_runs([folder]).runs) == 1
    assert len(finished_runs([tmp_path]).runs) == 1


def test_a_folder_without_runs_is_named(tmp_path):
    with pytest.raises(DataError, match="no finished run"):
        finished_runs([tmp_path])
    with pytest.raises(DataError, match="no such folder"):
        finished_runs([tmp_path / "nothing"])


# -- cost ---------------------------------------------------------------------------------------------------------


def test_cost_counts_every_stage_and_speed_the_first(tmp_path):
    stages = [
        {"name": "representation", "key": "a", "status": "reused", "seconds": 124.06},
        {"name": "classifier", "key": "b", "status": "trained", "seconds": 10.0},
    ]
    write(tmp_path, "crt", stages=stages)
    (table,) = tables(tmp_path)
    assert table.lines[0].seconds == pytest.approx(134.06)
    assert table.lines[0].images_per_second == pytest.approx(12406 * 200 / 124.06)


def test_speed_counts_only_the_executed_steps(tmp_path):
    write(tmp_path, config={"trainer.limit_train_batches": 2, "batch_size": 100})
    (table,) = tables(tmp_path)
    assert table.lines[0].images_per_second == pytest.approx(200 * 10 / 124.06)


# -- sweeps -------------------------------------------------------------------------------------------------------


def test_lines_that_differ_only_in_beta_form_a_curve(tmp_path):
    for beta, few in ((0.9, 0.1), (0, 0.05), (0.99, 0.3)):
        for seed in (0, 1):
            config = {"loss.beta": beta, "dataset.beta": beta}
            write(tmp_path, "erm", seed, config=config, metrics={"few": few + 0.02 * seed})
    write(tmp_path, "erm", config={"loss.beta": 0.5, "optimizer.lr": 9})
    (table,) = tables(tmp_path)
    (curve,) = curves(table)
    assert curve.key == "loss.beta"
    assert [point.value for point in curve.points] == ["0", "0.9", "0.99"]
    assert [point.means["few"] for point in curve.points] == pytest.approx([0.06, 0.11, 0.31])
    assert curve.points[0].deviations["few"] == pytest.approx(0.02 / math.sqrt(2))


def test_two_values_do_not_form_a_curve(tmp_path):
    for tau in (0.5, 1.0):
        write(tmp_path, "tau_norm", config={"method.tau": tau})
    (table,) = tables(tmp_path)
    assert not curves(table)


def test_a_learned_b0_follows_the_numbers(tmp_path):
    for b0 in (None, 1.0, -1.0):
        write(tmp_path, "background_splitting", config={"method.b0": b0})
    (table,) = tables(tmp_path)
    assert [point.value for point in curves(table)[0].points] == ["-1.0", "1.0", "null"]


def test_the_values_that_one_run_evaluated_are_a_curve(tmp_path):
    for seed in (0, 1):
        rows = [
            row({"balanced_accuracy": tau / 10 + seed / 100, "few": None}, variant=f"tau={tau}", headline=tau == 2)
            for tau in (2, 10, 1)
        ]
        rows += [row({"balanced_accuracy": 0.9}, variant="tau=1", split="val", headline=False)]
        write(tmp_path, "tau_norm", seed, rows=rows)
    (table,) = tables(tmp_path)
    (curve,) = curves(table)
    assert [point.value for point in curve.points] == ["1", "2", "10"]
    assert curve.points[1].means["balanced_accuracy"] == pytest.approx(0.205)
    assert [point.is_headline for point in curve.points] == [False, True, False]
    assert math.isnan(curve.points[0].means["few"])


def test_any_setting_can_be_requested_as_a_curve(tmp_path):
    for lr in (0.1, 0.2, 0.3):
        write(tmp_path, config={"optimizer.lr": lr})
    (table,) = tables(tmp_path)
    assert not curves(table)
    assert [curve.key for curve in curves(table, ["optimizer.lr"])] == ["optimizer.lr"]


# -- published numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "accuracy"),
    [
        (["experiment=cifar100_lt_ldam_drw"], 42.04),
        (["experiment=cifar100_lt_ldam_drw", "trainer.max_epochs=30", "dataset.val=test_fraction"], 42.04),
        (["experiment=cifar100_lt_erm"], 38.32),
        (["experiment=cifar100_lt_erm", "loss=ldam"], 39.6),  # what the config of plain LDAM is
        (["experiment=cifar100_lt_erm", "loss=focal_softmax"], None),
        (["experiment=cifar100_lt_erm", "dataset.imbalance_factor=50"], None),
        (["experiment=cifar100_lt_erm", "sampler=square_root"], None),
        (["experiment=cifar100_lt_linear_probe", "backbone.weights=x"], None),
        (["experiment=cifar100_lt_crt"], 40.26),
        (["experiment=cifar100_lt_mixup_balanced_softmax"], None),  # not that of balanced softmax
        (["dataset=digits_lt"], None),
    ],
)
def test_a_published_number_is_shown_with_the_matching_runs(tmp_path, overrides, accuracy):
    folder = write(tmp_path)
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, "config": composed_config(*overrides)}))
    (table,) = tables(tmp_path)
    published = PublishedNumbers().of(table.lines[0])
    assert (published.number if published else None) == accuracy


@pytest.mark.slow
@pytest.mark.parametrize("entry", [entry for entry in table_rows() if entry.published], ids=lambda entry: entry.config)
def test_a_run_of_an_experiment_has_its_published_number_without_a_note(entry):
    line = SimpleNamespace(config=composed_config(f"experiment={entry.config}"), scorer=None)
    published = PublishedNumbers().of(line, METRICS.find(entry.metric).protocol)
    assert (published.number, published.departures) == (entry.published, "")


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        ([], ""),
        (["batch_size=64"], "batch_size=64 (published: batch_size=128)"),
        (["scheduler=cosine"], "scheduler=cosine (published: scheduler=ldam)"),
        (["augment.mix=mixup"], "augment.mix=mixup (published: augment.mix=null)"),
        (["augment=none"], "augment.pad=0 augment.flip=false (published: augment.pad=4 augment.flip=true)"),
        (["optimizer.weight_decay=5e-4"], "optimizer.weight_decay=0.0005 (published: optimizer.weight_decay=0.0002)"),
        (["sharpness=sam"], "sharpness=sam (published: sharpness=null)"),
        (["head=cosine"], "head=cosine (published: head=linear)"),
        (["backbone=resnet20"], "another backbone"),
        (["backbone.weights=w.pth"], "pretrained initial weights"),
        (["trainer.max_epochs=300"], ""),  # the label has the mark
    ],
)
def test_a_published_number_of_other_conditions_is_annotated(tmp_path, overrides, note):
    folder = write(tmp_path)
    result = json.loads((folder / "result.json").read_text())
    config = composed_config("experiment=cifar100_lt_erm", *overrides)
    (folder / "result.json").write_text(json.dumps({**result, "config": config}))
    (table,) = tables(tmp_path)
    published = PublishedNumbers().of(table.lines[0])
    assert published is not None
    assert published.departures == (f"published under other conditions: {note}" if note else "")
    sheet = section_sheet(table, table.metrics(), PublishedNumbers(), "name")
    cell = next(cell.text for cell in sheet.rows[0] if "[1]" in cell.text)
    assert cell.endswith(" †") == bool(overrides)
    assert any(line == f"† {published.departures}." for line in sheet.notes) == bool(note)
