"""Training batches: slices of processes, mixup, lung masks, order of an epoch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small import RECIPE
from train.data import lung_masks, splits
from train.data.dataset import Dataset
from train.fitting.batches import Batch, Batches, epoch_rows
from train.fitting.recipes import Recipe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def masks(dataset: Dataset, mask_folder: Path) -> lung_masks.LungMasks:
    return lung_masks.read(mask_folder, dataset.images, 32)


def make_batch(batches: Batches, dataset: Dataset) -> Batch:
    """A batch of eight rows of the part `fit`, with the random numbers of one seed."""
    rows = torch.from_numpy(dataset.rows(splits.FIT)[::5][:8].copy())
    return batches.make(rows, 24, torch.Generator().manual_seed(3))


def test_slices_of_two_processes_form_the_batch_of_a_single_process(
    dataset: Dataset, masks: lung_masks.LungMasks
) -> None:
    whole = make_batch(Batches(dataset, RECIPE, CPU, masks), dataset)
    assert whole.pixels.shape == (8, 24, 24)
    assert whole.mixup_weight == 1
    assert whole.masks is not None
    slices = [
        make_batch(Batches(dataset, RECIPE, CPU, masks, rank=rank, ranks=2), dataset)
        for rank in range(2)
    ]
    for name in ("pixels", "labels"):
        joined = torch.cat([getattr(batch, name) for batch in slices])
        torch.testing.assert_close(joined, getattr(whole, name))
    for name in ("pixels", "present"):
        joined = torch.cat([getattr(batch.masks, name) for batch in slices])
        torch.testing.assert_close(joined, getattr(whole.masks, name))


def test_mixup_mixes_images_and_unites_masks(
    dataset: Dataset, masks: lung_masks.LungMasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make_batch(Batches(dataset, RECIPE, CPU, masks), dataset)
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda _: torch.tensor(0.25))
    mixed = make_batch(Batches(dataset, replace(RECIPE, mixup=0.4), CPU, masks), dataset)
    assert mixed.mixup_weight == 0.25
    assert torch.equal(mixed.labels, plain.labels)
    torch.testing.assert_close(mixed.pixels, 0.25 * plain.pixels + 0.75 * plain.pixels.roll(1, 0))
    assert plain.masks is not None
    assert mixed.masks is not None
    before, present = plain.masks.pixels, plain.masks.present
    torch.testing.assert_close(mixed.masks.pixels, torch.maximum(before, before.roll(1, 0)))
    assert torch.equal(mixed.masks.present, present & present.roll(1))
    assert 0 < present.sum() < 8


def test_masks_are_transformed_like_images(dataset: Dataset, masks: lung_masks.LungMasks) -> None:
    """An image equal to its mask stays equal to it under geometric changes."""
    drawn = lung_masks.LungMasks(np.where(masks.pixels > 127, 255, 0).astype(np.uint8))
    still = replace(
        RECIPE.strength, brightness=0.0, contrast=(1, 1), gamma=(1, 1), jpeg_share=0.0,
        rescale_share=0.0, blur_share=0.0, border_share=0.0, cutout_share=0.0,
    )  # fmt: skip
    recipe = replace(RECIPE, outside=0.0, strength=still)
    batch = make_batch(Batches(replace(dataset, pixels=drawn.pixels), recipe, CPU, drawn), dataset)
    assert batch.masks is not None
    assert batch.masks.pixels.amax() == pytest.approx(1, abs=1e-3)
    # Gamma raises black to 1e-4 of white.
    torch.testing.assert_close(batch.pixels / 255, batch.masks.pixels, atol=2e-4, rtol=0)


@pytest.mark.parametrize("samples", [None, 6, 30])
def test_an_epoch_has_every_row_or_a_balanced_sample(samples: int | None) -> None:
    rows, labels = np.arange(100, 120), np.repeat([0, 1], [5, 15])
    order = epoch_rows(rows, labels, samples, seed=0, epoch=1).numpy()
    if samples is None:
        assert sorted(order) == list(rows)
    else:
        assert np.bincount(labels[order - 100]).tolist() == [samples // 2, samples // 2]
    assert not np.array_equal(order, epoch_rows(rows, labels, samples, seed=0, epoch=2).numpy())
    assert not np.array_equal(order, epoch_rows(rows, labels, samples, seed=1, epoch=1).numpy())


def test_zero_strength_changes_nothing(dataset: Dataset) -> None:
    """Pixels at their own size stay equal, except that gamma raises black."""
    recipe: Recipe = replace(
        RECIPE,
        strength=replace(
            RECIPE.strength, flip=0.0, rotation=0.0, crop=(1, 1), stretch=0.0, brightness=0.0,
            contrast=(1, 1), gamma=(1, 1), jpeg_share=0.0, rescale_share=0.0, blur_share=0.0,
            border_share=0.0, cutout_share=0.0,
        ),
    )  # fmt: skip
    rows = torch.from_numpy(dataset.rows(splits.FIT)[:4])
    batch = Batches(dataset, recipe, CPU).make(rows, 32, torch.Generator())
    assert batch.masks is None
    expected = torch.from_numpy(dataset.pixels[rows.numpy()]).float()
    torch.testing.assert_close(batch.pixels, expected, atol=0.05, rtol=0)
