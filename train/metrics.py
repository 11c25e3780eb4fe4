"""Labels and scores → numbers, with intervals that know that patients have several images."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest
from sklearn.metrics import (
    brier_score_loss,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
)

from train.networks import CLASSES

Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
Interval = tuple[float, float]

DRAWS = 2000
CONFIDENCE = 0.95
TAILS = (100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2)
FEW = 30  # patients: with fewer a bootstrap knows too little
SENSITIVITY_READ_OFF = 0.985


@dataclass(frozen=True)
class OfClass:
    """How one class fares at a threshold."""

    precision: float
    recall: float
    f1: float
    images: int


@dataclass(frozen=True)
class OfSeries:
    """How many images of PNEUMONIA of one series, bacteria or virus say, are found."""

    recall: float
    interval: Interval
    images: int


@dataclass(frozen=True)
class Judgement:
    """One network on one part of the data. Intervals are of 95%."""

    images: int
    patients: int
    threshold: float
    auc: float
    accuracy: float
    log_loss: float
    brier: float
    calibration_error: float
    confusion: list[list[int]]  # rows: actual, columns: predicted
    by_class: dict[str, OfClass]
    specificity_read_off: float  # at a sensitivity of .985 on these very images: not a choice
    intervals: dict[str, Interval]
    recall_by_series: dict[str, "OfSeries"] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def judge(
    labels: Labels,
    scores: Scores,
    patients: npt.NDArray[np.str_],
    threshold: float,
    series: npt.NDArray[np.str_] | None = None,
) -> Judgement:
    """Figures of the probabilities of PNEUMONIA `scores` (N,) at a threshold, with intervals.

    `series` (N,) parts the images of PNEUMONIA further, for their recall.

    Intervals come from a patient-cluster bootstrap of 2,000 draws, stratified by class; with fewer
    than 30 patients proportions get the exact binomial interval (Clopper and Pearson 1934), and
    the AUC none.
    """
    predicted = (scores >= threshold).astype(int)
    precision, recall, f1, counts = precision_recall_fscore_support(
        labels, predicted, labels=[0, 1], zero_division=0.0
    )
    return Judgement(
        images=len(labels),
        patients=len(set(patients)),
        threshold=threshold,
        auc=float(roc_auc_score(labels, scores)),
        accuracy=float((labels == predicted).mean()),
        log_loss=float(log_loss(labels, scores, labels=[0, 1])),
        brier=float(brier_score_loss(labels, scores, pos_label=1)),
        calibration_error=calibration_error(labels, scores),
        confusion=confusion_matrix(labels, predicted, labels=[0, 1]).tolist(),
        by_class={
            name: OfClass(float(precision[k]), float(recall[k]), float(f1[k]), int(counts[k]))
            for k, name in enumerate(CLASSES)
        },
        specificity_read_off=specificity_at(labels, scores, SENSITIVITY_READ_OFF),
        intervals=intervals(labels, scores, patients, threshold),
        recall_by_series={} if series is None else _recalls(labels, predicted, patients, series),
    )


def specificity_at(labels: Labels, scores: Scores, sensitivity: float) -> float:
    """The largest specificity at which these images' sensitivity is at least so much."""
    false_alarms, found, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(1 - false_alarms[found >= sensitivity].min())


def reliability(labels: Labels, scores: Scores, bins: int = 10) -> npt.NDArray[np.float64]:
    """For each bin of equal width that holds images: mean score, share of PNEUMONIA, images."""
    place = np.minimum((scores * bins).astype(int), bins - 1)
    rows = [
        (scores[place == k].mean(), labels[place == k].mean(), (place == k).sum())
        for k in np.unique(place)
    ]
    return np.array(rows, dtype=np.float64)


def calibration_error(labels: Labels, scores: Scores, bins: int = 10) -> float:
    """Expected calibration error in bins of equal width (Guo et al. 2017, eq. 3)."""
    said, true, count = reliability(labels, scores, bins).T
    return float((np.abs(said - true) * count).sum() / count.sum())


def per_thousand(sensitivity: float, specificity: float, prevalence: float) -> dict[str, float]:
    """Of 1,000 children: the missed, the false alarms, and the predictive values.

    A predictive value of which there is no case is nan.
    """
    sick, healthy = 1000 * prevalence, 1000 * (1 - prevalence)
    found, cleared = sick * sensitivity, healthy * specificity
    missed, alarms = sick - found, healthy - cleared
    return {
        "missed": missed,
        "false_alarms": alarms,
        "positive_predictive_value": found / (found + alarms) if found + alarms else float("nan"),
        "negative_predictive_value": (
            cleared / (cleared + missed) if cleared + missed else float("nan")
        ),
    }


