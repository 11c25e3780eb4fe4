"""Temperature, offset and operating points, from a validation part reserved for them."""

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.stats import binomtest
from sklearn.metrics import roc_curve

from handlers.card_fields import OperatingPoint
from handlers.decision import DECIMALS, probability
from train.metrics.classification import CONFIDENCE, Labels, Scores

log = logging.getLogger(__name__)

DEFAULT = "balanced"

SCREENING_SENSITIVITY = 0.98
RULE_IN_SPECIFICITY = 0.95


@dataclass(frozen=True)
class Calibration:
    """P(PNEUMONIA) = sigmoid((decision logit + offset) / temperature)."""

    temperature: float
    offset: float

    def shift(self, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Logits (N, 2) with half the offset added to PNEUMONIA and half subtracted from NORMAL."""
        shifted: npt.NDArray[np.float64] = logits + self.offset / 2 * np.array([-1.0, 1.0])
        return shifted

    def scores(self, logits: npt.NDArray[np.float64]) -> Scores:
        """Probabilities of PNEUMONIA (N,), not rounded, of logits (N, 2) before the offset."""
        return probability(self.shift(logits), self.temperature)


def fit(logits: npt.NDArray[np.float64], labels: Labels) -> Calibration:
    """Temperature (Guo et al. 2017, section 4.2) and offset of least log-loss on logits (N, 2).

    The offset becomes part of the head's bias, so that `mean(map) + bias = logit` stays true.
    """
    margins = logits[:, 1] - logits[:, 0]

    def loss(parameters: npt.NDArray[np.float64]) -> float:
        log_temperature, offset = parameters
        scaled = (margins + offset) / np.exp(log_temperature)
        return float(np.logaddexp(0, np.where(labels == 1, -scaled, scaled)).mean())

    # Temperatures between 1/20 and 20: perfectly separated classes would drive them to 0.
    fitted = minimize(loss, (0.0, 0.0), bounds=((-3.0, 3.0), (-10.0, 10.0)), method="L-BFGS-B")
    return Calibration(float(np.exp(fitted.x[0])), float(fitted.x[1]))


def operating_points(labels: Labels, scores: Scores) -> dict[str, OperatingPoint]:
    """Operating points by purpose; each threshold is halfway between two adjacent scores (N,).

    `screening`: the highest threshold whose one-sided 95% lower bound of sensitivity (Clopper and
    Pearson) is at least 0.98. `balanced`: the highest mean of sensitivity and specificity (Youden
    1950). `rule_in`: the lowest threshold with a specificity of at least 0.95. `screening` is left
    out, with a warning, if no threshold reaches its bound.
    """
    positives = int((labels == 1).sum())
    false_alarms, sensitivity, cuts = roc_curve(labels, scores, drop_intermediate=False)
    # A cut is a score: a threshold halfway to the next lower score classifies the images alike.
    lower = np.append(cuts[1:], 0.0)
    thresholds = np.where(np.isinf(cuts), (1 + cuts[1]) / 2, (cuts + lower) / 2).round(DECIMALS)
    points = [
        OperatingPoint(threshold=float(t), sensitivity=float(s), specificity=float(1 - f))
        for t, s, f in zip(thresholds, sensitivity, false_alarms, strict=True)
    ]  # from the highest threshold down
    chosen = {DEFAULT: max(points, key=lambda point: point.sensitivity + point.specificity)}
    # The bound is below the sensitivity, so lower sensitivities can't reach it.
    for point in (point for point in points if point.sensitivity >= SCREENING_SENSITIVITY):
        if _lower_bound(round(point.sensitivity * positives), positives) >= SCREENING_SENSITIVITY:
            chosen["screening"] = point
            break
    else:
        log.warning(
            "no threshold has a lower bound of sensitivity of %s on %d images of PNEUMONIA: "
            "the operating point screening is left out",
            SCREENING_SENSITIVITY,
            positives,
        )
    specific = [point for point in points if point.specificity >= RULE_IN_SPECIFICITY]
    chosen["rule_in"] = specific[-1]  # never empty: the threshold above all scores is one
    return chosen


def _lower_bound(detected: int, positives: int) -> float:
    """One-sided 95% lower bound (Clopper and Pearson) of the sensitivity detected / positives."""
    test = binomtest(detected, positives, alternative="greater")
    return float(test.proportion_ci(CONFIDENCE, method="exact").low)
