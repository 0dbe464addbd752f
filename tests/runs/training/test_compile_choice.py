"""`compile=auto`: what it chooses, and what it prints."""

from __future__ import annotations

import pytest

from ltr.configuration.configs import config_names, read_config
from ltr.identity import name_of
from ltr.runs.training import compile_choice
from ltr.runs.training.compile_choice import MEASURED, Measurement, choose_compilation


def test_compiling_pays_off_when_the_saved_time_exceeds_its_cost():
    measured = Measurement(milliseconds=2.0, speedup=1.25, compiling=40)
    saved = 2.0 - 2.0 / 1.25  # milliseconds an image
    assert measured.repaid_after * saved == pytest.approx(40_000)
    assert Measurement(2.0, 1.04, 40).repaid_after == float("inf")


@pytest.mark.parametrize(
    ("key", "images", "is_compiled", "words"),
    [
        (("slow", "bf16", "cpu"), 10**9, False, "only 0.90 times as fast"),
        (("quick", "fp32", "cpu"), 99_000, False, "repaid after 100,000 images, and this training takes 99,000"),
        (("quick", "fp32", "cpu"), 101_000, True, "repaid after 100,000 images"),
        (("quick", "bf16", "cpu"), 10**9, False, "in bf16 has not been measured"),
        (("quick", "fp32", "cuda"), 10**9, False, "not been measured on GPUs"),
    ],
)
def test_the_choice_follows_the_measurement_and_the_length(monkeypatch, key, images, is_compiled, words):
    table = {("slow", "bf16"): Measurement(1, 0.9, 50), ("quick", "fp32"): Measurement(2, 1.25, 40)}
    monkeypatch.setattr(compile_choice, "MEASURED", table)
    chosen, reason = choose_compilation(*key, images)
    assert chosen is is_compiled
    assert words in reason


def test_the_table_names_backbones_that_exist():
    targets = {read_config(f"backbone/{name}").get("_target_") for name in config_names("backbone")}
    names = {name_of(target) for target in targets if target}
    assert {backbone for backbone, _ in MEASURED} <= names


def test_a_run_prints_what_auto_chose_and_trains_the_same_bits_uncompiled(ltr_train, tmp_path):
    fast = ("debug=fast", "evaluation.batch_size=400", "trainer.precision=bf16")
    auto = ltr_train(*fast, "compile=auto", outputs=tmp_path / "auto")
    assert auto.code == 0, auto.err
    assert "representation: compile=auto: not compiled, a step in bf16 is only 1.00 times as fast" in auto.out
    plain = ltr_train(*fast, outputs=tmp_path / "plain")
    assert "compile=auto" not in plain.out
    assert auto.result["rows"] == plain.result["rows"]
