"""The card of a network: as trained, then with what evaluation measured."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from handlers import card_fields
from handlers.card import SCHEMA, EvaluatedNetwork, TrainedNetwork
from handlers.card_fields import (
    Figures,
    Histogram,
    Input,
    Map,
    MapGrid,
    NoveltyRule,
    Project,
    Reference,
    Training,
)
from handlers.records import extend
from train import __version__, calibrate, split
from train.cam import explain
from train.data import Dataset
from train.judge import CalibratedModel, MeasuredModel
from train.networks import CLASSES, Classifier
from train.recipes import Recipe


def trained_card(
    network: Classifier, name: str, recipe: Recipe, training: Training
) -> TrainedNetwork:
    """The card of a network that is trained, at last by this recipe, and not yet evaluated."""
    blank = torch.zeros(1, recipe.size, recipe.size, dtype=torch.uint8)
    rows, columns = explain(network, blank.to(network.head.weight.device))[1].shape[2:]
    return TrainedNetwork(
        project=Project(name="pneumocam", version=__version__),
        network=name,
        input=Input(size=recipe.size, mode="L", resize="squashed to the square, Pillow bilinear"),
        map=MapGrid(rows=rows, columns=columns, dilated=recipe.dilated),
        classes=CLASSES,
        bias=tuple(network.head.bias.tolist()),
        training=training,
        warnings=warnings(training.data.name, training.preset),
        schema=SCHEMA,
    )


def warnings(dataset: str, preset: str) -> tuple[str, ...]:
    """What every answer of the network must warn of."""
    texts = []
    if dataset == "phantoms":
        texts.append("trained on phantoms: not for patients")
    if preset == "tiny":
        texts.append("trained for seconds (PRESET=tiny): of no use")
    return tuple(texts)


def raw_bias(card: TrainedNetwork) -> tuple[float, ...]:
    """The head's bias as it was trained, before any offset went into it."""
    fields = card.calibration if isinstance(card, EvaluatedNetwork) else None
    return card.bias if fields is None or fields.raw_bias is None else fields.raw_bias


def calibration(card: EvaluatedNetwork) -> calibrate.Calibration:
    """Temperature and offset of a network that was evaluated."""
    offset = 0.0 if card.calibration is None else card.calibration.offset
    return calibrate.Calibration(card.temperature, offset)


def evaluated_card(
    card: TrainedNetwork,
    model: MeasuredModel,
    dataset: Dataset,
    *,
    bias: tuple[float, ...],
    scale: float,
    novelty: NoveltyRule | None,
) -> EvaluatedNetwork:
    """The card with what evaluation measured.

    `bias` (2,) contains the calibration's offset; `scale`, in logits, is where an overlay
    saturates.
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

    The prevalence is that among the images that probabilities were fitted on: the one they assume.
    """
    calibration_labels = dataset.labels[dataset.rows(split.CALIBRATE)]
    return {
        "ages": dataset.ages,
        "temperature": model.calibration.temperature,
        "calibration": card_fields.Calibration(
            offset=model.calibration.offset,
            prevalence=float(calibration_labels.mean()),
            raw_bias=raw_bias,
        ),
        "operating_points": model.operating_points,
        "default_operating_point": calibrate.DEFAULT,
        "reference": reference(model, dataset),
        "figures": Figures(validation=model.parts[split.SELECT], test=model.parts.get(split.TEST)),
    }


def reference(model: CalibratedModel, dataset: Dataset) -> Reference:
    """What a server measures drift from: probability and brightness of the calibration images.

    Each as up to nine edges, the deciles, and the share of the images between them.
    """
    rows = dataset.rows(split.CALIBRATE)
    brightness = dataset.pixels[rows].mean((1, 2), dtype=np.float64)
    return Reference(
        probability=_deciles(model.scores(split.CALIBRATE)), brightness=_deciles(brightness)
    )


def _deciles(values: npt.NDArray[np.float64]) -> Histogram:
    edges = np.unique(np.quantile(values, np.arange(1, 10) / 10))
    bins = np.searchsorted(edges, values, side="right")
    shares = np.bincount(bins, minlength=len(edges) + 1) / len(values)
    return Histogram(edges=tuple(edges.tolist()), shares=tuple(shares.tolist()))
