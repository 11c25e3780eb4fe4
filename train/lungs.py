"""Lungs drawn by hand: read, used to make what lies outside them tell nothing, and to judge maps.

Training only: nothing at serving time needs a mask.
"""

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from handlers import pixels as decoding
from handlers.errors import ImageError
from train.augment import gaussian_blur
from train.cam import explain
from train.data import Dataset, Image
from train.metrics import DRAWS, Interval, bootstrap
from train.networks import CLASSES, Classifier
from train.patients import DataError

log = logging.getLogger(__name__)

FEATHER = 0.02  # standard deviation of a seam, as a share of the image
MARGIN = 0.06  # of the image: how far from lungs, not its own, a border begins


@dataclass(frozen=True)
class Lungs:
    """Masks (N, S, S), 0 to 255, of a data set's images; all 0 where an image has none."""

    masks: npt.NDArray[np.uint8]

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Which images have a mask (N,)."""
        return np.array([mask.any() for mask in self.masks], dtype=bool)

    @property
    def sha256(self) -> str:
        """Hash of the masks."""
        return hashlib.sha256(self.masks.tobytes()).hexdigest()


def read(root: Path, images: Sequence[Image], size: int) -> Lungs:
    """The masks of training images: `root`/<class>/<name of the image>.png, white is lung.

    Raises:
        DataError: no image has one, or a file is no image.
    """
    masks = np.zeros((len(images), size, size), np.uint8)

    def one(row: int) -> None:
        image = images[row]
        path = root / CLASSES[image.label] / f"{image.path.stem}.png"
        if image.folder != "train" or not path.is_file():
            return
        try:
            masks[row] = decoding.decode(path.read_bytes(), size)
        except ImageError as error:
            raise DataError(f"{path}: {error}") from error

    with ThreadPoolExecutor() as pool:
        list(pool.map(one, range(len(images))))
    lungs = Lungs(masks)
    if not lungs.known.any():
        raise DataError(
            f"MASKS={root}: no training image has a mask there, such as "
            f"{CLASSES[0]}/{images[0].path.stem}.png"
        )
    log.info("lungs: %d of %d images have a mask", lungs.known.sum(), len(images))
    return lungs


# --- what lies outside


@dataclass(frozen=True)
class Swaps:
    """The random numbers that change the outside of a batch; a row for each image."""

    kind: Tensor  # (N,): 0 nothing, 1 swapped, 2 blurred, 3 one grey
    donor: Tensor  # (N,): row of the data set whose outside comes in, and whose lungs count where
    # the image has none of its own
    grey: Tensor  # (N,), 0..255

    def slice(self, rows: slice) -> "Swaps":
        """The changes of some of the images."""
        return Swaps(self.kind[rows], self.donor[rows], self.grey[rows])


class Outside:
    """Changes what lies outside the lungs so that it tells nothing of the class.

    The altered share is the same in both classes, with a mask (up to the lungs) and without one
    (in the border only, by another patient's mask), although masks are not equally frequent.
    Donors come from either class alike and have their own lungs blurred away.
    """

    def __init__(self, lungs: Lungs, labels: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]):
        """Of a data set's masks and labels (N,), the rows that train."""
        self._known = lungs.known
        self._labels = labels
        self._donors = [rows[self._known[rows] & (labels[rows] == k)] for k in range(len(CLASSES))]
        self._shares = [float(self._known[rows[labels[rows] == k]].mean()) for k in (0, 1)]

    def draw(self, batch: Tensor, share: float, generator: torch.Generator) -> Swaps:
        """Which of a batch's rows (N,) are changed, and how: `share` of either class, expected."""
        rows = batch.numpy()
        known, labels = self._known[rows], self._labels[rows]
        of_class = np.array(self._shares)[labels]
        # Of the images with a mask as many in either class, and so of those without.
        chance = share * np.where(
            known,
            min(self._shares) / of_class,
            (1 - max(self._shares)) / np.maximum(1 - of_class, 1e-9),
        )
        happens = torch.rand(len(rows), generator=generator) < torch.from_numpy(chance)
        kind = torch.randint(1, 4, (len(rows),), generator=generator) * happens
        label = torch.randint(0, 2, (len(rows),), generator=generator)
        pick = torch.rand(len(rows), generator=generator)
        donor = torch.tensor(
            [
                self._donors[k][int(p * len(self._donors[k]))]
                for k, p in zip(label, pick, strict=True)
            ]
        )
        return Swaps(kind, donor, 255 * torch.rand(len(rows), generator=generator))


def swap(
    pixels: Tensor, lungs: Tensor, donors: Tensor, their_lungs: Tensor, swaps: Swaps
) -> Tensor:
    """Pixels (N, S, S) in 0..255 with what lies outside the lungs changed as drawn; float.

    `lungs` and `their_lungs` are masks (N, S, S) in 0..1, of the images and of their donors.
    """
    pixels, donors = pixels.float(), donors.float()
    size = pixels.shape[-1]
    known = lungs.amax((1, 2), keepdim=True) > 0
    inside = torch.where(known, lungs, _widened(their_lungs))
    inside = gaussian_blur(inside[:, None], FEATHER * size)[:, 0]
    theirs = without_lungs(donors, their_lungs)
    blurred = _smeared(pixels)
    kind = swaps.kind.to(pixels.device)[:, None, None]
    grey = swaps.grey.to(pixels.device)[:, None, None].expand_as(pixels)
    outside = torch.where(kind == 1, theirs, torch.where(kind == 2, blurred, grey))
    return torch.where(kind == 0, pixels, inside * pixels + (1 - inside) * outside)


def without_lungs(pixels: Tensor, lungs: Tensor) -> Tensor:
    """Pixels (N, S, S) whose lungs (N, S, S), 0..1, are blurred away."""
    size = pixels.shape[-1]
    mask = gaussian_blur(_widened(lungs)[:, None], FEATHER * size)[:, 0]
    return mask * _smeared(pixels) + (1 - mask) * pixels


def _widened(lungs: Tensor) -> Tensor:
    reach = 2 * max(1, round(MARGIN * lungs.shape[-1])) + 1
    higher = F.max_pool2d(lungs[:, None], (reach, 1), stride=1, padding=(reach // 2, 0))
    return F.max_pool2d(higher, (1, reach), stride=1, padding=(0, reach // 2))[:, 0]


def _smeared(pixels: Tensor) -> Tensor:
    """Blurred until nothing smaller than an eighth of the image is left."""
    small = F.adaptive_avg_pool2d(pixels[:, None], 8)
    return F.interpolate(small, size=pixels.shape[-2:], mode="bicubic")[:, 0].clamp(0, 255)


# --- where the evidence lies


def inside(maps: Tensor, lungs: Tensor) -> Tensor:
    """The share (N,) of a map's absolute value (N, h, w) inside the lungs (N, S, S), 0..1."""
    weight = maps.abs()
    return (weight * _cover(lungs, maps)).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1e-6)


def evidence_outside(maps: Tensor, lungs: Tensor) -> Tensor:
    """How many logits (N,) of a map (N, h, w) come from outside the lungs (N, S, S), whatever sign.

    What training penalises (after Ross et al. 2017, arXiv:1703.03717). Not `1 - inside`: that share
    does not grow with the map, so its gradient is largest while the map says nothing yet.
    """
    return (maps.abs() * (1 - _cover(lungs, maps))).mean((1, 2))


def _cover(lungs: Tensor, maps: Tensor) -> Tensor:
    """How much of each cell (N, h, w) is lung."""
    height, width = maps.shape[-2:]
    return F.adaptive_avg_pool2d(lungs[:, None], (height, width))[:, 0]


def peak_inside(maps: Tensor, lungs: Tensor) -> Tensor:
    """Whether (N,) the largest absolute value of a map (N, h, w), enlarged, lies in the lungs."""
    size = lungs.shape[-2:]
    large = F.interpolate(maps.abs()[:, None], size=size, mode="bilinear")[:, 0]
    place = large.flatten(1).argmax(1, keepdim=True)
    found: Tensor = lungs.flatten(1).gather(1, place)[:, 0] > 0.5
    return found


def lungs_of(donors: Tensor, their_lungs: Tensor, lungs: Tensor) -> Tensor:
    """Donors' pixels (N, S, S) moved so that their lungs' box lies on the box of `lungs`."""
    to, of = _box(lungs), _box(their_lungs)
    scale = of[:, 1] / to[:, 1]  # (N, 2): x, y
    shift = of[:, 0] - scale * to[:, 0]
    affine = torch.zeros(len(donors), 2, 3, device=donors.device)
    affine[:, 0, 0], affine[:, 1, 1] = scale[:, 0], scale[:, 1]
    affine[:, :, 2] = shift
    grid = F.affine_grid(affine, [len(donors), 1, *donors.shape[1:]], align_corners=False)
    moved: Tensor = F.grid_sample(
        donors.float()[:, None], grid, padding_mode="border", align_corners=False
    )[:, 0]
    return moved


def _box(lungs: Tensor) -> Tensor:
    """Centre and half of width and height (N, 2, 2: x, y), of masks, in −1..1 of the image."""
    size = lungs.shape[-1]
    place = (2 * torch.arange(size, device=lungs.device) + 1) / size - 1
    sides = []
    for axis in (1, 2):  # x: over rows, y: over columns
        there = lungs.amax(axis) > 0.5
        low = torch.where(there, place, 2.0).amin(1)
        high = torch.where(there, place, -2.0).amax(1)
        sides.append(torch.stack([(low + high) / 2, (high - low).clamp(min=2 / size) / 2], 1))
    return torch.stack(sides, 2)


@dataclass(frozen=True)
class Evidence:
    """Where the decision map's evidence lies on images with masks; each (N,)."""

    share: npt.NDArray[np.float64]  # of its absolute value, inside the lungs
    area: npt.NDArray[np.float64]  # of the image, the lungs'
    peak: npt.NDArray[np.bool_]  # inside the lungs
    outside_swapped: npt.NDArray[np.float64]  # how far the decision logit moves, absolute
    lungs_swapped: npt.NDArray[np.float64]


def measure(
    network: Classifier, dataset: Dataset, lungs: Lungs, rows: npt.NDArray[np.int64], seed: int = 0
) -> Evidence:
    """Evidence on those of `rows` (of the data set) that have a mask, in their order.

    The decision map is the map of PNEUMONIA less that of NORMAL. Each image's outside, then its
    lungs, is swapped with that of another of these images, of either class.
    """
    rows = rows[lungs.known[rows]]
    donors = np.random.default_rng(seed).permutation(rows)
    parts = [
        _measure(
            network,
            torch.from_numpy(dataset.pixels[some]),
            torch.from_numpy(dataset.pixels[others]),
            torch.from_numpy(lungs.masks[some]),
            torch.from_numpy(lungs.masks[others]),
        )
        for some, others in zip(_split(rows), _split(donors), strict=True)
    ]
    return Evidence(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _split(rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    return np.array_split(rows, -(-len(rows) // 64))


def _measure(
    network: Classifier, pixels: Tensor, donors: Tensor, masks: Tensor, their_masks: Tensor
) -> tuple[npt.NDArray[Any], ...]:
    device = network.head.weight.device
    pixels, donors = pixels.float().to(device), donors.float().to(device)
    ours, theirs = masks.to(device) / 255, their_masks.to(device) / 255
    before, maps = decide(network, pixels)
    everyone = torch.ones(len(pixels), dtype=torch.long)
    outside = swap(pixels, ours, donors, theirs, Swaps(everyone, everyone, everyone.float()))
    seam = gaussian_blur(ours[:, None], FEATHER * pixels.shape[-1])[:, 0]
    swapped = seam * lungs_of(donors, theirs, ours) + (1 - seam) * pixels
    return tuple(
        value.cpu().numpy()
        for value in (
            inside(maps, ours),
            ours.mean((1, 2)),
            peak_inside(maps, ours),
            (decide(network, outside)[0] - before).abs(),
            (decide(network, swapped)[0] - before).abs(),
        )
    )


def decide(network: Classifier, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The decision's logit (N,) and map (N, h, w): PNEUMONIA less NORMAL."""
    logits, maps = explain(network, pixels)
    return logits[:, 1] - logits[:, 0], maps[:, 1] - maps[:, 0]


@dataclass(frozen=True)
class Finding:
    """What `measure` found on a group of images, as means; two of them with 95% intervals."""

    images: int
    share: float
    share_interval: Interval
    area: float
    peak: float
    peak_interval: Interval
    outside_swapped: float
    lungs_swapped: float


def findings(
    evidence: Evidence,
    labels: npt.NDArray[np.int64],
    right: npt.NDArray[np.bool_],
    patients: npt.NDArray[np.str_],
) -> dict[str, Finding]:
    """Means of all images, of each class, of right and of wrong answers; empty groups left out.

    Labels, patients and whether the answer was right are of the images of `evidence`.
    """
    groups = {
        "all": np.ones(len(labels), bool),
        **{name: labels == label for label, name in enumerate(CLASSES)},
        "answered right": right,
        "answered wrong": ~right,
    }
    return {
        name: _mean(evidence, chosen, labels, patients)
        for name, chosen in groups.items()
        if chosen.any()
    }


def _mean(
    evidence: Evidence,
    chosen: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.int64],
    patients: npt.NDArray[np.str_],
) -> Finding:
    times = bootstrap(labels[chosen], patients[chosen], DRAWS)

    def interval(values: npt.NDArray[Any]) -> Interval:
        low, high = np.percentile((times @ values[chosen]) / times.sum(1), [2.5, 97.5])
        return float(low), float(high)

    return Finding(
        images=int(chosen.sum()),
        share=float(evidence.share[chosen].mean()),
        share_interval=interval(evidence.share),
        area=float(evidence.area[chosen].mean()),
        peak=float(evidence.peak[chosen].mean()),
        peak_interval=interval(evidence.peak),
        outside_swapped=float(evidence.outside_swapped[chosen].mean()),
        lungs_swapped=float(evidence.lungs_swapped[chosen].mean()),
    )
