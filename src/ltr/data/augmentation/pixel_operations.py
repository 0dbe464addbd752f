"""Pixel operations on a batch uint8 [n, H, W, C], with one parameter per image.

They use integer arithmetic, or float32 in steps that round the same on every device, so that every device gives the
same bits. They follow Pillow in the greyscale weights, the rounding and the nearest pixel of an affine map. They do not
modify their input.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def blend(start: Tensor, images: Tensor, factors: Tensor) -> Tensor:
    """Return ``start + factor * (images - start)``, clipped and truncated to uint8; factors [n] may exceed 1."""
    base = start.float()
    difference = images.float().sub_(base)
    # a product and a sum instead of one fused operation, for Pillow's rounding
    return difference.mul_(factors.view(-1, 1, 1, 1)).add_(base).clamp_(0, 255).to(torch.uint8)


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Interpolate from black (factor 0) to the image (factor 1)."""
    return blend(images.new_zeros(()), images, factors)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Interpolate from the image's rounded mean grey (factor 0) to the image (factor 1)."""
    grey = greyscale(images).flatten(1)
    count = grey.shape[1]
    mean = (2 * grey.sum(1) + count).div(2 * count, rounding_mode="floor")
    return blend(mean.view(-1, 1, 1, 1), images, factors)


def colour(images: Tensor, factors: Tensor) -> Tensor:
    """Interpolate from greyscale (factor 0) to the image (factor 1); grey images do not change."""
    return images.clone() if images.shape[-1] == 1 else blend(greyscale(images), images, factors)


def sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """Interpolate from a smoothed image (factor 0) to the image (factor 1); the outermost pixels do not change."""
    return blend(smooth(images), images, factors)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest ``bits`` bits, 1 to 8, float32 [n]."""
    step = torch.exp2(8 - bits).to(torch.int64)
    mask = (256 - step).to(torch.uint8)
    return images & mask.view(-1, 1, 1, 1)


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Invert levels at or above the threshold; thresholds float32 [n] in [0, 255]."""
    first_inverted = thresholds.ceil().to(torch.uint8).view(-1, 1, 1, 1)
    return torch.where(images < first_inverted, images, 255 - images)


