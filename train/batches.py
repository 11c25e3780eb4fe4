"""Rows of a data set → what the network sees in one step."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from train import augment, split
from train.background import BackgroundSwaps, swap
from train.data import Dataset
from train.lung_masks import LungMasks
from train.networks import resize
from train.recipes import Recipe


@dataclass(frozen=True)
class BatchMasks:
    """Lung masks of a batch, which went the way of its pixels."""

    pixels: Tensor  # (N, S, S) float, 0..1: moved as the image is; of two mixed images the union
    present: Tensor  # (N,) bool: whether there is a mask; of two mixed images, both


@dataclass(frozen=True)
class Batch:
    """What one process trains on in a step: N images of S pixels a side."""

    pixels: Tensor  # (N, S, S) float, 0..255: background changed, augmented, mixed
    labels: Tensor  # (N,) int64, of the images before they are mixed
    kept: float  # share of each image in its mixture with the image before it; 1: not mixed
    masks: BatchMasks | None


class Batches:
    """Makes batches of a data set's images, which lie on the device."""

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
        """Of `ranks` processes this is the one of that `rank`: each takes its slice of a batch."""
        self.recipe, self.device, self.rank, self.ranks = recipe, device, rank, ranks
        # On a GPU the whole data set lies there; on a CPU it stays in the memory-mapped file.
        self.pixels = torch.from_numpy(np.ascontiguousarray(dataset.pixels)).to(device)
        self.labels = torch.from_numpy(dataset.labels)
        self.masks = None if masks is None else torch.from_numpy(masks.pixels).to(device)
        self._swaps = None
        if masks is not None:
            # Of all masks only those of the part `fit` are ever looked at.
            self._swaps = BackgroundSwaps(masks, dataset.labels, dataset.rows(split.FIT))

    def make(self, rows: Tensor, size: int, generator: torch.Generator) -> Batch:
        """This process's slice of a batch of rows, at `size` pixels a side.

        All random numbers are drawn for the whole batch, so that it does not depend on the number
        of processes: from `generator`, on the CPU, but the share of mixup, which
        `torch.distributions` takes from the global one.
        """
        recipe = self.recipe
        share = len(rows) // self.ranks
        own = slice(self.rank * share, (self.rank + 1) * share)
        changes = augment.draw(len(rows), recipe.strength, generator).slice(own).to(self.device)
        chosen = rows[own].to(self.device)
        pixels = resize(self.pixels[chosen], size)
        masks = None
        if self.masks is not None:
            masks = resize(self.masks[chosen], size) / 255
            pixels = self._swap(pixels, masks, rows, own, generator)
        pixels = augment.apply(pixels, changes)
        labels = self.labels[rows[own]].to(self.device)
        kept = 1.0
        if recipe.mixup:  # Zhang et al. 2018, arXiv:1710.09412; the batch is in random order
            kept = float(torch.distributions.Beta(recipe.mixup, recipe.mixup).sample())
            pixels = kept * pixels + (1 - kept) * pixels.roll(1, 0)
        return Batch(pixels, labels, kept, None if masks is None else _move(masks, changes, kept))

    def _swap(
        self, pixels: Tensor, masks: Tensor, rows: Tensor, own: slice, generator: torch.Generator
    ) -> Tensor:
        """Pixels (N, S, S) with the recipe's share of backgrounds changed; masks in 0..1."""
        if self._swaps is None or self.masks is None or not self.recipe.outside:
            return pixels
        swaps = self._swaps.draw(rows, self.recipe.outside, generator).slice(own)
        donors = swaps.donor.to(self.device)
        size = pixels.shape[-1]
        donor_masks = resize(self.masks[donors], size) / 255
        return swap(pixels, masks, resize(self.pixels[donors], size), donor_masks, swaps)


def _move(masks: Tensor, changes: augment.Changes, kept: float) -> BatchMasks:
    """Masks (N, S, S) in 0..1, augmented and mixed as their images are."""
    present = masks.amax((1, 2)) > 0
    moved = augment.move(masks, changes)
    if kept < 1:
        return BatchMasks(torch.maximum(moved, moved.roll(1, 0)), present & present.roll(1))
    return BatchMasks(moved, present)


def epoch_rows(
    rows: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    samples: int | None,
    seed: int,
    epoch: int,
) -> Tensor:
    """The rows (M,) of an epoch in random order, of rows (N,) with labels (N,).

    All of them, or a sample of M with as many of each class.
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
