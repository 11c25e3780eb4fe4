"""The novelty rule of a card: fitted on distances, and the images it warns of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from handlers import novelty
from handlers.card_fields import NoveltyRule
from train.evaluation.novelty import ALTERATIONS, CalibrationDistances, NetworkDistances

ORIGINAL, ALTERED = 0.99, 0.05  # quantiles of distances; the threshold lies between them

Array = npt.NDArray[np.floating[Any]]
Flags = npt.NDArray[np.bool_]


def fit(distances: CalibrationDistances) -> NoveltyRule:
    """The novelty rule for a card, without stage and hash of the reference.

    The threshold is the geometric mean of two distances: 99% of the calibration images lie below
    the first, and 95% of those turned to a side or inverted lie above the second. Upside-down
    images are left out, because the distance from their own mean recognises them. The margins make
    99% of the calibration images resemble no alteration, even one that changes nothing.
    """
    original = distances.original
    # By how much an image is nearer to an alteration than to the training images.
    excess = original[:, :1] - original[:, 1:]
    margins = np.quantile(excess, ORIGINAL, axis=0).clip(min=0)
    return NoveltyRule(
        threshold=_threshold(original[:, 0], distances.far),
        alterations=ALTERATIONS,
        margins=tuple(margins.tolist()),
    )


def unlike(rule: NoveltyRule, distances: Iterable[npt.NDArray[np.float32]]) -> Flags:
    """Whether each image (N,) is unlike the training images, from its distances (N, 1 + K)."""
    return np.array([novelty.assess(rule, row).unlike for row in distances], dtype=bool)


@dataclass(frozen=True)
class NoveltyResult:
    """The images with a novelty warning: by part, and shares under each change."""

    parts: Mapping[str, Flags]  # (N,)
    changed: Mapping[str, float]  # share of the sample of `block-select`


def measure(rule: NoveltyRule, distances: NetworkDistances) -> NoveltyResult:
    """The images that the rule warns of, from their distances."""
    return NoveltyResult(
        parts={part: unlike(rule, rows) for part, rows in distances.parts.items()},
        changed={
            name: float(unlike(rule, rows).mean()) for name, rows in distances.changed.items()
        },
    )


def _threshold(original: Array, altered: Array) -> float:
    low, high = np.quantile(original, ORIGINAL), np.quantile(altered, ALTERED)
    return float(np.sqrt(low * max(low, high)))
