"""Files that are not weights: messages name their kind, without torch's own advice and without control characters."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ltr.errors import CheckpointError
from ltr.methods.core.checkpoint import describe
from ltr.methods.foreign import foreign_network
from ltr.models.cifar_resnet import CifarResNet
from ltr.models.state_file import read_state
from ltr.models.teachers import Teacher
from ltr.models.weights import load_backbone

TENSORS = {"conv.weight": torch.zeros(2, 2)}


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def cut(path: Path) -> None:
    torch.save(TENSORS, path)
    path.write_bytes(path.read_bytes()[:300])


def scripted(path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)


FILES = {
    "a Git LFS pointer": lambda path: path.write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{0:064d}\nsize 46830571\n"
    ),
    "a web page": lambda path: path.write_text("\n<!DOCTYPE html><html><body>404</body></html>"),
    "JSON text": lambda path: path.write_text('{"message": "Not Found"}'),
    "an XML document": lambda path: path.write_text('<?xml version="1.0"?><Error/>'),
    "a text file": lambda path: path.write_text("Not found: \u00e4"),
    "holds a pickled object (torch.nn.modules.linear.Linear)": lambda path: torch.save(nn.Linear(2, 2), path),
    "a zip archive": zipped,
    "a gzip archive": lambda path: path.write_bytes(gzip.compress(b"x")),
    "an HDF5 file": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64)),
    "an empty file": lambda path: path.write_bytes(b""),
    "a safetensors file": lambda path: save_file(TENSORS, path),
    "a directory": lambda path: path.mkdir(),
    "a TorchScript program": scripted,
    "damaged or incomplete": cut,
}


def teacher(path: Path) -> None:
    Teacher(library="torchvision", name="squeezenet1_0", weights=str(path))


READERS = {
    "a backbone's weights": lambda path: load_backbone(CifarResNet(3), path),
    "a teacher's weights": teacher,
    "a checkpoint": describe,
    "foreign weights": lambda path: foreign_network(path, {}, None),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("what", FILES)
def test_an_error_names_the_format_of_the_file(tmp_path, what, reader):
    path = tmp_path / "weights.pth"
    FILES[what](path)
    with pytest.raises(CheckpointError) as refused:
        reader(path)
    message = str(refused.value)
    assert what in message
    assert str(path) in message
    assert "\n" not in message
    assert "weights_only" not in message
    assert all(character.isprintable() for character in message)


def test_a_torch_file_named_safetensors_is_recognised(tmp_path):
    torch.save(TENSORS, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="a torch file by its content"):
        read_state(tmp_path / "w.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_with_the_right_suffix_is_read(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(TENSORS, path)
    assert torch.equal(read_state(path)["conv.weight"], TENSORS["conv.weight"])


def test_the_old_format_of_torch_is_read(tmp_path):
    torch.save(TENSORS, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert list(read_state(tmp_path / "w.pth")) == ["conv.weight"]


@pytest.mark.parametrize(("in_file", "in_network"), [(3, 1), (1, 3), (1, 5)])
def test_another_number_of_channels_is_summed_or_repeated(tmp_path, in_file, in_network, caplog):
    torch.manual_seed(0)
    source, target = CifarResNet(in_file).eval(), CifarResNet(in_network).eval()
    torch.save(source.state_dict(), tmp_path / "w.pth")
    load_backbone(target, tmp_path / "w.pth")
    grey = torch.rand(2, 1, 8, 8)
    same = source(grey.expand(-1, in_file, -1, -1)), target(grey.expand(-1, in_network, -1, -1))
    assert torch.allclose(*same, atol=1e-5)
    assert f"are for {in_file} input channels and the images have {in_network}" in caplog.text


def test_channels_that_cannot_be_fitted_are_named(tmp_path):
    torch.save(CifarResNet(5).state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="weights for 5 input channels, not 3"):
        load_backbone(CifarResNet(3), tmp_path / "w.pth")
