import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers import decision
from handlers.card_fields import OperatingPoint, TriageRules


def point(threshold: float) -> OperatingPoint:
    return OperatingPoint(threshold=threshold, sensitivity=0.9, specificity=0.9)


def test_probability_of_any_shape() -> None:
    logits = np.array([[[0.0, 1.0], [2.0, 2.0]], [[0.0, -1000.0], [-1000.0, 0.0]]])
    expected = [[1 / (1 + math.exp(-0.5)), 0.5], [0.0, 1.0]]
    np.testing.assert_allclose(decision.probability(logits, 2.0), expected, atol=1e-15)
    assert decision.printed_probability(logits, 2.0)[0, 0] == 0.62245933
    assert decision.class_probabilities(0.62245933) == (0.37754067, 0.62245933)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_no_probability_of_a_logit_that_is_not_finite(broken: float) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        decision.probability(np.array([[0.0, 1.0], [broken, 0.0]]), 1.0)


@given(st.floats(-18, 18))
def test_logit_is_the_inverse_of_the_probability(value: float) -> None:
    probability = decision.probability(np.array([0.0, value]), 1.0)
    assert decision.logit(probability) == pytest.approx(value, abs=1e-6)


def test_logit_is_clipped() -> None:
    limit = math.log((1 - 1e-8) / 1e-8)
    np.testing.assert_allclose(decision.logit([0.0, 0.5, 1.0]), [-limit, 0.0, limit], rtol=1e-9)


def test_a_threshold_that_is_reached_is_positive() -> None:
    assert decision.decide(0.5, "balanced", point(0.5)).label == 1
    assert decision.decide(0.49999999, "balanced", point(0.5)).label == 0
    # As printed: both have eight decimals.
    assert decision.decide(0.33333333, "balanced", point(1 / 3)).label == 1
    assert decision.decide(0.5, "balanced", point(0.5)).triage is None


RULES = TriageRules(doubt=0.4, disagreement=0.3)


@pytest.mark.parametrize("threshold", [0.5, 0.02, 0.999])
def test_doubt_means_the_same_at_every_threshold(threshold: float) -> None:
    """In logits: odds within a factor e^doubt of the threshold's."""
    odds = threshold / (1 - threshold)
    for factor, sure in ((math.exp(0.39), "review"), (math.exp(0.41), "flag")):
        above = odds * factor / (1 + odds * factor)
        assert decision.triage(RULES, above, threshold, 0.0).decision == sure
        below = odds / factor / (1 + odds / factor)
        unsure = "review" if sure == "review" else "clear"
        assert decision.triage(RULES, below, threshold, None).decision == unsure


def test_every_reason_of_a_review_is_named() -> None:
    assert decision.triage(RULES, 0.5, 0.5, 0.4, unlike=True).reasons == (
        "unlike",
        "doubt",
        "disagreement",
    )
    assert decision.triage(RULES, 0.9, 0.5, 0.3) == decision.Triage("flag", ())
    assert decision.triage(RULES, 0.1, 0.5, 0.3) == decision.Triage("clear", ())


def test_disagreement_is_the_widest_difference() -> None:
    assert decision.disagreement([0.2, 0.9, 0.5]) == 0.7
    np.testing.assert_allclose(
        decision.disagreement([np.array([0.1, 0.5]), np.array([0.4, 0.5])]), [0.3, 0.0]
    )


def test_correlation_of_maps() -> None:
    ramp = np.arange(12, dtype=np.float32).reshape(3, 4)
    first = np.stack([ramp, ramp, ramp, 0 * ramp + 0.1])
    second = np.stack([3 * ramp + 2, -ramp, np.roll(ramp, 1), ramp])
    coefficients = decision.correlation(first, second)
    np.testing.assert_allclose(coefficients[:2], [1.0, -1.0])
    assert coefficients[2] == pytest.approx(
        np.corrcoef(ramp.ravel(), np.roll(ramp, 1).ravel())[0, 1]
    )
    assert np.isnan(coefficients[3])


def test_agreement_of_networks() -> None:
    ramp = np.arange(12, dtype=np.float32).reshape(3, 4)
    for_ramp, against_ramp = np.stack([0 * ramp, ramp]), np.stack([ramp, 0 * ramp])
    constant = np.zeros((2, 3, 4), np.float32)
    assert decision.agreement([0.2, 0.9], [for_ramp, 2 * for_ramp]) == decision.Agreement(0.7, 1.0)
    assert decision.agreement([0.5, 0.5], [for_ramp, against_ramp]).map_correlation == -1.0
    assert decision.agreement([0.5, 0.5], [for_ramp, constant]).map_correlation is None
    three = decision.agreement([0.5] * 3, [for_ramp, 2 * for_ramp, against_ramp])
    assert three.map_correlation == -1.0  # the least of any two
