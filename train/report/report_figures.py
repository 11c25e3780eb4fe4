"""Draws the figures of a run's report."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from train.data import splits
from train.data.classes import CLASSES
from train.data.dataset import Dataset
from train.evaluation.captum_check import CrossCheck
from train.evaluation.measurement import CHECKED, Evaluation, NetworkEvaluation, spread
from train.fitting import augment
from train.fitting.epoch import Epoch
from train.fitting.network_training import HISTORY
from train.model.cam import explain
from train.report import figures, image_figures

GALLERY = 12  # images per network
SHOWN = 4  # images in the figure of the cross-check

Figures = list[tuple[str, Path]]  # title and file


def draw(evaluation: Evaluation, scales: list[float], folder: Path) -> Figures:
    """Draw the report's figures into a folder; their titles and paths.

    `scales`, in logits, are where each network's overlays saturate.
    """
    models, labels, part = evaluation.models, evaluation.labels, evaluation.part
    robustness = {network.loaded.name: network.robustness for network in evaluation.networks}
    doubts, errors = evaluation.doubts, models[-1].positive(part) != (labels == 1)
    return [
        ("Confusion matrix", figures.confusion(models, part, folder / "confusion.png")),
        ("ROC", figures.roc(models, labels, part, folder / "roc.png")),
        ("Reliability", figures.reliability(models, labels, part, folder / "reliability.png")),
        ("Decision curve", figures.decision(models, labels, part, folder / "decision.png")),
        (
            "Risk and coverage",
            figures.risk_coverage(
                models[-1].name, doubts, errors, part, folder / "risk-coverage.png"
            ),
        ),
        ("Robustness", figures.robustness(robustness, folder / "stress.png")),
        ("Learning curves", figures.learning(_histories(evaluation), folder / "learning.png")),
        *[
            (f"{network.loaded.name}: what it looks at", _gallery(network, scale, part, folder))
            for network, scale in zip(evaluation.networks, scales, strict=True)
        ],
        *[
            (
                f"{network.loaded.name}: hook and Captum",
                draw_crosscheck(
                    network.loaded.name, network.loaded.dataset, part, network.crosscheck, folder
                ),
            )
            for network in evaluation.networks
        ],
        ("What training sees", _augmented(evaluation.dataset, folder)),
    ]


def draw_crosscheck(
    name: str, dataset: Dataset, part: str, check: CrossCheck, folder: Path
) -> Path:
    """Draw 4 of the 16 images of a network's cross-check; the figure's path."""
    shown = slice(None, None, CHECKED // SHOWN)
    pixels = dataset.pixels[spread(dataset, part, CHECKED)][shown]
    shown_check = replace(check, hook=check.hook[shown], captum=check.captum[shown])
    title = f"{name}: map of PNEUMONIA by hook and by Captum, {part}"
    return image_figures.crosscheck(pixels, shown_check, title, folder / f"crosscheck-{name}.png")


def _histories(evaluation: Evaluation) -> dict[str, list[Epoch]]:
    """The training histories by network, of those that were trained in this run."""
    files = {network.loaded.name: network.loaded.path / HISTORY for network in evaluation.networks}
    return {
        name: [Epoch(**epoch) for epoch in json.loads(file.read_text())]
        for name, file in files.items()
        if file.is_file()
    }


def _gallery(evaluation: NetworkEvaluation, scale: float, part: str, folder: Path) -> Path:
    """Draw correct and wrong answers of both classes, with the map of the predicted class."""
    loaded, model, network = evaluation.loaded, evaluation.model, evaluation.network
    rows, labels = loaded.dataset.rows(part), loaded.dataset.labels
    scores, predicted = model.scores(part), model.positive(part).astype(int)
    chosen: list[int] = []  # indices into the part's rows
    for actual in range(len(CLASSES)):
        for answer in range(len(CLASSES)):
            indices = np.flatnonzero((labels[rows] == actual) & (predicted == answer))
            generator = np.random.default_rng([actual, answer])
            chosen += list(generator.permutation(indices)[: GALLERY // 4])
    pixels = loaded.dataset.pixels[rows[chosen]]
    _, maps = explain(network, torch.from_numpy(pixels).to(network.head.weight.device))
    examples = [
        image_figures.Example(
            f"actual {CLASSES[labels[rows[index]]]}\npredicted {CLASSES[predicted[index]]}\n"
            f"P(PNEUMONIA) = {scores[index]:.3f}",
            pixels[number],
            maps[number, predicted[index]].cpu().numpy(),
            bool(labels[rows[index]] == predicted[index]),
        )
        for number, index in enumerate(chosen)
    ]
    title = f"{loaded.name}, {part}: image, map of the predicted class, overlay as served"
    return image_figures.gallery(examples, scale, title, folder / f"gallery-{loaded.name}.png")


def _augmented(dataset: Dataset, folder: Path) -> Path:
    rows = spread(dataset, splits.FIT, 16)
    generator = torch.Generator().manual_seed(0)
    changes = augment.draw(len(rows), augment.Strength(), generator)
    augmented = augment.apply(torch.from_numpy(dataset.pixels[rows]), changes)
    pixels = augmented.round().byte().numpy()
    return image_figures.augmentation(pixels, "augmented training images", folder / "augmented.png")
