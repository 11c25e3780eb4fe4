"""Predictions of a run's networks and their calibration: the first steps of an evaluation.

Predict → calibrate → measure: each step takes values and returns values. No step changes a network,
a card or a file.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from handlers.card import EvaluatedNetwork
from handlers.card_fields import NoveltyRule, TriageRules
from train.data.dataset import Dataset
from train.evaluation import calibrated_model, card, novelty, novelty_rule, resolution
from train.evaluation import ensemble as ensembles
from train.evaluation.calibrated_model import CalibratedModel, Logits, Maps
from train.evaluation.novelty import NetworkDistances
from train.evaluation.resolution import Originals
from train.fitting.loaded_networks import LoadedNetwork, networks_of
from train.fitting.options import device
from train.model import checkpoint, networks

log = logging.getLogger(__name__)


# --- predict


@dataclass(frozen=True)
class NetworkPredictions:
    """One network's predictions before calibration.

    `logits` (N, 2) by part come from the head as trained, without an offset; `maps` (N, 2, h, w)
    are those of the calibration images. `published` is the card of a network that is published
    already and keeps its calibration, else None.
    """

    loaded: LoadedNetwork
    logits: Mapping[str, Logits]
    maps: Maps
    distances: NetworkDistances
    originals: Originals | None
    published: EvaluatedNetwork | None


@dataclass(frozen=True)
class Predictions:
    """The predictions of a run's networks on the evaluated parts of the data."""

    parts: tuple[str, ...]
    networks: tuple[NetworkPredictions, ...]

    @property
    def dataset(self) -> Dataset:
        """The data set at the first network's size; all networks share its parts and labels."""
        return self.networks[0].loaded.dataset


def predict(
    run: Path, open_test: bool, originals_in: Path | None, finished: Collection[str]
) -> Predictions:
    """Predictions of every network of a run, on all parts except the training images.

    The arguments are those of `train.report.pipeline.evaluate`.

    Raises:
        CheckpointError: the run has no finished network, or its data has changed.
        DataError: an original in `originals_in` has no copy in the data set.
    """
    loaded_networks = networks_of(run)
    parts = tuple(calibrated_model.parts_of(loaded_networks[0].dataset, open_test))
    # All originals are read before the first network predicts, so that errors come early.
    originals = [
        resolution.read_originals(originals_in, loaded.dataset) if originals_in else None
        for loaded in loaded_networks
    ]
    return Predictions(
        parts,
        tuple(
            _predict(loaded, parts, originals_at_size, loaded.name in finished)
            for loaded, originals_at_size in zip(loaded_networks, originals, strict=True)
        ),
    )


def _predict(
    loaded: LoadedNetwork, parts: tuple[str, ...], originals: Originals | None, finished: bool
) -> NetworkPredictions:
    log.info("evaluating %s on %s", loaded.name, ", ".join(parts))
    # The bias contains the offset of an earlier evaluation: calibration starts without one.
    raw = networks.with_bias(loaded.network, card.raw_bias(loaded.card))
    raw = calibrated_model.to_device(raw, device())
    reference = novelty.load(loaded.path, loaded.card) if finished else None
    return NetworkPredictions(
        loaded,
        logits=calibrated_model.predict_parts(raw, loaded.dataset, parts),
        maps=calibrated_model.maps_of(raw, loaded.dataset),
        distances=novelty.measure_network(raw, loaded.name, loaded.dataset, parts, reference),
        originals=originals,
        published=checkpoint.require_evaluated(loaded.card, loaded.path) if finished else None,
    )


# --- calibrate


@dataclass(frozen=True)
class CalibratedEnsemble:
    """The ensemble's calibrated model, and the bounds of its triage."""

    model: CalibratedModel
    triage: TriageRules


@dataclass(frozen=True)
class Calibrated:
    """The calibrated networks with operating points and novelty rules.

    `ensemble` is None for a single network.
    """

    networks: tuple[CalibratedModel, ...]
    novelty: tuple[NoveltyRule, ...]  # by network
    ensemble: CalibratedEnsemble | None


def calibrate(predictions: Predictions) -> Calibrated:
    """Temperature, offset, operating points and novelty rules, fitted on `block-calibrate`."""
    models = tuple(_calibrate(network) for network in predictions.networks)
    rules = tuple(_novelty_rule(network) for network in predictions.networks)
    if len(models) == 1:
        return Calibrated(models, rules, None)
    ensemble = calibrated_model.calibrate_ensemble(predictions.dataset, models)
    triage = ensembles.fit_triage(models, ensemble)
    return Calibrated(models, rules, CalibratedEnsemble(ensemble, triage))


def _calibrate(network: NetworkPredictions) -> CalibratedModel:
    published = network.published
    calibration = None if published is None else card.calibration(published)
    return calibrated_model.calibrate_network(
        network.loaded.name, network.loaded.dataset, network.logits, calibration
    )


def _novelty_rule(network: NetworkPredictions) -> NoveltyRule:
    card_rule = None if network.published is None else network.published.novelty
    return card_rule or novelty_rule.fit(network.distances.calibration)
