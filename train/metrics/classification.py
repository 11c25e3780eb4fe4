"""Classification metrics with intervals by patient, since a patient may have several images."""

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

from handlers.card_fields import ClassFigures, PartFigures, SeriesFigures
from train.data.classes import CLASSES

Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
Interval = tuple[float, float]

DRAWS = 2000
CONFIDENCE = 0.95
TAILS = (100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2)
BOOTSTRAP_PATIENTS = 30  # the fewest patients for a bootstrap interval
SENSITIVITY_READ_OFF = 0.985


def part_figures(
    labels: Labels,
    scores: Scores,
    patients: npt.NDArray[np.str_],
    threshold: float,
    series: npt.NDArray[np.str_] | None = None,
) -> PartFigures:
    """Figures of the probabilities of PNEUMONIA `scores` (N,) at a threshold, with intervals.

    `series` (N,) groups the images of PNEUMONIA, for a recall by group.

    Intervals come from a patient-cluster bootstrap of 2,000 draws, stratified by class; with fewer
    than 30 patients proportions have the exact binomial interval (Clopper and Pearson 1934), and
    the AUC has none.
    """
    predicted = (scores >= threshold).astype(int)
    precision, recall, f1, counts = precision_recall_fscore_support(
        labels, predicted, labels=[0, 1], zero_division=0.0
    )
    return PartFigures(
        images=len(labels),
        patients=len(set(patients)),
        threshold=threshold,
        auc=float(roc_auc_score(labels, scores)),
        accuracy=float((labels == predicted).mean()),
        log_loss=float(log_loss(labels, scores, labels=[0, 1])),
        brier=float(brier_score_loss(labels, scores, pos_label=1)),
        calibration_error=calibration_error(labels, scores),
        confusion=tuple(map(tuple, confusion_matrix(labels, predicted, labels=[0, 1]).tolist())),
        by_class={
            name: ClassFigures(
                precision=float(precision[k]),
                recall=float(recall[k]),
                f1=float(f1[k]),
                images=int(counts[k]),
            )
            for k, name in enumerate(CLASSES)
        },
        specificity_read_off=specificity_at(labels, scores, SENSITIVITY_READ_OFF),
        intervals=intervals(labels, scores, patients, threshold),
        recall_by_series={} if series is None else _recalls(labels, predicted, patients, series),
    )


def specificity_at(labels: Labels, scores: Scores, sensitivity: float) -> float:
    """The largest specificity on the ROC curve at which sensitivity is at least `sensitivity`."""
    false_alarms, sensitivities, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(1 - false_alarms[sensitivities >= sensitivity].min())


def reliability(labels: Labels, scores: Scores, bins: int = 10) -> npt.NDArray[np.float64]:
    """Mean score, share of PNEUMONIA and image count (B, 3) of the nonempty bins of equal width."""
    bin_of = np.minimum((scores * bins).astype(int), bins - 1)
    rows = [
        (scores[bin_of == k].mean(), labels[bin_of == k].mean(), (bin_of == k).sum())
        for k in np.unique(bin_of)
    ]
    return np.array(rows, dtype=np.float64)


def calibration_error(labels: Labels, scores: Scores, bins: int = 10) -> float:
    """Expected calibration error in bins of equal width (Guo et al. 2017, eq. 3)."""
    predicted, observed, count = reliability(labels, scores, bins).T
    return float((np.abs(predicted - observed) * count).sum() / count.sum())


def per_thousand(sensitivity: float, specificity: float, prevalence: float) -> dict[str, float]:
    """Missed cases and false alarms per 1,000 children, and the predictive values.

    A predictive value without any such result is nan.
    """
    sick, healthy = 1000 * prevalence, 1000 * (1 - prevalence)
    detected, cleared = sick * sensitivity, healthy * specificity
    missed, alarms = sick - detected, healthy - cleared
    return {
        "missed": missed,
        "false_alarms": alarms,
        "positive_predictive_value": (
            detected / (detected + alarms) if detected + alarms else float("nan")
        ),
        "negative_predictive_value": (
            cleared / (cleared + missed) if cleared + missed else float("nan")
        ),
    }


def net_benefit(labels: Labels, scores: Scores, thresholds: Scores) -> Scores:
    """Net benefit (T,) of treating the patients whose score reaches each of the thresholds (T,).

    True positives minus false positives times the threshold's odds, per image (Vickers and Elkin
    2006, equation of the box "Net benefit").
    """
    positive = scores >= thresholds[:, None]  # (T, N)
    true_positives = (positive & (labels == 1)).mean(1)
    false_positives = (positive & (labels == 0)).mean(1)
    benefit: Scores = true_positives - false_positives * thresholds / (1 - thresholds)
    return benefit


