"""Augmentation of a batch on its device: crop, flip, jitter, blur, sharpening, a policy, cutout, mixing.

The operations run in this order. The host computes all random numbers from (seed, position in the epoch's global
sample), so that an image gets the same numbers in any batch, process or worker, without a synchronisation with the
device. (Mixup and cutmix combine the images of a batch, so that their numbers follow from its first position.)
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nn_functional

from ltr.configuration.ranges import (
    AtLeastOne,
    Fraction,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    check_option,
)
from ltr.configuration.targets import instantiate
from ltr.data.augmentation import pixel_operations as pixel
from ltr.data.augmentation import resized_crop as resizing
from ltr.data.augmentation.colour_jitter import ColourJitter
from ltr.data.augmentation.mixing import MixName, mix_batch, remix_weights
from ltr.data.augmentation.policies import AutoAugment, Policy, RandAugment, Rotation, apply_steps, fill_colour
from ltr.data.batch import Mix, to_device
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.randomness import derive_seed, uniforms

PolicyName = Literal["autoaugment", "randaugment", "rotation"]
JitterOrder = Literal["fixed", "random"]
Magnitude = Annotated[float, "[0, 30]"]
HueShift = Annotated[float, "[0, 0.5]"]
# columns of an image's uniform numbers: fixed, so that adding cutout does not change the crops
_CROP, _FLIP, _CUTOUT, _JITTER, _POLICY = slice(0, 2), 2, slice(3, 5), slice(5, 8), 8


class Parameters(NamedTuple):
    """Random numbers of N images, as `Augmentation.sample` draws them."""

    seed: int  # seed of the epoch
    positions: np.ndarray  # int64 [N]
    draws: np.ndarray  # float64 [N, K], uniform in [0, 1)
    windows: Tensor | None  # argument of `cut_windows`, on the device of the batches; None without a crop

    def part(self, rows: slice) -> Parameters:
        """Return the random numbers of a slice of the images."""
        windows = None if self.windows is None else self.windows[:, rows]
        return Parameters(self.seed, self.positions[rows], self.draws[rows], windows)


@named("augment/augmentation")
class Augmentation:
    """Augmentation of training images.

    The operations run in the order of published long-tailed CIFAR code: crop, flip, policy, cutout. (AutoAugment's code
    applies its policy before the crop.)

    Args:
        image_shape: (C, H, W); H and W must be equal.
        pad: width in pixels of the black border that is added before a crop of the original size; 0: no crop.
        resized_crop: range of the area of a random-resized crop of images in memory, as a share of the image's area,
            which is resized to the original size; None: none. Needs ``pad=0``; image files have ``files.random``.
        crop_ratio: range of the width over the height of this crop.
        flip: True mirrors an image horizontally with probability 1/2.
        jitter: range of the factors of brightness, contrast and colour (in this order), [1 - jitter, 1 + jitter]; 0:
            none.
        hue: range of the shift of the hue as a share of the colour circle, [-hue, hue], after brightness, contrast and
            colour; 0: none.
        jitter_probability: probability that an image's colours, hue included, are changed.
        jitter_order: ``fixed``, or a ``random`` order of the four operations for each image, as in torchvision.
        greyscale: probability that an image becomes grey after them.
        blur: probability of a Gaussian blur.
        blur_pixels: side of the blur's window in pixels, an odd number.
        blur_sigma: range of the blur's standard deviation in pixels.
        sharpen: probability of sharpening.
        sharpness: factor of sharpening; 1 changes nothing, 0 smooths.
        policy: AutoAugment's CIFAR-10 policy (Cubuk et al. 2019) or RandAugment (Cubuk et al. 2020), or ``rotation``
            by a random angle; None: none.
        num_ops: operations per image, N of RandAugment.
        magnitude: M of RandAugment; of ``rotation`` the largest angle in degrees, in either direction.
        cutout: side in pixels of the erased square (DeVries & Taylor 2017); None: no square. Its centre may be any
            pixel, so that a part of the square may lie outside the image.
        fill: colour in [0, 1] (one number or one per channel) of cutout's square and of the pixels that a policy's
            shear, shift or rotation leaves empty. Cutout's code fills with the mean: it erases in normalised images.
        mix: mixup, remix (mixup with labels in favour of small classes) or cutmix of two images and their labels, see
            `ltr.data.augmentation.mixing`; None: no mixing. **Mixed images are float32 in [0, 1]**, not uint8.
        mix_alpha: parameter of the weight's distribution Beta(mix_alpha, mix_alpha).
        mix_probability: share of batches that are mixed.
        mix_kappa: for remix: ratio of the images of two classes from which the smaller class may get the whole label.
        mix_tau: for remix: share of an image below which its label may be dropped.
        files: config of `ltr.data.images.crop.FileCrop`, which the workers apply to decoded image files; unused for
            images in memory.

    Raises:
        ConfigError: a value is out of range or does not suit the images.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        pad: NonNegativeInt = 4,
        resized_crop: Sequence[Positive] | None = None,
        crop_ratio: Sequence[Positive] = (3 / 4, 4 / 3),
        flip: bool = True,
        jitter: Fraction = 0.0,
        hue: HueShift = 0.0,
        jitter_probability: Fraction = 1.0,
        jitter_order: JitterOrder = "fixed",
        greyscale: Fraction = 0.0,
        blur: Fraction = 0.0,
        blur_pixels: PositiveInt = 5,
        blur_sigma: Sequence[Positive] = (0.1, 5.0),
        sharpen: Fraction = 0.0,
        sharpness: NonNegative = 1.5,
        policy: PolicyName | None = None,
        num_ops: PositiveInt = 2,
        magnitude: Magnitude = 9,
        cutout: PositiveInt | None = None,
        fill: Fraction | Sequence[Fraction] = 0.0,
        mix: MixName | None = None,
        mix_alpha: Positive = 1.0,
        mix_probability: Fraction = 1.0,
        mix_kappa: AtLeastOne = 3.0,
        mix_tau: Fraction = 0.5,
        files: Mapping[str, Any] | None = None,
    ) -> None:
        self.image_shape = tuple(image_shape)
        self.pad = pad
        self.resized_crop = None if resized_crop is None else [float(share) for share in resized_crop]
        self.crop_ratio = [float(ratio) for ratio in crop_ratio]
        self.flip = flip
        self.jitter = jitter
        self.colours: ColourJitter | None = None  # what jitter alone does not cover
        if hue or greyscale or (jitter and (jitter_probability < 1 or jitter_order != "fixed")):
            self.colours = ColourJitter(
                jitter=jitter,
                hue=hue,
                probability=jitter_probability,
                shuffled=jitter_order == "random",
                greyscale=greyscale,
            )
        self.blur = blur
        self.blur_pixels = blur_pixels
        self.blur_sigma = blur_sigma
        self.sharpen = sharpen
        self.sharpness = sharpness
        self.cutout = cutout
        self.mix = mix
        self.mix_alpha = mix_alpha
        self.mix_probability = mix_probability
        self.mix_kappa = mix_kappa
        self.mix_tau = mix_tau
        self.class_counts: np.ndarray | None = None  # training images of each class, which remix needs
        self._counts_on: dict[torch.device, Tensor] = {}
        self.fill = [float(fill)] * image_shape[0] if isinstance(fill, (int, float)) else [float(f) for f in fill]
        check_option("augment.hue", hue, HueShift)
        check_option("augment.jitter_order", jitter_order, JitterOrder)
        self._check(policy)
        self.policy = _policy(policy, num_ops, magnitude)
        self.file_crop = instantiate(files, image_shape[1]) if files else None
        self._fill_on: dict[torch.device, Tensor] = {}

    @property
    def identity(self) -> bool:
        """True if no operation runs on the device."""
        return not (self.pad or self.flip or self._changes)

    @property
    def only_cuts(self) -> bool:
        """True if crops and mirroring are all that changes an image: operations of the device alone."""
        return bool(self.pad) and not self._changes

    @property
    def _changes(self) -> bool:
        """True if an operation beside `pad` and `flip` runs on the device."""
        of_colours = self.jitter or self.colours or self.blur or self.sharpen or self.policy
        return bool(self.resized_crop or of_colours or self.cutout or self.mix)

    @torch.no_grad()
    def __call__(
        self, images: Tensor, labels: Tensor, *, seed: int, positions: np.ndarray
    ) -> tuple[Tensor, Mix | None]:
        """Augment a batch.

        Args:
            images: uint8 [B, C, H, W]; not modified.
            labels: int64 [B].
            seed: seed of the epoch.
            positions: int64 [B], positions of the images in the epoch's global sample, on the host.

        Returns:
            Images uint8 [B, C, H, W] in channels_last memory (float32 in [0, 1] with ``mix``), and a Mix or None.
        """
        return self.apply(images, labels, self.sample(seed, positions, images.device))

    def sample(self, seed: int, positions: np.ndarray, device: torch.device) -> Parameters:
        """Return the random numbers of many images; `apply` augments a batch with any slice of them.

        Args:
            seed: seed of the epoch.
            positions: int64 [N], positions of the images in the epoch's global sample.
            device: device of the batches.
        """
        if self.identity:
            return Parameters(seed, positions, np.empty((len(positions), 0)), None)
        draws = uniforms(seed, positions, _POLICY + (self.policy.draws if self.policy else 0))
        return Parameters(seed, positions, draws, self._windows(draws, device) if self.pad else None)

    @torch.no_grad()
    def apply(self, images: Tensor, labels: Tensor, parameters: Parameters) -> tuple[Tensor, Mix | None]:
        """Augment a batch with the random numbers of its images; see `__call__`."""
        if self.identity:
            return images, None
        seed, positions, draws, windows = parameters
        pixels = images.permute(0, 2, 3, 1).contiguous()
        mirrored = (draws[:, _FLIP] < 0.5) & self.flip
        if windows is not None:
            pixels = cut_windows(pixels, windows, self.pad)
        elif self.resized_crop is not None:
            uniform = uniforms(derive_seed(seed, "resized crop"), positions, resizing.DRAWS)
            boxes = resizing.sample_boxes(uniform, self.image_shape[1], self.resized_crop, self.crop_ratio)
            pixels = resizing.crop_and_resize(pixels, boxes, mirrored)
        elif self.flip:
            pixels = _mirror(pixels, np.flatnonzero(mirrored))
        if self.colours:
            pixels = pixels.clone() if pixels.data_ptr() == images.data_ptr() else pixels
            uniform = uniforms(derive_seed(seed, "colours"), positions, self.colours.draws)
            pixels = apply_steps(pixels, self.colours.steps(uniform, self.image_shape[1]), self._fill(images.device))
        elif self.jitter:
            pixels = self._jitter(pixels, draws[:, _JITTER])
        if self.blur or self.sharpen:
            pixels = self._blur_and_sharpen(pixels, uniforms(derive_seed(seed, "focus"), positions, 3))
        if self.policy or self.cutout:
            # the next operations write in place
            pixels = pixels.clone() if pixels.data_ptr() == images.data_ptr() else pixels
            fill = self._fill(images.device)
            if self.policy:
                steps = self.policy.steps(draws[:, _POLICY:], self.image_shape[1])
                pixels = apply_steps(pixels, steps, fill)
            if self.cutout:
                centres = (draws[:, _CUTOUT] * self.image_shape[1]).astype(np.int64)
                pixels = cover_squares(pixels, to_device(centres, pixels.device), self.cutout, fill)
        augmented = pixels.permute(0, 3, 1, 2)
        if self.mix is None:
            return augmented, None
        return mix_batch(
            augmented,
            labels,
            kind=self.mix,
            alpha=self.mix_alpha,
            probability=self.mix_probability,
            seed=seed,
            first_position=int(positions[0]),
            labels_by=self._remixed if self.mix == "remix" else None,
        )

    def _remixed(self, weight: float, labels: Tensor, other_labels: Tensor) -> Tensor:
        if self.class_counts is None:
            raise ValueError("remix compares the sizes of classes: set class_counts, as the DataModule does")
        if labels.device not in self._counts_on:
            self._counts_on[labels.device] = to_device(self.class_counts.astype(np.float32), labels.device)
        counts = self._counts_on[labels.device]
        return remix_weights(weight, counts[labels], counts[other_labels], self.mix_kappa, self.mix_tau)

    def _windows(self, draws: np.ndarray, device: torch.device) -> Tensor:
        """Return the windows of `cut_windows`."""
        corners = (draws[:, _CROP] * (2 * self.pad + 1)).astype(np.int64)
        windows = np.empty((2, len(draws)), dtype=np.int64)
        windows[0] = corners[:, 0] * (self.image_shape[2] + 2 * self.pad) + corners[:, 1]
        windows[1] = (draws[:, _FLIP] < 0.5) & self.flip
        return to_device(windows, device)

    def _jitter(self, pixels: Tensor, draws: np.ndarray) -> Tensor:
        factors = to_device((1 + self.jitter * (2 * draws - 1)).astype(np.float32), pixels.device)
        for operation, column in zip((pixel.brightness, pixel.contrast, pixel.colour), factors.unbind(1)):
            pixels = operation(pixels, column)
        return pixels

    def _blur_and_sharpen(self, pixels: Tensor, draws: np.ndarray) -> Tensor:
        """Blur and sharpen some images; draws [B, 3] decide on the blur, its width and the sharpening."""
        blurred = np.flatnonzero(draws[:, 0] < self.blur)
        if len(blurred):
            low, high = self.blur_sigma
            sigmas = low + draws[blurred, 1] * (high - low)
            weights = to_device(pixel.gaussian_weights(sigmas, self.blur_pixels), pixels.device)
            rows = to_device(blurred, pixels.device)
            pixels = pixels.index_copy(0, rows, pixel.gaussian_blur(pixels.index_select(0, rows), weights))
        sharpened = np.flatnonzero(draws[:, 2] < self.sharpen)
        if len(sharpened):
            rows = to_device(sharpened, pixels.device)
            factors = torch.full((len(sharpened),), self.sharpness, device=pixels.device)
            pixels = pixels.index_copy(0, rows, pixel.sharpness(pixels.index_select(0, rows), factors))
        return pixels

    def _fill(self, device: torch.device) -> Tensor:
        if device not in self._fill_on:
            self._fill_on[device] = fill_colour(self.fill, device)
        return self._fill_on[device]

    def _check(self, policy: str | None) -> None:
        channels, height, width = self.image_shape
        if height != width:
            raise ConfigError(
                f"augment: images are {height} x {width} pixels, but augmentation needs squares. Resize them, or use "
                "files with a crop size"
            )
        if not 0 <= self.pad < height:
            raise ConfigError(
                f"augment.pad={self.pad}: images have {height} pixels a side; allowed is 0 to {height - 1}"
            )
        if self.resized_crop is not None:
            self._check_resized_crop(self.resized_crop)
        if self.cutout is not None and not 1 <= self.cutout < height:
            raise ConfigError(
                f"augment.cutout={self.cutout}: images have {height} pixels a side; allowed is 1 to {height - 1}"
            )
        if self.blur and (self.blur_pixels % 2 != 1 or not 1 <= self.blur_pixels < 2 * height):
            raise ConfigError(
                f"augment.blur_pixels={self.blur_pixels}: allowed is an odd number of at most {2 * height - 1}, for "
                f"images of {height} pixels a side"
            )
        if self.blur and (len(self.blur_sigma) != 2 or not 0 < self.blur_sigma[0] <= self.blur_sigma[1]):
            raise ConfigError(
                f"augment.blur_sigma={list(self.blur_sigma)}: allowed are two ascending positive numbers, in pixels"
            )
        check_option("augment.policy", policy, PolicyName | None)
        check_option("augment.mix", self.mix, MixName | None)
        if (policy or self.jitter or self.colours) and channels not in (1, 3):
            raise ConfigError(f"augment: a policy and jitter need 1 or 3 channels, and images have {channels}")
        if len(self.fill) != channels or not all(0 <= share <= 1 for share in self.fill):
            raise ConfigError(
                f"augment.fill={self.fill}: needs one number in [0, 1], or one for each of {channels} channels"
            )
        check_option("augment.mix_alpha", self.mix_alpha, Positive)
        check_option("augment.mix_kappa", self.mix_kappa, AtLeastOne)
        check_option("augment.mix_tau", self.mix_tau, Fraction)

    def _check_resized_crop(self, scale: list[float]) -> None:
        if self.pad:
            raise ConfigError(
                f"augment.resized_crop={scale} with augment.pad={self.pad}: they are two kinds of crops. Set "
                "augment.pad=0, or augment.resized_crop=null"
            )
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise ConfigError(
                f"augment.resized_crop={scale}: allowed are two ascending shares of the area in (0, 1], such as "
                "[0.08, 1.0]"
            )
        if len(self.crop_ratio) != 2 or not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ConfigError(
                f"augment.crop_ratio={self.crop_ratio}: allowed are two ascending positive numbers, such as "
                "[0.75, 1.3333]"
            )


