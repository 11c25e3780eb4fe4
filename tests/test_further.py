"""What is judged beyond each part's figures, against numbers worked by hand."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy.stats import mannwhitneyu

from handlers.card_fields import OperatingPoint
from tests.small import small_network
from train import compare, data, doubt, stress, twins
from train.judge import UNCHANGED, CalibratedModel
from train.metrics import net_benefit
from train.patients import DataError

PART = "test"


def point(threshold: float) -> OperatingPoint:
    return OperatingPoint(threshold=threshold, sensitivity=1, specificity=1)


def model(scores: npt.ArrayLike, name: str = "any", threshold: float = 0.5) -> CalibratedModel:
    """A network with these probabilities of PNEUMONIA."""
    positive = np.log(np.asarray(scores) / (1 - np.asarray(scores)))
    logits = np.stack([0 * positive, positive], axis=1)
    return CalibratedModel(name, UNCHANGED, {"balanced": point(threshold)}, {PART: logits})


# --- differences


def test_delong_against_a_worked_example() -> None:
    """Three sick, two healthy. First: 5 of 6 pairs in order, second: 4.

    Placements of the sick: (1, 1, .5) and (1, .5, .5); of the healthy: (1, 2/3) and (1, 1/3). The
    variances of their differences, (0, .5, 0) and (0, 1/3): 1/12 and 1/18.
    """
    labels = np.array([1, 1, 1, 0, 0])
    first = np.array([0.9, 0.8, 0.4, 0.1, 0.5])
    second = np.array([0.9, 0.5, 0.4, 0.1, 0.6])
    difference, (low, high), p = compare.delong_test(labels, first, second)
    reach = 1.959964 * np.sqrt(1 / 12 / 3 + 1 / 18 / 2)
    assert difference == pytest.approx(1 / 6)
    assert (low, high) == pytest.approx((1 / 6 - reach, 1 / 6 + reach))
    assert p == pytest.approx(0.480, abs=1e-3)
    assert compare.delong_test(labels, first, first) == (0.0, (0.0, 0.0), 1.0)


def test_delongs_area_counts_ties_half() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 60)
    scores = random.integers(0, 5, 60) / 5
    difference, _, _ = compare.delong_test(labels, scores, np.zeros(60))
    ties = mannwhitneyu(scores[labels == 1], scores[labels == 0]).statistic
    assert difference == pytest.approx(ties / (labels == 1).sum() / (labels == 0).sum() - 0.5)


def test_differences_are_paired() -> None:
    random = np.random.default_rng(1)
    labels = np.repeat([0, 1], 40)
    patients = np.array([f"p{k // 2}" for k in range(80)])
    scores = (0.3 * labels + 0.7 * random.random(80)).clip(0.01, 0.99)
    better = (scores + 0.05 * (2 * labels - 1)).clip(0.01, 0.99)
    (same,) = compare.differences([model(scores), model(scores)], PART, labels, patients)
    assert (same.auc, same.auc_interval, same.accuracy_interval) == (0, (0, 0), (0, 0))
    found = compare.differences(
        [model(scores, "a"), model(better, "b"), model(scores, "c")], PART, labels, patients
    )
    assert [(one.first, one.second) for one in found] == [("b", "a"), ("c", "a"), ("c", "b")]
    # It never ranks a pair worse, so that no draw of patients can find the contrary.
    assert found[0].auc_interval[0] > 0
    assert found[2].auc == -found[0].auc
    right = [((s >= 0.5) == labels).mean() for s in (better, scores)]
    assert found[0].accuracy == pytest.approx(right[0] - right[1])


# --- doubt


def test_risk_and_coverage() -> None:
    wrong = np.array([False, True, False, True])
    np.testing.assert_allclose(doubt.risks(np.array([1, 4, 2, 3]), wrong), [0, 0, 1 / 3, 1 / 2])
    perfect = doubt.judge(np.array([1.0, 4, 2, 3]), wrong)
    assert (perfect.errors, perfect.area) == (2, pytest.approx((1 / 3 + 1 / 2) / 4))
    assert perfect.caught == 0.5  # a tenth of four is one image
    assert doubt.judge(np.arange(4.0), np.zeros(4, bool)).caught is None


def test_measures_of_doubt() -> None:
    networks = [model([0.2, 0.9]), model([0.6, 0.8])]
    both = model([0.4, 0.85], threshold=0.4)
    found = doubt.measures(networks, both, PART)
    np.testing.assert_allclose(found["disagreement"], [0.4, 0.1], atol=1e-7)
    near = found["nearness to the threshold"]
    np.testing.assert_allclose(near, [0, -np.log((0.85 / 0.15) / (0.4 / 0.6))], atol=1e-6)
    assert list(doubt.measures(networks[:1], networks[0], PART)) == ["nearness to the threshold"]
    np.testing.assert_array_equal(doubt.wrong(both, PART, np.array([0, 1])), [True, False])


# --- net benefit


def test_net_benefit_of_treating_all_none_and_the_right_ones() -> None:
    labels, thresholds = np.array([1, 0, 0, 0]), np.array([0.2, 0.25, 0.5])
    everyone = net_benefit(labels, np.ones(4), thresholds)
    np.testing.assert_allclose(everyone, [0.25 - 0.75 / 4, 0, -0.5])
    np.testing.assert_array_equal(net_benefit(labels, np.zeros(4), thresholds), 0)
    np.testing.assert_array_equal(net_benefit(labels, labels * 0.9, thresholds), 0.25)


# --- stress


PICTURE = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))  # a ramp, darker to the left


@pytest.mark.parametrize("name", stress.CHANGES)
def test_a_change_is_always_the_same_and_does_something(name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 48, 48), dtype=np.uint8)
    changed = stress.change(pixels, name)
    assert changed.shape == pixels.shape
    assert changed.dtype == np.uint8
    np.testing.assert_array_equal(changed, stress.change(pixels, name))
    np.testing.assert_array_equal(changed[:2], stress.change(pixels[:2], name))
    assert (changed != pixels).mean() > 0.2


def test_changes_do_what_their_names_say() -> None:
    def of(name: str) -> npt.NDArray[np.float64]:
        found: npt.NDArray[np.float64] = stress.change(PICTURE[None], name)[0].astype(float)
        return found

    np.testing.assert_array_equal(of("inverted"), 255 - PICTURE.astype(int))
    np.testing.assert_allclose(of("gamma 0.6"), 255 * (PICTURE / 255) ** 0.6, atol=0.5)
    assert of("gamma 1.6").mean() < PICTURE.mean() < of("gamma 0.6").mean()
    border = of("border")
    assert (border[:5] == 0).all()
    np.testing.assert_array_equal(border[5:-5, 5:-5], PICTURE[5:-5, 5:-5])
    np.testing.assert_allclose(of("higher"), PICTURE, atol=1)  # rows are all alike
    assert np.diff(of("wider")[32, 10:-10]).mean() == pytest.approx(4 * 0.78, abs=0.1)
    assert (of("noise") - PICTURE)[:, 16:48].std() == pytest.approx(8, rel=0.1)
    assert np.abs(of("JPEG 20") - PICTURE).mean() > np.abs(of("JPEG 50") - PICTURE).mean()


def test_the_mean_is_of_changes_alone() -> None:
    found = {name: stress.RobustnessResult(0.8, 0.5, 0.7) for name in stress.CHANGES}
    found[stress.INVERTED] = found[stress.AS_IT_IS] = stress.RobustnessResult(0.0, 9.0, 0.0)
    mean = stress.mean(found)
    assert (mean.auc, mean.log_loss, mean.accuracy) == pytest.approx((0.8, 0.5, 0.7))


# --- twins


def test_twins_of_other_encodings(images: Path, tmp_path: Path) -> None:
    dataset = data.load(images, 32, cache=tmp_path / "cache")
    (tmp_path / "twins/NORMAL").mkdir(parents=True)
    source = images / "train/NORMAL/train-NORMAL-003.png"
    with Image.open(source) as image:
        image.save(tmp_path / "twins/NORMAL/train-NORMAL-003.png")
        image.point([255 - v for v in range(256)]).save(
            tmp_path / "twins/NORMAL/train-NORMAL-004.png"
        )
    pixels, rows = twins.read(tmp_path / "twins", dataset)
    np.testing.assert_array_equal(pixels[0], dataset.pixels[rows[0]])
    assert [dataset.images[row].path.stem for row in rows] == [
        "train-NORMAL-003",
        "train-NORMAL-004",
    ]
    network, its = small_network().eval(), model([0.5])
    found = twins.measure(network, its, dataset, (pixels[:1], rows[:1]))
    assert (found.images, found.largest, found.changed) == (1, 0.0, 0)
    both = twins.measure(network, its, dataset, (pixels, rows))
    assert both.largest > 0
    assert both.median == pytest.approx(both.largest / 2)
    (tmp_path / "twins/NORMAL/stranger.png").write_bytes(source.read_bytes())
    with pytest.raises(DataError, match=r"stranger\.png has no twin"):
        twins.read(tmp_path / "twins", dataset)
    with pytest.raises(DataError, match="no files"):
        twins.read(tmp_path / "nowhere", dataset)


def test_a_network_under_stress_is_judged_at_its_threshold() -> None:
    network = small_network().eval()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 32, 32), dtype=np.uint8)
    labels = np.tile([0, 1], 6)
    dataset: Any = SimpleNamespace(labels=labels, pixels=pixels, rows=lambda _part: np.arange(12))
    its = CalibratedModel(
        "any", UNCHANGED, {"balanced": point(0.0)}, {"block-select": np.zeros((12, 2))}
    )
    found = stress.measure(network, its, dataset)
    assert list(found) == [stress.AS_IT_IS, *stress.CHANGES]
    assert {one.accuracy for one in found.values()} == {0.5}  # all are called sick
    assert found[stress.AS_IT_IS].auc == 0.5
    assert found[stress.INVERTED].auc != 0.5
