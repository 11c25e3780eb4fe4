"""Predictions → everything that the report has: the last step of an evaluation."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from handlers.card_fields import NoveltyRule, TriageRules
from handlers.decision import POSITIVE
from train import (
    card,
    compare,
    crosscheck,
    doubt,
    judge,
    lung_evidence,
    novelty_rule,
    split,
    stress,
    together,
    twins,
)
from train.compare import Difference
from train.crosscheck import Check
from train.data import Dataset
from train.doubt import Doubt
from train.judge import CalibratedModel, MeasuredModel
from train.lung_evidence import LungEvidenceSummary
from train.metrics import Scores
from train.networks import CLASSES, Classifier
from train.novelty_rule import NoveltyResult
from train.options import device
from train.predictions import Calibrated, NetworkPredictions, Predictions
from train.stress import RobustnessResult
from train.trained import LoadedNetwork
from train.twins import Twins

log = logging.getLogger(__name__)

CHECKED = 16  # images the maps are cross-checked on


@dataclass(frozen=True)
class NetworkEvaluation:
    """One network, evaluated.

    `network` has the offset in its bias, as it is served; `evidence` is None without lung masks.
    """

    predictions: NetworkPredictions
    network: Classifier
    model: MeasuredModel
    novelty_rule: NoveltyRule
    novelty: NoveltyResult
    robustness: Mapping[str, RobustnessResult]
    twins: Twins | None
    evidence: Mapping[str, LungEvidenceSummary] | None
    crosscheck: Check

    @property
    def loaded(self) -> LoadedNetwork:
        """The network as it was loaded."""
        return self.predictions.loaded


@dataclass(frozen=True)
class EnsembleEvaluation:
    """The networks as one model, measured; the triage with what it takes of each part."""

    model: MeasuredModel
    triage: TriageRules


@dataclass(frozen=True)
class Evaluation:
    """Everything that is measured on the networks of a run.

    `part` is the one whose figures are to be quoted: test where it is opened. `doubts` (N,), by
    measure, are those of the ensemble, or of the one network, on it; `selective_prediction` is
    what they are worth.
    """

    part: str
    networks: tuple[NetworkEvaluation, ...]
    ensemble: EnsembleEvaluation | None
    differences: tuple[Difference, ...]
    doubts: Mapping[str, Scores]
    selective_prediction: Mapping[str, Doubt]

    @property
    def dataset(self) -> Dataset:
        """The data set at the size of the first network; parts and labels are those of all."""
        return self.networks[0].loaded.dataset

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Labels (N,) of the part to be quoted."""
        return self.dataset.labels[self.dataset.rows(self.part)]

    @property
    def models(self) -> tuple[MeasuredModel, ...]:
        """The networks' models and, of several, last the ensemble's."""
        models = tuple(network.model for network in self.networks)
        return models if self.ensemble is None else (*models, self.ensemble.model)


def measure(predictions: Predictions, calibrated: Calibrated) -> Evaluation:
    """Figures of every part, and everything else that the report has."""
    part = split.TEST if split.TEST in predictions.parts else split.SELECT
    dataset = predictions.dataset
    log.info("judging changed images")
    evaluated = tuple(
        _measure(network, model, rule, part)
        for network, model, rule in zip(
            predictions.networks, calibrated.networks, calibrated.novelty, strict=True
        )
    )
    ensemble = _measure_ensemble(predictions, calibrated, evaluated)
    models = [network.model for network in evaluated]
    if ensemble is not None:
        models.append(ensemble.model)
    rows = dataset.rows(part)
    labels, patients = dataset.labels[rows], dataset.patients[rows]
    doubts = doubt.measures(calibrated.networks, models[-1], part)
    wrong = doubt.wrong(models[-1], part, labels)
    return Evaluation(
        part=part,
        networks=evaluated,
        ensemble=ensemble,
        differences=tuple(compare.differences(models, part, labels, patients)),
        doubts=doubts,
        selective_prediction={name: doubt.judge(values, wrong) for name, values in doubts.items()},
    )


def _measure_ensemble(
    predictions: Predictions, calibrated: Calibrated, evaluated: Sequence[NetworkEvaluation]
) -> EnsembleEvaluation | None:
    ensemble, dataset = calibrated.ensemble, predictions.dataset
    if ensemble is None:
        return None
    unlike = {
        part: np.any([network.novelty.parts[part] for network in evaluated], axis=0)
        for part in predictions.parts
    }
    caught = together.measure_triage(
        calibrated.networks, ensemble.model, ensemble.triage, dataset, unlike
    )
    return EnsembleEvaluation(
        judge.measure_model(ensemble.model, dataset), replace(ensemble.triage, caught=caught)
    )


def _measure(
    predictions: NetworkPredictions, model: CalibratedModel, rule: NoveltyRule, part: str
) -> NetworkEvaluation:
    loaded, originals = predictions.loaded, predictions.originals
    network = judge.with_offset(loaded.network, card.raw_bias(loaded.card), model.calibration)
    network = judge.placed(network, device())
    return NetworkEvaluation(
        predictions=predictions,
        network=network,
        model=judge.measure_model(model, loaded.dataset),
        novelty_rule=rule,
        novelty=novelty_rule.measure(rule, predictions.distances),
        robustness=stress.measure(network, model, loaded.dataset),
        twins=twins.measure(network, model, loaded.dataset, originals) if originals else None,
        evidence=_evidence(loaded, network, model),
        crosscheck=check_maps(network, loaded.dataset, part),
    )


def _evidence(
    loaded: LoadedNetwork, network: Classifier, model: CalibratedModel
) -> dict[str, LungEvidenceSummary] | None:
    """Where the evidence lies, on those images of `block-select` that have a mask."""
    if loaded.masks is None:
        return None
    dataset = loaded.dataset
    rows = dataset.rows(split.SELECT)
    masked = loaded.masks.present[rows]
    if not masked.any():
        return {}
    labels = dataset.labels[rows]
    right = model.positive(split.SELECT) == (labels == POSITIVE)
    return lung_evidence.summarise(
        lung_evidence.measure(network, dataset, loaded.masks, rows),
        labels[masked],
        right[masked],
        dataset.patients[rows][masked],
    )


def check_maps(network: Classifier, dataset: Dataset, part: str) -> Check:
    """The cross-check of a network's maps on images of a part, those of `spread`."""
    pixels = torch.from_numpy(dataset.pixels[spread(dataset, part, CHECKED)])
    # On the CPU: a GPU's reduced precision is not what is checked here.
    return crosscheck.crosscheck(network.cpu(), pixels)


def spread(dataset: Dataset, part: str, count: int) -> npt.NDArray[np.int64]:
    """Rows of a part, as many of each class, evenly spread over its files; always the same."""
    rows, labels = dataset.rows(part), dataset.labels
    of_class = [rows[labels[rows] == label] for label in range(len(CLASSES))]
    half = count // len(CLASSES)
    return np.concatenate(
        [each[np.linspace(0, len(each) - 1, min(half, len(each))).astype(int)] for each in of_class]
    )
