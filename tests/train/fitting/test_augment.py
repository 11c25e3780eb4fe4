import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from train.data import phantoms
from train.fitting import augment
from train.fitting.augment import Strength

STILL = Strength(
    flip=0, rotation=0, crop=(1, 1), stretch=0, brightness=0, contrast=(1, 1), gamma=(1, 1),
    jpeg_share=0, rescale_share=0, blur_share=0, border_share=0, cutout_share=0,
)  # fmt: skip


def chest(size: int = 96) -> torch.Tensor:
    return torch.from_numpy(phantoms.draw(0, 3, 1, size).image)[None]


def augmented(pixels: torch.Tensor, strength: Strength, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return augment.apply(pixels, augment.draw(len(pixels), strength, generator))


def test_no_strength_changes_nothing() -> None:
    assert_close(augmented(chest(), STILL), chest().float(), atol=0.05, rtol=0)


def test_flip() -> None:
    assert_close(
        augmented(chest(), replace(STILL, flip=1)), chest().flip(2).float(), atol=0.05, rtol=0
    )


def test_brightness_and_gamma_by_hand() -> None:
    grey = torch.full((1, 16, 16), 64, dtype=torch.uint8)
    assert_close(
        augmented(grey, replace(STILL, gamma=(2, 2))),
        torch.full((1, 16, 16), 255 * (64 / 255) ** 2),
        atol=0.01,
        rtol=0,
    )
    brighter = augmented(grey, replace(STILL, brightness=0.1))
    assert abs(float(brighter.mean()) - 64) <= 25.5 + 1e-3


@pytest.mark.parametrize("quality", [30, 60, 95])
@pytest.mark.parametrize("size", [64, 90])
def test_jpeg_equals_pillow(quality: int, size: int) -> None:
    pixels = chest(size)
    stream = io.BytesIO()
    Image.fromarray(pixels[0].numpy()).save(stream, "JPEG", quality=quality)
    expected = np.asarray(Image.open(stream)).astype(float)
    compressed = augment.jpeg(pixels.float(), torch.tensor([float(quality)]))[0].numpy()
    loss = np.abs(pixels[0].numpy() - expected).mean()
    # libjpeg's transform uses integers, so that a coefficient may round differently.
    assert np.abs(compressed - expected).mean() < 0.25 * loss + 0.1
    assert_close(augment.jpeg(pixels.float(), torch.tensor([100.0])), pixels.float())


def test_blur_keeps_a_flat_image_and_the_mean() -> None:
    flat = torch.full((1, 1, 20, 20), 0.3)
    assert_close(augment.gaussian_blur(flat, 1.5), flat)


def test_a_slice_is_augmented_as_in_the_batch() -> None:
    pixels = torch.cat([chest(), chest().flip(1), chest().flip(2), chest() // 2])
    changes = augment.draw(4, Strength(), torch.Generator().manual_seed(5))
    whole = augment.apply(pixels, changes)
    rows = slice(1, 3)
    assert torch.equal(augment.apply(pixels[rows], changes.slice(rows)), whole[rows])


def test_every_change_happens_and_stays_in_range() -> None:
    pixels = chest().expand(64, -1, -1)
    result = augmented(pixels, Strength(), seed=3)
    assert result.shape == pixels.shape
    assert float(result.min()) >= 0
    assert float(result.max()) <= 255
    assert len({tuple(image.flatten()[::97].tolist()) for image in result}) == 64
