"""The rule of novelty for a card: fitted on distances, and what a network warns of by it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from handlers import novelty
from handlers.card_fields import NoveltyRule
from train.novelty import ALTERATIONS, CalibrationDistances, NetworkDistances

USUAL, UNUSUAL = 0.99, 0.05  # quantiles of distances that the threshold lies between

Array = npt.NDArray[np.floating[Any]]
Flags = npt.NDArray[np.bool_]


def fit(distances: CalibrationDistances) -> NoveltyRule:
    """The rule for a card.

    The threshold lies halfway, in the logarithm, between what 99% of the calibration images stay
    below and what 95% of them exceed, turned to a side or inverted. (Upside down has no part in it:
    there the mean of its own tells.) A margin lets 99% of the calibration images resemble none of
    the alterations, even where these change nothing.
    """
    original = distances.original
    nearer = original[:, :1] - original[:, 1:]  # to an alteration than to the training images
    margins = np.quantile(nearer, USUAL, axis=0).clip(min=0)
    return NoveltyRule(
        threshold=_between(original[:, 0], distances.far),
        alterations=ALTERATIONS,
        margins=tuple(margins.tolist()),
    )


def unlike(rule: NoveltyRule, distances: Iterable[npt.NDArray[np.float32]]) -> Flags:
    """Which images are unlike the training images (N,), of their distances (N, 1 + K)."""
    return np.array([novelty.assess(rule, of_image).unlike for of_image in distances], dtype=bool)


@dataclass(frozen=True)
class NoveltyResult:
    """What a network warns of as unlike its training images."""

    parts: Mapping[str, Flags]  # (N,)
    changed: Mapping[str, float]  # share of the images of `block-select`, by change


def measure(rule: NoveltyRule, distances: NetworkDistances) -> NoveltyResult:
    """What a network with this rule warns of."""
    return NoveltyResult(
        {part: unlike(rule, of_part) for part, of_part in distances.parts.items()},
        {
            name: float(unlike(rule, of_change).mean())
            for name, of_change in distances.changed.items()
        },
    )


def _between(usual: Array, unusual: Array) -> float:
    low, high = np.quantile(usual, USUAL), np.quantile(unusual, UNUSUAL)
    return float(np.sqrt(low * max(low, high)))
