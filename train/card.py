"""The card: what travels with the weights from training to answer."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from train import __version__, calibrate, split
from train.cam import explain
from train.checkpoint import Card
from train.data import Dataset
from train.judge import Judged
from train.networks import CLASSES, Classifier
from train.recipes import Legs


def first(
    network: Classifier, name: str, dataset: Dataset, legs: Legs, training: Mapping[str, Any]
) -> Card:
    """The card of a network that is trained and not yet judged.

    `training` holds the seeds, the preset and where the first weights came from.
    """
    recipe = legs[-1]  # at whose size the network serves
    blank = torch.zeros(1, recipe.size, recipe.size, dtype=torch.uint8)
    rows, columns = explain(network, blank.to(network.head.weight.device))[1].shape[2:]
    return {
        "project": {"name": "pneumocam", "version": __version__},
        "network": name,
        "input": {
            "size": recipe.size,
            "mode": "L",
            "resize": "squashed to the square, Pillow bilinear",
        },
        "map": {"rows": rows, "columns": columns, "dilated": recipe.dilated},
        "classes": list(CLASSES),
        "bias": network.head.bias.tolist(),
        "training": {
            "data": {
                "name": dataset.name,
                "sha256": dataset.sha256,
                "counts": dataset.counts(),
            },
            **training,
            "recipes": [leg.as_dict() for leg in legs],
        },
        "warnings": warnings(dataset.name, str(training["preset"])),
    }


def warnings(dataset: str, preset: str) -> list[str]:
    """What every answer of the network must say."""
    said = []
    if dataset == "phantoms":
        said.append("trained on phantoms: not for patients")
    if preset == "tiny":
        said.append("trained for seconds (PRESET=tiny): of no use")
    return said


def split_seed(card: Card) -> int:
    """The seed that parted the images; older cards have one for that and for the training."""
    trained = card["training"]
    return int(trained.get("split_seed", trained["seed"]))


def raw_bias(card: Card) -> list[float]:
    """The head's bias as it was trained, before any offset went into it."""
    bias: list[float] = card["calibration"]["raw_bias"] if "calibration" in card else card["bias"]
    return bias


def calibration(card: Card) -> calibrate.Calibration:
    """Temperature and offset of a network that was judged."""
    return calibrate.Calibration(card["temperature"], card["calibration"]["offset"])


def complete(card: Card, judged: Judged, scale: float, dataset: Dataset) -> Card:
    """The card with what judging found; `scale`, in logits, is where an overlay saturates."""
    found = summary(judged, dataset)
    return {
        **card,
        **found,
        "map": {**card["map"], "scale": scale},
        # The offset is in the bias already.
        "calibration": {**found["calibration"], "raw_bias": raw_bias(card)},
    }


def summary(judged: Judged, dataset: Dataset) -> dict[str, Any]:
    """What judging found, for a card.

    The prevalence is that among the images that probabilities were fitted on: the one they assume.
    """
    figures = judged.parts
    return {
        "ages": dataset.ages,
        "temperature": judged.calibration.temperature,
        "calibration": {
            "offset": judged.calibration.offset,
            "prevalence": float(dataset.labels[dataset.rows(split.CALIBRATE)].mean()),
        },
        "operating_points": {k: asdict(v) for k, v in judged.operating_points.items()},
        "default_operating_point": calibrate.DEFAULT,
        "reference": reference(judged, dataset),
        "figures": {
            "validation": figures[split.SELECT].as_dict(),
            "test": figures[split.TEST].as_dict() if split.TEST in figures else None,
        },
    }


def reference(judged: Judged, dataset: Dataset) -> dict[str, Any]:
    """What a server measures drift from: probability and brightness of the calibration images.

    Each as up to nine edges, the deciles, and the share of the images between them.
    """
    rows = dataset.rows(split.CALIBRATE)
    brightness = dataset.pixels[rows].mean((1, 2), dtype=np.float64)
    return {
        "probability": _deciles(judged.scores(split.CALIBRATE)),
        "brightness": _deciles(brightness),
    }


def _deciles(values: npt.NDArray[np.float64]) -> dict[str, list[float]]:
    edges = np.unique(np.quantile(values, np.arange(1, 10) / 10))
    bins = np.searchsorted(edges, values, side="right")
    shares = np.bincount(bins, minlength=len(edges) + 1) / len(values)
    return {"edges": edges.tolist(), "shares": shares.tolist()}
