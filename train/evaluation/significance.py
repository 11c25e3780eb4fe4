"""Statistical significance: paired differences between networks on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from train.evaluation.calibrated_model import CalibratedModel
from train.metrics.classification import (
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
    """The first network's figures minus the second's, with 95% intervals.

    The bootstrap is by patient; DeLong's interval treats images as independent.
    """

    first: str
    second: str
    auc: float
    auc_interval: Interval
    accuracy: float  # each at its own default operating point
    accuracy_interval: Interval
    delong_interval: Interval
    delong_p: float  # two-sided, of the hypothesis that the AUCs are equal


def differences(
    models: Sequence[CalibratedModel], part: str, labels: Labels, patients: npt.NDArray[np.str_]
) -> list[Difference]:
    """The difference of every pair of models on a part; none for a single model.

    All pairs use the same draws of a patient-cluster bootstrap, stratified by class.
    """
    if len(models) == 1:
        return []
    times = bootstrap(labels, patients, DRAWS)
    scores = [model.scores(part) for model in models]
    drawn = [aucs(labels, model_scores, times) for model_scores in scores]
    correct = [(model.positive(part) == (labels == 1)).astype(float) for model in models]
    pairs = []
    for i in range(len(models)):
        for j in range(i):
            gain = correct[i] - correct[j]
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

    DeLong et al. 1988, computed with midranks as in Sun and Xu 2014. It assumes independent images,
    which those of one patient are not.
    """
    sick, healthy = labels == 1, labels == 0
    m, n = int(sick.sum()), int(healthy.sum())
    # Placements: the share of the opposite class that an image is ordered correctly against.
    sick_placements, healthy_placements, areas = [], [], []
    for scores in (first, second):
        ranks = rankdata(scores)
        sick_placements.append((ranks[sick] - rankdata(scores[sick])) / n)
        healthy_placements.append(1 - (ranks[healthy] - rankdata(scores[healthy])) / m)
        areas.append(sick_placements[-1].mean())
    covariance = np.cov(sick_placements) / m + np.cov(healthy_placements) / n
    difference = float(areas[0] - areas[1])
    deviation = float(np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]))
    if deviation == 0:
        return difference, (difference, difference), 1.0 if difference == 0 else 0.0
    reach = float(norm.ppf(TAILS[1] / 100)) * deviation
    p = 2 * float(norm.sf(abs(difference) / deviation))
    return difference, (difference - reach, difference + reach), p