def net_benefit(labels: Labels, scores: Scores, thresholds: Scores) -> Scores:
    """Net benefit (T,) of treating whoever is at or above each threshold, a probability.

    True positives less false ones at the threshold's odds, as a share of all (Vickers and Elkin
    2006, equation of the box "Net benefit").
    """
    positive = scores >= thresholds[:, None]  # (T, N)
    true = (positive & (labels == 1)).mean(1)
    false = (positive & (labels == 0)).mean(1)
    benefit: Scores = true - false * thresholds / (1 - thresholds)
    return benefit


def _recalls(
    labels: Labels,
    predicted: Labels,
    patients: npt.NDArray[np.str_],
    series: npt.NDArray[np.str_],
) -> dict[str, OfSeries]:
    """Recall by series of PNEUMONIA, where there is more than one, with intervals by patient."""
    names = np.unique(series[labels == 1])
    found = {}
    for name in names if len(names) > 1 else []:
        chosen = (labels == 1) & (series == name)
        right = predicted[chosen] == 1
        interval = _exact(right)
        if len(set(patients[chosen])) >= FEW and 0 < right.mean() < 1:
            times = bootstrap(labels[chosen], patients[chosen], DRAWS)
            interval = percentile_interval(bootstrap_means(times, right))
        found[str(name)] = OfSeries(float(right.mean()), interval, int(chosen.sum()))
    return found


def intervals(
    labels: Labels,
    scores: Scores,
    patients: npt.NDArray[np.str_],
    threshold: float,
    draws: int = DRAWS,
) -> dict[str, Interval]:
    """95% intervals of accuracy, sensitivity, specificity and, with 30 patients or more, AUC."""
    right = (scores >= threshold) == (labels == 1)
    exact = {
        "accuracy": _exact(right),
        "sensitivity": _exact(right[labels == 1]),
        "specificity": _exact(right[labels == 0]),
    }
    if len(set(patients)) < FEW:
        return exact
    times = bootstrap(labels, patients, draws)
    drawn = {
        "accuracy": bootstrap_means(times, right),
        "sensitivity": bootstrap_means(times[:, labels == 1], right[labels == 1]),
        "specificity": bootstrap_means(times[:, labels == 0], right[labels == 0]),
        "auc": aucs(labels, scores, times),
    }
    found: dict[str, Interval] = {}
    for name, values in drawn.items():
        low, high = percentile_interval(values)
        # A bootstrap of a proportion that is 0 or 1 has no width.
        found[name] = exact[name] if low == high and name in exact else (low, high)
    return found


def bootstrap(
    labels: Labels, patients: npt.NDArray[np.str_], draws: int, seed: int = 0
) -> npt.NDArray[np.float64]:
    """How often each image is drawn (draws, N): whole patients, by class, with replacement.

    The same labels, patients and seed give the same draws, so that networks are compared on them.
    """
    random = np.random.default_rng(seed)
    times = np.zeros((draws, len(labels)))
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        names, owner = np.unique(patients[of_class], return_inverse=True)
        drawn = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
        times[:, of_class] = drawn[:, owner]
    return times


def _exact(right: npt.NDArray[np.bool_]) -> Interval:
    """The exact binomial interval (Clopper and Pearson 1934) of the share of `right` (N,)."""
    interval = binomtest(int(right.sum()), len(right)).proportion_ci(CONFIDENCE, method="exact")
    return float(interval.low), float(interval.high)


def bootstrap_means(times: npt.NDArray[np.float64], values: npt.NDArray[Any]) -> Scores:
    """The mean (D,) of values (N,) in each of the draws `times` (D, N)."""
    means: Scores = (times @ values) / times.sum(1)
    return means


def percentile_interval(draws: Scores) -> Interval:
    """The 95% interval of a figure by its values (D,) in a bootstrap's draws."""
    low, high = np.percentile(draws, TAILS)
    return float(low), float(high)


def aucs(labels: Labels, scores: Scores, times: npt.NDArray[np.float64]) -> Scores:
    """The AUC of each draw: the share of pairs of a sick and a healthy image in the right order.

    A pair of equal scores counts half (Hanley and McNeil 1982).
    """
    sick, healthy = scores[labels == 1], scores[labels == 0]
    ordered = (np.sign(sick[:, None] - healthy) + 1) / 2  # (sick, healthy)
    weights = times[:, labels == 1], times[:, labels == 0]
    pairs = weights[0].sum(1) * weights[1].sum(1)
    found: Scores = ((weights[0] @ ordered) * weights[1]).sum(1) / pairs
    return found
