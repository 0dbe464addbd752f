"""Embeddings of class names, for the first class vectors of a head."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

import class_embeddings


def encode(texts: list[str]) -> torch.Tensor:
    return torch.stack([torch.tensor([len(text), text.count("a"), 1.0]) for text in texts])


def test_a_vector_is_the_mean_over_templates_with_the_projection_applied():
    projection = torch.randn(3, 5)
    vectors = class_embeddings.class_vectors(["great_auk"], encode, projection, ["a {}.", "the {}"])
    texts = encode(["a great auk.", "the great auk"]).double()
    mean = (texts / texts.norm(dim=1, keepdim=True)).mean(0)
    folded = mean @ projection.double()
    torch.testing.assert_close(vectors["great_auk"].double(), folded / folded.norm(), atol=1e-5, rtol=1e-5)
    features = torch.randn(5).double()
    logit = (projection.double() @ features) @ mean  # CLIP's product, before its normalisation of the image
    torch.testing.assert_close(features @ vectors["great_auk"].double() * folded.norm(), logit, atol=1e-4, rtol=1e-4)


def test_the_command_writes_a_vector_for_each_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "classes.txt").write_text("auk\n\ngreat tit\n")
    monkeypatch.setattr(class_embeddings, "clip_of", lambda folder: (encode, torch.eye(3)))
    arguments = [str(tmp_path), str(tmp_path / "classes.txt"), str(tmp_path / "out.safetensors")]
    assert class_embeddings.main(arguments) == 0
    assert sorted(load_file(tmp_path / "out.safetensors")) == ["auk", "great tit"]
    assert "2 vectors of 3 numbers" in capsys.readouterr().out


def test_wrong_input_is_refused_and_nothing_is_written(tmp_path, capsys):
    (tmp_path / "classes.txt").write_text("auk\nauk\n")
    out = str(tmp_path / "out.safetensors")
    for arguments, message in (
        ([str(tmp_path / "no"), str(tmp_path / "classes.txt"), out], "no such folder"),
        ([str(tmp_path), str(tmp_path / "no.txt"), out], "no such file"),
        ([str(tmp_path), str(tmp_path / "classes.txt"), str(tmp_path / "out.npy")], "must end in .safetensors"),
        ([str(tmp_path), str(tmp_path / "classes.txt"), out], "different class names"),
    ):
        assert class_embeddings.main(arguments) > 0
        assert message in capsys.readouterr().err
    (tmp_path / "classes.txt").write_text("auk\n")
    assert class_embeddings.main([str(tmp_path), str(tmp_path / "classes.txt"), out]) == 1
    assert "no CLIP model" in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()
