"""Is an image unlike the training images? The rule on a network's distances, by its card."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from handlers.arrays import Distances
from handlers.card_fields import NoveltyRule


@dataclass(frozen=True)
class Novelty:
    """How far an image lies from the training images.

    `score` is its distance over the card's threshold; `resembles`, the alteration of an X-ray that
    it looks like: turned, or inverted.
    """

    score: float
    resembles: str | None

    @property
    def unlike(self) -> bool:
        """Whether the answer should not be trusted."""
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
    """One network's novelty of an image, by the rule on its card.

    `distances` (1 + K,) are those from the training images as they are, then from the same under
    each of the rule's K alterations. An image resembles an alteration that it is nearer to, by more
    than a margin, and near enough.
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
    """Of several networks' assessments the one that warns most; None of none."""
    return max(assessments, key=lambda novelty: (novelty.unlike, novelty.score), default=None)
