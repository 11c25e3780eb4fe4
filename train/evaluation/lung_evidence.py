"""Whether a network uses the lungs: decision maps against lung masks, and swapped lungs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from train.data.classes import CLASSES
from train.data.dataset import Dataset
from train.data.lung_masks import LungMasks
from train.fitting.augment import gaussian_blur
from train.fitting.background import FEATHER, SWAPPED, Swaps, swap
from train.fitting.losses import lung_cover
from train.metrics.classification import (
    DRAWS,
    Interval,
    bootstrap,
    bootstrap_means,
    percentile_interval,
)
from train.model.cam import explain_decision
from train.model.networks import Classifier

BATCH = 64


@dataclass(frozen=True)
class LungEvidence:
    """Location of the decision map's evidence, and effect of swaps; each field is (N,)."""

    share: npt.NDArray[np.float64]  # of the map's absolute value, inside the lungs
    area: npt.NDArray[np.float64]  # share of the image that the lungs cover
    peak: npt.NDArray[np.bool_]  # whether the map's largest absolute value is inside the lungs
    outside_swapped: npt.NDArray[np.float64]  # absolute change of the decision logit
    lungs_swapped: npt.NDArray[np.float64]  # absolute change of the decision logit


def measure(
    network: Classifier,
    dataset: Dataset,
    masks: LungMasks,
    rows: npt.NDArray[np.int64],
    seed: int = 0,
) -> LungEvidence:
    """Evidence on those of `rows` (of the data set) that have a mask, in their order.

    The decision map is the map of PNEUMONIA minus that of NORMAL. Each image's background, and
    separately its lungs, is swapped with that of a random image among them, of either class.
    """
    rows = rows[masks.present[rows]]
    donors = np.random.default_rng(seed).permutation(rows)
    batches = -(-len(rows) // BATCH)
    parts = [
        _measure(
            network,
            torch.from_numpy(dataset.pixels[batch]),
            torch.from_numpy(masks.pixels[batch]),
            torch.from_numpy(dataset.pixels[donor]),
            torch.from_numpy(masks.pixels[donor]),
        )
        for batch, donor in zip(
            np.array_split(rows, batches), np.array_split(donors, batches), strict=True
        )
    ]
    return LungEvidence(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _measure(
    network: Classifier, pixels: Tensor, masks: Tensor, donors: Tensor, donor_masks: Tensor
) -> tuple[npt.NDArray[Any], ...]:
    """The fields of `LungEvidence` for images, their donors and the masks of both (N, S, S)."""
    device = network.head.weight.device
    pixels, donors = pixels.float().to(device), donors.float().to(device)
    masks, donor_masks = masks.to(device) / 255, donor_masks.to(device) / 255
    decision, maps = explain_decision(network, pixels)
    count = len(pixels)
    swaps = Swaps(torch.full((count,), SWAPPED), torch.arange(count), torch.zeros(count))
    outside_swapped = swap(pixels, masks, donors, donor_masks, swaps)
    inside = gaussian_blur(masks[:, None], FEATHER * pixels.shape[-1])[:, 0]
    aligned = align_lungs(donors, donor_masks, masks)
    lungs_swapped = inside * aligned + (1 - inside) * pixels
    return tuple(
        value.cpu().numpy()
        for value in (
            share_inside(maps, masks),
            masks.mean((1, 2)),
            peak_inside(maps, masks),
            (explain_decision(network, outside_swapped)[0] - decision).abs(),
            (explain_decision(network, lungs_swapped)[0] - decision).abs(),
        )
    )


def share_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """Share (N,) of the absolute value of maps (N, h, w) inside masks (N, S, S) of 0 to 1."""
    evidence = maps.abs()
    inside = (evidence * lung_cover(masks, maps)).sum((1, 2))
    return inside / evidence.sum((1, 2)).clamp(min=1e-6)


def peak_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """Whether (N,) the largest absolute value of maps (N, h, w), upsampled, lies in the lungs."""
    size = masks.shape[-2:]
    large = F.interpolate(maps.abs()[:, None], size=size, mode="bilinear")[:, 0]
    index = large.flatten(1).argmax(1, keepdim=True)
    inside: Tensor = masks.flatten(1).gather(1, index)[:, 0] > 0.5
    return inside


def align_lungs(donors: Tensor, donor_masks: Tensor, masks: Tensor) -> Tensor:
    """Donors' pixels (N, S, S), moved and scaled so that their lungs' box fits that of `masks`."""
    target, source = _box(masks), _box(donor_masks)
    scale = source[:, 1] / target[:, 1]  # (N, 2): x, y
    shift = source[:, 0] - scale * target[:, 0]
    affine = torch.zeros(len(donors), 2, 3, device=donors.device)
    affine[:, 0, 0], affine[:, 1, 1] = scale[:, 0], scale[:, 1]
    affine[:, :, 2] = shift
    grid = F.affine_grid(affine, [len(donors), 1, *donors.shape[1:]], align_corners=False)
    moved: Tensor = F.grid_sample(
        donors.float()[:, None], grid, padding_mode="border", align_corners=False
    )[:, 0]
    return moved


def _box(masks: Tensor) -> Tensor:
    """Bounding boxes of masks (N, S, S): centre and half of the extent, (N, 2, 2).

    The last axis is x, y; the image spans −1 to 1.
    """
    size = masks.shape[-1]
    positions = (2 * torch.arange(size, device=masks.device) + 1) / size - 1
    sides = []
    for axis in (1, 2):  # x: over rows, y: over columns
        lung = masks.amax(axis) > 0.5
        low = torch.where(lung, positions, 2.0).amin(1)
        high = torch.where(lung, positions, -2.0).amax(1)
        sides.append(torch.stack([(low + high) / 2, (high - low).clamp(min=2 / size) / 2], 1))
    return torch.stack(sides, 2)


@dataclass(frozen=True)
class LungEvidenceSummary:
    """Means of `LungEvidence` over a group of images, with 95% intervals of share and peak."""

    images: int
    share: float
    share_interval: Interval
    area: float
    peak: float
    peak_interval: Interval
    outside_swapped: float
    lungs_swapped: float


def summarise(
    evidence: LungEvidence,
    labels: npt.NDArray[np.int64],
    correct: npt.NDArray[np.bool_],
    patients: npt.NDArray[np.str_],
) -> dict[str, LungEvidenceSummary]:
    """Means by group: all images, each class, correct answers and wrong ones.

    `labels`, `correct` and `patients`, (N,) each, are those of the images of `evidence`. Empty
    groups are left out.
    """
    groups = {
        "all": np.ones(len(labels), bool),
        **{name: labels == label for label, name in enumerate(CLASSES)},
        "answered right": correct,
        "answered wrong": ~correct,
    }
    return {
        name: _mean(evidence, group, labels, patients)
        for name, group in groups.items()
        if group.any()
    }


def _mean(
    evidence: LungEvidence,
    group: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.int64],
    patients: npt.NDArray[np.str_],
) -> LungEvidenceSummary:
    times = bootstrap(labels[group], patients[group], DRAWS)

    def interval(values: npt.NDArray[Any]) -> Interval:
        return percentile_interval(bootstrap_means(times, values[group]))

    return LungEvidenceSummary(
        images=int(group.sum()),
        share=float(evidence.share[group].mean()),
        share_interval=interval(evidence.share),
        area=float(evidence.area[group].mean()),
        peak=float(evidence.peak[group].mean()),
        peak_interval=interval(evidence.peak),
        outside_swapped=float(evidence.outside_swapped[group].mean()),
        lungs_swapped=float(evidence.lungs_swapped[group].mean()),
    )
