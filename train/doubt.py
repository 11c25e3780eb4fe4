"""Selective prediction: risk and coverage, when the most doubtful images are set aside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from handlers.decision import logit
from train.judge import CalibratedModel
from train.metrics import Labels, Scores
from train.together import disagreement

MOST_DOUBTFUL = 0.1  # share of the images

DISAGREEMENT, NEARNESS = "disagreement", "nearness to the threshold"


@dataclass(frozen=True)
class Doubt:
    """A measure of doubt, on images whose answers are right or wrong."""

    errors: int
    caught: float | None  # share of the errors among the most doubtful tenth; None without errors
    area: float  # under the risk-coverage curve: the mean risk over all coverages


def measures(
    networks: Sequence[CalibratedModel], model: CalibratedModel, part: str
) -> Mapping[str, Scores]:
    """Doubt (N,) of a model, larger where less sure, by measure.

    How near its probability is to the threshold, in logits, so that it means the same at every
    threshold; and, of the ensemble of several networks, how far their probabilities are apart.
    """
    near = {NEARNESS: -np.abs(logit(model.scores(part)) - logit(model.threshold))}
    return {DISAGREEMENT: disagreement(networks, part), **near} if len(networks) > 1 else near


def wrong(model: CalibratedModel, part: str, labels: Labels) -> npt.NDArray[np.bool_]:
    """Which answers (N,) at the default operating point are wrong."""
    answers: npt.NDArray[np.bool_] = model.positive(part) != (labels == 1)
    return answers


def risks(doubt: Scores, wrong: npt.NDArray[np.bool_]) -> Scores:
    """Error rate (N,) among the 1, 2, … N images of least doubt; ties in the order they come."""
    order = np.argsort(doubt, kind="stable")
    rates: Scores = np.cumsum(wrong[order]) / np.arange(1, len(wrong) + 1)
    return rates


def judge(doubt: Scores, wrong: npt.NDArray[np.bool_]) -> Doubt:
    """What a measure of doubt is worth on these answers."""
    most = np.argsort(doubt, kind="stable")[-max(1, round(MOST_DOUBTFUL * len(doubt))) :]
    errors = int(wrong.sum())
    return Doubt(
        errors=errors,
        caught=float(wrong[most].sum() / errors) if errors else None,
        area=float(risks(doubt, wrong).mean()),
    )
