"""Metrics for Prometheus: answers, refusals, times, and drift from the training images.

The names are declared in TorchServe's metrics file (deploy/metrics.yaml), which drops all others. A
server with another file serves all the same, without these metrics.
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

RECENT = 500  # answers that drift is measured on
ENOUGH = 50
LEAST = 1e-3  # share of a bin, so that an empty one counts as little, not as nothing


class Metrics:
    """Counts requests by TorchServe's metrics; measures drift by the reference on the card."""

    def __init__(self, card: Archived) -> None:
        """Of one archive."""
        self._labels = [card.network, card.version]
        self._classes = card.classes
        self._reference = {
            name: histogram
            for name in DRIFT
            if (histogram := getattr(card.reference, name, None)) is not None
        }
        self._recent: dict[str, deque[float]] = {name: deque(maxlen=RECENT) for name in DRIFT}

    def count(self, outcomes: Sequence[Outcome], metrics: Any) -> None:
        """Count a batch; `metrics` is the context's."""
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
            if len(values) >= ENOUGH:
                drift = stability(np.array(values), reference)
                _metric(metrics, DRIFT[name], MetricTypes.GAUGE).add_or_update(drift, self._labels)


def _metric(metrics: Any, name: str, kind: MetricTypes) -> Any:
    return metrics.get_metric(name, kind)


def stability(values: npt.ArrayLike, reference: Histogram) -> float:
    """Population stability index of values (N,) against a reference.

    Σ (p − q) ln(p / q) over the bins. By custom, below 0.1 is no drift and above 0.25 is much.
    """
    bins = np.searchsorted(reference.edges, values, side="right")
    shares = np.bincount(bins, minlength=len(reference.shares)) / np.size(values)
    p, q = np.maximum(shares, LEAST), np.maximum(reference.shares, LEAST)
    return float(((p - q) * np.log(p / q)).sum())
