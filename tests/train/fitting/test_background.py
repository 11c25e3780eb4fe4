"""Background swaps are independent of the label and leave the lungs unchanged."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small import square_mask
from train.data import lung_masks, splits
from train.data.dataset import Dataset
from train.fitting import background
from train.fitting.background import BLURRED, GREY, KEPT, SWAPPED, BackgroundSwaps, Swaps


def swaps(kind: int) -> Swaps:
    return Swaps(torch.tensor([kind]), torch.tensor([0]), torch.tensor([77.0]))


def test_both_classes_are_changed_as_often(dataset: Dataset, mask_folder: Path) -> None:
    masks = lung_masks.read(mask_folder, dataset.images, 32)
    rows = dataset.rows(splits.FIT)
    batch = torch.from_numpy(np.tile(rows, 400))
    generator = torch.Generator().manual_seed(0)
    drawn = BackgroundSwaps(masks, dataset.labels, rows).draw(batch, 0.8, generator)
    labels, masked = dataset.labels[batch.numpy()], masks.present[batch.numpy()]
    changed = drawn.kind.numpy() != KEPT
    for present in (True, False):
        shares = [(changed & (masked == present))[labels == k].mean() for k in (0, 1)]
        assert shares[0] == pytest.approx(shares[1], abs=0.02)
        assert shares[0] > 0.05
    donors = drawn.donor.numpy()
    assert set(donors) <= set(rows[masks.present[rows]])
    assert dataset.labels[donors].mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("kind", [SWAPPED, BLURRED, GREY])
def test_the_lungs_stay_and_the_background_goes(kind: int) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels, donor = 255 * torch.rand(2, 1, 32, 32, generator=generator)
    changed = background.swap(pixels, square_mask(), donor, square_mask(), swaps(kind))
    assert torch.allclose(changed[:, 12:20, 12:20], pixels[:, 12:20, 12:20], atol=1e-3)
    corner = changed[:, :4, :4]
    if kind == BLURRED:
        assert corner.std() < pixels[:, :4, :4].std() / 3
    else:
        expected = donor[:, :4, :4] if kind == SWAPPED else torch.full((1, 4, 4), 77.0)
        assert torch.allclose(corner, expected, atol=1e-3)


def test_nothing_drawn_changes_nothing() -> None:
    pixels = torch.randint(0, 256, (1, 32, 32), dtype=torch.uint8)
    changed = background.swap(pixels, square_mask(), pixels, square_mask(), swaps(KEPT))
    assert torch.equal(changed, pixels.float())


def test_without_a_mask_only_the_border_changes() -> None:
    pixels, donor = torch.full((2, 1, 32, 32), 100.0)
    donor_mask = square_mask(32, 12, 20)
    changed = background.swap(pixels, torch.zeros(1, 32, 32), donor, donor_mask, swaps(GREY))
    kept = (changed[0] - 100).abs() < 1
    assert kept[11:21, 11:21].all()
    assert kept.float().mean() > donor_mask.mean()
    assert not kept[0].any()


def test_a_donors_lungs_are_blurred_away() -> None:
    donor = 50 + 200 * square_mask()
    without_lungs = background.without_lungs(donor, square_mask())
    assert without_lungs[0, 16, 16] > 200  # blurred, not black
    stripes = square_mask() * (torch.arange(32) % 2) * 200
    assert background.without_lungs(stripes, square_mask())[0, 12:20, 12:20].std() < 10
