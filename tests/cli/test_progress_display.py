"""Progress and results on the console: a bar and a framed table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

import ltr
from ltr.console import plain_warnings
from ltr.runs.training.progress import TrainingProgress

ROW = {"epoch": 1, "train/loss": 0.51234, "train/accuracy": 0.625, "val/accuracy": 0.5, "images_per_second": 1234.6}


def shown(terminal: bool, epochs: int = 3, lines_every: int | None = 1, stop_after: int | None = None) -> str:
    """Return the console output of a training of three batches an epoch."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, _environ={})
    progress = TrainingProgress("representation", epochs, console, lines_every)
    trainer = SimpleNamespace(current_epoch=0, num_training_batches=3)
    progress.on_train_start(trainer, None)
    for epoch in range(1, epochs + 1):
        for batch in range(3):
            progress.on_train_batch_end(trainer, None, None, None, batch)
        progress.show({**ROW, "epoch": epoch})
        if epoch == stop_after:
            progress.on_exception(trainer, None, RuntimeError())
            return out.getvalue()
    progress.on_train_end(trainer, None)
    return out.getvalue()


def test_without_a_terminal_each_epoch_is_a_plain_line_with_rate_and_time_left():
    lines = shown(terminal=False).splitlines()
    assert len(lines) == 3
    assert "\x1b" not in "".join(lines)
    expected = r"representation  epoch 2/3  loss 0.5123  train 62.5 %  val 50.0 %  1235 images/s  0:00:00 left"
    assert re.fullmatch(expected, lines[1])


def test_every_kth_epoch_and_the_last_have_a_line():
    epochs = [re.search(r"epoch (\d+)/7", line)[1] for line in shown(False, epochs=7, lines_every=3).splitlines()]
    assert epochs == ["3", "6", "7"]


@pytest.mark.parametrize("epochs", [1, 9, 10, 11, 19, 95, 101, 200])
def test_by_default_a_stage_has_at_most_ten_lines(epochs):
    lines = shown(terminal=False, epochs=epochs, lines_every=None).splitlines()
    assert min(epochs, 5) <= len(lines) <= 10
    assert f"epoch {epochs}/{epochs}" in lines[-1]


def test_in_a_terminal_a_temporary_bar_shows_count_and_rate():
    text = shown(terminal=True)
    assert "9/9" in text
    assert "1235 images/s" in text
    assert "loss 0.512" in text
    assert "\x1b[?25h" in text  # the cursor is back
    assert "epoch 1/3" not in text


def test_a_failure_restores_the_cursor():
    assert "\x1b[?25h" in shown(terminal=True, stop_after=1)


def test_in_a_terminal_the_table_is_framed(ltr_train, monkeypatch):
    from rich import console as rich_console

    class Made(Console):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, force_terminal=True, width=100, **named)

    monkeypatch.setattr(rich_console, "Console", Made)
    done = ltr_train("debug=fast")
    assert done.code == 0, done.err
    assert "\x1b[" in done.out
    assert "bACC" in done.out


def test_warnings_of_ltr_are_one_line_and_those_of_libraries_are_unchanged(capsys, monkeypatch):
    others = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *rest: others.append(message))
    actual = str(Path(ltr.__file__).parent / "data" / "splitting" / "closed_set.py")
    with plain_warnings():
        warnings.showwarning("ours", UserWarning, actual, 3)
        warnings.showwarning("theirs", UserWarning, "/home/ltr/torch/nn.py", 3)
        warnings.showwarning("deprecated", DeprecationWarning, actual, 3)
    assert capsys.readouterr().err == "warning: ours\n"
    assert others == ["theirs", "deprecated"]


def test_the_display_of_warnings_is_restored():
    before = warnings.showwarning
    with plain_warnings():
        assert warnings.showwarning is not before
    assert warnings.showwarning is before
