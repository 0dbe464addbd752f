"""Named tensors are read from whole files of known kinds; nothing in them is executed."""

from __future__ import annotations

import pickle

import pytest
import torch

from ltr.errors import CheckpointError
from ltr.models.digits_net import DigitsNet
from ltr.models.state_file import read_state


class Opens:
    """A pickle that would run code when it is read."""

    def __reduce__(self):
        return (print, ("this must not run",))


def test_pickled_code_in_a_weights_file_is_refused_and_not_executed(tmp_path, capsys):
    torch.save({"weight": torch.zeros(1), "trap": Opens()}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="refused"):
        read_state(tmp_path / "file.pth")
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.pth", b""),
        ("text.pth", b"not a checkpoint at all"),
        ("cut.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{"),
        ("list.pth", None),
        ("numbers.pth", None),
    ],
)
def test_a_damaged_or_empty_file_is_named(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    else:
        torch.save([torch.zeros(1)] if name == "list.pth" else {"epoch": 3}, tmp_path / name)
    with pytest.raises(CheckpointError, match=name):
        read_state(tmp_path / name)


def test_a_truncated_checkpoint_is_named(tmp_path):
    torch.save(DigitsNet(1).state_dict(), tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"cut\.pth"):
        read_state(tmp_path / "cut.pth")


def test_a_missing_file_and_an_unknown_suffix_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"There is no weights file .*gone\.pth"):
        read_state(tmp_path / "gone.pth")
    (tmp_path / "weights.pkl").write_bytes(pickle.dumps({}))
    with pytest.raises(CheckpointError, match=r"\.pkl.*\.safetensors, \.pth"):
        read_state(tmp_path / "weights.pkl")
