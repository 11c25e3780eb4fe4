"""How alike two maps are, image by image."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Values = npt.NDArray[np.float64]


def pearson(first: npt.ArrayLike, second: npt.ArrayLike) -> Values:
    """Pearson's correlation (N,) of maps (N, h, w); 0 where one of them is constant."""
    maps = [np.asarray(values, dtype=np.float64) for values in (first, second)]
    flat = [values.reshape(len(values), -1) for values in maps]
    centred = [values - values.mean(1, keepdims=True) for values in flat]
    norms = [np.sqrt((values**2).sum(1)) for values in centred]
    product = norms[0] * norms[1]
    values: Values = (centred[0] * centred[1]).sum(1) / np.where(product > 0, product, 1)
    return values


def spearman(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> Values:
    """Spearman's rank correlation (N,) of maps (N, h, w); 0 where one of them is constant."""
    return pearson(*(rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (first, second)))
