"""Refusals of ``stages=plan``, which are those of the start of a run, in the same words."""

from __future__ import annotations

import pytest
import torch
import torchvision

from ltr.methods.core.network import ImageClassifier

FAST = ("debug=fast", "trainer.precision=fp32", "trainer.accelerator=cpu")
BACKGROUND = ("method=background_splitting", "dataset=digits_bg")
TWO = ("strategy=ddp", "trainer.devices=2", "batch_size=64")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder of weights: of other networks, damaged, and a finished run's, trained on other classes."""
    from ltr.cli import train_main

    folder = tmp_path_factory.mktemp("weights")
    torch.save(torchvision.models.squeezenet1_1(num_classes=12).state_dict(), folder / "squeezenet.pth")
    (folder / "damaged.ckpt").write_bytes(b"\x80\x02 no weights")
    command = (*FAST, "dataset=digits_open", "figures=none", f"paths.outputs={folder}", "callbacks.progress=none")
    assert train_main([*command]) == 0
    (run,) = folder.glob("digits_open/*/[!.]*")  # besides its lock
    run.rename(folder / "run")
    return folder


REFUSED = {
    "two origins of weights": (
        (
            "backbone=torchvision",
            "backbone.name=resnet18",
            "backbone.pretrained=true",
            "backbone.weights={}/squeezenet.pth",
        ),
        "Choose one",
    ),
    "weights of another network": (("backbone.weights={}/squeezenet.pth",), "another architecture"),
    "a damaged file": (("backbone.weights={}/damaged.ckpt",), "damaged"),
    "weights of a later stage's network": (
        (
            "method=rkd_classification",
            "method.teacher.backbone=resnet20",
            "method.teacher.backbone.weights={}/squeezenet.pth",
        ),
        "another architecture",
    ),
    "a checkpoint of other classes": (("method=crt", "method.start_from={}/run"), "classes"),
    "a damaged checkpoint": (("method=crt", "method.start_from={}/damaged.ckpt"), "damaged"),
    "a damaged teacher of a further term": (
        ("+method.extras=[{{_target_: ltr.methods.distillation.terms.RKD, teacher: {}/damaged.ckpt}}]",),
        "damaged",
    ),
    "a further term's teacher of other classes": (
        ("+method.extras=[{{_target_: ltr.methods.distillation.terms.HKD, teacher: {}/run}}]",),
        "classes",
    ),
    "an expert's teacher of other classes": (("method=ride_distill", "method.teacher.start_from={}/run"), "classes"),
    "more groups than images": (
        (*BACKGROUND, "method.aux.partition=kmeans", "method.aux.features=pixels", "method.aux.groups=5000"),
        "method.aux.groups=5000",
    ),
    "a rank that the data lack": ((*BACKGROUND, "method.aux.partition=supercategories"), "no taxonomy"),
    "a teacher of another architecture": (
        (
            *BACKGROUND,
            "method.aux.partition=teacher",
            "method.aux.teacher.name=resnet18",
            "method.aux.teacher.weights={}/squeezenet.pth",
        ),
        "fc.weight",
    ),
    "excluded outputs that a teacher lacks": (
        (*BACKGROUND, "method.aux.run={}/run", "method.aux.exclude_classes=[77]"),
        "77",
    ),
    "three networks in two processes": (("method=arpl_cs", "dataset=digits_open", *TWO), "one process"),
    "processes without images": (
        (
            "dataset.val=train_fraction",
            "dataset.val_fraction=0.001",
            "strategy=ddp",
            "trainer.devices=20",
            "batch_size=40",
        ),
        "val images for 20 processes",
    ),
    "nothing to resume": (("resume=must",), "nothing to resume"),
}


@pytest.mark.parametrize(("overrides", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_the_plan_refuses_what_the_start_refuses(ltr_train, weights, monkeypatch, overrides, message):
    def never(*arguments):
        raise AssertionError("trained")

    monkeypatch.setattr(ImageClassifier, "training_step", never)
    command = (*FAST, *(text.format(weights) for text in overrides))
    planned = ltr_train(*command, "stages=plan")
    assert planned.code in (1, 2), planned.out
    assert message in planned.err
    assert not list(planned.outputs.rglob("*"))
    if "strategy=ddp" not in overrides:  # a start of several processes is another command
        started = ltr_train(*command)
        assert (started.code, started.err) == (planned.code, planned.err)
        assert not list(started.outputs.rglob("*.ckpt"))
