"""Metrics for Prometheus: answers, refusals, times, and drift from the training images.

The names are declared in deploy/metrics.yaml, TorchServe's metrics file. A server with another file
works as well, without these metrics.
"""

import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from ts.metrics.metric_cache_errors import MetricsCacheKeyError
from ts.metrics.metric_type_enum import MetricTypes

from handlers.card import Archived
from handlers.card_fields import Histogram
from handlers.request import AnsweredRequest, DescribedRequest, Outcome, RefusedRequest

log = logging.getLogger(__name__)

ANSWERS, REFUSALS = "pneumocam_answers", "pneumocam_refusals"
STEPS = {step: f"pneumocam_{step}_seconds" for step in ("decode", "network", "overlay")}
BATCH = "pneumocam_batch_size"
DRIFT = {name: f"pneumocam_{name}_drift" for name in ("probability", "brightness")}

WINDOW = 500  # latest answers that drift is measured on
MIN_WINDOW = 50
MIN_SHARE = 1e-3  # of a bin, since the logarithm of an empty one is infinite


class Metrics:
    """Counts requests with TorchServe's metrics; measures drift from the reference on the card."""

    def __init__(self, card: Archived) -> None:
        """Start without answers; `card` is the archive's."""
        self._labels = [card.network, card.version]
        self._classes = card.classes
        self._reference = {
            name: histogram
            for name in DRIFT
            if (histogram := getattr(card.reference, name, None)) is not None
        }
        self._recent: dict[str, deque[float]] = {name: deque(maxlen=WINDOW) for name in DRIFT}

    def count(self, outcomes: Sequence[Outcome], metrics: Any) -> None:
        """Count the requests of a batch; `metrics` are those of TorchServe's context."""
        if metrics is None:
            return
        try:
            for outcome in outcomes:
                self._count(outcome, metrics)
            _metric(metrics, BATCH, MetricTypes.HISTOGRAM).add_or_update(
                len(outcomes), self._labels
            )
            self._report_drift(metrics)
        except MetricsCacheKeyError:
            log.debug("the server's metrics file declares no %s", ANSWERS)

    def _count(self, outcome: Outcome, metrics: Any) -> None:
        if isinstance(outcome, DescribedRequest):
            return
        if isinstance(outcome, AnsweredRequest):
            decision = outcome.answer.decision
            triage = decision.triage.decision if decision.triage else "none"
            warned = "yes" if outcome.answer.warnings else "no"
            _metric(metrics, ANSWERS, MetricTypes.COUNTER).add_or_update(
                1, [*self._labels, self._classes[decision.label], triage, warned]
            )
            self._recent["probability"].append(outcome.answer.combined.positive)
            self._recent["brightness"].append(outcome.brightness)
        if isinstance(outcome, RefusedRequest):
            _metric(metrics, REFUSALS, MetricTypes.COUNTER).add_or_update(
                1, [*self._labels, outcome.error]
            )
        for step, taken in outcome.seconds.items():
            _metric(metrics, STEPS[step], MetricTypes.HISTOGRAM).add_or_update(taken, self._labels)

    def _report_drift(self, metrics: Any) -> None:
        for name, reference in self._reference.items():
            values = self._recent[name]
            if len(values) >= MIN_WINDOW:
                drift = stability(np.array(values), reference)
                _metric(metrics, DRIFT[name], MetricTypes.GAUGE).add_or_update(drift, self._labels)


def _metric(metrics: Any, name: str, kind: MetricTypes) -> Any:
    return metrics.get_metric(name, kind)


def stability(values: npt.ArrayLike, reference: Histogram) -> float:
    """The population stability index of values (N,) against a reference.

    Σ (p − q) ln(p / q) over the bins. By convention, below 0.1 there is no drift, above 0.25 much.
    """
    bins = np.searchsorted(reference.edges, values, side="right")
    shares = np.bincount(bins, minlength=len(reference.shares)) / np.size(values)
    p, q = np.maximum(shares, MIN_SHARE), np.maximum(reference.shares, MIN_SHARE)
    return float(((p - q) * np.log(p / q)).sum())
