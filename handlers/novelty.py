"""Novelty: how far an image is from the training images, by a network's distances."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from handlers.arrays import Distances
from handlers.card_fields import NoveltyRule


@dataclass(frozen=True)
class Novelty:
    """How far an image is from the training images."""

    score: float  # distance divided by the card's threshold
    resembles: str | None  # the alteration that it looks like, such as "inverted"

    @property
    def unlike(self) -> bool:
        """Whether the image is too unlike the training images for its answer to be trusted."""
        return self.score > 1 or self.resembles is not None

    def warning(self) -> str:
        """The warning in the answer."""
        if self.resembles:
            return f"the image looks {self.resembles}: put it right and ask again"
        return (
            f"the image is unlike the training images (novelty {self.score:.2f}, theirs is "
            "at most 1): don't trust the answer"
        )


def assess(rule: NoveltyRule, distances: Distances) -> Novelty:
    """The novelty of an image for one network, by the rule on its card.

    `distances` (1 + K,) are to the training images, then to the training images under each of the
    rule's K alterations. An image resembles an alteration if that distance is within the threshold
    and, with the margin added, below the first one.
    """
    distance, *altered = (float(value) for value in distances)
    nearest = int(np.argmin(np.add(altered, rule.margins)))
    resembles = (
        altered[nearest] + rule.margins[nearest] < distance and altered[nearest] <= rule.threshold
    )
    return Novelty(
        score=distance / rule.threshold,
        resembles=rule.alterations[nearest] if resembles else None,
    )


def worst(assessments: Sequence[Novelty]) -> Novelty | None:
    """The assessment with the strongest warning of several networks' ones; None without any."""
    return max(assessments, key=lambda novelty: (novelty.unlike, novelty.score), default=None)
