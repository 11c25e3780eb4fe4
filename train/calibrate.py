"""Temperature, offset and operating points, from validation data that chose nothing else."""

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import binomtest
from sklearn.metrics import roc_curve

from train.metrics import CONFIDENCE, Labels, Scores

log = logging.getLogger(__name__)

DEFAULT = "balanced"
DIGITS = 8  # probabilities and thresholds as the server prints them

SCREENING_SENSITIVITY = 0.98
RULE_IN_SPECIFICITY = 0.95


@dataclass(frozen=True)
class Calibration:
    """P(PNEUMONIA) = sigmoid((decision logit + offset) / temperature)."""

    temperature: float
    offset: float

    def shift(self, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Logits (N, 2) with half of the offset added to PNEUMONIA, half taken from NORMAL."""
        shifted: npt.NDArray[np.float64] = logits + self.offset / 2 * np.array([-1.0, 1.0])
        return shifted

    def scores(self, logits: npt.NDArray[np.float64]) -> Scores:
        """Probabilities of PNEUMONIA (N,) of logits (N, 2) as trained."""
        found: Scores = expit((logits[:, 1] - logits[:, 0] + self.offset) / self.temperature)
        return found


def fit(logits: npt.NDArray[np.float64], labels: Labels) -> Calibration:
    """The temperature (Guo et al. 2017, section 4.2) and offset of least log-loss on logits (N, 2).

    The offset goes into the head's bias, so that `mean(map) + bias = logit` stays true.
    """
    decision = logits[:, 1] - logits[:, 0]

    def loss(found: npt.NDArray[np.float64]) -> float:
        scaled = (decision + found[1]) / np.exp(found[0])
        return float(np.logaddexp(0, np.where(labels == 1, -scaled, scaled)).mean())

    # Temperatures between 1/20 and 20; a perfectly parted set would drive them to nothing.
    found = minimize(loss, (0.0, 0.0), bounds=((-3.0, 3.0), (-10.0, 10.0)), method="L-BFGS-B")
    return Calibration(float(np.exp(found.x[0])), float(found.x[1]))


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
    # A bound lies below its sensitivity, so lower ones need none.
    for point in (point for point in points if point.sensitivity >= SCREENING_SENSITIVITY):
        if _lower_bound(round(point.sensitivity * sick), sick) >= SCREENING_SENSITIVITY:
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


def _lower_bound(hits: int, sick: int) -> float:
    """The one-sided 95% lower bound of the sensitivity, where `hits` of `sick` images are found."""
    test = binomtest(hits, sick, alternative="greater")
    return float(test.proportion_ci(CONFIDENCE, method="exact").low)
