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
from train import calibrate, split
from train.cam import explain
from train.data import Dataset
from train.metrics import Scores, judge
from train.networks import Classifier, predict, with_bias

ENSEMBLE = "both"  # the mean of the networks' calibrated logits
UNCHANGED = calibrate.Calibration(temperature=1.0, offset=0.0)

Logits = npt.NDArray[np.float64]  # (N, 2)
Maps = npt.NDArray[np.float32]  # (N, 2, h, w)


@dataclass(frozen=True)
class CalibratedModel:
    """One network, or the ensemble: calibration, operating points, logits by part.

    `logits` (N, 2) contain the offset and are not divided by the temperature.
    """

    name: str
    calibration: calibrate.Calibration
    operating_points: Mapping[str, OperatingPoint]
    logits: Mapping[str, Logits]

    @property
    def threshold(self) -> float:
        """The threshold of the default operating point."""
        return self.operating_points[calibrate.DEFAULT].threshold

    def uncalibrated(self, part: str) -> Scores:
        """Probabilities of PNEUMONIA (N,) before temperature and offset, as printed."""
        back = replace(self.calibration, offset=-self.calibration.offset)
        return decision.printed_probability(back.shift(self.logits[part]), 1.0)

    def scores(self, part: str) -> Scores:
        """Calibrated probabilities of PNEUMONIA (N,), as printed."""
        return decision.printed_probability(self.logits[part], self.calibration.temperature)

    def positive(self, part: str) -> npt.NDArray[np.bool_]:
        """Which images (N,) are PNEUMONIA at the default operating point."""
        return decision.is_positive(self.scores(part), self.threshold)


@dataclass(frozen=True)
class MeasuredModel(CalibratedModel):
    """The same, with its figures by part."""

    parts: Mapping[str, PartFigures]

    def document(self) -> dict[str, Any]:
        """The JSON object of metrics.json."""
        return {
            "temperature": self.calibration.temperature,
            "offset": self.calibration.offset,
            "default_operating_point": calibrate.DEFAULT,
            "operating_points": {k: encode(point) for k, point in self.operating_points.items()},
            "parts": {part: encode(figures) for part, figures in self.parts.items()},
        }


def parts_of(dataset: Dataset, open_test: bool) -> list[str]:
    """The parts to evaluate on; test only where it is opened."""
    parts = [part for part in split.PARTS if part != split.FIT and len(dataset.rows(part))]
    return parts if open_test else [part for part in parts if part != split.TEST]


# --- predict


def placed(network: Classifier, device: torch.device) -> Classifier:
    """The network on a device, in the layout of memory that convolutions are fastest in."""
    placed: Classifier = network.to(device).to(memory_format=torch.channels_last)
    return placed


def predict_parts(network: Classifier, dataset: Dataset, parts: Sequence[str]) -> dict[str, Logits]:
    """Logits (N, 2) of each part, at the size the data set was decoded to."""
    size = dataset.pixels.shape[-1]
    return {
        part: predict(network, torch.from_numpy(dataset.pixels[dataset.rows(part)]), size)
        .double()
        .numpy()
        for part in parts
    }


def maps_of(network: Classifier, dataset: Dataset) -> Maps:
    """Maps (N, 2, h, w), in logits, of the calibration images."""
    pixels = torch.from_numpy(dataset.pixels[dataset.rows(split.CALIBRATE)])
    device = network.head.weight.device
    batches = [explain(network, batch.to(device))[1].cpu() for batch in torch.split(pixels, 64)]
    maps: Maps = torch.cat(batches).numpy()
    return maps


def map_scale(maps: Maps) -> float:
    """Where an overlay's colour saturates: the 99.5th percentile, in logits, of maps' positive
    part."""
    return max(float(np.percentile(maps.clip(min=0), 99.5)), 1e-6)


# --- calibrate


def calibrate_network(
    name: str,
    dataset: Dataset,
    logits: Mapping[str, Logits],
    calibration: calibrate.Calibration | None = None,
) -> CalibratedModel:
    """Calibration, unless it is given, and operating points, from `block-calibrate`.

    `logits` (N, 2) by part are those of the head as trained.
    """
    if calibration is None:
        labels = dataset.labels[dataset.rows(split.CALIBRATE)]
        calibration = calibrate.fit(logits[split.CALIBRATE], labels)
    shifted = {part: calibration.shift(values) for part, values in logits.items()}
    return _with_operating_points(name, dataset, shifted, calibration)


def calibrate_ensemble(dataset: Dataset, networks: Sequence[CalibratedModel]) -> CalibratedModel:
    """The networks as one model: the mean of their calibrated logits, as it is served."""
    logits = {
        part: np.mean(
            [network.logits[part] / network.calibration.temperature for network in networks],
            axis=0,
        )
        for part in networks[0].logits
    }
    return _with_operating_points(ENSEMBLE, dataset, logits, UNCHANGED)


def _with_operating_points(
    name: str, dataset: Dataset, logits: Mapping[str, Logits], calibration: calibrate.Calibration
) -> CalibratedModel:
    model = CalibratedModel(name, calibration, {}, logits)
    labels = dataset.labels[dataset.rows(split.CALIBRATE)]
    points = calibrate.operating_points(labels, model.scores(split.CALIBRATE))
    return replace(model, operating_points=points)


def calibrate_fitted(
    network: Classifier, name: str, dataset: Dataset, parts: Sequence[str], device: torch.device
) -> tuple[Classifier, CalibratedModel]:
    """A network just fitted, calibrated on `block-select` itself, which is one of the parts.

    So a change of recipe that makes probabilities bolder or shyer does not win or lose by that
    alone. The network returned has the offset in its bias; the threshold is a probability of 0.5.
    """
    logits = predict_parts(placed(network, device), dataset, parts)
    labels = dataset.labels[dataset.rows(split.SELECT)]
    calibration = calibrate.fit(logits[split.SELECT], labels)
    shifted = {part: calibration.shift(values) for part, values in logits.items()}
    even = OperatingPoint(threshold=0.5, sensitivity=0.0, specificity=0.0)
    model = CalibratedModel(name, calibration, {calibrate.DEFAULT: even}, shifted)
    return with_offset(network, network.head.bias.tolist(), calibration), model


def with_offset(
    network: Classifier, raw_bias: Sequence[float], calibration: calibrate.Calibration
) -> Classifier:
    """The network as it is served: the bias as trained, with the calibration's offset."""
    return with_bias(network, calibration.shift(np.array([raw_bias]))[0].tolist())


# --- measure


def measure_model(model: CalibratedModel, dataset: Dataset) -> MeasuredModel:
    """The model with its figures on every part that it has logits of."""
    figures = {}
    for part in model.logits:
        rows = dataset.rows(part)
        figures[part] = judge(
            dataset.labels[rows],
            model.scores(part),
            dataset.patients[rows],
            model.threshold,
            dataset.series[rows],
        )
    return MeasuredModel(
        model.name, model.calibration, model.operating_points, model.logits, figures
    )
