"""Several networks in one archive: their mean, how far they agree, and who should look again."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from handlers import novelty
from handlers.novelty import UNLIKE, Novelty

Card = Mapping[str, Any]
Logits = npt.NDArray[np.float32]
Maps = npt.NDArray[np.float32]
Distances = npt.NDArray[np.float32]

CLEAR, FLAG, REVIEW = "clear", "flag", "review"


class Found(NamedTuple):
    """What a network finds on an image: logits (2,), maps (2, h, w) and, where its graph has them,
    distances (1 + K,) from the training images."""

    logits: Logits
    maps: Maps
    distances: Distances | None = None


def members(card: Card) -> Sequence[Card]:
    """The cards of an archive's networks: those on the card, or the card itself."""
    found: Sequence[Card] = card.get("members") or [card]
    return found


def combine(card: Card, found: Sequence[Found]) -> Found:
    """Logits (2,) and maps (2, h, w) of the archive: of its one network, or the mean of several.

    Each network's are divided by its temperature first, so that `mean(map) + bias = logit` holds
    for the mean too.
    """
    if len(found) == 1:
        return found[0]
    temperatures = [member["temperature"] for member in members(card)]
    logits, maps = (
        np.mean([one[k] / t for one, t in zip(found, temperatures, strict=True)], axis=0)
        for k in (0, 1)
    )
    return Found(logits.astype(np.float32), maps.astype(np.float32))


def agreement(probabilities: Sequence[float], maps: Sequence[Maps]) -> dict[str, float | None]:
    """How far networks agree: the widest difference of P(PNEUMONIA), and of the decision maps.

    The latter as the least correlation (Pearson) between two; null where a map is even.
    """
    decisions = [(one[1] - one[0]).ravel() for one in maps]
    correlations = [
        float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else None
        for place, a in enumerate(decisions)
        for b in decisions[:place]
    ]
    known = [value for value in correlations if value is not None]
    return {
        "probability_difference": round(max(probabilities) - min(probabilities), 8),
        "map_correlation": round(min(known), 6) if len(known) == len(correlations) else None,
    }


def novelty_of(card: Card, found: Sequence[Found]) -> Novelty | None:
    """How unlike the training images an image is, by the network that warns most of it."""
    return novelty.worst(
        [
            novelty.judge(member["novelty"], one.distances)
            for member, one in zip(members(card), found, strict=True)
            if one.distances is not None
        ]
    )


def triage(
    rules: Mapping[str, float],
    positive: float,
    threshold: float,
    disagreement: float | None,
    *,
    unlike: bool = False,
) -> tuple[str, list[str]]:
    """`clear`, `flag` or `review`, and the reasons of the last, by a card's rules.

    `doubt` is the distance of the probability from the threshold, `disagreement` that between the
    networks; the former in logits, so that it means the same at every threshold. `unlike`: the
    image is unlike the training images.
    """
    reasons = [UNLIKE] if unlike else []
    if abs(_logit(positive) - _logit(threshold)) < rules["doubt"]:
        reasons.append("doubt")
    if disagreement is not None and disagreement > rules["disagreement"]:
        reasons.append("disagreement")
    if reasons:
        return REVIEW, reasons
    return (FLAG if positive >= threshold else CLEAR), []


def _logit(probability: float) -> float:
    bounded = min(max(probability, 1e-8), 1 - 1e-8)
    return math.log(bounded / (1 - bounded))
