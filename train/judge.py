"""A finished network on every part of the data: calibrated, given operating points, judged."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax

from train import calibrate, split
from train.cam import explain
from train.data import Dataset
from train.metrics import Judgement, judge
from train.networks import Classifier, predict

BOTH = "both"  # the average of the networks' calibrated logits
UNCHANGED = calibrate.Calibration(temperature=1.0, offset=0.0)

Logits = npt.NDArray[np.float64]  # (N, 2)
Maps = npt.NDArray[np.float32]  # (N, 2, h, w)


@dataclass(frozen=True)
class Judged:
    """One network, or both together: calibration, operating points, figures by part."""

    name: str
    calibration: calibrate.Calibration
    operating_points: Mapping[str, calibrate.OperatingPoint]
    logits: Mapping[str, Logits]  # part → (N, 2), with the offset, not divided by the temperature
    parts: Mapping[str, Judgement]

    @property
    def threshold(self) -> float:
        """The threshold of the default operating point."""
        return self.operating_points[calibrate.DEFAULT].threshold

    def uncalibrated(self, part: str) -> npt.NDArray[np.float64]:
        """Probabilities of PNEUMONIA (N,) before temperature and offset."""
        back = replace(self.calibration, offset=-self.calibration.offset)
        return probabilities(back.shift(self.logits[part]), 1.0)[:, 1]

    def scores(self, part: str) -> npt.NDArray[np.float64]:
        """Calibrated probabilities of PNEUMONIA (N,), rounded as the server prints them."""
        return probabilities(self.logits[part], self.calibration.temperature)[:, 1]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for metrics.json."""
        return {
            **asdict(self.calibration),
            "default_operating_point": calibrate.DEFAULT,
            "operating_points": {k: asdict(v) for k, v in self.operating_points.items()},
            "parts": {part: judgement.as_dict() for part, judgement in self.parts.items()},
        }


def probabilities(logits: Logits, temperature: float) -> npt.NDArray[np.float64]:
    """Probabilities (N, 2) of logits (N, 2), rounded as the server prints them."""
    scores: npt.NDArray[np.float64] = softmax(logits / temperature, axis=1).round(calibrate.DIGITS)
    return scores


def parts_of(dataset: Dataset, open_test: bool) -> list[str]:
    """The parts to judge on; test only where it is opened."""
    wanted = [part for part in split.PARTS if part != split.FIT and len(dataset.rows(part))]
    return wanted if open_test else [part for part in wanted if part != split.TEST]


def run_network(
    network: Classifier, dataset: Dataset, parts: Sequence[str], device: torch.device
) -> dict[str, Logits]:
    """Logits (N, 2) of each part, at the size the data set was decoded to."""
    network.to(device).to(memory_format=torch.channels_last)
    size = dataset.pixels.shape[-1]
    return {
        part: predict(network, torch.from_numpy(dataset.pixels[dataset.rows(part)]), size)
        .double()
        .numpy()
        for part in parts
    }


def judge_network(
    name: str,
    dataset: Dataset,
    logits: Mapping[str, Logits],
    calibration: calibrate.Calibration | None = None,
) -> Judged:
    """Calibration, where none is given, and operating points from `block-calibrate`, figures of
    every part."""
    if calibration is None:
        rows = dataset.rows(split.CALIBRATE)
        calibration = calibrate.fit(logits[split.CALIBRATE], dataset.labels[rows])
    return _judge(name, dataset, logits, calibration)


def judge_fitted(
    network: Classifier, name: str, dataset: Dataset, parts: Sequence[str], device: torch.device
) -> Judged:
    """A network just fitted, calibrated on `block-select` itself, which is one of the parts.

    So a change of recipe that makes probabilities bolder or shyer does not win or lose by that
    alone. The offset is folded into the head's bias; the threshold is a probability of .5.
    """
    logits = run_network(network, dataset, parts, device)
    labels = dataset.labels[dataset.rows(split.SELECT)]
    calibration = calibrate.fit(logits[split.SELECT], labels)
    with torch.no_grad():
        bias = network.head.bias
        bias.copy_(torch.from_numpy(calibration.shift(bias[None].cpu().double().numpy())[0]))
    shifted = {part: calibration.shift(values) for part, values in logits.items()}
    even = {calibrate.DEFAULT: calibrate.OperatingPoint(0.5, 0, 0)}
    return Judged(name, calibration, even, shifted, {})


def judge_both(dataset: Dataset, judged: Sequence[Judged]) -> Judged:
    """The networks together: the mean of their calibrated logits, as it is served."""
    together = {
        part: np.mean([one.logits[part] / one.calibration.temperature for one in judged], axis=0)
        for part in judged[0].logits
    }
    return _judge(BOTH, dataset, together, UNCHANGED)


def _judge(
    name: str, dataset: Dataset, logits: Mapping[str, Logits], calibration: calibrate.Calibration
) -> Judged:
    labels = {part: dataset.labels[dataset.rows(part)] for part in logits}
    logits = {part: calibration.shift(values) for part, values in logits.items()}
    scores = {
        part: probabilities(values, calibration.temperature)[:, 1]
        for part, values in logits.items()
    }
    points = calibrate.operating_points(labels[split.CALIBRATE], scores[split.CALIBRATE])
    threshold = points[calibrate.DEFAULT].threshold
    parts = {
        part: judge(
            labels[part],
            values,
            dataset.patients[dataset.rows(part)],
            threshold,
            dataset.series[dataset.rows(part)],
        )
        for part, values in scores.items()
    }
    return Judged(name, calibration, points, logits, parts)


def maps_of(network: Classifier, dataset: Dataset, device: torch.device) -> Maps:
    """Maps (N, 2, h, w), in logits, of the calibration images."""
    pixels = torch.from_numpy(dataset.pixels[dataset.rows(split.CALIBRATE)])
    maps = [explain(network, part.to(device))[1].cpu() for part in torch.split(pixels, 64)]
    found: Maps = torch.cat(maps).numpy()
    return found


def map_scale(maps: Maps) -> float:
    """Where an overlay's colour saturates: the 99.5th percentile, in logits, of maps' positive
    part."""
    return max(float(np.percentile(maps.clip(min=0), 99.5)), 1e-6)
