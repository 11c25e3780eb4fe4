"""All networks of a run as one model: the mean of their calibrated logits and maps."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from handlers.ensemble import REVIEW, triage
from train import calibrate, checkpoint, split
from train.card import summary
from train.checkpoint import Card
from train.data import Dataset
from train.judge import Judged, Maps, map_scale

log = logging.getLogger(__name__)

NAME = "pneumonia"
DOUBTFUL = 0.05  # share of the calibration images that are in doubt
DISAGREED = 0.05  # and on which the networks are furthest apart


@dataclass(frozen=True)
class Caught:
    """What the triage's `review` takes of a part's images, and of its errors (None without any)."""

    images: int
    review: float
    errors: int
    errors_caught: float | None


def write(
    run: Path,
    cards: Sequence[Card],
    judged: Sequence[Judged],
    maps: Sequence[Maps],
    data: Dataset,
    unlike: Mapping[str, npt.NDArray[np.bool_]],
) -> Card | None:
    """Write the card of a run's networks together, `run`/pneumonia/card.json, and return it.

    `judged` are the networks and, last, both together; `maps` are each network's on the calibration
    images; `unlike` tells which images of each part are unlike the training images. None where
    there is one network alone or, with a line in the log, where sizes differ; an older card is
    removed then.
    """
    (run / NAME / checkpoint.CARD).unlink(missing_ok=True)
    if len(cards) == 1:
        return None
    if len({json.dumps([card["input"], _grid(card)]) for card in cards}) > 1:
        log.warning("the networks' sizes differ: they are not archived as one model")
        return None
    temperatures = [card["temperature"] for card in cards]
    mean = np.mean([m / t for m, t in zip(maps, temperatures, strict=True)], axis=0)
    rules = rules_of(judged)
    together = judged[-1]
    card = {
        "project": cards[0]["project"],
        "network": NAME,
        "input": cards[0]["input"],
        "map": {**_grid(cards[0]), "scale": map_scale(mean)},
        "classes": cards[0]["classes"],
        "bias": np.mean(
            [np.divide(card["bias"], t) for card, t in zip(cards, temperatures, strict=True)],
            axis=0,
        ).tolist(),
        "training": cards[0]["training"],
        "warnings": list(dict.fromkeys(said for card in cards for said in card["warnings"])),
        **summary(together, data),
        "triage": {
            **rules,
            "caught": {
                part: vars(caught(judged, rules, part, data, unlike[part]))
                for part in together.parts
            },
        },
        "members": [
            {"network": card["network"], "weights_sha256": card["weights_sha256"]} for card in cards
        ],
    }
    checkpoint.write_text(run / NAME / checkpoint.CARD, json.dumps(card, indent=2) + "\n")
    return card


def _grid(card: Card) -> dict[str, Any]:
    return {key: card["map"][key] for key in ("rows", "columns", "dilated")}


def rules_of(judged: Sequence[Judged]) -> dict[str, float]:
    """Bounds of doubt and of disagreement, by the calibration images' quantiles.

    Beyond each lies one image in twenty: few enough to look at again.
    """
    *networks, together = judged
    doubt = np.abs(_logit(together.scores(split.CALIBRATE)) - _logit(np.array(together.threshold)))
    apart = disagreement(networks, split.CALIBRATE)
    return {
        "doubt": float(np.quantile(doubt, DOUBTFUL)),
        "disagreement": float(np.quantile(apart, 1 - DISAGREED)),
    }


def disagreement(networks: Sequence[Judged], part: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The widest difference (N,) between the networks' probabilities of PNEUMONIA."""
    scores = np.stack([one.scores(part) for one in networks])
    widest: np.ndarray[Any, np.dtype[np.float64]] = scores.max(0) - scores.min(0)
    return widest


def caught(
    judged: Sequence[Judged],
    rules: dict[str, float],
    part: str,
    dataset: Dataset,
    unlike: npt.NDArray[np.bool_],
) -> Caught:
    """What `review` takes of a part at the default operating point."""
    *networks, together = judged
    scores = together.scores(part)
    wrong = (scores >= together.threshold) != (dataset.labels[dataset.rows(part)] == 1)
    review = np.array(
        [
            triage(rules, float(score), together.threshold, float(apart), unlike=strange)[0]
            == REVIEW
            for score, apart, strange in zip(
                scores, disagreement(networks, part), unlike.tolist(), strict=True
            )
        ]
    )
    return Caught(
        images=len(scores),
        review=float(review.mean()),
        errors=int(wrong.sum()),
        errors_caught=float(review[wrong].mean()) if wrong.any() else None,
    )


def _logit(probability: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
    bounded = np.clip(probability, 10.0**-calibrate.DIGITS, 1 - 10.0**-calibrate.DIGITS)
    return np.log(bounded / (1 - bounded))
