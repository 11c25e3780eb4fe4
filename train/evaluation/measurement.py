"""The last step of an evaluation: from calibrated predictions to everything in the report."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from handlers.card_fields import NoveltyRule, TriageRules
from handlers.decision import POSITIVE
from train.data import splits
from train.data.classes import CLASSES
from train.data.dataset import Dataset
from train.evaluation import (
    calibrated_model,
    captum_check,
    card,
    lung_evidence,
    novelty_rule,
    resolution,
    robustness,
    selective_prediction,
    significance,
)
from train.evaluation import ensemble as ensembles
from train.evaluation.calibrated_model import CalibratedModel, MeasuredModel
from train.evaluation.captum_check import CrossCheck
from train.evaluation.lung_evidence import LungEvidenceSummary
from train.evaluation.novelty_rule import NoveltyResult
from train.evaluation.predictions import Calibrated, NetworkPredictions, Predictions
from train.evaluation.resolution import ResolutionResult
from train.evaluation.robustness import RobustnessResult
from train.evaluation.selective_prediction import DoubtResult
from train.evaluation.significance import Difference
from train.fitting.loaded_networks import LoadedNetwork
from train.fitting.options import device
from train.metrics.classification import Scores
from train.model.networks import Classifier

log = logging.getLogger(__name__)

CHECKED = 16  # images of the cross-check of maps


@dataclass(frozen=True)
class NetworkEvaluation:
    """One network, evaluated.

    `network` has the offset in its bias, as it is served. `resolution` is None without originals,
    `evidence` without lung masks.
    """

    predictions: NetworkPredictions
    network: Classifier
    model: MeasuredModel
    novelty_rule: NoveltyRule
    novelty: NoveltyResult
    robustness: Mapping[str, RobustnessResult]
    resolution: ResolutionResult | None
    evidence: Mapping[str, LungEvidenceSummary] | None
    crosscheck: CrossCheck

    @property
    def loaded(self) -> LoadedNetwork:
        """The network as it was loaded."""
        return self.predictions.loaded


@dataclass(frozen=True)
class EnsembleEvaluation:
    """The ensemble's model with its figures; its triage rules with their effect on each part."""

    model: MeasuredModel
    triage: TriageRules


@dataclass(frozen=True)
class Evaluation:
    """Everything measured on the networks of a run.

    `part` is the one whose figures to quote: `test` if it was evaluated, else `block-select`.
    `doubts` (N,) by measure are those of the last of `models` on that part, and
    `selective_prediction` evaluates them.
    """

    part: str
    networks: tuple[NetworkEvaluation, ...]
    ensemble: EnsembleEvaluation | None
    differences: tuple[Difference, ...]
    doubts: Mapping[str, Scores]
    selective_prediction: Mapping[str, DoubtResult]

    @property
    def dataset(self) -> Dataset:
        """The data set at the first network's size; all networks share its parts and labels."""
        return self.networks[0].loaded.dataset

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Labels (N,) of the part whose figures to quote."""
        return self.dataset.labels[self.dataset.rows(self.part)]

    @property
    def models(self) -> tuple[MeasuredModel, ...]:
        """The networks' models; last the ensemble's, if there are several networks."""
        models = tuple(network.model for network in self.networks)
        return models if self.ensemble is None else (*models, self.ensemble.model)


def measure(predictions: Predictions, calibrated: Calibrated) -> Evaluation:
    """The figures of every part, and everything else in the report."""
    part = splits.TEST if splits.TEST in predictions.parts else splits.SELECT
    dataset = predictions.dataset
    log.info("measuring robustness")
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
    doubts = selective_prediction.doubt_measures(calibrated.networks, models[-1], part)
    errors = selective_prediction.errors(models[-1], part, labels)
    return Evaluation(
        part=part,
        networks=evaluated,
        ensemble=ensemble,
        differences=tuple(significance.differences(models, part, labels, patients)),
        doubts=doubts,
        selective_prediction={
            name: selective_prediction.evaluate(doubt, errors) for name, doubt in doubts.items()
        },
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
    stats = ensembles.measure_triage(
        calibrated.networks, ensemble.model, ensemble.triage, dataset, unlike
    )
    return EnsembleEvaluation(
        calibrated_model.measure_model(ensemble.model, dataset),
        replace(ensemble.triage, caught=stats),
    )


def _measure(
    predictions: NetworkPredictions, model: CalibratedModel, rule: NoveltyRule, part: str
) -> NetworkEvaluation:
    loaded, originals = predictions.loaded, predictions.originals
    network = calibrated_model.with_offset(
        loaded.network, card.raw_bias(loaded.card), model.calibration
    )
    network = calibrated_model.to_device(network, device())
    return NetworkEvaluation(
        predictions=predictions,
        network=network,
        model=calibrated_model.measure_model(model, loaded.dataset),
        novelty_rule=rule,
        novelty=novelty_rule.measure(rule, predictions.distances),
        robustness=robustness.measure(network, model, loaded.dataset),
        resolution=(
            resolution.measure(network, model, loaded.dataset, originals) if originals else None
        ),
        evidence=_evidence(loaded, network, model),
        crosscheck=check_maps(network, loaded.dataset, part),
    )


def _evidence(
    loaded: LoadedNetwork, network: Classifier, model: CalibratedModel
) -> dict[str, LungEvidenceSummary] | None:
    """Lung evidence by group, on the images of `block-select` that have a mask."""
    if loaded.masks is None:
        return None
    dataset = loaded.dataset
    rows = dataset.rows(splits.SELECT)
    masked = loaded.masks.present[rows]
    if not masked.any():
        return {}
    labels = dataset.labels[rows]
    correct = model.positive(splits.SELECT) == (labels == POSITIVE)
    return lung_evidence.summarise(
        lung_evidence.measure(network, dataset, loaded.masks, rows),
        labels[masked],
        correct[masked],
        dataset.patients[rows][masked],
    )


def check_maps(network: Classifier, dataset: Dataset, part: str) -> CrossCheck:
    """The cross-check of a network's maps on 16 images of a part, chosen by `spread`."""
    pixels = torch.from_numpy(dataset.pixels[spread(dataset, part, CHECKED)])
    # On the CPU: a GPU's reduced precision would exceed the tolerance.
    return captum_check.crosscheck(network.cpu(), pixels)


def spread(dataset: Dataset, part: str, count: int) -> npt.NDArray[np.int64]:
    """Rows of `count` images of a part, equally many of each class, evenly spaced over its files.

    Always the same rows; fewer where a class has too few images.
    """
    rows, labels = dataset.rows(part), dataset.labels
    per_class = count // len(CLASSES)
    chosen = []
    for label in range(len(CLASSES)):
        class_rows = rows[labels[rows] == label]
        places = np.linspace(0, len(class_rows) - 1, min(per_class, len(class_rows)))
        chosen.append(class_rows[places.astype(int)])
    return np.concatenate(chosen)