def _policy(name: str | None, num_ops: int, magnitude: float) -> Policy | None:
    if name is None:
        return None
    if name == "rotation":
        return Rotation(magnitude)
    return AutoAugment() if name == "autoaugment" else RandAugment(num_ops, magnitude)


def cut_windows(pixels: Tensor, windows: Tensor, pad: int) -> Tensor:
    """Pad with black, cut a window of the original size from each image and mirror some, in one gather.

    Args:
        pixels: uint8 [B, H, W, C].
        windows: int64 [2, B]: index of each window's first pixel in the padded image, row by row; 1 if the window is
            mirrored, else 0.
    """
    count, height, width, channels = pixels.shape
    padded = nn_functional.pad(pixels, (0, 0, pad, pad, pad, pad))
    firsts, within = _window_indices(height, width, pad, pixels.device, count)
    starts, mirrored = windows.unbind(0)
    index = within.index_select(0, mirrored).add_((starts + firsts).unsqueeze(1))
    return padded.view(-1, channels).index_select(0, index.view(-1)).view(pixels.shape)


@functools.lru_cache(maxsize=16)
def _window_indices(height: int, width: int, pad: int, device: torch.device, count: int) -> tuple[Tensor, Tensor]:
    """Return the index of each padded image's first pixel, [count], and offsets of a window's pixels, [2, H * W].

    The first row of the offsets is for plain windows, the second for mirrored ones.
    """
    padded_height, padded_width = height + 2 * pad, width + 2 * pad
    rows = padded_width * torch.arange(height, device=device).unsqueeze(1)
    columns = torch.arange(width, device=device)
    within = torch.stack([(rows + columns).flatten(), (rows + columns.flip(0)).flatten()])
    return torch.arange(count, device=device) * (padded_height * padded_width), within


