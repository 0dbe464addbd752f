"""Tuning a part of a backbone: what is trained, what is added, and that nothing else changes."""

from __future__ import annotations

import sys

import pytest
import timm
import torch
from torch import nn

import ltr
from ltr.data.batch import Batch
from ltr.errors import ConfigError
from ltr.methods.core.network import ImageClassifier
from ltr.models.backbones import Backbone
from ltr.models.cifar_resnet import CifarResNet
from ltr.models.timm_backbone import TimmBackbone
from ltr.models.torchvision_backbone import TorchvisionBackbone
from ltr.models.tuning import (
    TuneAll,
    TuneBias,
    TuneLastBlock,
    TuneNone,
    TuneNorm,
    Tuning,
    hold_frozen_parts,
    is_norm,
)
from ltr.models.tuning_adapter import TuneAdapter
from ltr.models.tuning_lora import TuneLoRA
from ltr.models.tuning_prompts import TunePrompts
from ltr.models.weights import seeded_construction

VIT, CONV = (3, 160, 160), (3, 32, 32)
TUNINGS = {
    "all": TuneAll(),
    "none": TuneNone(),
    "last_block": TuneLastBlock(),
    "norm": TuneNorm(),
    "bias": TuneBias(),
    "lora": TuneLoRA(rank=3, alpha=6),
    "adapter": TuneAdapter(bottleneck=5),
    "vpt": TunePrompts(tokens=4),
}
WIDTH, BLOCKS = 64, 6  # of timm's test_vit
kinds = pytest.mark.parametrize("kind", TUNINGS)


def vit() -> TimmBackbone:
    with seeded_construction(0):
        return TimmBackbone(3, name="test_vit").eval()


def conv() -> CifarResNet:
    with seeded_construction(0):
        return CifarResNet(3, depth=8).eval()


def tuned(backbone: Backbone, tuning: Tuning, image_shape: tuple[int, int, int] = VIT) -> Backbone:
    with seeded_construction(1):
        tuning.prepare(backbone, image_shape)
    return backbone.eval()


def trained(backbone: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in backbone.named_parameters() if parameter.requires_grad}


def count(backbone: nn.Module) -> int:
    return sum(parameter.numel() for parameter in trained(backbone).values())


@kinds
def test_before_the_first_step_a_tuned_transformer_equals_the_frozen_one(kind):
    images = torch.randn(2, *VIT)
    with torch.no_grad():
        before, after = vit()(images), tuned(vit(), TUNINGS[kind])(images)
    assert torch.equal(before, after) == (kind != "vpt")  # random prompts take part in the attention from the start


@pytest.mark.parametrize("kind", [kind for kind in TUNINGS if kind not in ("adapter", "vpt")])
def test_before_the_first_step_a_tuned_convolutional_network_equals_the_frozen_one(kind):
    images = torch.randn(2, *CONV)
    with torch.no_grad():
        assert torch.equal(conv()(images), tuned(conv(), TUNINGS[kind], CONV)(images))


def test_numbers_of_trained_parameters_follow_their_formulas():
    patches_and_heads = vit()
    norms = [module for module in patches_and_heads.modules() if is_norm(module)]
    assert count(tuned(vit(), TuneNone())) == 0
    assert count(tuned(vit(), TuneNorm())) == len(norms) * 2 * WIDTH
    layers = [m for m in patches_and_heads.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.LayerNorm))]
    assert count(tuned(vit(), TuneBias())) == sum(layer.bias.numel() for layer in layers if layer.bias is not None)
    qkv_and_proj = (WIDTH + 3 * WIDTH) + (WIDTH + WIDTH)
    assert count(tuned(vit(), TuneLoRA(rank=3))) == BLOCKS * 3 * qkv_and_proj
    assert count(tuned(vit(), TuneLoRA(rank=3, targets=["proj"]))) in (
        BLOCKS * 3 * 2 * WIDTH,
        BLOCKS * 3 * 2 * WIDTH + 3 * (3 * 16 * 16 + WIDTH),  # the patches' projection has the name, too
    )
    assert count(tuned(vit(), TuneAdapter(bottleneck=5))) == BLOCKS * (2 * WIDTH * 5 + 5 + WIDTH)
    assert count(tuned(vit(), TunePrompts(tokens=4))) == BLOCKS * 4 * WIDTH


