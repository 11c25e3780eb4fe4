"""Does a network look into the lungs? Decision maps against lung masks, and lungs swapped."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from train.augment import gaussian_blur
from train.background import FEATHER, SWAPPED, Swaps, swap
from train.cam import explain_decision
from train.data import Dataset
from train.losses import lung_cover
from train.lung_masks import LungMasks
from train.metrics import DRAWS, Interval, bootstrap, bootstrap_means, percentile_interval
from train.networks import CLASSES, Classifier

BATCH = 64


@dataclass(frozen=True)
class LungEvidence:
    """Where the decision map's evidence lies, and what moves the decision; (N,) each."""

    share: npt.NDArray[np.float64]  # of the map's absolute value, inside the lungs
    area: npt.NDArray[np.float64]  # of the lungs, as a share of the image
    peak: npt.NDArray[np.bool_]  # whether the map's largest absolute value is inside the lungs
    outside_swapped: npt.NDArray[np.float64]  # absolute change of the decision logit
    lungs_swapped: npt.NDArray[np.float64]


def measure(
    network: Classifier,
    dataset: Dataset,
    masks: LungMasks,
    rows: npt.NDArray[np.int64],
    seed: int = 0,
) -> LungEvidence:
    """Evidence on those of `rows` (of the data set) that have a mask, in their order.

    The decision map is the map of PNEUMONIA less that of NORMAL. Each image's background, then its
    lungs, is swapped with that of another of these images, of either class.
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
    """The fields of `LungEvidence` on images, their donors and the masks of both (N, S, S)."""
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
    """Share (N,) of the absolute value of maps (N, h, w) inside masks (N, S, S) in 0..1."""
    evidence = maps.abs()
    inside = (evidence * lung_cover(masks, maps)).sum((1, 2))
    return inside / evidence.sum((1, 2)).clamp(min=1e-6)


def peak_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """Whether (N,) the largest absolute value of maps (N, h, w), enlarged, lies in the lungs."""
    size = masks.shape[-2:]
    large = F.interpolate(maps.abs()[:, None], size=size, mode="bilinear")[:, 0]
    place = large.flatten(1).argmax(1, keepdim=True)
    inside: Tensor = masks.flatten(1).gather(1, place)[:, 0] > 0.5
    return inside


def align_lungs(donors: Tensor, donor_masks: Tensor, masks: Tensor) -> Tensor:
    """Donors' pixels (N, S, S), moved so that their lungs' box lies on the box of `masks`."""
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
    """Centre, and half of width and height, of masks: (N, 2, 2: x, y), in −1..1 of the image."""
    size = masks.shape[-1]
    place = (2 * torch.arange(size, device=masks.device) + 1) / size - 1
    sides = []
    for axis in (1, 2):  # x: over rows, y: over columns
        lung = masks.amax(axis) > 0.5
        low = torch.where(lung, place, 2.0).amin(1)
        high = torch.where(lung, place, -2.0).amax(1)
        sides.append(torch.stack([(low + high) / 2, (high - low).clamp(min=2 / size) / 2], 1))
    return torch.stack(sides, 2)


@dataclass(frozen=True)
class LungEvidenceSummary:
    """Means of `LungEvidence` over a group of images, two of them with 95% intervals."""

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
    """Means over all images, over each class, and over correct and wrong answers.

    Labels, patients and whether the answer was correct, (N,) each, are those of the images of
    `evidence`. Empty groups are left out.
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
