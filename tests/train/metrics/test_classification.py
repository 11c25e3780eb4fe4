import numpy as np
import pytest
from scipy.stats import beta
from sklearn.metrics import roc_auc_score

from train.metrics import calibration
from train.metrics.classification import (
    aucs,
    bootstrap,
    calibration_error,
    intervals,
    part_figures,
    per_thousand,
    specificity_at,
)

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
SCORES = np.array([0.1, 0.2, 0.6, 0.3, 0.4, 0.7, 0.8, 0.9])
PATIENTS = np.array([f"p{n}" for n in range(8)])


def test_figures_by_hand() -> None:
    figures = part_figures(LABELS, SCORES, PATIENTS, threshold=0.5)
    assert figures.confusion == ((3, 1), (1, 3))
    assert figures.accuracy == 0.75
    assert figures.auc == 15 / 16  # one of 16 pairs is in the wrong order
    sick = figures.by_class["PNEUMONIA"]
    assert (sick.precision, sick.recall, sick.f1, sick.images) == (0.75, 0.75, 0.75, 4)
    assert figures.log_loss == pytest.approx(
        -np.mean(np.log([0.9, 0.8, 0.4, 0.7, 0.4, 0.7, 0.8, 0.9]))
    )
    assert "auc" not in figures.intervals  # eight patients


def test_calibration_by_hand() -> None:
    figures = part_figures(LABELS, SCORES, PATIENTS, threshold=0.5)
    assert figures.brier == pytest.approx(np.mean((SCORES - LABELS) ** 2))
    # Eight bins of one image each: the distance of each score from its label.
    assert calibration_error(LABELS, SCORES) == pytest.approx(np.abs(SCORES - LABELS).mean())
    # Two bins: mean score and share of PNEUMONIA are 0.25 in the lower and 0.75 in the upper.
    assert calibration_error(LABELS, SCORES, bins=2) == pytest.approx(0)


def test_specificity_is_read_off_the_curve() -> None:
    # All four are detected at 0.4, with one of the four NORMAL images above.
    assert specificity_at(LABELS, SCORES, 0.985) == 0.75
    assert specificity_at(LABELS, SCORES, 0.75) == 1


def test_a_thousand_children() -> None:
    outcomes = per_thousand(sensitivity=0.9, specificity=0.8, prevalence=0.05)
    assert outcomes["missed"] == pytest.approx(5)
    assert outcomes["false_alarms"] == pytest.approx(190)
    assert outcomes["positive_predictive_value"] == pytest.approx(45 / 235)
    assert outcomes["negative_predictive_value"] == pytest.approx(760 / 765)
    assert np.isnan(per_thousand(0.0, 1.0, 0.05)["positive_predictive_value"])


def test_recall_by_series() -> None:
    series = np.array(["IM"] * 4 + ["virus", "virus", "bacteria", "bacteria"])
    recalls = part_figures(LABELS, SCORES, PATIENTS, 0.5, series).recall_by_series
    assert {name: (recall.recall, recall.images) for name, recall in recalls.items()} == {
        "bacteria": (1.0, 2),
        "virus": (0.5, 2),
    }
    # n of n: from the nth root of 0.025 up.
    assert recalls["bacteria"].interval == (pytest.approx(0.025 ** (1 / 2), abs=1e-12), 1.0)
    assert not part_figures(LABELS, SCORES, PATIENTS, 0.5, np.array(["x"] * 8)).recall_by_series


def test_the_threshold_itself_is_positive() -> None:
    assert part_figures(LABELS, SCORES, PATIENTS, threshold=0.6).confusion == ((3, 1), (1, 3))


@pytest.mark.parametrize(
    ("hits", "images", "low", "high"),
    [(15, 16, 0.6977, 0.9984), (0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0)],
)
def test_exact_intervals_against_published_values(
    hits: int, images: int, low: float, high: float
) -> None:
    labels = np.repeat([1, 0], images)
    scores = (np.arange(2 * images) % images < hits).astype(float)
    patients = np.repeat("p", 2 * images)  # one patient: no bootstrap
    exact = intervals(labels, scores, patients, 0.5)
    assert exact["sensitivity"] == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    # A NORMAL image is correct where a PNEUMONIA image is not.
    assert exact["specificity"] == (
        pytest.approx(1 - high, abs=1e-4),
        pytest.approx(1 - low, abs=1e-4),
    )


