"""The CIFAR ResNets against the paper's numbers and a reference implementation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ltr.errors import ConfigError
from ltr.models.cifar_resnet import CifarResNet
from ltr.models.heads import LinearHead


def restated(
    state: dict[str, Tensor], images: Tensor, blocks: int, padding: str, training: bool, reduction: str = "stride"
) -> list[Tensor]:
    """The network from its paper, layer by layer, nothing in place: maps of the three stages, then the features."""

    def convolve(x: Tensor, name: str, stride: int = 1) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], stride=stride, padding=1)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = state[f"{name}.running_mean"].clone(), state[f"{name}.running_var"].clone()
        return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"], training, 0.1, 1e-5)

    x = F.relu(norm(convolve(images, "conv1"), "bn1"))
    outputs = []
    for stage in (1, 2, 3):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = F.relu(norm(convolve(x, f"{name}.conv1", stride), f"{name}.bn1"))
            y = norm(convolve(y, f"{name}.conv2"), f"{name}.bn2")
            if stride == 2:
                corners = [x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
                rows = corners[0] if reduction == "stride" else sum(corners) / 4
                missing = torch.zeros_like(rows)
                half = missing.shape[1] // 2
                sides = [missing[:, :half], rows, missing[:, half:]] if padding == "both" else [rows, missing]
                x = torch.cat(sides, dim=1)
            x = F.relu(x + y)
        outputs.append(x)
    return [*outputs, F.adaptive_avg_pool2d(x, 1).flatten(1)]


def randomised(network: CifarResNet) -> CifarResNet:
    generator = torch.Generator().manual_seed(3)
    for name, tensor in network.state_dict().items():
        if "bn" in name and tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return network.double()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("padding", "reduction"), [("both", "stride"), ("after", "stride"), ("both", "average")])
def test_resnet32_equals_a_reference_implementation_in_float64(padding, reduction, training):
    network = randomised(CifarResNet(3, depth=32, shortcut_padding=padding, shortcut_reduction=reduction))
    network.train(training)
    images = torch.randn(3, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = restated(dict(network.state_dict()), images, 5, padding, training, reduction)
    features, maps = network.features_and_maps(images)
    for actual, expected_map in zip([*maps, features], expected, strict=True):
        torch.testing.assert_close(actual, expected_map, rtol=1e-10, atol=1e-10)


def test_gradients_equal_those_of_the_reference_implementation():
    network = randomised(CifarResNet(3, depth=14))
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    target = torch.randn(4, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    actual = torch.autograd.grad((network(images) * target).sum(), list(network.parameters()))
    state = {**network.state_dict(keep_vars=True)}
    expected = torch.autograd.grad(
        (restated(state, images, 2, "both", True)[-1] * target).sum(), list(network.parameters())
    )
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-8)


def test_resnet32_with_ten_classes_has_464154_parameters():
    network, head = CifarResNet(3, depth=32), LinearHead(64, 10)
    assert sum(p.numel() for part in (network, head) for p in part.parameters()) == 464_154


@pytest.mark.parametrize(("depth", "layers"), [(20, 19), (44, 43), (56, 55)])
def test_depth_counts_convolutions_and_the_classifier(depth, layers):
    network = CifarResNet(3, depth=depth)
    assert sum(isinstance(module, torch.nn.Conv2d) for module in network.modules()) == layers


def test_the_two_paddings_give_different_networks_of_the_same_weights():
    both, after = CifarResNet(3, depth=8).eval(), CifarResNet(3, depth=8, shortcut_padding="after").eval()
    after.load_state_dict(both.state_dict())
    images = torch.randn(2, 3, 8, 8)
    assert not torch.allclose(both(images), after(images))


def test_an_average_at_the_border_is_over_the_pixels_inside():
    network = CifarResNet(3, depth=8, shortcut_reduction="average").eval()
    block = network.layer2[0]
    torch.nn.init.zeros_(block.bn2.weight)  # what remains is the shortcut
    image = torch.rand(1, 16, 5, 5)
    out = block(image)[:, 8:24]
    assert out.shape[2:] == (3, 3)
    torch.testing.assert_close(out[..., 2, 0], image[..., 4, :2].mean(-1))
    torch.testing.assert_close(out[..., 2, 2], image[..., 4, 4])


def test_glorot_weights_are_uniform_with_the_mean_number_of_inputs_and_outputs():
    weight = CifarResNet(3, depth=32, initial="glorot").layer3[0].conv1.weight
    bound = (6 / (9 * (32 + 64))) ** 0.5
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert 0.99 * bound < weight.abs().max().item() <= bound


def test_convolutions_start_kaiming_normal():
    weight = CifarResNet(3, depth=32).layer3[1].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)


@pytest.mark.parametrize("depth", [0, 18, 33])
def test_a_depth_that_is_not_6n_plus_2_is_refused(depth):
    with pytest.raises(ConfigError, match="20, 32, 44, 56"):
        CifarResNet(3, depth=depth)


def test_an_unknown_padding_is_refused():
    with pytest.raises(ConfigError, match="both, after"):
        CifarResNet(3, shortcut_padding="before")


@pytest.mark.parametrize("option", [{"shortcut_reduction": "maximum"}, {"initial": "zeros"}])
def test_unknown_reductions_and_initial_weights_are_refused(option):
    (name,) = option
    with pytest.raises(ConfigError, match=f"backbone.{name}"):
        CifarResNet(3, **option)