def test_the_update_of_a_convolution_has_a_spatial_and_a_pointwise_part():
    backbone = tuned(conv(), TuneLoRA(rank=2), CONV)
    convolutions = [m for m in conv().modules() if isinstance(m, nn.Conv2d)][1:]
    assert count(backbone) == sum(2 * 9 * layer.in_channels + 2 * layer.out_channels for layer in convolutions)


def test_pointwise_convolutions_are_tuned_without_attention():
    backbone = tuned(TimmBackbone(3, name="test_efficientnet"), TuneLoRA(rank=2), CONV)
    layers = {name.split(".lora_")[0] for name in trained(backbone)}
    assert layers
    assert all(backbone.get_submodule(path).base_layer.kernel_size == (1, 1) for path in layers)


def expected_names(kind: str, backbone: nn.Module) -> list[str]:
    of_norms = {id(p) for module in backbone.modules() if is_norm(module) for p in module.parameters()}
    rules = {
        "all": lambda name, p: True,
        "none": lambda name, p: False,
        "last_block": lambda name, p: name.startswith(f"net.blocks.{BLOCKS - 1}."),
        "norm": lambda name, p: id(p) in of_norms,
        "bias": lambda name, p: name.endswith("bias"),
        "lora": lambda name, p: ".lora_" in name,
        "adapter": lambda name, p: ".mlp.down." in name or ".mlp.up." in name,
        "vpt": lambda name, p: name.endswith(".prompts"),
    }
    return [name for name, parameter in backbone.named_parameters() if rules[kind](name, parameter)]


@kinds
def test_only_the_named_parameters_get_gradients_and_change(kind):
    backbone = tuned(vit(), TUNINGS[kind])
    before = {name: parameter.clone() for name, parameter in backbone.named_parameters()}
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1)), *backbone.parameters()], lr=0.1, weight_decay=0.1)
    for _ in range(2):  # what stands behind a zero matrix has no gradient in the first step
        optimizer.zero_grad()
        features = backbone(torch.randn(2, *VIT))
        if kind != "none":
            features.square().mean().backward()
        with_gradient = [name for name, parameter in backbone.named_parameters() if parameter.grad is not None]
        optimizer.step()
    assert with_gradient == expected_names(kind, backbone)
    changed = [name for name, parameter in backbone.named_parameters() if not torch.equal(parameter, before[name])]
    assert set(changed) <= set(with_gradient)
    assert bool(changed) == (kind != "none")


@pytest.mark.parametrize(("make", "shape"), [(vit, VIT), (conv, CONV)])
def test_a_merged_update_gives_the_same_features_with_the_names_of_the_base(make, shape):
    tuning = TuneLoRA(rank=3, alpha=6)
    backbone = tuned(make(), tuning, shape)
    with torch.no_grad():
        for parameter in trained(backbone).values():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        images = torch.randn(2, *shape)
        before = backbone(images)
        assert not torch.allclose(before, make()(images), atol=1e-3)
        tuning.merge(backbone)
        torch.testing.assert_close(backbone(images), before, atol=1e-4, rtol=1e-4)
    assert list(backbone.state_dict()) == list(make().state_dict())


def test_the_adapter_is_equation_four_of_its_paper():
    backbone = tuned(vit(), TuneAdapter(bottleneck=5, scale=0.7))
    adapted = backbone.net.blocks[0].mlp
    nn.init.normal_(adapted.up.weight)
    nn.init.normal_(adapted.up.bias)
    tokens = torch.randn(2, 7, WIDTH)
    with torch.no_grad():
        low = (tokens.double() @ adapted.down.weight.double().T + adapted.down.bias.double()).clamp_min(0)
        expected = adapted.mlp(tokens).double() + 0.7 * (low @ adapted.up.weight.double().T + adapted.up.bias.double())
        torch.testing.assert_close(adapted(tokens).double(), expected, atol=1e-5, rtol=1e-5)


def test_prompts_enter_each_block_after_the_class_token_and_leave_it():
    backbone = tuned(vit(), TunePrompts(tokens=4))
    frozen, images = vit().net, torch.randn(1, *VIT)
    with torch.no_grad():
        tokens = frozen.norm_pre(frozen._pos_embed(frozen.patch_embed(images)))
        number = tokens.shape[1]
        for block, with_prompts in zip(frozen.blocks, backbone.net.blocks, strict=True):
            joined = block(torch.cat([tokens[:, :1], with_prompts.prompts, tokens[:, 1:]], 1))
            tokens = torch.cat([joined[:, :1], joined[:, 5:]], 1)
            assert tokens.shape[1] == number
        expected = frozen.forward_head(frozen.norm(tokens))
        torch.testing.assert_close(backbone(images), expected)
        torch.testing.assert_close(backbone.features_and_maps(images)[0], expected)


