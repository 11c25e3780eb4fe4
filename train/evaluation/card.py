"""Cards of evaluated networks: calibration, operating points, figures and drift reference."""

from typing import Any

import numpy as np
import numpy.typing as npt

from handlers import card_fields
from handlers.card import SCHEMA, EvaluatedNetwork, TrainedNetwork
from handlers.card_fields import (
    Figures,
    Histogram,
    Map,
    NoveltyRule,
    Reference,
)
from handlers.records import extend
from train.data import splits
from train.data.dataset import Dataset
from train.evaluation.calibrated_model import CalibratedModel, MeasuredModel
from train.metrics import calibration as calibrations


def raw_bias(card: TrainedNetwork) -> tuple[float, ...]:
    """The head's bias (2,) as it was trained, without a calibration's offset."""
    fields = card.calibration if isinstance(card, EvaluatedNetwork) else None
    return card.bias if fields is None or fields.raw_bias is None else fields.raw_bias


def calibration(card: EvaluatedNetwork) -> calibrations.Calibration:
    """Temperature and offset of an evaluated network."""
    offset = 0.0 if card.calibration is None else card.calibration.offset
    return calibrations.Calibration(card.temperature, offset)


def evaluated_card(
    card: TrainedNetwork,
    model: MeasuredModel,
    dataset: Dataset,
    *,
    bias: tuple[float, ...],
    scale: float,
    novelty: NoveltyRule | None,
) -> EvaluatedNetwork:
    """The card of a trained network, extended by its evaluation.

    `bias` (2,) contains the calibration's offset; at `scale`, in logits, an overlay saturates.
    """
    fields = evaluated_fields(model, dataset, raw_bias(card))
    return extend(
        EvaluatedNetwork,
        card,
        **fields,
        bias=bias,
        map=extend(Map, card.map, scale=scale),
        novelty=novelty,
        schema=SCHEMA,
    )


def evaluated_fields(
    model: MeasuredModel, dataset: Dataset, raw_bias: tuple[float, ...] | None = None
) -> dict[str, Any]:
    """The fields that evaluation adds to the card of a network or of an ensemble, by name.

    The prevalence is that of `block-calibrate`: calibrated probabilities assume it.
    """
    calibration_labels = dataset.labels[dataset.rows(splits.CALIBRATE)]
    return {
        "ages": dataset.ages,
        "temperature": model.calibration.temperature,
        "calibration": card_fields.Calibration(
            offset=model.calibration.offset,
            prevalence=float(calibration_labels.mean()),
            raw_bias=raw_bias,
        ),
        "operating_points": model.operating_points,
        "default_operating_point": calibrations.DEFAULT,
        "reference": reference(model, dataset),
        "figures": Figures(
            validation=model.parts[splits.SELECT], test=model.parts.get(splits.TEST)
        ),
    }


def reference(model: CalibratedModel, dataset: Dataset) -> Reference:
    """The reference of a server's drift measurement: histograms of the calibration images.

    Of probability and mean brightness, each with up to nine edges, the deciles, and the share of
    the images between them.
    """
    rows = dataset.rows(splits.CALIBRATE)
    brightness = dataset.pixels[rows].mean((1, 2), dtype=np.float64)
    return Reference(
        probability=_deciles(model.scores(splits.CALIBRATE)), brightness=_deciles(brightness)
    )


def _deciles(values: npt.NDArray[np.float64]) -> Histogram:
    edges = np.unique(np.quantile(values, np.arange(1, 10) / 10))
    bins = np.searchsorted(edges, values, side="right")
    shares = np.bincount(bins, minlength=len(edges) + 1) / len(values)
    return Histogram(edges=tuple(edges.tolist()), shares=tuple(shares.tolist()))
