"""Random augmentation of a batch, on its device: patient position, and acquisition artefacts.

Drawing and applying are separate. `draw` takes the random numbers of the whole batch from one
generator on the CPU; `apply` is a function of pixels and these numbers. So a run is reproducible,
resumes at any step, and makes the same batch for any number of processes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Strength:
    """How strong each change is: a pair is a range to draw from, a share is a probability."""

    flip: float = 0.5
    rotation: float = 12.0  # degrees, either way
    crop: tuple[float, float] = (0.65, 1.05)  # side of the crop, as a share of the image
    stretch: float = 0.15  # log of the crop's width over its height, either way
    brightness: float = 0.15  # added, as a share of the range of grey, either way
    contrast: tuple[float, float] = (0.7, 1.4)
    gamma: tuple[float, float] = (0.7, 1.5)
    # Acquisition artefacts that leak the source of an image, and with it the class.
    jpeg_share: float = 0.5
    jpeg_quality: tuple[float, float] = (30.0, 95.0)
    rescale_share: float = 0.3
    rescale: tuple[float, float] = (0.5, 0.9)  # down to this share of the size, and up again
    blur_share: float = 0.3
    blur: tuple[float, float] = (0.3, 1.2)  # standard deviation, pixels at a size of 96
    border_share: float = 0.3
    border: float = 0.12  # greatest width cut from a side, as a share of the image
    cutout_share: float = 0.5
    cutout: tuple[float, float] = (0.1, 0.35)  # side of the patch, as a share of the image


@dataclass(frozen=True)
class Changes:
    """The random numbers of one batch: a tensor with a row for each image, or for the batch."""

    affine: Tensor  # (N, 2, 3)
    brightness: Tensor  # (N,)
    contrast: Tensor
    gamma: Tensor
    quality: Tensor  # (N,); 100 leaves the image unchanged
    rescale: float  # one factor for the batch
    rescaled: Tensor  # (N,) bool
    blur: float  # one standard deviation for the batch, as a share of the size
    blurred: Tensor  # (N,) bool
    border: Tensor  # (N, 4): left, top, right, bottom, as shares of the image
    cutout: Tensor  # (N, 4): left, top, width, height, as shares of the image
    fill: Tensor  # (N, 2): grey of the border and of the patch, 0..1

    def slice(self, rows: slice) -> "Changes":
        """The changes of the images in `rows`."""
        return self._map(lambda tensor: tensor[rows])

    def to(self, device: torch.device) -> "Changes":
        """The same changes on a device."""
        return self._map(lambda tensor: tensor.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Changes":
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {name: change(v) for name, v in values.items() if isinstance(v, Tensor)}
        return Changes(**values)


def draw(count: int, strength: Strength, generator: torch.Generator) -> Changes:
    """Random numbers for a batch of `count` images, from a generator on the CPU."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape or (count,), generator=generator)

    def happens(share: float) -> Tensor:
        return torch.rand(count, generator=generator) < share

    angle = uniform(-strength.rotation, strength.rotation) * math.pi / 180
    side = uniform(*strength.crop)
    stretch = uniform(-strength.stretch, strength.stretch).exp().sqrt()
    width, height = side * stretch, side / stretch
    mirror = torch.where(happens(strength.flip), -1.0, 1.0)
    # The crop stays inside the image; a crop larger than the image is centred.
    x = (1 - width).clamp(min=0) * uniform(-1, 1)
    y = (1 - height).clamp(min=0) * uniform(-1, 1)
    cos, sin = angle.cos(), angle.sin()
    affine = torch.stack(
        [
            torch.stack([width * cos * mirror, -height * sin, x], 1),
            torch.stack([width * sin * mirror, height * cos, y], 1),
        ],
        1,
    )
    quality = torch.where(happens(strength.jpeg_share), uniform(*strength.jpeg_quality), 100.0)
    border = uniform(0, strength.border, count, 4) * happens(strength.border_share)[:, None]
    patch = uniform(*strength.cutout, count, 2) * happens(strength.cutout_share)[:, None]
    corner = uniform(0, 1, count, 2) * (1 - patch)
    return Changes(
        affine=affine,
        brightness=uniform(-strength.brightness, strength.brightness),
        contrast=uniform(*strength.contrast),
        gamma=uniform(*strength.gamma),
        quality=quality,
        rescale=float(uniform(*strength.rescale, 1)),
        rescaled=happens(strength.rescale_share),
        blur=float(uniform(*strength.blur, 1)) / 96,
        blurred=happens(strength.blur_share),
        border=border,
        cutout=torch.cat([corner, patch], 1),
        fill=uniform(0, 1, count, 2),
    )


