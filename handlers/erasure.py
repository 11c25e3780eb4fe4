"""Does the evidence matter? The erasure test that /explanations answers with."""

import numpy as np
import numpy.typing as npt
from PIL.Image import Resampling, fromarray

from handlers.arrays import Pixels

SHARE = 0.1  # of the image that is erased
DRAWS = 8  # random regions beside the strongest


def erase(pixels: Pixels, evidence: npt.NDArray[np.floating]) -> tuple[Pixels, float]:
    """Pixels (1 + 8, S, S) with a tenth erased, and the exact share.

    First without the cells of strongest evidence (h, w), then without 8 regions of the same size
    and shape at random places, always the same ones. What is erased becomes the image's mean grey,
    as the patches that training cuts out are one grey.
    """
    count = max(1, round(SHARE * evidence.size))
    strongest = np.zeros(evidence.size, bool)
    strongest[np.argsort(-evidence, axis=None, kind="stable")[:count]] = True
    regions = [strongest.reshape(evidence.shape)]
    # All shifts but none at all; the region wraps around, so that its size stays.
    shifts = np.random.default_rng(0).permutation(evidence.size - 1)[:DRAWS] + 1
    for shift in shifts:
        regions.append(np.roll(regions[0], np.divmod(shift, evidence.shape[1]), (0, 1)))
    side = pixels.shape[-1]
    grey = np.uint8(round(float(pixels.mean())))
    erased = np.stack([np.where(_enlarged(region, side), grey, pixels) for region in regions])
    return erased, count / evidence.size


def _enlarged(region: npt.NDArray[np.bool_], side: int) -> npt.NDArray[np.bool_]:
    large = fromarray(region.astype(np.uint8)).resize((side, side), Resampling.NEAREST)
    return np.asarray(large) > 0
