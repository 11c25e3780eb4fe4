"""What Prometheus is told: answers, refusals, times, and drift from the training images.

The names are declared in TorchServe's metrics file (deploy/metrics.yaml), which drops all others. A
server with another file serves all the same, and is told nothing.
"""

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ts.metrics.metric_cache_errors import MetricsCacheKeyError
from ts.metrics.metric_type_enum import MetricTypes

from handlers.request import Request
from handlers.response import POSITIVE

log = logging.getLogger(__name__)

Card = Mapping[str, Any]

ANSWERS, REFUSALS = "pneumocam_answers", "pneumocam_refusals"
STEPS = {step: f"pneumocam_{step}_seconds" for step in ("decode", "network", "overlay")}
BATCH = "pneumocam_batch_size"
DRIFT = {name: f"pneumocam_{name}_drift" for name in ("probability", "brightness")}

RECENT = 500  # answers that drift is measured on
ENOUGH = 50
LEAST = 1e-3  # share of a bin, so that an empty one counts as little, not as nothing


class Meter:
    """Counts requests by TorchServe's metrics; drift by the reference on the card."""

    def __init__(self, card: Card) -> None:
        """Of one archive."""
        self._names = [card["network"], card["version"]]
        self._classes = card["classes"]
        self._reference: Mapping[str, Any] = card.get("reference", {})
        self._recent: dict[str, deque[float]] = {name: deque(maxlen=RECENT) for name in DRIFT}

    def count(self, requests: Sequence[Request], metrics: Any) -> None:
        """Count a batch; `metrics` is the context's."""
        if metrics is None:
            return
        try:
            for request in requests:
                self._count(request, metrics)
            _metric(metrics, BATCH, MetricTypes.HISTOGRAM).add_or_update(len(requests), self._names)
            self._tell_drift(metrics)
        except MetricsCacheKeyError:
            log.debug("the server's metrics file declares no %s", ANSWERS)

    def _count(self, request: Request, metrics: Any) -> None:
        if request.verdict is not None:
            label = self._classes[request.verdict.label]
            warned = "yes" if request.warned else "no"
            _metric(metrics, ANSWERS, MetricTypes.COUNTER).add_or_update(
                1, [*self._names, label, request.triage or "none", warned]
            )
            self._recent["probability"].append(request.verdict.probability[POSITIVE])
            if request.image is not None:
                self._recent["brightness"].append(float(request.image.pixels.mean()))
        elif request.refusal is not None:
            _metric(metrics, REFUSALS, MetricTypes.COUNTER).add_or_update(
                1, [*self._names, request.refusal]
            )
        for step, taken in request.seconds.items():
            _metric(metrics, STEPS[step], MetricTypes.HISTOGRAM).add_or_update(taken, self._names)

    def _tell_drift(self, metrics: Any) -> None:
        for name, metric in DRIFT.items():
            values = self._recent[name]
            if name in self._reference and len(values) >= ENOUGH:
                drift = stability(np.array(values), self._reference[name])
                _metric(metrics, metric, MetricTypes.GAUGE).add_or_update(drift, self._names)


def _metric(metrics: Any, name: str, kind: MetricTypes) -> Any:
    return metrics.get_metric(name, kind)


def stability(values: Any, reference: Mapping[str, Sequence[float]]) -> float:
    """Population stability index of values (N,) against `edges` (k,) and `shares` (k + 1,).

    Σ (p − q) ln(p / q) over the bins. By custom, below .1 is no drift and above .25 is much.
    """
    bins = np.searchsorted(reference["edges"], values, side="right")
    found = np.bincount(bins, minlength=len(reference["shares"])) / len(values)
    p, q = np.maximum(found, LEAST), np.maximum(reference["shares"], LEAST)
    return float(((p - q) * np.log(p / q)).sum())
