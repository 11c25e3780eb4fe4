"""Drift, worked by hand, and a server whose metrics file knows nothing of us."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

from handlers import card, metrics, response
from handlers.card import ArchivedNetwork
from handlers.card_fields import Histogram, OperatingPoint
from handlers.engine import ModelOutput
from handlers.inputs import Inputs
from handlers.metrics import Metrics
from handlers.request import AnsweredRequest, ReceivedRequest, RefusedRequest
from handlers.response import Reply
from tests import cards
from train.evaluation.calibrated_model import UNCHANGED, CalibratedModel
from train.evaluation.card import reference

FILE = Path(__file__).parents[2] / "deploy" / "metrics.yaml"


def card_with(**changes: Any) -> ArchivedNetwork:
    parsed = card.parse(cards.archived(**changes))
    assert isinstance(parsed, ArchivedNetwork)
    return parsed


CARD = card_with()


def cache(path: Path = FILE) -> MetricsCacheYamlImpl:
    metrics = MetricsCacheYamlImpl(config_file_path=str(path))
    metrics.initialize_cache()
    return metrics


def received(index: int) -> ReceivedRequest:
    return ReceivedRequest(index, "id", {}, {})


def answered() -> AnsweredRequest:
    output = ModelOutput(np.array([0.0, 1.4], np.float32), np.zeros((2, 4, 4), np.float32))
    answer = response.answer(CARD, Inputs(b"", "predicted", "none", "balanced"), [output])
    return AnsweredRequest(received(0), answer, 100.0, Reply(200, b""), {"network": 0.02})


def test_the_stability_index() -> None:
    """Shares .5, .5 against .25, .75: .25 ln 2 + (−.25) ln (2/3)."""
    reference = Histogram(edges=(1.0,), shares=(0.25, 0.75))
    index = metrics.stability(np.array([0.0, 0.5, 1.0, 7.0]), reference)
    assert index == pytest.approx(0.25 * np.log(2) - 0.25 * np.log(2 / 3))
    assert metrics.stability(np.array([0.0, 1, 2, 3]), reference) == 0
    assert np.isfinite(metrics.stability(np.array([5.0]), reference))


def test_the_reference_of_a_card_is_no_drift_of_itself() -> None:
    random = np.random.default_rng(0)
    logits = np.stack([np.zeros(200), random.normal(size=200)], 1)
    point = OperatingPoint(threshold=0.5, sensitivity=1, specificity=1)
    model = CalibratedModel("any", UNCHANGED, {"balanced": point}, {"block-calibrate": logits})
    data: Any = SimpleNamespace(
        rows=lambda _part: np.arange(200),
        pixels=random.integers(0, 256, (200, 4, 4), dtype=np.uint8),
    )
    measured = reference(model, data)
    assert measured.probability is not None
    assert measured.brightness is not None
    scores = model.scores("block-calibrate")
    assert metrics.stability(scores, measured.probability) < 1e-12
    brightness = data.pixels.mean((1, 2))
    assert metrics.stability(brightness, measured.brightness) < 1e-12
    assert metrics.stability(brightness + 60, measured.brightness) > 0.25
    np.testing.assert_allclose(measured.brightness.shares, 0.1)
    constant = Histogram(edges=(0.5,), shares=(0.0, 1.0))
    assert metrics.stability(np.full(9, 0.5), constant) < 1e-12


def test_every_name_is_declared(caplog: pytest.LogCaptureFixture) -> None:
    declared = cache()
    histogram = {"edges": [0.5], "shares": [0.5, 0.5]}
    with caplog.at_level(logging.INFO):
        refused = RefusedRequest(received(1), "NotAnImage", Reply(415, b""), {})
        counter = Metrics(card_with(reference={"probability": histogram}))
        counter.count([answered() for _ in range(metrics.MIN_WINDOW)] + [refused], declared)
    for name in (metrics.ANSWERS, metrics.REFUSALS, metrics.STEPS["network"], metrics.BATCH,
                 metrics.DRIFT["probability"]):  # fmt: skip
        assert f"[METRICS]{name}." in caplog.text
    assert metrics.DRIFT["brightness"] not in caplog.text  # the card has no reference of it
    assert "Failed to update" not in caplog.text


def test_a_server_with_another_metrics_file_serves_all_the_same(tmp_path: Path) -> None:
    declared = yaml.safe_load(FILE.read_text())
    declared["model_metrics"] = {"gauge": declared["model_metrics"]["gauge"][:2]}
    (tmp_path / "metrics.yaml").write_text(yaml.safe_dump(declared))
    Metrics(CARD).count([answered()], cache(tmp_path / "metrics.yaml"))
    Metrics(CARD).count([answered()], None)
