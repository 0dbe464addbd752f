"""ARPL+CS's confusing samples: a small DCGAN, and BatchNorm statistics of their own for the images that it makes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ltr.errors import ConfigError

_SMALLEST, _LARGEST = 4, 7  # side of the generator's first map


def first_side(image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """(side of the generator's first map, how often it is doubled) for images (C, H, W); 32 pixels: (4, 3).

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
    """Channels of the maps from the smallest on: 8, 4, 2, 1, 1, ... times ``base``."""
    return [base * max(8 >> level, 1) for level in range(doublings)]


class Generator(nn.Module):
    """Noise [B, Z] to images [B, C, H, W] with pixels in [0, 1].

    Transposed convolutions with BatchNorm and ReLU, each of which doubles the side, and a sigmoid. For 32 pixels the
    widths are those of ARPL's code: 8, 4 and 2 times ``width``.

    Args:
        image_shape: (C, H, W), see `first_side`, which also says what is raised.
        noise_dim: Z.
        width: channels of the unit.
    """

    def __init__(self, image_shape: tuple[int, int, int], *, noise_dim: int = 100, width: int = 64) -> None:
        super().__init__()
        side, doublings = first_side(image_shape)
        widths = _widths(width, doublings)
        layers: list[nn.Module] = [nn.ConvTranspose2d(noise_dim, widths[0], side, bias=False), *_after(widths[0])]
        for before, after in pairwise(widths):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, padding=1, bias=False), *_after(after)]
        layers += [nn.ConvTranspose2d(widths[-1], image_shape[0], 4, 2, padding=1, bias=False), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers)
        _dcgan_weights(self)

    def forward(self, noise: Tensor) -> Tensor:
        return self.layers(noise[:, :, None, None])


class Discriminator(nn.Module):
    """Images [B, C, H, W] to logits [B] of being real: the generator's maps in reverse, with LeakyReLU(0.2).

    Args:
        image_shape: (C, H, W), see `first_side`, which also says what is raised.
        width: channels of the unit.
    """

    def __init__(self, image_shape: tuple[int, int, int], *, width: int = 64) -> None:
        super().__init__()
        side, doublings = first_side(image_shape)
        widths = _widths(width, doublings)[::-1]
        layers: list[nn.Module] = [
            nn.Conv2d(image_shape[0], widths[0], 4, 2, padding=1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for before, after in pairwise(widths):
            layers += [
                nn.Conv2d(before, after, 4, 2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        layers.append(nn.Conv2d(widths[-1], 1, side, bias=False))
        self.layers = nn.Sequential(*layers)
        _dcgan_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).flatten()


def _after(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels), nn.ReLU(inplace=True)


def _dcgan_weights(module: nn.Module) -> None:
    """Convolutions from N(0, 0.02), BatchNorm weights from N(1, 0.02) (Radford et al., ICLR 2016)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(part.weight, 0.0, 0.02)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.02)


class AuxiliaryNorms(nn.Module):
    """A second set of BatchNorm weights and statistics for a backbone: generated images pass with it.

    Real and generated images differ in their statistics; normalised together, each would spoil the other's (ARPL,
    TPAMI 2021, after AdvProp). The backbone itself stays as it is, whatever it is made of: its BatchNorm tensors are
    exchanged for those held here while it works on generated images. Without any BatchNorm in it nothing is exchanged.

    Args:
        backbone: the copies start from its values.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.names: dict[str, str] = {}  # of the backbone's tensors -> of the copies, which may have no dots
        for name, tensor in _norm_tensors(backbone):
            own = name.replace(".", "__")
            self.names[name] = own
            copy = tensor.detach().clone()
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(own, nn.Parameter(copy, requires_grad=tensor.requires_grad))
            else:
                self.register_buffer(own, copy)

    def forward(self, backbone: nn.Module, images: Tensor) -> Tensor:
        """Return the backbone's features of normalised images under these norms, updating them in training."""
        own = {name: getattr(self, copy) for name, copy in self.names.items()}
        return torch.func.functional_call(backbone, own, (images,))


def _norm_tensors(backbone: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for path, module in backbone.named_modules():
        if isinstance(module, _BatchNorm):
            prefix = f"{path}." if path else ""
            for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                yield prefix + name, tensor