def test_exact_intervals_are_quantiles_of_the_beta_distribution() -> None:
    """Clopper and Pearson's interval in closed form."""
    for images in (1, 7, 390):
        for hits in {1, images // 3, images - 1, images} - {0}:
            labels, scores = np.ones(images, int), (np.arange(images) < hits).astype(float)
            labels, scores = np.append(labels, 0), np.append(scores, 0.0)
            patients = np.repeat("p", images + 1)
            low, high = intervals(labels, scores, patients, 0.5)["sensitivity"]
            assert low == pytest.approx(beta.ppf(0.025, hits, images - hits + 1), abs=1e-12)
            if hits < images:
                above = beta.ppf(0.975, hits + 1, images - hits)
                assert high == pytest.approx(above, abs=1e-12)
            bound = calibration._lower_bound(hits, images)
            assert bound == pytest.approx(beta.ppf(0.05, hits, images - hits + 1), abs=1e-12)


def test_bootstrap_draws_whole_patients_by_class() -> None:
    labels = np.repeat([0, 1], 30)
    patients = np.array([f"p{n // 3}" for n in range(60)])
    times = bootstrap(labels, patients, draws=20)
    assert times.shape == (20, 60)
    assert (times[:, :30].sum(1) == 30).all()
    assert (times[:, 30:].sum(1) == 30).all()
    by_patient = times.reshape(20, -1, 3)
    assert (by_patient == by_patient[:, :, :1]).all()
    assert times.std() > 0
    assert (times[:3] == bootstrap(labels, patients, draws=20)[:3]).all()


def test_auc_of_a_bootstrap_draw() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 40)
    scores = (random.random(80) + 0.3 * labels).round(1)  # with ties
    times = bootstrap(labels, np.array([f"p{n // 4}" for n in range(80)]), draws=10)
    for area, count in zip(aucs(labels, scores, times), times.astype(int), strict=True):
        rows = np.repeat(np.arange(80), count)
        assert area == pytest.approx(roc_auc_score(labels[rows], scores[rows]), abs=1e-12)


def test_patients_with_many_images_widen_the_interval() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    by_patient = np.repeat(random.normal(size=80), 5)
    scores = 1 / (1 + np.exp(-(by_patient + labels)))
    single = np.array([f"p{n}" for n in range(400)])
    grouped = np.array([f"p{n // 5}" for n in range(400)])

    def width(patients: np.ndarray) -> float:
        low, high = intervals(labels, scores, patients, 0.5, draws=300)["auc"]
        return high - low

    assert width(grouped) > 1.5 * width(single)


def test_a_proportion_of_100_percent_has_an_interval() -> None:
    labels = np.repeat([0, 1], 50)
    patients = np.array([f"p{n}" for n in range(100)])
    exact = intervals(labels, labels.astype(float), patients, 0.5, draws=50)
    assert exact["sensitivity"] == (pytest.approx(0.025 ** (1 / 50), abs=1e-12), 1.0)


def test_fit_recovers_temperature_and_offset() -> None:
    random = np.random.default_rng(0)
    decision = random.normal(scale=2, size=20_000)
    labels = (random.random(20_000) < 1 / (1 + np.exp(-decision))).astype(np.int64)
    skewed = 3 * decision - 1.5
    logits = np.stack([-skewed / 2, skewed / 2], axis=1)
    fitted = calibration.fit(logits, labels)
    assert fitted.temperature == pytest.approx(3, rel=0.05)
    assert fitted.offset == pytest.approx(1.5, abs=0.1)
    shifted = fitted.shift(logits)
    assert np.allclose(shifted[:, 1] - shifted[:, 0], skewed + fitted.offset)
    assert np.allclose(shifted.sum(1), logits.sum(1))
    # A log-loss fit with an offset makes the mean probability the share of the class.
    scores = 1 / (1 + np.exp(-(skewed + fitted.offset) / fitted.temperature))
    assert scores.mean() == pytest.approx(labels.mean(), abs=1e-4)


def test_perfectly_separated_classes_have_a_temperature() -> None:
    fitted = calibration.fit(np.array([[1.0, -1.0], [-1.0, 1.0]]), np.array([0, 1]))
    assert np.exp(-3) <= fitted.temperature < 0.5


def test_operating_points_by_hand() -> None:
    labels = np.repeat([0, 1], 200)
    scores = np.concatenate([np.linspace(0.05, 0.55, 200), np.linspace(0.5, 0.9, 200)])
    points = calibration.operating_points(labels, scores)
    for point in points.values():
        assert point.sensitivity == (scores[labels == 1] >= point.threshold).mean()
        assert point.specificity == (scores[labels == 0] < point.threshold).mean()
        assert np.abs(scores - point.threshold).min() > 1e-6  # between two scores
    # 200 of 200 have a lower bound of 0.985, 199 of 200 have 0.976.
    assert points["screening"].sensitivity == 1
    assert 0.49 < points["screening"].threshold < 0.5
    assert points["rule_in"].specificity == 0.95
    best = max(
        (scores[labels == 1] >= t).mean() + (scores[labels == 0] < t).mean()
        for t in np.linspace(0, 1, 2001)
    )
    assert points["balanced"].sensitivity + points["balanced"].specificity == pytest.approx(best)


def test_screening_is_left_out_with_too_few_images() -> None:
    assert "screening" not in calibration.operating_points(LABELS, SCORES)
