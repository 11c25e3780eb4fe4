import math

import numpy as np
import pytest

from handlers import ensemble
from handlers.ensemble import Found


def test_the_mean_keeps_map_and_bias_true() -> None:
    random = np.random.default_rng(0)
    biases, temperatures = np.array([[0.5, -0.5], [1.0, 2.0]]), [2.0, 0.5]
    maps = random.normal(size=(2, 2, 3, 4)).astype(np.float32)
    logits = maps.mean((2, 3)) + biases
    card = {"members": [{"temperature": t} for t in temperatures]}
    found = [Found(one.astype(np.float32), its) for one, its in zip(logits, maps, strict=True)]
    logit, together, _ = ensemble.combine(card, found)
    bias = (biases[0] / 2.0 + biases[1] / 0.5) / 2
    np.testing.assert_allclose(together.mean((1, 2)) + bias, logit, atol=1e-6)
    np.testing.assert_allclose(logit, (logits[0] / 2 + logits[1] * 2) / 2, rtol=1e-6)


def test_one_network_alone_is_left_as_it_is() -> None:
    found = Found(np.array([1.0, 2.0], np.float32), np.zeros((2, 3, 3), np.float32))
    assert ensemble.combine({"temperature": 3.0}, [found]) is found


def test_agreement_of_maps() -> None:
    ramp = np.arange(12, dtype=np.float32).reshape(3, 4)
    of_ramp, of_minus = np.stack([0 * ramp, ramp]), np.stack([ramp, 0 * ramp])
    assert ensemble.agreement([0.2, 0.9], [of_ramp, 2 * of_ramp]) == {
        "probability_difference": 0.7,
        "map_correlation": 1.0,
    }
    assert ensemble.agreement([0.5, 0.5], [of_ramp, of_minus])["map_correlation"] == -1.0
    assert (
        ensemble.agreement([0.5, 0.5], [of_ramp, 0 * ramp[None].repeat(2, 0)])["map_correlation"]
        is None
    )


@pytest.mark.parametrize("threshold", [0.5, 0.02, 0.999])
def test_doubt_means_the_same_at_every_threshold(threshold: float) -> None:
    """In logits: odds within a factor e^doubt of the threshold's."""
    rules = {"doubt": 0.4, "disagreement": 1.0}
    odds = threshold / (1 - threshold)
    for factor, decision in ((math.exp(0.39), "review"), (math.exp(0.41), "flag")):
        sure = odds * factor / (1 + odds * factor)
        assert ensemble.triage(rules, sure, threshold, 0.0)[0] == decision
        unsure = odds / factor / (1 + odds / factor)
        below = "review" if decision == "review" else "clear"
        assert ensemble.triage(rules, unsure, threshold, None)[0] == below