# -- modes ----------------------------------------------------------------------------------------------------------


def classifier(tune: str, **options) -> ImageClassifier:
    return ltr.build("erm", num_classes=3, backbone="resnet20", tune=tune, **options)


def batch_of(images: torch.Tensor) -> Batch:
    return Batch(images, torch.arange(len(images)) % 3, torch.arange(len(images)))


@pytest.mark.parametrize(("tune", "moves"), [("none", False), ("bias", False), ("lora", False), ("norm", True)])
def test_batch_statistics_are_updated_only_where_the_norm_is_trained(tune, moves):
    network = classifier(tune).train()
    before = {name: buffer.clone() for name, buffer in network.backbone.named_buffers()}
    network.training_step(batch_of(torch.rand(6, *CONV)), 0)
    statistics = [name for name in before if name.endswith(("running_mean", "running_var"))]
    moved = [name for name in statistics if not torch.equal(before[name], network.backbone.get_buffer(name))]
    assert moved == (statistics if moves else [])


def test_only_the_last_block_updates_its_statistics():
    network = classifier("last_block").train()
    inside = set(network.backbone.last_block().modules())
    norms = [module for module in network.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [norm.training for norm in norms] == [norm in inside for norm in norms]


def test_a_frozen_backbone_stays_in_evaluation_mode():
    network = classifier("none")
    network.train()
    assert network.training
    assert not any(module.training for module in network.backbone.modules())
    hold_frozen_parts(network.backbone.train())
    assert not network.backbone.training


def test_the_initial_head_does_not_depend_on_tuning():
    assert torch.equal(classifier("lora").head.weight, classifier("all").head.weight)
    assert classifier("all").tuning is None


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tuning", "make", "shape", "message"),
    [
        (TuneAdapter(), conv, CONV, "tune=adapter: CifarResNet has no transformer blocks"),
        (TunePrompts(), conv, CONV, "tune=vpt: CifarResNet has no transformer blocks"),
        (TuneLoRA(targets=["qvk"]), vit, VIT, r"tune.targets=\['qvk'\].*called .*Did you mean 'qkv'"),
        (TuneLoRA(targets=[]), vit, VIT, r"tune.targets=\[\]"),
    ],
)
def test_tunings_that_a_backbone_does_not_support_are_refused(tuning, make, shape, message):
    with pytest.raises(ConfigError, match=message):
        tuning.prepare(make(), shape)


def test_a_network_without_normalisation_is_refused():
    with pytest.raises(ConfigError, match="tune=norm: squeezenet1_1 has no normalisation layer"):
        TuneNorm().prepare(TorchvisionBackbone(3, name="squeezenet1_1"), CONV)


def test_prompts_are_refused_for_attention_with_relative_positions():
    for name in ("test_vit_relpos", "swin_tiny_patch4_window7_224"):
        with pytest.raises(ConfigError, match="takes no further tokens"):
            TunePrompts().prepare(TimmBackbone(3, name=name), VIT)


def test_layers_that_are_not_called_as_modules_have_no_update():
    backbone = vit()
    attention = backbone.net.blocks[0].attn
    attention.forward = lambda x, *_, **__: nn.functional.linear(x, attention.qkv.weight[:WIDTH])
    paths = TuneLoRA(targets=["qkv"]).paths(backbone, VIT)
    assert "net.blocks.0.attn.qkv" not in paths
    assert "net.blocks.1.attn.qkv" in paths


def test_without_peft_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install 'ltr\[tune\]'"):
        TuneLoRA().prepare(vit(), VIT)


def test_contradictory_choices_of_trained_parameters_are_refused():
    with pytest.raises(ConfigError, match=r"tune and backbone.trainable=none both choose"):
        ltr.train(["debug=fast", "tune=norm", "backbone.trainable=none", "stages=plan"], quiet=True)
    with pytest.raises(ConfigError, match=r"tune=norm trains a part .* features=stored keeps the backbone fixed"):
        ltr.train(["debug=fast", "tune=norm", "features=stored", "stages=plan"], quiet=True)


def test_the_normalisation_layers_of_timm_are_known_without_importing_it():
    assert all(
        is_norm(layer) for layer in (timm.layers.RmsNorm(4), timm.layers.RmsNorm2d(4), timm.layers.LayerNorm2d(4))
    )
    assert not is_norm(timm.layers.Mlp(4))
