"""Training batches: rows of a data set → augmented pixels, labels and lung masks."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from train.data import splits
from train.data.dataset import Dataset
from train.data.lung_masks import LungMasks
from train.fitting import augment
from train.fitting.background import BackgroundSwaps, swap
from train.fitting.recipes import Recipe
from train.model.networks import resize


@dataclass(frozen=True)
class BatchMasks:
    """Lung masks of a batch, transformed like its pixels."""

    pixels: Tensor  # (N, S, S) float, 0..1; the union of two mixed images' masks
    present: Tensor  # (N,) bool: whether the image, or both mixed images, have a mask


@dataclass(frozen=True)
class Batch:
    """The images of one process in one step: N images of S pixels a side."""

    pixels: Tensor  # (N, S, S) float, 0..255: background changed, augmented, mixed
    labels: Tensor  # (N,) int64, of the images before mixup
    mixup_weight: float  # of each image, mixed with the previous image; 1: not mixed
    masks: BatchMasks | None


class Batches:
    """Makes batches of a data set's images, on the device."""

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        device: torch.device,
        masks: LungMasks | None = None,
        *,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """Process `rank` of `ranks` takes its slice of every batch."""
        self.recipe, self.device, self.rank, self.ranks = recipe, device, rank, ranks
        # A GPU holds the whole data set; on a CPU it stays in the memory-mapped file.
        self.pixels = torch.from_numpy(np.ascontiguousarray(dataset.pixels)).to(device)
        self.labels = torch.from_numpy(dataset.labels)
        self.masks = None if masks is None else torch.from_numpy(masks.pixels).to(device)
        self._swaps = None
        if masks is not None:
            # Only the masks of the part `fit` are used.
            self._swaps = BackgroundSwaps(masks, dataset.labels, dataset.rows(splits.FIT))

    def make(self, rows: Tensor, size: int, generator: torch.Generator) -> Batch:
        """This process's slice of a batch of rows, at `size` pixels a side.

        All random numbers are drawn for the whole batch, so that it does not depend on the number
        of processes. They come from `generator`, on the CPU; only the mixup weight comes from the
        global generator, which `torch.distributions` uses.
        """
        recipe = self.recipe
        share = len(rows) // self.ranks
        rank_slice = slice(self.rank * share, (self.rank + 1) * share)
        changes = augment.draw(len(rows), recipe.strength, generator)
        changes = changes.slice(rank_slice).to(self.device)
        chosen = rows[rank_slice].to(self.device)
        pixels = resize(self.pixels[chosen], size)
        masks = None
        if self.masks is not None:
            masks = resize(self.masks[chosen], size) / 255
            pixels = self._swap(pixels, masks, rows, rank_slice, generator)
        pixels = augment.apply(pixels, changes)
        labels = self.labels[rows[rank_slice]].to(self.device)
        weight = 1.0
        if recipe.mixup:  # Zhang et al. 2018, arXiv:1710.09412; the batch is in random order
            weight = float(torch.distributions.Beta(recipe.mixup, recipe.mixup).sample())
            pixels = weight * pixels + (1 - weight) * pixels.roll(1, 0)
        batch_masks = None if masks is None else _transform(masks, changes, weight)
        return Batch(pixels, labels, weight, batch_masks)

    def _swap(
        self,
        pixels: Tensor,
        masks: Tensor,
        rows: Tensor,
        rank_slice: slice,
        generator: torch.Generator,
    ) -> Tensor:
        """Pixels (N, S, S) with the recipe's share of backgrounds changed; masks in 0..1."""
        if self._swaps is None or self.masks is None or not self.recipe.outside:
            return pixels
        swaps = self._swaps.draw(rows, self.recipe.outside, generator).slice(rank_slice)
        donors = swaps.donor.to(self.device)
        size = pixels.shape[-1]
        donor_masks = resize(self.masks[donors], size) / 255
        return swap(pixels, masks, resize(self.pixels[donors], size), donor_masks, swaps)


def _transform(masks: Tensor, changes: augment.Changes, mixup_weight: float) -> BatchMasks:
    """Masks (N, S, S) in 0..1, augmented and mixed like their images."""
    present = masks.amax((1, 2)) > 0
    moved = augment.transform_masks(masks, changes)
    if mixup_weight < 1:
        return BatchMasks(torch.maximum(moved, moved.roll(1, 0)), present & present.roll(1))
    return BatchMasks(moved, present)


def epoch_rows(
    rows: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    samples: int | None,
    seed: int,
    epoch: int,
) -> Tensor:
    """The rows (M,) of an epoch in random order, from rows (N,) with labels (N,).

    Without `samples` M is N; with `samples` M of them are drawn, half from each class.
    """
    random = np.random.default_rng([seed, epoch])
    if samples is None:
        return torch.from_numpy(random.permutation(rows))
    half = samples // 2
    chosen = [
        random.choice(rows[labels == label], half, replace=(labels == label).sum() < half)
        for label in (0, 1)
    ]
    return torch.from_numpy(random.permutation(np.concatenate(chosen)))
