"""Reading run directories: complete ones, and the messages for missing or damaged ones."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up_runs import curve_rows, per_class_table, write_run

from ltr.errors import DataError
from ltr.report.read_run import read_run, validation_value


@pytest.fixture
def run_dir(tmp_path):
    return write_run(tmp_path / "run", per_class_table(10), curve_rows({"main": 3}, few=False))


def edit_result(run_dir, change):
    result = json.loads((run_dir / "result.json").read_text())
    change(result)
    (run_dir / "result.json").write_text(json.dumps(result))


def row(split, accuracy, headline=False, **more):
    same = {"protocol": "closed_set", "variant": "main", "scorer": None, "checkpoint": "last"}
    return {**same, "split": split, "headline": headline, "metrics": {"accuracy": accuracy}, **more}


def test_the_validation_value_is_that_of_the_row_that_is_the_headline_on_test():
    rows = [row("val", 0.1, variant="other"), row("val", 0.2, checkpoint="best_val"), row("val", 0.3),
            row("test", 0.4, variant="other"), row("test", 0.5, headline=True)]  # fmt: skip
    assert validation_value({"rows": rows, "metric": "accuracy"}) == 0.3
    assert validation_value({"rows": rows}, "accuracy") == 0.3
    assert validation_value({"rows": rows}) is None, "the row has no balanced accuracy"
    assert validation_value({"rows": rows[3:], "metric": "accuracy"}) is None, "the test set chooses nothing"


def test_per_class_columns_are_read_unchanged(run_dir):
    table, written = read_run(run_dir).per_class, per_class_table(10)
    assert table["train_count"].tolist() == written["train_count"].tolist()
    assert table["accuracy"].tolist() == written["accuracy"].tolist()
    assert table["class_name"].tolist() == written["class_name"].tolist()


def test_the_headline_of_several_variants_is_read(run_dir):
    table = per_class_table(10)
    parts = [
        pa.table(
            {"variant": [name] * 10} | {key: list(column) for key, column in (table | {"accuracy": values}).items()}
        )
        for name, values in (("other", np.zeros(10)), ("default", np.ones(10)))
    ]
    pq.write_table(pa.concat_tables(parts), run_dir / "per_class.parquet")
    assert read_run(run_dir).per_class["accuracy"].tolist() == [1.0] * 10


def test_a_table_without_the_headline_variant_is_refused(run_dir):
    edit_result(run_dir, lambda result: result["rows"][0].update(variant="aggregated"))
    with pytest.raises(DataError, match="variant 'aggregated'"):
        read_run(run_dir).per_class  # noqa: B018


def test_curves_are_numbers_with_nan_for_blanks(run_dir):
    text = (run_dir / "metrics.csv").read_text().replace("nan", "")
    (run_dir / "metrics.csv").write_text(text)
    curves = read_run(run_dir).curves
    assert curves["stage"].tolist() == ["main"] * 3
    assert curves["epoch"].tolist() == [1.0, 2.0, 3.0]
    assert np.isnan(curves["val/few"]).all()


@pytest.mark.parametrize("content", [None, "", "stage,epoch,step\n"])
def test_a_run_without_trained_epochs_has_no_curves(run_dir, content):
    (run_dir / "metrics.csv").unlink()
    if content is not None:
        (run_dir / "metrics.csv").write_text(content)
    assert read_run(run_dir).curves == {}


def test_title_names_method_data_set_and_seed(run_dir):
    assert read_run(run_dir).title == "erm · cifar10_lt · seed 0"


def test_without_a_marked_headline_the_first_row_is_used(run_dir):
    edit_result(run_dir, lambda result: result["rows"][0].update(headline=False))
    assert read_run(run_dir).headline["split"] == "test"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no run directory .*nowhere"):
        read_run(tmp_path / "nowhere")


def test_a_folder_without_a_run_is_distinguished_from_an_unfinished_run(tmp_path):
    with pytest.raises(DataError, match="not a run directory"):
        read_run(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(DataError, match="has not finished"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema_version": 1, "conf', "cannot be read"),
        ("[]", "no schema_version"),
        ("{}", "no schema_version"),
        ('{"schema_version": 2}', "layout 2"),
        ('{"schema_version": 1, "config": {"seed": 0}, "rows": []}', "lacks rows"),
        ('{"schema_version": 1, "config": {"seed": 0}, "rows": [{"split": "test"}]}', r"rows\[0\] lacks protocol"),
    ],
)
def test_a_result_file_that_is_not_whole_is_refused(run_dir, content, message):
    (run_dir / "result.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_run(run_dir)


def test_a_truncated_parquet_file_is_refused(run_dir):
    path = run_dir / "per_class.parquet"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="half-written"):
        read_run(run_dir).per_class  # noqa: B018


def test_a_missing_parquet_file_and_a_missing_column_are_named(run_dir):
    with pytest.raises(DataError, match=r"predictions\.parquet is missing"):
        read_run(run_dir).predictions  # noqa: B018
    pq.write_table(pa.table({"id": [1], "label": [0], "prediction": [0]}), run_dir / "predictions.parquet")
    with pytest.raises(DataError, match="lacks the columns scores"):
        read_run(run_dir).predictions  # noqa: B018


@pytest.mark.parametrize(
    ("line", "message"),
    [("main,4,388", r"line 5: 3 cells"), ("main,4,x" + ",0" * 8, "column step: .*'x'"), ("\xff", "line 5")],
)
def test_a_truncated_line_of_the_curves_is_refused(run_dir, line, message):
    with open(run_dir / "metrics.csv", "a") as file:
        file.write(line)
    with pytest.raises(DataError, match=message):
        read_run(run_dir).curves  # noqa: B018


def test_reports_import_neither_torch_nor_lightning_and_matplotlib_only_for_figures():
    check = "import sys, ltr.report.figures, ltr.report.table; print([m for m in HEAVY if m in sys.modules])"
    heavy = ["torch", "pytorch_lightning", "matplotlib", "pyarrow", "hydra"]
    done = subprocess.run(
        [sys.executable, "-c", f"HEAVY = {heavy}; {check}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda result: result["config"].update({"data.fingerprint": 5}), "data.fingerprint is 5, which is not text"),
        (lambda result: result["rows"][0]["metrics"].update(accuracy=1e308), "which is not a number up to 1e\\+15"),
        (lambda result: result["rows"].append(result["rows"][0]), r"rows\[1\] is a second row of what rows\[0\] meas"),
    ],
)
def test_values_that_tables_cannot_show_are_damage(run_dir, change, reason):
    edit_result(run_dir, change)
    with pytest.raises(DataError, match=reason):
        read_run(run_dir)
