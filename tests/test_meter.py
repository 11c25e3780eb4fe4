"""Drift, worked by hand, and a server whose metrics file knows nothing of us."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

from handlers import meter
from handlers.meter import Meter
from handlers.request import Request
from handlers.response import Reply, Verdict
from train.calibrate import OperatingPoint
from train.card import reference
from train.judge import UNCHANGED, Judged

FILE = Path(__file__).parents[1] / "deploy" / "metrics.yaml"
CARD = {"network": "resnet50", "version": "1.0", "classes": ["NORMAL", "PNEUMONIA"]}


def cache(path: Path = FILE) -> MetricsCacheYamlImpl:
    metrics = MetricsCacheYamlImpl(config_file_path=str(path))
    metrics.initialize_cache()
    return metrics


def answered() -> Request:
    request = Request(
        0, "id", {}, {}, verdict=Verdict((0.2, 0.8), 0.5, 1, 1), reply=Reply(200, b"")
    )
    request.seconds["network"] = 0.02
    return request


def test_the_stability_index() -> None:
    """Shares .5, .5 against .25, .75: .25 ln 2 + (−.25) ln (2/3)."""
    known = {"edges": [1.0], "shares": [0.25, 0.75]}
    found = meter.stability(np.array([0.0, 0.5, 1.0, 7.0]), known)
    assert found == pytest.approx(0.25 * np.log(2) - 0.25 * np.log(2 / 3))
    assert meter.stability(np.array([0.0, 1, 2, 3]), known) == 0
    assert np.isfinite(meter.stability(np.array([5.0]), known))


def test_the_reference_of_a_card_is_no_drift_of_itself() -> None:
    random = np.random.default_rng(0)
    logits = np.stack([np.zeros(200), random.normal(size=200)], 1)
    judged = Judged(
        "any", UNCHANGED, {"balanced": OperatingPoint(0.5, 1, 1)}, {"block-calibrate": logits}, {}
    )
    data: Any = SimpleNamespace(
        rows=lambda _part: np.arange(200),
        pixels=random.integers(0, 256, (200, 4, 4), dtype=np.uint8),
    )
    found = reference(judged, data)
    assert meter.stability(judged.scores("block-calibrate"), found["probability"]) < 1e-12
    bright = data.pixels.mean((1, 2))
    assert meter.stability(bright, found["brightness"]) < 1e-12
    assert meter.stability(bright + 60, found["brightness"]) > 0.25
    np.testing.assert_allclose(found["brightness"]["shares"], 0.1)
    even = {**found, "probability": {"edges": [0.5], "shares": [0.0, 1.0]}}
    assert meter.stability(np.full(9, 0.5), even["probability"]) < 1e-12


def test_every_name_is_declared(caplog: pytest.LogCaptureFixture) -> None:
    metrics = cache()
    with caplog.at_level(logging.INFO):
        refused = Request(1, "id", {}, {}, refusal="NotAnImage")
        one = Meter({**CARD, "reference": {"probability": {"edges": [0.5], "shares": [0.5, 0.5]}}})
        one.count([answered() for _ in range(meter.ENOUGH)] + [refused], metrics)
    for name in (meter.ANSWERS, meter.REFUSALS, meter.STEPS["network"], meter.BATCH,
                 meter.DRIFT["probability"]):  # fmt: skip
        assert f"[METRICS]{name}." in caplog.text
    assert "Failed to update" not in caplog.text


def test_a_server_with_another_metrics_file_serves_all_the_same(tmp_path: Path) -> None:
    known = yaml.safe_load(FILE.read_text())
    known["model_metrics"] = {"gauge": known["model_metrics"]["gauge"][:2]}
    (tmp_path / "metrics.yaml").write_text(yaml.safe_dump(known))
    Meter(CARD).count([answered()], cache(tmp_path / "metrics.yaml"))
    Meter(CARD).count([answered()], None)
