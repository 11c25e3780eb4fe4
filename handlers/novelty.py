"""Is an image unlike the training images? The rule on a network's distances, by its card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Card = Mapping[str, Any]
Distances = npt.NDArray[np.float32]

UNLIKE = "unlike"  # a reason of the triage


@dataclass(frozen=True)
class Novelty:
    """How far an image lies from the training images.

    `score` is its distance over the card's threshold; `resembles`, the change of an X-ray whose
    likes it lies among: turned, or inverted.
    """

    score: float
    resembles: str | None

    @property
    def unlike(self) -> bool:
        """Whether the answer should not be trusted."""
        return self.score > 1 or self.resembles is not None

    def warning(self) -> str:
        """What the answer says to it."""
        if self.resembles:
            return f"the image looks {self.resembles}: put it right and ask again"
        return (
            f"the image is unlike the training images (novelty {self.score:.2f}, theirs is "
            "at most 1): don't trust the answer"
        )


def judge(rule: Mapping[str, Any], distances: Distances) -> Novelty:
    """One network's verdict, by `novelty` on its card.

    `distances` (1 + K,) are those from the training images as they are, then from the same under
    each of the card's K alterations. An image resembles one that it is nearer to, by more than a
    margin, and near enough.
    """
    distance, *others = (float(value) for value in distances)
    nearest = int(np.argmin(np.add(others, rule["margins"])))
    altered = (
        others[nearest] + rule["margins"][nearest] < distance
        and others[nearest] <= rule["threshold"]
    )
    return Novelty(
        score=distance / rule["threshold"],
        resembles=rule["alterations"][nearest] if altered else None,
    )


def worst(found: Sequence[Novelty]) -> Novelty | None:
    """Of several networks' verdicts the one that warns most; None of none."""
    return max(found, key=lambda one: (one.unlike, one.score), default=None)
