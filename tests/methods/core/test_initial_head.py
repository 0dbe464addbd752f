"""The first class vectors of a cosine head."""

from __future__ import annotations

import contextlib

import pytest
import torch
from safetensors.torch import save_file

import ltr
from ltr.data.batch import Batch
from ltr.errors import CheckpointError, ConfigError
from ltr.methods.core.initial_head import check_initial_head, class_embeddings, start_head

CLASSES = 3


def network(initial, head: str = "cosine", method: str = "erm"):
    built = ltr.build(method, num_classes=CLASSES, backbone="resnet20", head=head)
    built.settings = built.settings.replaced(head={**built.settings.head, "initial": initial})
    return built


class Images:
    """Nine images, three of each class but the last one, in two batches."""

    class split:
        train = torch.arange(6)

    def __init__(self) -> None:
        self.images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
        self.labels = torch.tensor([0, 0, 0, 1, 1, 1])

    def evaluation_loader(self, part):
        for rows in part.split(4):
            yield Batch(self.images[rows], self.labels[rows], rows)


def started(built, data):
    start_head(built, data, torch.device("cpu"), contextlib.nullcontext)
    return built


def test_initial_vectors_are_class_means_of_unit_features_except_for_empty_classes():
    data, built = Images(), network("class_means")
    before = built.head.weight.clone()
    started(built.train(), data)
    assert built.training
    with torch.no_grad():
        features = built.eval().features(data.images.float() / 255).double()
    unit = features / features.norm(dim=1, keepdim=True)
    for label in (0, 1):
        mean = unit[data.labels == label].mean(0)
        torch.testing.assert_close(built.head.weight[label].double(), mean / mean.norm(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(built.head.weight[2], before[2])


def test_without_initial_vectors_the_head_is_unchanged():
    for built in (network(None), network("class_means", head="linear")):
        before = built.head.weight.clone()
        assert torch.equal(started(built, Images()).head.weight, before)


def test_a_file_of_embeddings_gives_the_vectors_by_name(tmp_path):
    vectors = {str(label): torch.randn(64) for label in reversed(range(CLASSES))}
    save_file(vectors, tmp_path / "names.safetensors")
    built = started(network(str(tmp_path / "names.safetensors")), None)
    for label in range(CLASSES):
        torch.testing.assert_close(built.head.weight[label], vectors[str(label)] / vectors[str(label)].norm())


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({"0": torch.ones(64), "1": torch.ones(64)}, r"no vector for 1 of 3 classes \(2\)"),
        ({str(label): torch.ones(32) for label in range(3)}, r"vector of '0' has the shape \[32\].*have 64 numbers"),
        ({"0": torch.ones(64), "1": torch.zeros(64), "2": torch.ones(64)}, "zero or not finite"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, vectors, message):
    path = tmp_path / "names.safetensors"
    save_file(vectors, path)
    with pytest.raises(CheckpointError, match=message):
        check_initial_head(network(str(path)))
    with pytest.raises(CheckpointError, match=message):
        class_embeddings(path, ("0", "1", "2"), 64)


def test_a_missing_file_and_a_head_of_other_rows_are_refused():
    with pytest.raises(CheckpointError, match=r"head\.initial=nothing: there is no such file.*class_means"):
        check_initial_head(network("nothing"))
    built = network("class_means")
    built.head.num_classes = 12
    with pytest.raises(ConfigError, match="has 12 rows for 3 classes"):
        check_initial_head(built)


def test_a_run_starts_from_the_class_means(tmp_path):
    folders = [f"paths.outputs={tmp_path}/o", f"paths.stages={tmp_path}/s", "debug=fast", "trainer.precision=fp32"]
    means = ltr.train([*folders, "head=cosine", "head.initial=class_means", "tune=none"], quiet=True)
    random = ltr.train([*folders, "head=cosine", "tune=none"], quiet=True)
    first, second = (outcome.result["rows"][0]["metrics"]["accuracy"] for outcome in (means, random))
    assert first > second
