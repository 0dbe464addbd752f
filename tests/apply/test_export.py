"""Export: files that other programs read, and the same network when they are read back."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from ltr.apply import export as export_module
from ltr.apply.export import export, generated_images, load_exported, logits
from ltr.errors import CheckpointError, ConfigError, TrainingError
from ltr.methods.core.checkpoint import describe, load_network

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript"))


def test_an_exported_network_gives_the_same_logits_to_the_bit(checkpoint, tmp_path):
    done = export(checkpoint, tmp_path)
    network = load_network(checkpoint)
    images = generated_images(network.dataset_info.image_shape)
    assert torch.equal(logits(load_exported(tmp_path), images), logits(network, images))
    assert done.difference == 0


def test_weights_and_names_can_be_read_without_this_library(checkpoint, tmp_path):
    export(checkpoint, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    original = describe(checkpoint)["state_dict"]
    assert set(state) == set(original)
    assert all(torch.equal(state[name], original[name]) for name in original)
    assert json.loads((tmp_path / "class_names.json").read_text()) == [str(digit) for digit in range(10)]
    assert json.loads((tmp_path / "config.json").read_text())["image_shape"] == [1, 8, 8]


def test_an_export_writes_three_files_and_leaves_no_temporary_one(checkpoint, tmp_path):
    export(checkpoint, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["class_names.json", "config.json", "model.safetensors"]


def test_a_network_whose_logits_differ_after_reading_is_not_exported(checkpoint, tmp_path, monkeypatch):
    real = load_exported

    def other(folder):
        network = real(folder)
        with torch.no_grad():
            next(network.parameters()).add_(1.0)
        return network

    monkeypatch.setattr(export_module, "load_exported", other)
    with pytest.raises(TrainingError, match="nothing was exported"):
        export(checkpoint, tmp_path)
    assert not list(tmp_path.iterdir())


def test_damaged_exports_are_named(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match="is not an export"):
        load_exported(tmp_path)
    export(checkpoint, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    name = next(name for name in state if name.endswith("weight"))
    save_file({key: value for key, value in state.items() if key != name}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="missing"):
        load_exported(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_exported(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError):
        load_exported(tmp_path)


def test_a_description_cannot_name_code_outside_the_allow_list(checkpoint, tmp_path):
    export(checkpoint, tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    about["network"]["module"] = "os.system"
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match=r"os\.system"):
        load_exported(tmp_path)


def test_without_its_packages_onnx_is_refused_before_any_work(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install onnx"):
        export(checkpoint, tmp_path / "out", onnx=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_ONNX, reason="onnx is not installed")
def test_onnx_gives_the_same_logits_at_any_batch_size(checkpoint, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    done = export(checkpoint, tmp_path, onnx=True)
    assert done.onnx_difference is not None
    assert done.onnx_difference < 1e-3
    network = load_network(checkpoint)
    images = generated_images(network.dataset_info.image_shape)[:1]
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (onnx_logits,) = session.run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(onnx_logits), logits(network, images), rtol=1e-3, atol=1e-3)


def test_an_export_into_the_folder_of_another_leaves_none_of_its_files(checkpoint, tmp_path):
    export(checkpoint, tmp_path)
    for name in ("model.onnx", "decisions.json", "notes.txt"):
        (tmp_path / name).write_text("{}")
    export(checkpoint, tmp_path)
    names = ["class_names.json", "config.json", "model.safetensors", "notes.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_files_of_other_programs_are_neither_removed_nor_replaced(checkpoint, tmp_path):
    (tmp_path / "decisions.json").write_text("of another program")
    export(checkpoint, tmp_path)
    assert (tmp_path / "decisions.json").read_text() == "of another program"
    (tmp_path / "config.json").write_text('{"architectures": []}')
    with pytest.raises(ConfigError, match="is not of ltr-export --out"):
        export(checkpoint, tmp_path)
    assert (tmp_path / "config.json").read_text() == '{"architectures": []}'
