"""Paired differences and DeLong's test, against numbers worked out by hand."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from tests.train.evaluation.models import model_of
from train.evaluation import significance


def test_delong_against_a_worked_example() -> None:
    """Three sick, two healthy. First: 5 of 6 pairs in order, second: 4.

    Placements of the sick: (1, 1, 0.5) and (1, 0.5, 0.5); of the healthy: (1, 2/3) and (1, 1/3).
    The variances of their differences, (0, 0.5, 0) and (0, 1/3): 1/12 and 1/18.
    """
    labels = np.array([1, 1, 1, 0, 0])
    first = np.array([0.9, 0.8, 0.4, 0.1, 0.5])
    second = np.array([0.9, 0.5, 0.4, 0.1, 0.6])
    difference, (low, high), p = significance.delong_test(labels, first, second)
    reach = 1.959964 * np.sqrt(1 / 12 / 3 + 1 / 18 / 2)
    assert difference == pytest.approx(1 / 6)
    assert (low, high) == pytest.approx((1 / 6 - reach, 1 / 6 + reach))
    assert p == pytest.approx(0.480, abs=1e-3)
    assert significance.delong_test(labels, first, first) == (0.0, (0.0, 0.0), 1.0)


def test_delongs_auc_counts_ties_as_half() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 60)
    scores = random.integers(0, 5, 60) / 5
    difference, _, _ = significance.delong_test(labels, scores, np.zeros(60))
    ties = mannwhitneyu(scores[labels == 1], scores[labels == 0]).statistic
    assert difference == pytest.approx(ties / (labels == 1).sum() / (labels == 0).sum() - 0.5)


def test_differences_are_paired() -> None:
    random = np.random.default_rng(1)
    labels = np.repeat([0, 1], 40)
    patients = np.array([f"p{k // 2}" for k in range(80)])
    scores = (0.3 * labels + 0.7 * random.random(80)).clip(0.01, 0.99)
    better = (scores + 0.05 * (2 * labels - 1)).clip(0.01, 0.99)
    models = [model_of(scores), model_of(scores)]
    (same,) = significance.differences(models, "test", labels, patients)
    assert (same.auc, same.auc_interval, same.accuracy_interval) == (0, (0, 0), (0, 0))
    models = [model_of(scores, "a"), model_of(better, "b"), model_of(scores, "c")]
    pairs = significance.differences(models, "test", labels, patients)
    assert [(pair.first, pair.second) for pair in pairs] == [("b", "a"), ("c", "a"), ("c", "b")]
    # "b" never ranks a pair of images worse, so its gain is positive in every draw of patients.
    assert pairs[0].auc_interval[0] > 0
    assert pairs[2].auc == -pairs[0].auc
    accuracies = [((s >= 0.5) == labels).mean() for s in (better, scores)]
    assert pairs[0].accuracy == pytest.approx(accuracies[0] - accuracies[1])
