"""Selective prediction, against numbers worked out by hand."""

import numpy as np
import pytest

from tests.train.evaluation.models import model_of
from train.evaluation import selective_prediction


def test_risk_and_coverage() -> None:
    errors = np.array([False, True, False, True])
    np.testing.assert_allclose(
        selective_prediction.risk_curve(np.array([1, 4, 2, 3]), errors), [0, 0, 1 / 3, 1 / 2]
    )
    perfect = selective_prediction.evaluate(np.array([1.0, 4, 2, 3]), errors)
    assert (perfect.errors, perfect.area) == (2, pytest.approx((1 / 3 + 1 / 2) / 4))
    assert perfect.caught == 0.5  # a tenth of four is one image
    assert selective_prediction.evaluate(np.arange(4.0), np.zeros(4, bool)).caught is None


def test_measures_of_doubt() -> None:
    networks = [model_of([0.2, 0.9]), model_of([0.6, 0.8])]
    ensemble = model_of([0.4, 0.85], threshold=0.4)
    measures = selective_prediction.doubt_measures(networks, ensemble, "test")
    np.testing.assert_allclose(measures["disagreement"], [0.4, 0.1], atol=1e-7)
    nearness = measures["nearness to the threshold"]
    np.testing.assert_allclose(nearness, [0, -np.log((0.85 / 0.15) / (0.4 / 0.6))], atol=1e-6)
    single = selective_prediction.doubt_measures(networks[:1], networks[0], "test")
    assert list(single) == ["nearness to the threshold"]
    np.testing.assert_array_equal(
        selective_prediction.errors(ensemble, "test", np.array([0, 1])), [True, False]
    )
