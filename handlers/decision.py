"""From logits to the decision: probability, threshold, triage. Pure functions.

Training, evaluation and serving all call these. Arrays may have any leading dimensions.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from handlers.card import Evaluated
from handlers.card_fields import OperatingPoint, TriageRules

POSITIVE = 1  # index of PNEUMONIA, the class of the threshold
DECIMALS = 8  # of printed probabilities and thresholds
BOUND = 10.0**-DECIMALS  # probabilities are at least this far from 0 and 1 in `logit`

CLEAR, FLAG, REVIEW = "clear", "flag", "review"
UNLIKE, DOUBT, DISAGREEMENT = "unlike", "doubt", "disagreement"

Array = npt.NDArray[np.floating[Any]]
Probabilities = npt.NDArray[np.float64]


def probability(logits: Array, temperature: float) -> Probabilities:
    """P(PNEUMONIA) (…,) of logits (…, 2): softmax(logits / temperature).

    Raises:
        ValueError: a logit is NaN or infinite.
    """
    if not np.isfinite(logits).all():
        raise ValueError("a logit is not a finite number")
    scaled = logits.astype(np.float64) / temperature
    odds = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    positive: Probabilities = odds[..., POSITIVE] / odds.sum(axis=-1)
    return positive


def printed_probability(logits: Array, temperature: float) -> Probabilities:
    """P(PNEUMONIA) (…,) of logits (…, 2), rounded to the eight decimals that are printed.

    Decisions are made on these, so that the printed numbers reproduce them.
    """
    return probability(logits, temperature).round(DECIMALS)


def class_probabilities(positive: float) -> tuple[float, float]:
    """The printed probabilities of both classes, from that of PNEUMONIA; they add up to 1."""
    return round(1 - positive, DECIMALS), positive


def logit(probability: npt.ArrayLike) -> Probabilities:
    """ln(p / (1 − p)) (…,) of probabilities (…,), clipped to 1e-8 … 1 − 1e-8."""
    bounded = np.clip(np.asarray(probability, dtype=np.float64), BOUND, 1 - BOUND)
    odds: Probabilities = np.log(bounded / (1 - bounded))
    return odds


@dataclass(frozen=True)
class Triage:
    """`clear`, `flag` or `review`, and the reasons for a review."""

    decision: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decision:
    """The decision at an operating point; `label` is a class index."""

    operating_point: str
    threshold: float
    label: int
    triage: Triage | None  # None: the card has no rules


def is_positive(positive: npt.ArrayLike, threshold: float) -> npt.NDArray[np.bool_]:
    """Whether printed probabilities of PNEUMONIA (…,) reach a printed threshold."""
    reached: npt.NDArray[np.bool_] = np.asarray(positive) >= threshold
    return reached


def decide(
    positive: float,
    name: str,
    point: OperatingPoint,
    rules: TriageRules | None = None,
    disagreement: float | None = None,
    *,
    unlike: bool = False,
) -> Decision:
    """The decision on a printed probability of PNEUMONIA at one operating point."""
    threshold = round(float(point.threshold), DECIMALS)
    reached = bool(is_positive(positive, threshold))
    label = POSITIVE if reached else 1 - POSITIVE
    if rules is None:
        return Decision(name, threshold, label, None)
    return Decision(
        name, threshold, label, triage(rules, positive, threshold, disagreement, unlike=unlike)
    )


def decide_all(
    card: Evaluated, positive: float, disagreement: float | None = None, *, unlike: bool = False
) -> Mapping[str, Decision]:
    """The decision on a printed probability of PNEUMONIA at every operating point of a card."""
    return {
        name: decide(positive, name, point, card.triage, disagreement, unlike=unlike)
        for name, point in card.operating_points.items()
    }


def triage(
    rules: TriageRules,
    positive: float,
    threshold: float,
    disagreement: float | None,
    *,
    unlike: bool = False,
) -> Triage:
    """Whether a reader should review the image, and why.

    Reasons are: the probability is within `rules.doubt` of the threshold, in logits, which means
    the same at every threshold; the `disagreement` of the networks' probabilities (None for one
    network) is above its limit; the image is `unlike` the training images.
    """
    reasons = [UNLIKE] if unlike else []
    if abs(logit(positive) - logit(threshold)) < rules.doubt:
        reasons.append(DOUBT)
    if disagreement is not None and disagreement > rules.disagreement:
        reasons.append(DISAGREEMENT)
    if reasons:
        return Triage(REVIEW, tuple(reasons))
    return Triage(FLAG if is_positive(positive, threshold) else CLEAR)


def disagreement(probabilities: Sequence[npt.ArrayLike]) -> Probabilities:
    """The widest difference (…,) between several networks' probabilities (…,) of PNEUMONIA."""
    stacked = np.stack([np.asarray(each, dtype=np.float64) for each in probabilities])
    widest: Probabilities = (stacked.max(axis=0) - stacked.min(axis=0)).round(DECIMALS)
    return widest


def correlation(first: npt.ArrayLike, second: npt.ArrayLike) -> Probabilities:
    """Pearson's correlation (N,) of maps (N, …), image by image; NaN where a map is constant."""
    flat = [np.asarray(maps, dtype=np.float64) for maps in (first, second)]
    flat = [maps.reshape(len(maps), -1) for maps in flat]
    centred = [maps - maps.mean(1, keepdims=True) for maps in flat]
    # Not by the norm alone: the mean of equal floats may differ from them by a rounding error.
    varied = [maps.min(1) < maps.max(1) for maps in flat]
    norms = [np.sqrt((maps**2).sum(1)) for maps in centred]
    with np.errstate(divide="ignore", invalid="ignore"):
        coefficients = (centred[0] * centred[1]).sum(1) / (norms[0] * norms[1])
    defined: Probabilities = np.where(varied[0] & varied[1], coefficients, np.nan)
    return defined


@dataclass(frozen=True)
class Agreement:
    """How far several networks agree on one image."""

    probability_difference: float  # the largest of any two networks
    map_correlation: float | None  # the smallest of any two; None if a map is constant


def agreement(probabilities: Sequence[float], maps: Iterable[Array]) -> Agreement:
    """Agreement of several networks, from each one's printed P(PNEUMONIA) and maps (2, h, w)."""
    decision_maps = np.stack([each[POSITIVE] - each[1 - POSITIVE] for each in maps])
    first, second = np.triu_indices(len(decision_maps), k=1)  # every pair of networks
    least = correlation(decision_maps[first], decision_maps[second]).min(initial=1.0)
    return Agreement(
        float(disagreement(probabilities)), None if np.isnan(least) else round(float(least), 6)
    )