def apply(pixels: Tensor, changes: Changes) -> Tensor:
    """Augmented pixels, float (N, S, S) in 0..255, of pixels (N, S, S) in 0..255."""
    images = pixels[:, None].float() / 255  # (N, 1, S, S)
    images = _transform(images, changes.affine)
    images = _adjust_grey(images, changes)
    images = _reduce_resolution(images, changes)
    images = _cover(images, changes)
    return jpeg(images[:, 0] * 255, changes.quality)


def transform_masks(masks: Tensor, changes: Changes) -> Tensor:
    """Masks (N, S, S) rotated, cropped and mirrored like their images."""
    return _transform(masks[:, None], changes.affine)[:, 0]


def _transform(images: Tensor, affine: Tensor) -> Tensor:
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def _adjust_grey(images: Tensor, changes: Changes) -> Tensor:
    """Images (N, 1, S, S) to the power gamma, then contrast about each one's mean, then brightness.

    Clamped to 0..1.
    """

    def column(values: Tensor) -> Tensor:
        return values[:, None, None, None]

    images = images.clamp(1e-4, 1) ** column(changes.gamma)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (images - mean) * column(changes.contrast) + mean + column(changes.brightness)
    return images.clamp(0, 1)


def _reduce_resolution(images: Tensor, changes: Changes) -> Tensor:
    """Images (N, 1, S, S), some of them scaled down and up again, some blurred."""
    size = images.shape[-1]
    small = F.interpolate(
        images, size=max(8, round(size * changes.rescale)), mode="bilinear", antialias=True
    )
    restored = F.interpolate(small, size=size, mode="bilinear")
    images = torch.where(changes.rescaled[:, None, None, None], restored, images)
    return torch.where(
        changes.blurred[:, None, None, None], gaussian_blur(images, changes.blur * size), images
    )


def gaussian_blur(images: Tensor, deviation: float) -> Tensor:
    """Images (N, 1, S, S) blurred by a Gaussian of standard deviation `deviation`, in pixels."""
    radius = max(1, math.ceil(3 * deviation))
    steps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (steps / deviation) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(images, (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel[None, None, None]), kernel[None, None, :, None])


def _cover(images: Tensor, changes: Changes) -> Tensor:
    """Images (N, 1, S, S), 0..1, with the borders and the patch (cutout) of each in one grey.

    A border or patch of size 0 changes nothing.
    """
    size = images.shape[-1]
    place = (torch.arange(size, device=images.device) + 0.5) / size
    x, y = place[None, None, :], place[None, :, None]
    left, top, right, bottom = changes.border[:, :, None, None].unbind(1)
    cut = (x < left) | (y < top) | (x > 1 - right) | (y > 1 - bottom)
    left, top, width, height = changes.cutout[:, :, None, None].unbind(1)
    patch = (x >= left) & (x < left + width) & (y >= top) & (y < top + height)
    # Squared: a border is usually black.
    grey, flat = changes.fill[:, :, None, None, None].unbind(1)
    images = torch.where(cut[:, None], grey.square(), images)
    return torch.where(patch[:, None], flat, images)


# Luminance quantisation, ITU-T T.81, table K.1.
_QUANTISATION = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=torch.float32,
)
_FREQUENCY = torch.arange(8)[:, None]
# The discrete cosine transform of eight samples, orthonormal (ITU-T T.81, A.3.3).
_COSINES = torch.cos((2 * torch.arange(8) + 1) * _FREQUENCY * math.pi / 16) * torch.where(
    _FREQUENCY == 0, math.sqrt(1 / 8), 0.5
)


def jpeg(pixels: Tensor, quality: Tensor) -> Tensor:
    """Pixels (N, S, S) in 0..255 after baseline JPEG compression of a quality (N,).

    Quality scales table K.1 as in libjpeg; 100 or more leaves an image unchanged. The result is
    rounded to whole grey levels, as by a decoder.
    """
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None]
    table = ((_QUANTISATION.to(pixels.device) * scale + 50) / 100).floor().clamp(1, 255)
    height, width = pixels.shape[1:]
    padded = F.pad(pixels[:, None], (0, -width % 8, 0, -height % 8), mode="replicate")[:, 0]
    blocks = padded.reshape(len(padded), padded.shape[1] // 8, 8, -1, 8).transpose(
        2, 3
    )  # (N, R, C, 8, 8)
    cosines = _COSINES.to(pixels.device)
    coefficients = cosines @ (blocks - 128) @ cosines.T
    table = table[:, None, None]
    coefficients = (coefficients / table).round() * table
    blocks = (cosines.T @ coefficients @ cosines + 128).round().clamp(0, 255)
    decoded = blocks.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, :height, :width]
    return torch.where((quality < 100)[:, None, None], decoded, pixels)
