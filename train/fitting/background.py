"""Random changes of the background, outside the lungs, so that it carries no class information.

As in `augment`, drawing and applying are separate: all random numbers of a batch come from one
generator on the CPU, and `swap` is a function of pixels and these numbers.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from train.data.classes import CLASSES
from train.data.lung_masks import LungMasks
from train.fitting.augment import gaussian_blur

FEATHER = 0.02  # standard deviation of a seam, as a share of the image's side
MARGIN = 0.06  # by which a donor's mask is dilated, as a share of the image's side

KEPT, SWAPPED, BLURRED, GREY = range(4)  # the change of an image's background


@dataclass(frozen=True)
class Swaps:
    """The random numbers that change the backgrounds of a batch of N images."""

    kind: Tensor  # (N,): KEPT, SWAPPED, BLURRED or GREY
    # (N,): row of the data set that gives the background, and the mask if the image has none
    donor: Tensor
    grey: Tensor  # (N,), 0..255

    def slice(self, rows: slice) -> "Swaps":
        """The numbers of the images in `rows`."""
        return Swaps(self.kind[rows], self.donor[rows], self.grey[rows])


class BackgroundSwaps:
    """Draws background changes that are equally frequent in both classes.

    Masks are not equally frequent, so the probability of a change is set by class, separately for
    images with a mask (changed up to the lungs) and without one (changed outside a donor's mask
    only). Donors come from either class with the same probability.
    """

    def __init__(
        self, masks: LungMasks, labels: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
    ) -> None:
        """Take a data set's masks and labels (N,); `rows` are its training images."""
        self._masked = masks.present
        self._labels = labels
        self._donors = [rows[self._masked[rows] & (labels[rows] == k)] for k in range(len(CLASSES))]
        self._shares = [float(self._masked[rows[labels[rows] == k]].mean()) for k in (0, 1)]

    def draw(self, batch: Tensor, share: float, generator: torch.Generator) -> Swaps:
        """Changes for a batch of rows (N,); `share` is the expected share of changed images."""
        rows = batch.numpy()
        masked, labels = self._masked[rows], self._labels[rows]
        masked_share = np.array(self._shares)[labels]
        # As many images with a mask are changed in either class, and as many without one.
        probability = share * np.where(
            masked,
            min(self._shares) / masked_share,
            (1 - max(self._shares)) / np.maximum(1 - masked_share, 1e-9),
        )
        changed = torch.rand(len(rows), generator=generator) < torch.from_numpy(probability)
        kind = torch.randint(SWAPPED, GREY + 1, (len(rows),), generator=generator)
        kind = torch.where(changed, kind, KEPT)
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
    pixels: Tensor, masks: Tensor, donors: Tensor, donor_masks: Tensor, swaps: Swaps
) -> Tensor:
    """Pixels, float (N, S, S) in 0..255, whose background is changed by `swaps`.

    `donors` are the donors' pixels (N, S, S) in 0..255; `masks` and `donor_masks` (N, S, S) are in
    0..1. The donors' lungs are blurred away. An image without a mask is changed outside the
    dilated mask of its donor.
    """
    pixels, donors = pixels.float(), donors.float()
    size = pixels.shape[-1]
    masked = masks.amax((1, 2), keepdim=True) > 0
    inside = torch.where(masked, masks, _dilated(donor_masks))
    inside = gaussian_blur(inside[:, None], FEATHER * size)[:, 0]
    kind = swaps.kind.to(pixels.device)[:, None, None]
    grey = swaps.grey.to(pixels.device)[:, None, None].expand_as(pixels)
    swapped = without_lungs(donors, donor_masks)
    outside = torch.where(
        kind == SWAPPED, swapped, torch.where(kind == BLURRED, _low_resolution(pixels), grey)
    )
    return torch.where(kind == KEPT, pixels, inside * pixels + (1 - inside) * outside)


def without_lungs(pixels: Tensor, masks: Tensor) -> Tensor:
    """Pixels (N, S, S) with the lungs blurred away; masks (N, S, S) in 0..1."""
    size = pixels.shape[-1]
    inside = gaussian_blur(_dilated(masks)[:, None], FEATHER * size)[:, 0]
    return inside * _low_resolution(pixels) + (1 - inside) * pixels


def _dilated(masks: Tensor) -> Tensor:
    """Masks (N, S, S) dilated by MARGIN of the side."""
    reach = 2 * max(1, round(MARGIN * masks.shape[-1])) + 1
    higher = F.max_pool2d(masks[:, None], (reach, 1), stride=1, padding=(reach // 2, 0))
    return F.max_pool2d(higher, (1, reach), stride=1, padding=(0, reach // 2))[:, 0]


def _low_resolution(pixels: Tensor) -> Tensor:
    """Pixels (N, S, S) without detail smaller than an eighth of the side."""
    small = F.adaptive_avg_pool2d(pixels[:, None], 8)
    return F.interpolate(small, size=pixels.shape[-2:], mode="bicubic")[:, 0].clamp(0, 255)
