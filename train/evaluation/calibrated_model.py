"""A network's logits on every part of the data: calibrated, given operating points, measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from handlers import decision
from handlers.card_fields import OperatingPoint, PartFigures
from handlers.records import encode
from train.data import splits
from train.data.dataset import Dataset
from train.metrics import calibration as calibrations
from train.metrics.classification import Scores, part_figures
from train.model.cam import explain
from train.model.networks import Classifier, predict, with_bias

ENSEMBLE = "both"  # the mean of the networks' calibrated logits
UNCHANGED = calibrations.Calibration(temperature=1.0, offset=0.0)

Logits = npt.NDArray[np.float64]  # (N, 2)
Maps = npt.NDArray[np.float32]  # (N, 2, h, w)


@dataclass(frozen=True)
class CalibratedModel:
    """One network, or the ensemble: calibration, operating points, logits by part.

    `logits` (N, 2) contain the offset and are not divided by the temperature.
    """

    name: str
    calibration: calibrations.Calibration
    operating_points: Mapping[str, OperatingPoint]
    logits: Mapping[str, Logits]

    @property
    def threshold(self) -> float:
        """The default operating point's threshold on the calibrated P(PNEUMONIA), 0..1."""
        return self.operating_points[calibrations.DEFAULT].threshold

    def uncalibrated(self, part: str) -> Scores:
        """Probabilities of PNEUMONIA (N,) without temperature and offset, rounded as in answers."""
        inverse = replace(self.calibration, offset=-self.calibration.offset)
        return decision.printed_probability(inverse.shift(self.logits[part]), 1.0)

    def scores(self, part: str) -> Scores:
        """Calibrated probabilities of PNEUMONIA (N,), rounded as in answers."""
        return decision.printed_probability(self.logits[part], self.calibration.temperature)

    def positive(self, part: str) -> npt.NDArray[np.bool_]:
        """Whether each image (N,) is PNEUMONIA at the default operating point."""
        return decision.is_positive(self.scores(part), self.threshold)


@dataclass(frozen=True)
class MeasuredModel(CalibratedModel):
    """A calibrated model with its figures by part."""

    parts: Mapping[str, PartFigures]

    def document(self) -> dict[str, Any]:
        """The model's JSON object in metrics.json."""
        return {
            "temperature": self.calibration.temperature,
            "offset": self.calibration.offset,
            "default_operating_point": calibrations.DEFAULT,
            "operating_points": {k: encode(point) for k, point in self.operating_points.items()},
            "parts": {part: encode(figures) for part, figures in self.parts.items()},
        }


def parts_of(dataset: Dataset, open_test: bool) -> list[str]:
    """Names of the parts to evaluate on: every part with images except `fit`.

    `test` is among them only if `open_test`.
    """
    parts = [part for part in splits.PARTS if part != splits.FIT and len(dataset.rows(part))]
    return parts if open_test else [part for part in parts if part != splits.TEST]


# --- predict


def to_device(network: Classifier, device: torch.device) -> Classifier:
    """The network on a device, in channels_last, the memory layout of the fastest convolutions."""
    moved: Classifier = network.to(device).to(memory_format=torch.channels_last)
    return moved


def predict_parts(network: Classifier, dataset: Dataset, parts: Sequence[str]) -> dict[str, Logits]:
    """Logits (N, 2) by part, at the image size that the data set was decoded to."""
    size = dataset.pixels.shape[-1]
    return {
        part: predict(network, torch.from_numpy(dataset.pixels[dataset.rows(part)]), size)
        .double()
        .numpy()
        for part in parts
    }


def maps_of(network: Classifier, dataset: Dataset) -> Maps:
    """Class activation maps (N, 2, h, w), in logits, of the images of `block-calibrate`."""
    pixels = torch.from_numpy(dataset.pixels[dataset.rows(splits.CALIBRATE)])
    device = network.head.weight.device
    batches = [explain(network, batch.to(device))[1].cpu() for batch in torch.split(pixels, 64)]
    maps: Maps = torch.cat(batches).numpy()
    return maps


