"""Does doubt find the errors? Risk and coverage, when the most doubtful images are set aside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from train.calibrate import DIGITS
from train.judge import Judged
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


def measures(judged: Sequence[Judged], part: str) -> Mapping[str, Scores]:
    """Doubt (N,) of the last of `judged`, larger where less sure, by measure.

    How far the other networks' probabilities are apart; and how near its own is to the threshold,
    in logits, so that it means the same at every threshold.
    """
    *networks, together = judged
    edge = 10.0**-DIGITS
    scores = together.scores(part).clip(edge, 1 - edge)
    near = {NEARNESS: -np.abs(logit(scores) - logit(together.threshold))}
    return {DISAGREEMENT: disagreement(networks, part), **near} if networks else near


def wrong(one: Judged, part: str, labels: Labels) -> npt.NDArray[np.bool_]:
    """Which answers (N,) at the default operating point are wrong."""
    answers: npt.NDArray[np.bool_] = (one.scores(part) >= one.threshold) != (labels == 1)
    return answers


def risks(doubt: Scores, wrong: npt.NDArray[np.bool_]) -> Scores:
    """Error rate (N,) among the 1, 2, … N images of least doubt; ties in the order they come."""
    order = np.argsort(doubt, kind="stable")
    found: Scores = np.cumsum(wrong[order]) / np.arange(1, len(wrong) + 1)
    return found


def judge(doubt: Scores, wrong: npt.NDArray[np.bool_]) -> Doubt:
    """What a measure of doubt is worth on these answers."""
    most = np.argsort(doubt, kind="stable")[-max(1, round(MOST_DOUBTFUL * len(doubt))) :]
    errors = int(wrong.sum())
    return Doubt(
        errors=errors,
        caught=float(wrong[most].sum() / errors) if errors else None,
        area=float(risks(doubt, wrong).mean()),
    )