def _recalls(
    labels: Labels,
    predicted: Labels,
    patients: npt.NDArray[np.str_],
    series: npt.NDArray[np.str_],
) -> dict[str, SeriesFigures]:
    """Recall of PNEUMONIA by series, such as bacteria and virus, with 95% intervals by patient.

    By the series' name; empty where all images of PNEUMONIA are of one series.
    """
    names = np.unique(series[labels == 1])
    recalls = {}
    for name in names if len(names) > 1 else []:
        chosen = (labels == 1) & (series == name)
        correct = predicted[chosen] == 1
        interval = _exact_interval(correct)
        if len(set(patients[chosen])) >= BOOTSTRAP_PATIENTS and 0 < correct.mean() < 1:
            times = bootstrap(labels[chosen], patients[chosen], DRAWS)
            interval = percentile_interval(bootstrap_means(times, correct))
        recalls[str(name)] = SeriesFigures(
            recall=float(correct.mean()), interval=interval, images=int(chosen.sum())
        )
    return recalls


def intervals(
    labels: Labels,
    scores: Scores,
    patients: npt.NDArray[np.str_],
    threshold: float,
    draws: int = DRAWS,
) -> dict[str, Interval]:
    """95% intervals of accuracy, sensitivity, specificity and, from 30 patients on, AUC."""
    correct = (scores >= threshold) == (labels == 1)
    exact = {
        "accuracy": _exact_interval(correct),
        "sensitivity": _exact_interval(correct[labels == 1]),
        "specificity": _exact_interval(correct[labels == 0]),
    }
    if len(set(patients)) < BOOTSTRAP_PATIENTS:
        return exact
    times = bootstrap(labels, patients, draws)
    drawn = {
        "accuracy": bootstrap_means(times, correct),
        "sensitivity": bootstrap_means(times[:, labels == 1], correct[labels == 1]),
        "specificity": bootstrap_means(times[:, labels == 0], correct[labels == 0]),
        "auc": aucs(labels, scores, times),
    }
    chosen: dict[str, Interval] = {}
    for name, values in drawn.items():
        low, high = percentile_interval(values)
        # The bootstrap interval of a proportion of 0 or 1 has no width.
        chosen[name] = exact[name] if low == high and name in exact else (low, high)
    return chosen


def bootstrap(
    labels: Labels, patients: npt.NDArray[np.str_], draws: int, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Times each image is drawn (draws, N): whole patients, by class, with replacement.

    The same labels, patients and seed give the same draws, so networks are compared on equal ones.
    """
    random = np.random.default_rng(seed)
    times = np.zeros((draws, len(labels)))
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        names, owner = np.unique(patients[of_class], return_inverse=True)
        drawn = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
        times[:, of_class] = drawn[:, owner]
    return times


def _exact_interval(correct: npt.NDArray[np.bool_]) -> Interval:
    """The exact binomial interval (Clopper and Pearson 1934) of the share of `correct` (N,)."""
    interval = binomtest(int(correct.sum()), len(correct)).proportion_ci(CONFIDENCE, method="exact")
    return float(interval.low), float(interval.high)


def bootstrap_means(times: npt.NDArray[np.float64], values: npt.NDArray[Any]) -> Scores:
    """The mean (D,) of values (N,) in each of the draws `times` (D, N)."""
    means: Scores = (times @ values) / times.sum(1)
    return means


def percentile_interval(draws: Scores) -> Interval:
    """The 95% percentile interval of a figure from its values (D,) in the bootstrap draws."""
    low, high = np.percentile(draws, TAILS)
    return float(low), float(high)


def aucs(labels: Labels, scores: Scores, times: npt.NDArray[np.float64]) -> Scores:
    """The AUC (D,) of scores (N,) in each of the draws `times` (D, N).

    The share of pairs of a PNEUMONIA and a NORMAL image in the right order; a pair of equal scores
    counts half (Hanley and McNeil 1982).
    """
    sick, healthy = scores[labels == 1], scores[labels == 0]
    ordered = (np.sign(sick[:, None] - healthy) + 1) / 2  # (sick, healthy)
    weights = times[:, labels == 1], times[:, labels == 0]
    pairs = weights[0].sum(1) * weights[1].sum(1)
    areas: Scores = ((weights[0] @ ordered) * weights[1]).sum(1) / pairs
    return areas
