"""All networks of a run as one model: the mean of their calibrated logits and maps."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from handlers import decision
from handlers.card import SCHEMA, EvaluatedEnsemble, EvaluatedNetwork, Member
from handlers.card_fields import Map, MapGrid, TriageRules, TriageStats
from handlers.records import extend
from train.data import splits
from train.data.dataset import Dataset
from train.evaluation.calibrated_model import CalibratedModel, Maps, MeasuredModel, map_scale
from train.evaluation.card import evaluated_fields
from train.metrics.classification import Scores

log = logging.getLogger(__name__)

NAME = "pneumonia"
DOUBTFUL = 0.05  # share of the calibration images nearest to the threshold
DISAGREED = 0.05  # share of the calibration images with the largest disagreement


def ensemble_card(
    cards: Sequence[EvaluatedNetwork],
    model: MeasuredModel,
    maps: Sequence[Maps],
    dataset: Dataset,
    triage: TriageRules,
) -> EvaluatedEnsemble | None:
    """The card of several networks as one model; None, with a warning in the log, if sizes differ.

    `model` is the ensemble's; `maps` are each network's on the calibration images.
    """
    first = cards[0]
    if any((card.input, _grid(card)) != (first.input, _grid(first)) for card in cards):
        log.warning("the networks' sizes differ: they are not archived as one model")
        return None
    temperatures = [card.temperature for card in cards]
    mean_maps = np.mean([m / t for m, t in zip(maps, temperatures, strict=True)], axis=0)
    bias = np.mean(
        [np.divide(card.bias, t) for card, t in zip(cards, temperatures, strict=True)], axis=0
    )
    return EvaluatedEnsemble(
        project=first.project,
        network=NAME,
        input=first.input,
        map=extend(Map, _grid(first), scale=map_scale(mean_maps)),
        classes=first.classes,
        bias=tuple(bias.tolist()),
        training=first.training,
        warnings=tuple(dict.fromkeys(text for card in cards for text in card.warnings)),
        schema=SCHEMA,
        **evaluated_fields(model, dataset),
        triage=triage,
        members=tuple(
            Member(network=card.network, weights_sha256=card.weights_sha256 or "") for card in cards
        ),
    )


def _grid(card: EvaluatedNetwork) -> MapGrid:
    """The grid of the card's map, without the scale."""
    return MapGrid(rows=card.map.rows, columns=card.map.columns, dilated=card.map.dilated)


def fit_triage(networks: Sequence[CalibratedModel], ensemble: CalibratedModel) -> TriageRules:
    """Bounds of doubt and of disagreement: quantiles on the calibration images.

    One image in twenty lies beyond each bound, few enough to be reviewed by a person.
    """
    scores = ensemble.scores(splits.CALIBRATE)
    doubt = np.abs(decision.logit(scores) - decision.logit(ensemble.threshold))
    return TriageRules(
        doubt=float(np.quantile(doubt, DOUBTFUL)),
        disagreement=float(np.quantile(disagreement(networks, splits.CALIBRATE), 1 - DISAGREED)),
    )


def disagreement(networks: Sequence[CalibratedModel], part: str) -> Scores:
    """The largest difference (N,) between the networks' probabilities of PNEUMONIA."""
    return decision.disagreement([network.scores(part) for network in networks])


def measure_triage(
    networks: Sequence[CalibratedModel],
    ensemble: CalibratedModel,
    rules: TriageRules,
    dataset: Dataset,
    unlike: Mapping[str, npt.NDArray[np.bool_]],
) -> dict[str, TriageStats]:
    """By part, the share of images sent to review and of errors among them.

    At the default operating point. `unlike` (N,) by part is true for images with a novelty warning.
    """
    return {
        part: _triage_stats(
            networks, ensemble, rules, part, dataset.labels[dataset.rows(part)], part_unlike
        )
        for part, part_unlike in unlike.items()
    }


def _triage_stats(
    networks: Sequence[CalibratedModel],
    ensemble: CalibratedModel,
    rules: TriageRules,
    part: str,
    labels: npt.NDArray[np.int64],
    unlike: npt.NDArray[np.bool_],
) -> TriageStats:
    wrong = ensemble.positive(part) != (labels == decision.POSITIVE)
    review = np.array(
        [
            decision.triage(rules, score, ensemble.threshold, difference, unlike=is_unlike).decision
            == decision.REVIEW
            for score, difference, is_unlike in zip(
                ensemble.scores(part).tolist(),
                disagreement(networks, part).tolist(),
                unlike.tolist(),
                strict=True,
            )
        ]
    )
    return TriageStats(
        images=len(labels),
        review=float(review.mean()),
        errors=int(wrong.sum()),
        errors_caught=float(review[wrong].mean()) if wrong.any() else None,
    )
