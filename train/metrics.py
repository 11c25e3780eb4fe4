"""Labels and scores → numbers, with intervals that know that patients have several images."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import beta
from sklearn.metrics import (
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from train.networks import CLASSES

Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
Interval = tuple[float, float]

DRAWS = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class OfClass:
    """How one class fares at a threshold."""

    precision: float
    recall: float
    f1: float
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
    confusion: list[list[int]]  # rows: actual, columns: predicted
    by_class: dict[str, OfClass]
    intervals: dict[str, Interval]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def judge(
    labels: Labels, scores: Scores, patients: npt.NDArray[np.str_], threshold: float
) -> Judgement:
    """Figures of the probabilities of PNEUMONIA `scores` (N,) at a threshold, with intervals.

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
        confusion=confusion_matrix(labels, predicted, labels=[0, 1]).tolist(),
        by_class={
            name: OfClass(float(precision[k]), float(recall[k]), float(f1[k]), int(counts[k]))
            for k, name in enumerate(CLASSES)
        },
        intervals=intervals(labels, scores, patients, threshold),
    )


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
        "accuracy": clopper_pearson(int(right.sum()), len(right)),
        "sensitivity": clopper_pearson(int(right[labels == 1].sum()), int((labels == 1).sum())),
        "specificity": clopper_pearson(int(right[labels == 0].sum()), int((labels == 0).sum())),
    }
    if len(set(patients)) < 30:
        return exact
    times = bootstrap(labels, patients, draws)
    drawn = {
        "accuracy": _share(times, right),
        "sensitivity": _share(times[:, labels == 1], right[labels == 1]),
        "specificity": _share(times[:, labels == 0], right[labels == 0]),
        "auc": aucs(labels, scores, times),
    }
    tails = [100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2]
    found: dict[str, Interval] = {}
    for name, values in drawn.items():
        low, high = np.percentile(values, tails)
        # A bootstrap of a proportion that is 0 or 1 has no width.
        found[name] = exact[name] if low == high and name in exact else (float(low), float(high))
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


def _share(times: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]) -> Scores:
    shares: Scores = (times @ right) / times.sum(1)
    return shares


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


def clopper_pearson(hits: int, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """The exact two-sided binomial interval of a proportion (Clopper and Pearson 1934)."""
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high
