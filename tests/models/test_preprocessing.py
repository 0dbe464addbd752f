"""Preprocessing of images for pretrained weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import ltr
from ltr.data.images.crop import FileCrop
from ltr.data.loaders.device import ResidentImages
from ltr.errors import ConfigError
from ltr.models.preprocessing import timm_preprocessing, torchvision_preprocessing
from ltr.runs.image_size import preprocessing_note
from ltr.runs.keys import run_hash

LITE = ["backbone=timm", "backbone.name=tf_efficientnet_lite0"]
FILE = "backbone.weights=lite.pth"


def test_timm_describes_its_models():
    described = timm_preprocessing("tf_efficientnet_lite2", True, None)
    assert (described.mean, described.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert (described.size, described.resize, described.interpolation) == (260, 292, "bicubic")


def test_without_weights_there_is_no_preprocessing():
    assert timm_preprocessing("tf_efficientnet_lite2", False, None) is None
    assert torchvision_preprocessing("resnet50", False, None) is None
    assert timm_preprocessing("no_such_model", True, None) is None


def test_a_file_is_described_by_the_weights_whose_file_has_its_name():
    first = torchvision_preprocessing("resnet50", False, "somewhere/resnet50-0676ba61.pth")
    assert (first.resize, first.resize_for(224)) == (256, None)
    other = torchvision_preprocessing("resnet50", False, "somewhere/of_another_name.pth")
    assert (other.resize, other.resize_for(224), other.resize_for(112)) == (232, 232, 116)


def test_a_checkpoint_of_ltr_brings_its_normalisation(tmp_path):
    from ltr.methods.core.checkpoint import network_checkpoint, write_checkpoint

    network = ltr.build("erm", num_classes=2, backbone="resnet20", mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    write_checkpoint(tmp_path / "weights.ckpt", network_checkpoint(network, {}))
    of_weights = ltr.config(["dataset=cifar10_lt", f"backbone.weights={tmp_path / 'weights.ckpt'}"])["dataset"]
    assert (of_weights["mean"], of_weights["std"]) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])


def test_weights_set_the_preprocessing_of_the_config():
    dataset = ltr.config(["dataset=cub", "backbone=timm", "backbone.name=tf_efficientnet_lite2", FILE])["dataset"]
    assert (dataset["mean"], dataset["std"]) == ([0.5] * 3, [0.5] * 3)
    assert (dataset["image_size"], dataset["image_resize"], dataset["interpolation"]) == (260, 292, "bicubic")


def test_random_weights_use_the_preprocessing_of_the_data_set():
    dataset = ltr.config(["dataset=cub", *LITE])["dataset"]
    assert dataset["mean"] == [0.485, 0.456, 0.406]
    assert (dataset["image_size"], dataset["image_resize"], dataset["interpolation"]) == (224, None, None)


def test_preprocessing_given_in_the_config_takes_precedence():
    config = ltr.config(["dataset=cub", *LITE, FILE, "dataset.image_size=128", "dataset.mean=[0.1,0.2,0.3]"])
    assert (config["dataset"]["image_size"], config["dataset"]["mean"]) == (128, [0.1, 0.2, 0.3])
    assert config["dataset"]["std"] == [0.5] * 3
    assert config["augment"]["files"]["interpolation"] == "bicubic"
    note = preprocessing_note(config, (3, 128, 128))
    assert "mean [0.1, 0.2, 0.3]" in note
    assert "of the weights themselves: mean [0.5, 0.5, 0.5], size 224" in note


def test_grey_images_take_the_mean_over_the_colours():
    dataset = ltr.config(
        ["dataset=digits_lt", "backbone=torchvision", "backbone.name=resnet18", "backbone.weights=f.pth"]
    )
    assert dataset["dataset"]["mean"] == pytest.approx([(0.485 + 0.456 + 0.406) / 3])


def test_the_preprocessing_is_reported_only_with_weights():
    assert preprocessing_note(ltr.config(["dataset=cub", *LITE]), (3, 224, 224)) == ""
    undescribed = ltr.config(["dataset=cifar10_lt", "backbone.weights=other.pth"])
    assert "do not describe it" in preprocessing_note(undescribed, (3, 32, 32))


def test_files_are_resized_as_pillow_does_it(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    cut = FileCrop(16, resize=20, interpolation="bicubic").read(image, None)
    box = FileCrop(16, resize=20).centre_box(60, 40)
    assert np.array_equal(cut, np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC, box=box)))
    assert not np.array_equal(cut, FileCrop(16, resize=20).read(image, None))
    with pytest.raises(ConfigError, match=r"interpolation=nearest: allowed is one of: null, bilinear, bicubic"):
        FileCrop(16, interpolation="nearest")


def test_resized_small_images_use_the_interpolation_of_the_weights():
    own = ltr.config(["dataset=cifar10_lt", *LITE, FILE])["dataset"]
    assert (own["mean"], own["interpolation"]) == ([0.5] * 3, None)
    wide = ltr.config(["dataset=cifar10_lt", *LITE, FILE, "dataset.resize_to=96"])["dataset"]
    assert wide["interpolation"] == "bicubic"


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_arrays_are_resized_as_pillow_does_it(interpolation):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    taken = ResidentImages(pixels, side=24, interpolation=interpolation).take(torch.tensor([0]))
    mode = Image.Resampling[interpolation.upper()]
    for channel, resized in enumerate(taken[0].numpy()):
        wide = Image.fromarray(pixels[0, :, :, channel].astype(np.float32)).resize((24, 24), mode)
        assert np.abs(resized - np.asarray(wide).clip(0, 255)).max() <= 0.501


def test_an_explicit_default_interpolation_is_the_same_run():
    usual = ltr.config(["dataset=cub"])
    assert run_hash(ltr.config(["dataset=cub", "dataset.interpolation=bilinear"])) == run_hash(usual)
    assert run_hash(ltr.config(["dataset=cub", "dataset.interpolation=bicubic"])) != run_hash(usual)
