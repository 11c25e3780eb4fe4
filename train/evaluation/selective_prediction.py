"""Selective prediction: risk by coverage, when the most doubtful images get no answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from handlers.decision import logit
from train.evaluation.calibrated_model import CalibratedModel
from train.evaluation.ensemble import disagreement
from train.metrics.classification import Labels, Scores

MOST_DOUBTFUL = 0.1  # share of the images

DISAGREEMENT, NEARNESS = "disagreement", "nearness to the threshold"


@dataclass(frozen=True)
class DoubtResult:
    """How well a measure of doubt finds a model's errors on a part."""

    errors: int
    caught: float | None  # share of the errors among the most doubtful tenth; None without errors
    area: float  # under the risk-coverage curve: the mean risk over all coverages


def doubt_measures(
    networks: Sequence[CalibratedModel], model: CalibratedModel, part: str
) -> Mapping[str, Scores]:
    """Doubt (N,) of a model by measure, larger where it is less certain.

    Nearness to the threshold is the negative distance in logits, which is comparable between
    thresholds. With several networks, disagreement is the largest difference of their
    probabilities.
    """
    nearness = -np.abs(logit(model.scores(part)) - logit(model.threshold))
    if len(networks) == 1:
        return {NEARNESS: nearness}
    return {DISAGREEMENT: disagreement(networks, part), NEARNESS: nearness}


def errors(model: CalibratedModel, part: str, labels: Labels) -> npt.NDArray[np.bool_]:
    """Whether each answer (N,) at the default operating point is wrong."""
    wrong: npt.NDArray[np.bool_] = model.positive(part) != (labels == 1)
    return wrong


def risk_curve(doubt: Scores, errors: npt.NDArray[np.bool_]) -> Scores:
    """Error rates (N,) among the 1, 2, … N images of least doubt; ties keep their order."""
    order = np.argsort(doubt, kind="stable")
    rates: Scores = np.cumsum(errors[order]) / np.arange(1, len(errors) + 1)
    return rates


def evaluate(doubt: Scores, errors: npt.NDArray[np.bool_]) -> DoubtResult:
    """Evaluate a measure of doubt (N,) against a model's errors (N,)."""
    most = np.argsort(doubt, kind="stable")[-max(1, round(MOST_DOUBTFUL * len(doubt))) :]
    count = int(errors.sum())
    return DoubtResult(
        errors=count,
        caught=float(errors[most].sum() / count) if count else None,
        area=float(risk_curve(doubt, errors).mean()),
    )
