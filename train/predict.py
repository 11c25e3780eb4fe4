"""Predictions for a folder of images without a server: answers and overlays."""

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from handlers import decision, files, heatmap, pixels
from handlers.errors import ImageError
from train.model import checkpoint
from train.model.cam import explain
from train.report import image_figures

log = logging.getLogger(__name__)

GALLERY = 24  # images, at most


@dataclass(frozen=True)
class Answer:
    """The answer for a file: its predicted class and probability of PNEUMONIA."""

    path: Path
    label: str
    probability: float


def show(weights: Path, images: Path, out: Path) -> tuple[list[Answer], dict[Path, str]]:
    """The answers for all images below a folder, or for one file, and the errors by refused file.

    Writes an overlay for each answer, `answers.csv` and `gallery.png` to `out`.

    Raises:
        FileNotFoundError: there is no file.
        CheckpointError: the weights can't be loaded, or the network was not evaluated.
    """
    network, trained_card = checkpoint.load(weights)
    card = checkpoint.require_evaluated(trained_card, weights)
    for warning in card.warnings:
        log.warning("warning: %s", warning)
    paths = (
        [images] if images.is_file() else sorted(p for p in images.rglob("[!.]*") if p.is_file())
    )
    if not paths:
        raise FileNotFoundError(f"{images}: no image is there")
    answers: list[Answer] = []
    refused: dict[Path, str] = {}
    examples: list[image_figures.Example] = []
    for number, path in enumerate(tqdm(paths, "images", unit=" images", disable=None)):
        try:
            image = pixels.decode(path.read_bytes(), card.input.size)
        except ImageError as error:
            refused[path] = str(error)
            continue
        logits, maps = explain(network, torch.from_numpy(image[None]))
        score = float(decision.printed_probability(logits.numpy(), card.temperature)[0])
        predicted = int(decision.is_positive(score, card.threshold))
        label = card.classes[predicted]
        answers.append(Answer(path, label, score))
        evidence = maps[0, predicted].numpy()
        overlay = heatmap.overlay(image, evidence, card.map.scale)
        with files.replacing(out / f"{number:04d}-{path.stem}.png") as partial:
            partial.write_bytes(overlay)
        if len(examples) < GALLERY:
            title = f"{path.name}\n{label}, P(PNEUMONIA) = {score:.3f}"
            # Without labels no answer is marked as wrong.
            examples.append(image_figures.Example(title, image, np.asarray(evidence), correct=True))
    _write(answers, out / "answers.csv")
    if examples:
        title = f"{card.network}: {images}"
        image_figures.gallery(examples, card.map.scale, title, out / "gallery.png")
    return answers, refused


def _write(answers: Sequence[Answer], path: Path) -> None:
    with files.replacing(path) as partial, partial.open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["file", "label", "probability_of_pneumonia"])
        writer.writerows([[a.path, a.label, f"{a.probability:.8f}"] for a in answers])
