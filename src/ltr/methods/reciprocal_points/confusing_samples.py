"""Confusing samples of ARPL+CS: a small DCGAN, and separate BatchNorm statistics for generated images."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ltr.errors import ConfigError

_SMALLEST, _LARGEST = 4, 7  # side of the generator's first map


def first_side(image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Return (side of the generator's first map, number of doublings) for images (C, H, W); (4, 3) for 32 pixels.

    Raises:
        ConfigError: images that are not square, or whose side is not 4, 5, 6 or 7 times 2, 4, 8, ...
    """
    _, height, width = image_shape
    doublings = 0
    side = height
    while side % 2 == 0 and side // 2 >= _SMALLEST:
        side, doublings = side // 2, doublings + 1
    if height != width or doublings == 0 or side > _LARGEST:
        raise ConfigError(
            f"method=arpl_cs generates images by doubling a map of {_SMALLEST} to {_LARGEST} pixels, and these are "
            f"{height}x{width}. Use square images of 8, 28, 32, 64, 96, 128, 224, ... pixels, or method=arpl"
        )
    return side, doublings


def _widths(base: int, doublings: int) -> list[int]:
    """Return the channels of the maps, smallest map first: 8, 4, 2, 1, 1, ... times ``base``."""
    return [base * max(8 >> level, 1) for level in range(doublings)]


class Generator(nn.Module):
    """Generator of images [B, C, H, W] with pixels in [0, 1] from noise [B, Z].

    The layers are transposed convolutions with BatchNorm and ReLU, each of which doubles the side, and a sigmoid. For
    32 pixels the widths are those of ARPL's code: 8, 4 and 2 times ``width``.

    Args:
        image_shape: (C, H, W), see `first_side` for its limits and errors.
        noise_dim: Z.
        width: channels of the unit.
    """

    def __init__(self, image_shape: tuple[int, int, int], *, noise_dim: int = 100, width: int = 64) -> None:
        super().__init__()
        side, doublings = first_side(image_shape)
        widths = _widths(width, doublings)
        first = nn.ConvTranspose2d(noise_dim, widths[0], side, bias=False)
        layers: list[nn.Module] = [first, *_norm_and_relu(widths[0])]
        for in_width, out_width in pairwise(widths):
            convolution = nn.ConvTranspose2d(in_width, out_width, 4, 2, padding=1, bias=False)
            layers += [convolution, *_norm_and_relu(out_width)]
        layers += [nn.ConvTranspose2d(widths[-1], image_shape[0], 4, 2, padding=1, bias=False), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers)
        _dcgan_weights(self)

    def forward(self, noise: Tensor) -> Tensor:
        return self.layers(noise[:, :, None, None])


class Discriminator(nn.Module):
    """Discriminator with logits [B] of images [B, C, H, W] being real, as in ARPL's code.

    At most three convolutions of stride 2 with LeakyReLU(0.2), all but the first with BatchNorm; a convolution to 16
    times ``width`` values in [0, 1] by a sigmoid; their mean over the map; and a linear layer. For 32 and 64 pixels the
    widths are those of the code: 2, 4 and 8 times ``width``.

    Args:
        image_shape: (C, H, W), see `first_side` for its limits and errors.
        width: channels of the unit.
    """

    def __init__(self, image_shape: tuple[int, int, int], *, width: int = 64) -> None:
        super().__init__()
        _, doublings = first_side(image_shape)
        widths = _widths(width, min(doublings, 3))[::-1]
        layers: list[nn.Module] = [
            nn.Conv2d(image_shape[0], widths[0], 4, 2, padding=1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for in_width, out_width in pairwise(widths):
            layers += [
                nn.Conv2d(in_width, out_width, 4, 2, padding=1, bias=False),
                nn.BatchNorm2d(out_width),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        layers += [nn.Conv2d(widths[-1], 2 * widths[-1], _SMALLEST, bias=False), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(2 * widths[-1], 1)
        _dcgan_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.layers(images).mean((2, 3))).flatten()


def _norm_and_relu(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels), nn.ReLU(inplace=True)


def _dcgan_weights(module: nn.Module) -> None:
    """Draw convolutions from N(0, 0.02) and BatchNorm weights from N(1, 0.02) (Radford et al., ICLR 2016)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(part.weight, 0.0, 0.02)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.02)


class AuxiliaryNorms(nn.Module):
    """A second set of BatchNorm weights and statistics of a backbone, for generated images.

    Real and generated images differ in their statistics, so they are normalised separately (ARPL, TPAMI 2021, after
    AdvProp). The backbone's BatchNorm tensors are replaced by the copies held here while it processes generated
    images; this works with any backbone, and without BatchNorm it replaces nothing.

    Args:
        backbone: provides the initial values of the copies.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.names: dict[str, str] = {}  # name of the backbone's tensor -> name of its copy, which may have no dots
        for name, tensor in _norm_tensors(backbone):
            copy_name = name.replace(".", "__")
            self.names[name] = copy_name
            copy = tensor.detach().clone()
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(copy_name, nn.Parameter(copy, requires_grad=tensor.requires_grad))
            else:
                self.register_buffer(copy_name, copy)

    def forward(self, backbone: nn.Module, images: Tensor) -> Tensor:
        """Return the backbone's features of normalised images under these norms, updating them in training."""
        copies = {name: getattr(self, copy_name) for name, copy_name in self.names.items()}
        return torch.func.functional_call(backbone, copies, (images,))


def _norm_tensors(backbone: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for path, module in backbone.named_modules():
        if isinstance(module, _BatchNorm):
            prefix = f"{path}." if path else ""
            for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                yield prefix + name, tensor
