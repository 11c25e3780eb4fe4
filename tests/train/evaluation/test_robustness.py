"""Corruptions, and a network's figures under them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.small import small_network
from tests.train.evaluation.models import operating_point
from train.evaluation import robustness
from train.evaluation.calibrated_model import UNCHANGED, CalibratedModel

RAMP = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))  # darker to the left


@pytest.mark.parametrize("name", robustness.CORRUPTIONS)
def test_a_corruption_is_deterministic_and_has_an_effect(name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 48, 48), dtype=np.uint8)
    corrupted = robustness.corrupt(pixels, name)
    assert corrupted.shape == pixels.shape
    assert corrupted.dtype == np.uint8
    np.testing.assert_array_equal(corrupted, robustness.corrupt(pixels, name))
    np.testing.assert_array_equal(corrupted[:2], robustness.corrupt(pixels[:2], name))
    assert (corrupted != pixels).mean() > 0.2


def test_corruptions_do_what_their_names_promise() -> None:
    def corrupted(name: str) -> npt.NDArray[np.float64]:
        pixels: npt.NDArray[np.float64] = robustness.corrupt(RAMP[None], name)[0].astype(float)
        return pixels

    np.testing.assert_array_equal(corrupted("inverted"), 255 - RAMP.astype(int))
    np.testing.assert_allclose(corrupted("gamma 0.6"), 255 * (RAMP / 255) ** 0.6, atol=0.5)
    assert corrupted("gamma 1.6").mean() < RAMP.mean() < corrupted("gamma 0.6").mean()
    border = corrupted("border")
    assert (border[:5] == 0).all()
    np.testing.assert_array_equal(border[5:-5, 5:-5], RAMP[5:-5, 5:-5])
    np.testing.assert_allclose(corrupted("higher"), RAMP, atol=1)  # all rows are equal
    assert np.diff(corrupted("wider")[32, 10:-10]).mean() == pytest.approx(4 * 0.78, abs=0.1)
    assert (corrupted("noise") - RAMP)[:, 16:48].std() == pytest.approx(8, rel=0.1)
    jpeg_20, jpeg_50 = (np.abs(corrupted(name) - RAMP).mean() for name in ("JPEG 20", "JPEG 50"))
    assert jpeg_20 > jpeg_50


def test_the_mean_leaves_out_unchanged_and_inverted_images() -> None:
    results = {name: robustness.RobustnessResult(0.8, 0.5, 0.7) for name in robustness.CORRUPTIONS}
    for name in (robustness.INVERTED, robustness.UNCHANGED):
        results[name] = robustness.RobustnessResult(0.0, 9.0, 0.0)
    mean = robustness.mean(results)
    assert (mean.auc, mean.log_loss, mean.accuracy) == pytest.approx((0.8, 0.5, 0.7))


def test_robustness_is_measured_at_the_models_threshold() -> None:
    network = small_network().eval()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 32, 32), dtype=np.uint8)
    labels = np.tile([0, 1], 6)
    dataset: Any = SimpleNamespace(labels=labels, pixels=pixels, rows=lambda _part: np.arange(12))
    points = {"balanced": operating_point(0.0)}
    model = CalibratedModel("any", UNCHANGED, points, {"block-select": np.zeros((12, 2))})
    results = robustness.measure(network, model, dataset)
    assert list(results) == [robustness.UNCHANGED, *robustness.CORRUPTIONS]
    assert {result.accuracy for result in results.values()} == {0.5}  # all are called sick
    assert results[robustness.UNCHANGED].auc == 0.5
    assert results[robustness.INVERTED].auc != 0.5
