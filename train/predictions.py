"""What the networks of a run answer, and their calibration: the first steps of an evaluation.

Predict → calibrate → measure, from values to values: no step changes a network, a card or a file.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from handlers.card import EvaluatedNetwork
from handlers.card_fields import NoveltyRule, TriageRules
from train import card, checkpoint, judge, networks, novelty, novelty_rule, together, twins
from train.data import Dataset
from train.judge import CalibratedModel, Logits, Maps
from train.novelty import NetworkDistances
from train.options import device
from train.trained import LoadedNetwork, networks_of
from train.twins import Originals

log = logging.getLogger(__name__)


# --- predict


@dataclass(frozen=True)
class NetworkPredictions:
    """What one network answers, before calibration.

    `logits` (N, 2) by part are those of the head as trained; `maps` (N, 2, h, w), of the
    calibration images. A `published` network keeps what its card says.
    """

    loaded: LoadedNetwork
    logits: Mapping[str, Logits]
    maps: Maps
    distances: NetworkDistances
    originals: Originals | None
    published: EvaluatedNetwork | None


@dataclass(frozen=True)
class Predictions:
    """What the networks of a run answer on each part of the data."""

    parts: tuple[str, ...]
    networks: tuple[NetworkPredictions, ...]

    @property
    def dataset(self) -> Dataset:
        """The data set at the size of the first network; parts and labels are those of all."""
        return self.networks[0].loaded.dataset


def predict(
    run: Path, open_test: bool, twins_in: Path | None, finished: Collection[str]
) -> Predictions:
    """Every network of a run on all parts but the training images; see `evaluate`.

    Raises:
        CheckpointError: the run holds no finished network, or its data is not what it was.
        DataError: an original in `twins_in` has no copy in the data set.
    """
    loaded = networks_of(run)
    parts = tuple(judge.parts_of(loaded[0].dataset, open_test))
    originals = [twins.read(twins_in, each.dataset) if twins_in else None for each in loaded]
    return Predictions(
        parts,
        tuple(
            _predict(each, parts, originals_at_size, each.name in finished)
            for each, originals_at_size in zip(loaded, originals, strict=True)
        ),
    )


def _predict(
    loaded: LoadedNetwork, parts: tuple[str, ...], originals: Originals | None, finished: bool
) -> NetworkPredictions:
    log.info("judging %s on %s", loaded.name, ", ".join(parts))
    # The offset of an earlier evaluation is in the bias: calibration starts without one.
    raw = networks.with_bias(loaded.network, card.raw_bias(loaded.card))
    raw = judge.placed(raw, device())
    reference = novelty.load(loaded.path, loaded.card) if finished else None
    return NetworkPredictions(
        loaded,
        logits=judge.predict_parts(raw, loaded.dataset, parts),
        maps=judge.maps_of(raw, loaded.dataset),
        distances=novelty.measure_network(raw, loaded.name, loaded.dataset, parts, reference),
        originals=originals,
        published=checkpoint.evaluated(loaded.card, loaded.path) if finished else None,
    )


# --- calibrate


@dataclass(frozen=True)
class CalibratedEnsemble:
    """The networks as one model, calibrated, and the bounds of its triage."""

    model: CalibratedModel
    triage: TriageRules


@dataclass(frozen=True)
class Calibrated:
    """The networks calibrated, with operating points and novelty's rules; of several, the ensemble
    too."""

    networks: tuple[CalibratedModel, ...]
    novelty: tuple[NoveltyRule, ...]  # by network
    ensemble: CalibratedEnsemble | None


def calibrate(predictions: Predictions) -> Calibrated:
    """Temperature, offset, operating points and rules, from the calibration images."""
    models = tuple(_calibrate(each) for each in predictions.networks)
    rules = tuple(_novelty_rule(each) for each in predictions.networks)
    if len(models) == 1:
        return Calibrated(models, rules, None)
    ensemble = judge.calibrate_ensemble(predictions.dataset, models)
    triage = together.fit_triage(models, ensemble)
    return Calibrated(models, rules, CalibratedEnsemble(ensemble, triage))


def _calibrate(network: NetworkPredictions) -> CalibratedModel:
    published = network.published
    on_card = None if published is None else card.calibration(published)
    return judge.calibrate_network(
        network.loaded.name, network.loaded.dataset, network.logits, on_card
    )


def _novelty_rule(network: NetworkPredictions) -> NoveltyRule:
    on_card = None if network.published is None else network.published.novelty
    return on_card or novelty_rule.fit(network.distances.calibration)