def map_scale(maps: Maps) -> float:
    """The value, in logits, at which an overlay's colour saturates.

    It is the 99.5th percentile of the maps' positive part.
    """
    return max(float(np.percentile(maps.clip(min=0), 99.5)), 1e-6)


# --- calibrate


def calibrate_network(
    name: str,
    dataset: Dataset,
    logits: Mapping[str, Logits],
    calibration: calibrations.Calibration | None = None,
) -> CalibratedModel:
    """A network's model: calibration and operating points are fitted on `block-calibrate`.

    `logits` (N, 2) by part come from the head as trained, without an offset. A `calibration` that
    is passed in is used instead of a fitted one.
    """
    if calibration is None:
        labels = dataset.labels[dataset.rows(splits.CALIBRATE)]
        calibration = calibrations.fit(logits[splits.CALIBRATE], labels)
    shifted = {part: calibration.shift(values) for part, values in logits.items()}
    return _with_operating_points(name, dataset, shifted, calibration)


def calibrate_ensemble(dataset: Dataset, networks: Sequence[CalibratedModel]) -> CalibratedModel:
    """The ensemble's model: the mean of the networks' calibrated logits, as the server computes."""
    logits = {
        part: np.mean(
            [network.logits[part] / network.calibration.temperature for network in networks],
            axis=0,
        )
        for part in networks[0].logits
    }
    return _with_operating_points(ENSEMBLE, dataset, logits, UNCHANGED)


def _with_operating_points(
    name: str, dataset: Dataset, logits: Mapping[str, Logits], calibration: calibrations.Calibration
) -> CalibratedModel:
    model = CalibratedModel(name, calibration, {}, logits)
    labels = dataset.labels[dataset.rows(splits.CALIBRATE)]
    points = calibrations.operating_points(labels, model.scores(splits.CALIBRATE))
    return replace(model, operating_points=points)


def calibrate_fitted(
    network: Classifier, name: str, dataset: Dataset, parts: Sequence[str], device: torch.device
) -> tuple[Classifier, CalibratedModel]:
    """A freshly fitted network with the calibration's offset in its bias, and its model.

    For comparisons of recipes: it is calibrated on `block-select`, the part that it is compared on,
    so that a recipe neither wins nor loses by over- or underconfidence alone. `parts` must contain
    `block-select`. The threshold is a probability of 0.5.
    """
    logits = predict_parts(to_device(network, device), dataset, parts)
    labels = dataset.labels[dataset.rows(splits.SELECT)]
    calibration = calibrations.fit(logits[splits.SELECT], labels)
    shifted = {part: calibration.shift(values) for part, values in logits.items()}
    point = OperatingPoint(threshold=0.5, sensitivity=0.0, specificity=0.0)
    model = CalibratedModel(name, calibration, {calibrations.DEFAULT: point}, shifted)
    return with_offset(network, network.head.bias.tolist(), calibration), model


def with_offset(
    network: Classifier, raw_bias: Sequence[float], calibration: calibrations.Calibration
) -> Classifier:
    """The network as it is served: its bias is `raw_bias` (2,) plus the calibration's offset."""
    return with_bias(network, calibration.shift(np.array([raw_bias]))[0].tolist())


# --- measure


def measure_model(model: CalibratedModel, dataset: Dataset) -> MeasuredModel:
    """The model with its figures on every part for which it has logits."""
    figures = {}
    for part in model.logits:
        rows = dataset.rows(part)
        figures[part] = part_figures(
            dataset.labels[rows],
            model.scores(part),
            dataset.patients[rows],
            model.threshold,
            dataset.series[rows],
        )
    return MeasuredModel(
        model.name, model.calibration, model.operating_points, model.logits, figures
    )
