"""Teachers: the published network to the bit, its last layer, and weights that do not fit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import timm
import torch
import torchvision

from ltr.errors import CheckpointError, ConfigError
from ltr.models.teachers import Teacher
from ltr.models.weights import seeded_construction

MODELS = [("torchvision", "resnet18"), ("torchvision", "squeezenet1_1"), ("timm", "resnet10t")]


def model(library: str, name: str, outputs: int = 20) -> torch.nn.Module:
    with seeded_construction(1):
        make = timm.create_model if library == "timm" else torchvision.models.get_model
        return make(name, num_classes=outputs).eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    for library, name in MODELS:
        torch.save(model(library, name).state_dict(), folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for _, name in MODELS}


def teacher(files, library="torchvision", name="resnet18", **options) -> Teacher:
    return Teacher(library=library, name=name, weights=str(files[name]), **{"image_size": None, **options})


def images(channels: int = 3, size: int = 40) -> torch.Tensor:
    return torch.rand(3, channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("library", "name"), MODELS)
def test_logits_are_those_of_the_model_itself(files, library, name):
    network, x = teacher(files, library, name), images()
    with torch.no_grad():
        expected = model(library, name)(network.preprocess(x))
        torch.testing.assert_close(network(x)[0], expected, rtol=1e-4, atol=1e-5)
    assert network.num_classes == 20


@pytest.mark.parametrize(("library", "name"), [m for m in MODELS if m[1] != "squeezenet1_1"])
def test_the_last_layer_makes_the_logits_of_the_features(files, library, name):
    network = teacher(files, library, name)
    weight, bias = network.last_layer()
    with torch.no_grad():
        logits, features = network(images())
    torch.testing.assert_close(logits, features @ weight.T + bias, rtol=1e-4, atol=1e-4)


def test_squeezenets_last_layer_is_its_convolution_to_the_classes(files):
    network = teacher(files, name="squeezenet1_1")
    weight, bias = network.last_layer()
    assert weight.shape == (20, 512)
    assert bias.shape == (20,)
    assert network(images())[1].shape == (3, 512)


def test_a_teacher_is_not_trained_and_stays_in_eval_mode(files):
    network = teacher(files)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.training


def test_images_are_normalised_without_augmentation(files):
    network, x = teacher(files), images()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(network.preprocess(x), (x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))


def test_images_are_resized_to_the_teachers_size(files):
    x = torch.zeros(1, 3, 8, 8)
    x[:, :, 0] = 1.0  # the upper edge
    resized = teacher(files, image_size=32, mean=[0.0] * 3, std=[1.0] * 3).preprocess(x)
    assert resized.shape == (1, 3, 32, 32)
    assert (resized[0, 0, 0] > 0.9).all()
    assert (resized[0, 0, 8:] == 0).all()


def test_a_grey_image_is_repeated_in_all_channels(files):
    network = teacher(files, mean=[0.0] * 3, std=[1.0] * 3)
    x = images(channels=1)
    assert torch.equal(network.preprocess(x), x.expand(-1, 3, -1, -1))


def test_other_channels_are_refused(files):
    with pytest.raises(ConfigError, match="takes 3 channels and the images have 2"):
        teacher(files)(images(channels=2))


@pytest.mark.parametrize(("library", "name"), MODELS)
def test_outputs_that_are_not_those_of_the_weights_are_refused(files, library, name):
    with pytest.raises(ConfigError, match=r"num_classes=7, but .* has 20 outputs"):
        teacher(files, library, name, num_classes=7)


def test_weights_of_another_network_are_refused(files):
    with pytest.raises(CheckpointError, match=r"the file has no fc\.weight"):
        Teacher(library="torchvision", name="resnet18", weights=str(files["squeezenet1_1"]))


def test_a_file_with_a_layer_missing_is_refused(files, tmp_path):
    state = torch.load(files["resnet18"], weights_only=True)
    del state["layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match=r"layer1\.0\.conv1\.weight"):
        Teacher(library="torchvision", name="resnet18", weights=str(tmp_path / "part.pth"))


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_an_unknown_name_is_refused_with_a_hint(files, library):
    with pytest.raises(ConfigError, match="Did you mean 'resnet18'"):
        Teacher(library=library, name="resnet188", weights=str(files["resnet18"]))


@pytest.mark.parametrize("weights", [{}, {"pretrained": True, "weights": "file.pth"}])
def test_weights_are_given_in_exactly_one_way(weights):
    with pytest.raises(ConfigError, match="needs one of them"):
        Teacher(library="torchvision", name="resnet18", **weights)


def test_building_a_teacher_does_not_advance_the_global_generator(files):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    teacher(files)
    assert torch.equal(before, torch.get_rng_state())


def test_imagenets_squeezenet_predicts_different_classes(cifar_root):
    weights = Path(os.environ.get("LTR_WEIGHTS", "")) / "squeezenet1_0_imagenet.pth"
    if not weights.is_file():
        pytest.skip("LTR_WEIGHTS does not point to a folder with squeezenet1_0_imagenet.pth")
    from ltr.data.sources.cifar import cifar10

    source = cifar10(root=str(cifar_root))
    network = Teacher(library="torchvision", name="squeezenet1_0", weights=str(weights), image_size=64)
    pixels = torch.tensor(source.images[:64]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        classes = network(pixels)[0].argmax(1)
    assert len(classes.unique()) > 10


def test_a_size_that_a_teacher_cannot_take_is_refused_when_it_is_built(tmp_path):
    weights = tmp_path / "w.pth"
    torch.save(torchvision.models.squeezenet1_0(num_classes=3).state_dict(), weights)
    with pytest.raises(ConfigError, match=r"cannot take .* 8 x 8 pixels .*method\.aux\.teacher\.image_size="):
        Teacher(library="torchvision", name="squeezenet1_0", weights=str(weights), image_size=8)
    teacher = Teacher(library="torchvision", name="squeezenet1_0", weights=str(weights), image_size=None)
    with pytest.raises(ConfigError, match="cannot take images of 8 x 8"):
        teacher.check_size((3, 8, 8))
    teacher.check_size((3, 32, 32))