def invert(images: Tensor) -> Tensor:
    return 255 - images


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel to 0..255: floor(255 (v - low) / (high - low)); Pillow may be one level lower."""
    low, high = images.amin((1, 2), keepdim=True), images.amax((1, 2), keepdim=True)
    span = high - low
    # exact in float32: a quotient of two small integers rounds to an integer only if it is one
    stretched = ((images - low).float() * 255).div_(span.clamp(min=1)).to(torch.uint8)
    return torch.where(span == 0, images, stretched)


def equalize(images: Tensor) -> Tensor:
    """Flatten each channel's histogram, by Pillow's table: (step // 2 + pixels below the level) // step.

    step = (pixels - pixels of the highest level) // 255; a channel with step 0 does not change.
    """
    count, height, width, channels = images.shape
    levels = images.permute(0, 3, 1, 2).reshape(count * channels, height * width).long()
    histogram = levels.new_zeros(count * channels, 256).scatter_add_(1, levels, torch.ones_like(levels))
    highest = histogram.gather(1, levels.amax(1, keepdim=True))
    step = (height * width - highest) // 255
    below = histogram.cumsum(1) - histogram
    table = ((step // 2 + below) // step.clamp(min=1)).clamp_(max=255)
    table = torch.where(step == 0, torch.arange(256, device=images.device), table)
    equal = table.gather(1, levels).to(torch.uint8)
    return equal.view(count, channels, height, width).permute(0, 2, 3, 1).contiguous()


def grey(images: Tensor) -> Tensor:
    """Return images whose channels all hold the luma of `greyscale`."""
    return greyscale(images).expand_as(images).contiguous()


def hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Turn the hue by a share of the circle in [-0.5, 0.5], float32 [n]; grey images do not change.

    Hue and saturation have 8 bits between the two conversions, as in Pillow and torchvision.
    """
    if images.shape[-1] == 1:
        return images.clone()
    angle, saturation, value = _to_hsv(images)
    turned = (angle + (shifts * 255).to(torch.int64).view(-1, 1, 1)) % 256
    return _from_hsv(turned, saturation, value)


def _to_hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return hue, saturation and value, int64 [n, H, W] in 0..255, of images with three channels."""
    red, green, blue = images.long().unbind(-1)
    value, low = images.amax(-1).long(), images.amin(-1).long()
    span = value - low
    # position on a circle of 6 * span: the sector's start plus the difference of the two other channels
    position = torch.where(
        red == value, green - blue, torch.where(green == value, 2 * span + blue - red, 4 * span + red - green)
    )
    circle = (6 * span).clamp(min=1)
    return (255 * (position % circle)) // circle, (255 * span) // value.clamp(min=1), value


def _from_hsv(angle: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Return images uint8 [n, H, W, 3]; the inverse of `_to_hsv` up to rounding."""
    sector, offset = (6 * angle) // 255, (6 * angle) % 255  # offset / 255 is the place within the sector
    full = 255 * 255

    def level(share: Tensor) -> Tensor:
        """Return value * (1 - saturation * share), rounded half up; share in 255ths."""
        return (2 * value * (full - saturation * share) + full) // (2 * full)

    lowest, falling, rising = level(torch.full_like(offset, 255)), level(offset), level(255 - offset)
    channels = (
        (value, falling, lowest, lowest, rising, value),
        (rising, value, value, falling, lowest, lowest),
        (lowest, lowest, rising, value, value, falling),
    )
    sector = (sector % 6).unsqueeze(0)
    return torch.stack([torch.stack(levels).gather(0, sector).squeeze(0) for levels in channels], dim=-1).to(
        torch.uint8
    )


def greyscale(images: Tensor) -> Tensor:
    """Return the ITU-R 601 luma, uint8 [n, H, W, 1], computed in 16-bit fixed point."""
    if images.shape[-1] == 1:
        return images
    red, green, blue = images.int().unbind(-1)
    luma = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    return luma.to(torch.uint8).unsqueeze(-1)


def smooth(images: Tensor) -> Tensor:
    """Apply the 3x3 filter of ones with 5 in the middle, divided by 13; the outermost pixels do not change."""
    height, width = images.shape[1:3]
    smoothed = images.clone()
    if height < 3 or width < 3:
        return smoothed
    wide = images.short()
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    box = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    total = (box + 4 * wide[:, 1:-1, 1:-1]).float()
    # no sum is half-way between two levels, because 13 is odd
    smoothed[:, 1:-1, 1:-1] = total.div_(13).add_(0.5).to(torch.uint8)
    return smoothed


def gaussian_blur(images: Tensor, weights: Tensor) -> Tensor:
    """Blur along rows and columns with an odd number of weights and a mirrored border.

    Args:
        weights: float32 [n, K] from `gaussian_weights`; K // 2 is less than the image's sides.
    """
    reach = weights.shape[1] // 2
    blurred = images.permute(0, 3, 1, 2).float()
    blurred = functional.pad(blurred, (reach, reach, reach, reach), mode="reflect").permute(0, 2, 3, 1)
    for axis in (1, 2):
        length = blurred.shape[axis] - 2 * reach
        total = torch.zeros_like(blurred.narrow(axis, 0, length))
        for offset, weight in enumerate(weights.unbind(1)):
            # a product and a sum instead of one fused operation, for the same rounding everywhere
            total += blurred.narrow(axis, offset, length) * weight.view(-1, 1, 1, 1)
        blurred = total
    return blurred.round_().clamp_(0, 255).to(torch.uint8)


def gaussian_weights(sigmas: np.ndarray, side: int) -> np.ndarray:
    """Return normalised Gaussian densities at integer distances from the middle, float32 [n, side].

    Args:
        sigmas: float64 [n], in pixels.
    """
    distances = np.arange(side) - side // 2
    densities = np.exp(-0.5 * (distances / sigmas[:, None]) ** 2)
    return (densities / densities.sum(1, keepdims=True)).astype(np.float32)


def affine(images: Tensor, coefficients: Tensor, fill: Tensor) -> Tensor:
    """Apply affine maps with the nearest input pixel, and ``fill`` outside the image.

    Args:
        coefficients: int64 [n, 6] from `fixed_point`.
        fill: uint8 [C].
    """
    count, height, width, channels = images.shape
    a, b, c, d, e, f = coefficients.view(count, 6, 1, 1).unbind(1)
    x = torch.arange(width, device=images.device)
    y = torch.arange(height, device=images.device).view(-1, 1)
    from_x, from_y = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    first = torch.arange(count, device=images.device).view(-1, 1, 1) * (height * width)
    # the fill colour is appended as one more pixel, so that a single gather suffices
    table = torch.cat([images.reshape(-1, channels), fill.view(1, channels)])
    index = torch.where(inside, first + from_y * width + from_x, len(table) - 1)
    return table.index_select(0, index.view(-1)).view_as(images)


def inverse_maps(name: str, values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return maps from output to input coordinates, x' = a x + b y + c, y' = d x + e y + f, as float64 [n, 6].

    Args:
        name: ``shear_x``, ``shear_y`` (values: the shear), ``translate_x``, ``translate_y`` (pixels), ``rotate``
            (degrees, counter-clockwise about the middle).
        values: float64 [n].
    """
    maps = np.tile(np.array([1.0, 0, 0, 0, 1, 0]), (len(values), 1))
    if name == "rotate":
        for row, degrees in zip(maps, values):
            row[:] = _rotation(degrees, height, width)
    else:
        maps[:, {"shear_x": 1, "translate_x": 2, "shear_y": 3, "translate_y": 5}[name]] = values
    return maps


def _rotation(degrees: float, height: int, width: int) -> tuple[float, ...]:
    angle = -math.radians(degrees)
    # rounded to 15 digits, as Pillow does, so that multiples of 90 degrees are exact
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y


def fixed_point(maps: np.ndarray) -> np.ndarray:
    """Convert maps [n, 6] to 16.16 fixed-point coefficients int64 [n, 6], from pixel centre to pixel centre."""
    shifted = maps.copy()
    shifted[:, 2] = maps[:, 2] + maps[:, 0] * 0.5 + maps[:, 1] * 0.5
    shifted[:, 5] = maps[:, 5] + maps[:, 3] * 0.5 + maps[:, 4] * 0.5
    return np.floor(shifted * 65536 + 0.5).astype(np.int64)
