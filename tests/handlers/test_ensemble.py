import math

import numpy as np
import pytest

from handlers import card, ensemble
from handlers.card import Archived, ArchivedEnsemble, ArchivedNetwork
from handlers.engine import ModelOutput
from tests import cards


def pair_of(temperatures: list[float]) -> Archived:
    members = [cards.archived(temperature=temperature) for temperature in temperatures]
    parsed = card.parse(cards.ensemble(members))
    assert isinstance(parsed, ArchivedEnsemble)
    return parsed


def test_the_mean_keeps_map_and_bias_true() -> None:
    random = np.random.default_rng(0)
    biases, temperatures = np.array([[0.5, -0.5], [1.0, 2.0]]), [2.0, 0.5]
    maps = random.normal(size=(2, 2, 3, 4)).astype(np.float32)
    logits = maps.mean((2, 3)) + biases
    outputs = [
        ModelOutput(own_logits.astype(np.float32), own_maps)
        for own_logits, own_maps in zip(logits, maps, strict=True)
    ]
    mean = ensemble.mean(pair_of(temperatures), outputs)
    bias = (biases[0] / 2.0 + biases[1] / 0.5) / 2
    np.testing.assert_allclose(mean.maps.mean((1, 2)) + bias, mean.logits, atol=1e-6)
    np.testing.assert_allclose(mean.logits, (logits[0] / 2 + logits[1] * 2) / 2, rtol=1e-6)


def test_a_single_network_is_unchanged() -> None:
    alone = card.parse(cards.archived(temperature=3.0))
    assert isinstance(alone, ArchivedNetwork)
    output = ModelOutput(np.array([1.0, 2.0], np.float32), np.zeros((2, 3, 3), np.float32))
    combined = ensemble.combine(alone, [output])
    assert combined.output is output
    assert combined.agreement is None
    assert combined.positive == pytest.approx(1 / (1 + math.exp(-1 / 3)), abs=1e-8)


def test_each_network_of_an_ensemble_keeps_a_probability() -> None:
    maps = np.zeros((2, 3, 3), np.float32)
    outputs = [ModelOutput(np.array([0.0, logit], np.float32), maps) for logit in (1.0, 2.0)]
    combined = ensemble.combine(pair_of([1.0, 4.0]), outputs)
    assert combined.positives == (0.73105858, 0.62245933)  # sigmoid of 1 and of 0.5
    assert combined.positive == pytest.approx(1 / (1 + math.exp(-0.75)), abs=1e-6)
    assert combined.agreement is not None
    assert combined.agreement.probability_difference == 0.10859925
