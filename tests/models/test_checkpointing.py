"""Activation checkpointing: the same numbers from less memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ltr.models.backbones import Backbone
from ltr.models.checkpointing import checkpoint_blocks, find_blocks
from ltr.models.cifar_resnet import CifarResNet
from ltr.models.digits_net import DigitsNet
from ltr.models.timm_backbone import TimmBackbone
from ltr.models.torchvision_backbone import TorchvisionBackbone


class WithDropout(Backbone):
    """A CIFAR ResNet whose blocks drop values."""

    def __init__(self) -> None:
        super().__init__()
        self.net = CifarResNet(3, depth=14)
        for block in [*self.net.layer1, *self.net.layer2]:
            block.bn2 = nn.Sequential(block.bn2, nn.Dropout(0.3))

    def forward(self, images):
        return self.net(images)


BACKBONES = {
    "digits_net": lambda: DigitsNet(3),
    "cifar_resnet": lambda: CifarResNet(3, depth=14),
    "dropout": WithDropout,
    "torchvision": lambda: TorchvisionBackbone(3, name="resnet18", weights=None, pretrained=False),
    "timm": lambda: TimmBackbone(3, name="resnet10t", weights=None, pretrained=False),
}


def drawn(name: str) -> nn.Module:
    torch.manual_seed(0)
    return BACKBONES[name]().train()


def passed(backbone: nn.Module, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], int]:
    """Return gradients and state after a forward and a backward pass, and the bytes kept between the two."""
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = backbone(images).square().sum()
    between = sum(kept.values())
    out.backward()
    gradients = {name: parameter.grad for name, parameter in backbone.named_parameters()}
    return {"out": out.detach(), **gradients, **dict(backbone.named_buffers())}, between


@pytest.mark.parametrize("name", BACKBONES)
def test_gradients_and_statistics_are_bit_equal_to_those_without_checkpointing(name):
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    whole, much = passed(drawn(name), images)
    backbone = drawn(name)
    assert len(checkpoint_blocks(backbone)) >= 3
    again, little = passed(backbone, images)
    assert whole.keys() == again.keys()
    assert [key for key in whole if not torch.equal(whole[key], again[key])] == []
    assert little < 0.7 * much


def test_blocks_are_residual_blocks_and_stages_of_plain_layers():
    residual = CifarResNet(3, depth=14)
    assert find_blocks(residual) == [*residual.layer1, *residual.layer2, *residual.layer3]
    plain = DigitsNet(1)
    assert find_blocks(plain) == [plain.stage1, plain.stage2, plain.stage3]


def test_names_of_weights_do_not_change():
    plain, backbone = CifarResNet(3, depth=8), CifarResNet(3, depth=8)
    checkpoint_blocks(backbone)
    assert plain.state_dict().keys() == backbone.state_dict().keys()


def test_nothing_is_recomputed_in_eval_mode_or_without_gradients(monkeypatch):
    backbone = CifarResNet(3, depth=8).eval()
    checkpoint_blocks(backbone)
    calls = []

    def counted(block, *arguments, **named):
        calls.append(block)
        return block(*arguments)

    monkeypatch.setattr("ltr.models.checkpointing.checkpoint", counted)
    backbone(torch.zeros(2, 3, 8, 8))
    with torch.no_grad():
        backbone.train()(torch.zeros(2, 3, 8, 8))
    assert calls == []
    backbone.train()(torch.zeros(2, 3, 8, 8))
    assert len(calls) == len(find_blocks(backbone))


def test_a_deep_copy_does_not_share_weights():
    backbone = CifarResNet(3, depth=8).eval()
    checkpoint_blocks(backbone)
    copied = copy.deepcopy(backbone)
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = copied(images)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.zero_()
    assert torch.equal(copied(images), before)
    assert before.any()


def test_a_second_step_starts_from_the_statistics_of_the_first():
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    plain, backbone = drawn("digits_net"), drawn("digits_net")
    checkpoint_blocks(backbone)
    for _ in range(2):
        passed(plain, images)
        passed(backbone, images)
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), backbone.state_dict().values()))
