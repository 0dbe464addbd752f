"""Images that a backbone cannot take, or of which it leaves a border out, are refused before anything is trained."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ltr.configuration.configs import read_config, without_private
from ltr.errors import ConfigError
from ltr.methods.core.checkpoint import describe
from ltr.models.backbones import config_for_image_size
from ltr.models.probing import ignored_share, probe
from ltr.runs.image_size import check_backbone

FILES, ARRAYS = {"image_size": 60}, {}


def config(kind: str, **values) -> dict:
    return {**without_private(read_config(f"backbone/{kind}")), **values}


@pytest.mark.parametrize(
    ("backbone", "side", "message"),
    [
        (config("timm", name="test_vit"), 60, "Set dataset.image_size=48 or 64"),
        (config("timm", name="test_vit", img_size=60), 60, "=48 or 64 and backbone.img_size=null"),
        (config("torchvision", name="squeezenet1_0"), 8, "images of 8 x 8 pixels cannot be taken"),
        (config("torchvision", name="inception_v3"), 32, "Set dataset.image_size=96"),
    ],
)
def test_a_size_that_does_not_fit_is_refused_with_sizes_that_do(backbone, side, message):
    state = torch.get_rng_state()
    with pytest.raises(ConfigError) as refused:
        check_backbone(backbone, (3, side, side), FILES)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("backbone", "side"),
    [
        (config("resnet32"), 7),
        (config("classifier32"), 30),
        (config("digits_net"), 8),
        (config("timm", name="test_vit"), 64),
        (config("timm", name="test_resnet"), 31),
        (config("torchvision", name="resnet18"), 33),
    ],
)
def test_an_accepted_size_advances_no_random_generator(backbone, side):
    state = torch.get_rng_state()
    check_backbone(backbone, (3, side, side), ARRAYS)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_size_of_arrays_cannot_be_set():
    with pytest.raises(ConfigError, match=r"Use another backbone; this one takes 21|22|24 pixels"):
        check_backbone(config("torchvision", name="squeezenet1_0"), (1, 8, 8), ARRAYS)


def test_a_model_is_built_for_the_image_size_if_it_needs_one():
    vit = config("timm", name="vit_tiny_patch16_224")
    assert config_for_image_size(vit, (3, 64, 64))["img_size"] == 64
    assert config_for_image_size(vit, (3, 32, 64))["img_size"] == (32, 64)
    assert config_for_image_size(vit, (3, 224, 224)) == vit  # what it is made for
    assert config_for_image_size({**vit, "img_size": 96}, (3, 64, 64))["img_size"] == 96
    for name in ("test_resnet", "test_vit"):  # these take any size, or any multiple of 16
        assert config_for_image_size(config("timm", name=name), (3, 64, 64))["img_size"] is None
    assert config_for_image_size(config("resnet32"), (3, 64, 64)) == config("resnet32")


class Patches(nn.Module):
    """Patches of 4 pixels, of which a convolution over them sees the neighbours, too."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 4, 4, 4)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.patches(images).mean((2, 3), keepdim=True)).flatten(1)


def test_the_share_of_ignored_pixels_is_measured():
    network = Patches()
    assert ignored_share(network, (1, 10, 8)) == pytest.approx(0.2)
    assert ignored_share(network, (1, 8, 8)) == 0.0
    assert network.training


def test_a_probe_does_not_change_modes_and_buffers():
    network = Patches()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    seen = probe(network, network, (1, 10, 8))
    assert seen.single_values == ["norm"]
    assert seen.cut == {"patches": 4}
    assert probe(network, network, (1, 8, 8), rows=4).single_values == []
    network.norm.eval()
    assert probe(network, network, (1, 8, 8)).single_values == []
    assert network.training
    assert not network.norm.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_an_unsupported_image_size_is_refused_and_writes_nothing(ltr_train):
    done = ltr_train("backbone=timm", "backbone.name=test_vit")
    assert done.code == 2
    assert "8" in done.err
    assert "Traceback" not in done.err
    assert not list(done.outputs.rglob("*.ckpt"))


def test_a_teacher_that_does_not_support_the_image_size_is_refused_before_the_first_stage(ltr_train):
    teacher = "{_target_: ltr.models.torchvision_backbone.TorchvisionBackbone, name: squeezenet1_0}"
    done = ltr_train("method=rkd_classification", f"+method.teacher.backbone={teacher}", "trainer.max_epochs=1")
    assert done.code == 2
    assert "squeezenet1_0" in done.err


def test_a_network_of_another_size_is_rebuilt_from_its_checkpoint(ltr_train, ltr_eval, tmp_path):
    from PIL import Image

    for label, colour in (("a", 20), ("b", 200)):
        (tmp_path / "pics" / label).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (40, 40), (colour, number, 9)).save(tmp_path / "pics" / label / f"{number}.png")
    done = ltr_train(
        *("dataset=folder", f"dataset.root={tmp_path / 'pics'}", "dataset.image_size=32", "backbone=timm"),
        *(
            "backbone.name=vit_tiny_patch16_224",
            "trainer.max_epochs=1",
            "trainer.num_workers=0",
            "trainer.precision=fp32",
        ),
    )
    assert done.code == 0, done.err
    assert "is built for 32 x 32 pixels" in done.out
    weights = describe(done.directory / "checkpoints" / "final.ckpt")["state_dict"]
    assert weights["backbone.net.pos_embed"].shape[1] == 5
    assert ltr_eval(done.directory)[0] == 0


def test_a_map_of_names_without_weights_is_refused_by_the_plan(ltr_train):
    refused = ltr_train("backbone.weights_map=ldam", "stages=plan")
    assert refused.code == 2
    assert "backbone.weights_map=ldam" in refused.err
