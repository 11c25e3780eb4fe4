"""Rank correlation of maps, per image; Pearson's is `handlers.decision.correlation`."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from handlers import decision

Values = npt.NDArray[np.float64]


def spearman(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> Values:
    """Spearman's rank correlation (N,) of maps (N, h, w); 0 where either map is constant."""
    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (first, second)]
    return np.nan_to_num(decision.correlation(*ranks))