def window_constants(image_shape: tuple[int, ...], pad: int, device: torch.device, count: int) -> tuple[Tensor, Tensor]:
    """Return the tensors that `cut_windows` reads besides its arguments, which a recorded step needs to stay alive."""
    return _window_indices(image_shape[1], image_shape[2], pad, device, count)


def _mirror(pixels: Tensor, rows: np.ndarray) -> Tensor:
    """Mirror the images ``rows`` (on the host) of ``pixels`` [B, H, W, C]."""
    chosen = to_device(rows, pixels.device)
    return pixels.index_copy(0, chosen, pixels.index_select(0, chosen).flip(2))


def cover_squares(pixels: Tensor, centres: Tensor, side: int, fill: Tensor) -> Tensor:
    """Cover one square per image with ``fill``, in place: rows ``y - side // 2`` to ``y - side // 2 + side - 1``.

    Args:
        pixels: uint8 [B, H, W, C], overwritten.
        centres: int64 [B, 2]: y, x.
        fill: uint8 [C].
    """
    count, height, width, channels = pixels.shape
    offsets = torch.arange(side, device=pixels.device) - side // 2
    # indices outside the image are clamped to the border, which the square covers if it crosses the border
    rows = (centres[:, :1] + offsets).clamp_(0, height - 1)
    columns = (centres[:, 1:] + offsets).clamp_(0, width - 1)
    rows += torch.arange(count, device=pixels.device).unsqueeze(1) * height
    index = (rows.unsqueeze(2) * width + columns.unsqueeze(1)).view(-1)
    pixels.view(-1, channels).index_copy_(0, index, fill.expand(len(index), channels))
    return pixels
