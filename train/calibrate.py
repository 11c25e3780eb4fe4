"""Temperature and operating points, from validation data that chose nothing else."""

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.metrics import roc_curve

from train.metrics import Labels, Scores, clopper_pearson

log = logging.getLogger(__name__)

DEFAULT = "balanced"
DIGITS = 8  # probabilities and thresholds as the server prints them

SCREENING_SENSITIVITY = 0.98
RULE_IN_SPECIFICITY = 0.95


def temperature(logits: npt.NDArray[np.float64], labels: Labels) -> float:
    """What logits (N, 2) are divided by for the least log-loss (Guo et al. 2017, section 4.2)."""

    def loss(log_temperature: float) -> float:
        chosen = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(chosen[np.arange(len(labels)), labels].mean())

    # Between 1/20 and 20; a perfectly parted set would drive the temperature to nothing.
    found = minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded")
    return float(np.exp(found.x))


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold on the probability of PNEUMONIA, and what it did on the calibration images."""

    threshold: float
    sensitivity: float
    specificity: float


def operating_points(labels: Labels, scores: Scores) -> dict[str, OperatingPoint]:
    """Thresholds halfway between two neighbouring scores (N,), by purpose.

    `screening`: the highest whose one-sided 95% lower bound of sensitivity (Clopper and Pearson)
    is at least .98. `balanced`: the highest mean of sensitivity and specificity (Youden 1950).
    `rule_in`: the lowest with specificity at least .95. A purpose that no threshold serves is left
    out, with a warning.
    """
    sick = int((labels == 1).sum())
    false_alarms, sensitivity, cuts = roc_curve(labels, scores, drop_intermediate=False)
    # "score ≥ cut" for cut, a score: halfway to the next lower score decides the same images.
    lower = np.append(cuts[1:], 0.0)
    thresholds = np.where(np.isinf(cuts), (1 + cuts[1]) / 2, (cuts + lower) / 2).round(DIGITS)
    points = [
        OperatingPoint(float(t), float(s), float(1 - f))
        for t, s, f in zip(thresholds, sensitivity, false_alarms, strict=True)
    ]  # from the highest threshold down
    found = {DEFAULT: max(points, key=lambda point: point.sensitivity + point.specificity)}
    for point in points:
        if _surely(point.sensitivity, sick) >= SCREENING_SENSITIVITY:
            found["screening"] = point
            break
    else:
        log.warning(
            "no threshold shows a sensitivity of %s on %d images of PNEUMONIA: "
            "the operating point screening is left out",
            SCREENING_SENSITIVITY,
            sick,
        )
    specific = [point for point in points if point.specificity >= RULE_IN_SPECIFICITY]
    found["rule_in"] = specific[-1]  # there is always one: the threshold above all scores
    return found


def _surely(sensitivity: float, sick: int) -> float:
    """The one-sided 95% lower bound of a sensitivity seen on so many images."""
    return clopper_pearson(round(sensitivity * sick), sick, confidence=0.90)[0]
