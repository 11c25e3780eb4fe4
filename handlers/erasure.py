"""The erasure test of /explanations: images without their strongest evidence."""

import numpy as np
import numpy.typing as npt
from PIL.Image import Resampling, fromarray

from handlers.arrays import Pixels

SHARE = 0.1  # of the image's cells that is erased
DRAWS = 8  # random regions to compare with


def erase(pixels: Pixels, evidence: npt.NDArray[np.floating]) -> tuple[Pixels, float]:
    """Pixels (1 + 8, S, S) with a tenth erased, and the exact share.

    The first image lacks the cells with the strongest `evidence` (h, w); the others lack regions of
    the same size and shape at random places, which are the same in every call. Erased pixels have
    the image's mean grey, like the patches that training cuts out.
    """
    count = max(1, round(SHARE * evidence.size))
    strongest = np.zeros(evidence.size, bool)
    strongest[np.argsort(-evidence, axis=None, kind="stable")[:count]] = True
    regions = [strongest.reshape(evidence.shape)]
    # Every shift except zero; a region wraps around, so that it keeps its size.
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
