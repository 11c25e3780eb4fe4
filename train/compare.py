"""Is one network better than another? Paired differences on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from train.judge import CalibratedModel
from train.metrics import (
    DRAWS,
    TAILS,
    Interval,
    Labels,
    Scores,
    aucs,
    bootstrap,
    bootstrap_means,
    percentile_interval,
)


@dataclass(frozen=True)
class Difference:
    """The first network less the second. Intervals of 95%, by patient; DeLong's by image."""

    first: str
    second: str
    auc: float
    auc_interval: Interval
    accuracy: float  # each at its own default operating point
    accuracy_interval: Interval
    delong_interval: Interval
    delong_p: float  # two-sided, of no difference


def differences(
    models: Sequence[CalibratedModel], part: str, labels: Labels, patients: npt.NDArray[np.str_]
) -> list[Difference]:
    """Every pair, on the same draws of a patient-cluster bootstrap, stratified by class."""
    if len(models) == 1:
        return []
    times = bootstrap(labels, patients, DRAWS)
    scores = [model.scores(part) for model in models]
    drawn = [aucs(labels, of_model, times) for of_model in scores]
    right = [(model.positive(part) == (labels == 1)).astype(float) for model in models]
    pairs = []
    for i in range(len(models)):
        for j in range(i):
            gain = right[i] - right[j]
            difference, interval, p = delong_test(labels, scores[i], scores[j])
            pairs.append(
                Difference(
                    first=models[i].name,
                    second=models[j].name,
                    auc=difference,
                    auc_interval=percentile_interval(drawn[i] - drawn[j]),
                    accuracy=float(gain.mean()),
                    accuracy_interval=percentile_interval(bootstrap_means(times, gain)),
                    delong_interval=interval,
                    delong_p=p,
                )
            )
    return pairs


def delong_test(labels: Labels, first: Scores, second: Scores) -> tuple[float, Interval, float]:
    """Difference of two AUCs on the same images, its 95% interval, and p (two-sided).

    DeLong et al. 1988, by midranks as Sun and Xu 2014 compute it. It takes images for independent,
    which those of one patient are not.
    """
    sick, healthy = labels == 1, labels == 0
    m, n = int(sick.sum()), int(healthy.sum())
    of_sick, of_healthy, areas = [], [], []
    for scores in (first, second):
        ranks = rankdata(scores)
        # How far each image is in order with those of the other class.
        of_sick.append((ranks[sick] - rankdata(scores[sick])) / n)
        of_healthy.append(1 - (ranks[healthy] - rankdata(scores[healthy])) / m)
        areas.append(of_sick[-1].mean())
    covariance = np.cov(of_sick) / m + np.cov(of_healthy) / n
    difference = float(areas[0] - areas[1])
    deviation = float(np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]))
    if deviation == 0:
        return difference, (difference, difference), 1.0 if difference == 0 else 0.0
    reach = float(norm.ppf(TAILS[1] / 100)) * deviation
    p = 2 * float(norm.sf(abs(difference) / deviation))
    return difference, (difference - reach, difference + reach), p
