"""Labels and scores → numbers, with intervals that know that patients have several images."""

from collections.abc import Callable
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
    figures: dict[str, Callable[[npt.NDArray[np.int64]], float]] = {
        "accuracy": lambda rows: float(right[rows].mean()),
        "sensitivity": lambda rows: float(right[rows][labels[rows] == 1].mean()),
        "specificity": lambda rows: float(right[rows][labels[rows] == 0].mean()),
        "auc": lambda rows: float(roc_auc_score(labels[rows], scores[rows])),
    }
    exact = {
        "accuracy": clopper_pearson(int(right.sum()), len(right)),
        "sensitivity": clopper_pearson(int(right[labels == 1].sum()), int((labels == 1).sum())),
        "specificity": clopper_pearson(int(right[labels == 0].sum()), int((labels == 0).sum())),
    }
    if len(set(patients)) < 30:
        return exact
    drawn = bootstrap_rows(labels, patients, draws)
    tails = [100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2]
    found: dict[str, Interval] = {}
    for name, figure in figures.items():
        low, high = np.percentile([figure(rows) for rows in drawn], tails)
        # A bootstrap of a proportion that is 0 or 1 has no width.
        found[name] = exact[name] if low == high and name in exact else (float(low), float(high))
    return found


def bootstrap_rows(
    labels: Labels, patients: npt.NDArray[np.str_], draws: int, seed: int = 0
) -> list[npt.NDArray[np.int64]]:
    """Rows of each draw: whole patients with replacement, as many of each class as there are.

    The same labels, patients and seed give the same draws, so that networks are compared on them.
    """
    random = np.random.default_rng(seed)
    clusters = []
    for label in range(len(CLASSES)):
        of_class = np.flatnonzero(labels == label)
        names = patients[of_class]
        clusters.append([of_class[names == name] for name in np.unique(names)])
    return [
        np.concatenate(
            [group[k] for group in clusters for k in random.integers(len(group), size=len(group))]
        )
        for _ in range(draws)
    ]


def clopper_pearson(hits: int, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """The exact two-sided binomial interval of a proportion (Clopper and Pearson 1934)."""
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high
