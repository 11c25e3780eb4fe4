"""Models with given probabilities, for tests."""

import numpy as np
import numpy.typing as npt

from handlers.card_fields import OperatingPoint
from train.evaluation.calibrated_model import UNCHANGED, CalibratedModel


def operating_point(threshold: float) -> OperatingPoint:
    return OperatingPoint(threshold=threshold, sensitivity=1, specificity=1)


def model_of(
    scores: npt.ArrayLike, name: str = "any", threshold: float = 0.5, part: str = "test"
) -> CalibratedModel:
    """A model with these probabilities of PNEUMONIA (N,) on a part."""
    positive = np.log(np.asarray(scores) / (1 - np.asarray(scores)))
    logits = np.stack([0 * positive, positive], axis=1)
    points = {"balanced": operating_point(threshold)}
    return CalibratedModel(name, UNCHANGED, points, {part: logits})
