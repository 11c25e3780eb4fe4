"""Any folder of images through one network, without a server: answers and overlays."""

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from handlers import decision, heatmap, pixels
from handlers.errors import ImageError
from train import checkpoint, figures
from train.cam import explain

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """The answer for one file: the predicted class and the probability of PNEUMONIA."""

    path: Path
    label: str
    probability: float


def show(weights: Path, images: Path, out: Path) -> tuple[list[Answer], dict[Path, str]]:
    """Answers for every image below a folder (or one file), and why others have none.

    Writes an overlay beside each answer's name, `answers.csv` and `gallery.png` into `out`.

    Raises:
        FileNotFoundError: there is no file there.
        CheckpointError: the weights can't be loaded, or were never judged.
    """
    network, trained_card = checkpoint.load(weights)
    card = checkpoint.evaluated(trained_card, weights)
    for warning in card.warnings:
        log.warning("warning: %s", warning)
    paths = (
        [images] if images.is_file() else sorted(p for p in images.rglob("[!.]*") if p.is_file())
    )
    if not paths:
        raise FileNotFoundError(f"{images}: no image is there")
    out.mkdir(parents=True, exist_ok=True)
    answers: list[Answer] = []
    refused: dict[Path, str] = {}
    examples: list[figures.Example] = []
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
        (out / f"{number:04d}-{path.stem}.png").write_bytes(overlay)
        if len(examples) < 24:
            title = f"{path.name}\n{label}, P(PNEUMONIA) = {score:.3f}"
            examples.append(figures.Example(title, image, np.asarray(evidence), right=True))
    _write(answers, out / "answers.csv")
    if examples:
        figures.gallery(examples, card.map.scale, f"{card.network}: {images}", out / "gallery.png")
    return answers, refused


def _write(answers: Sequence[Answer], path: Path) -> None:
    with path.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["file", "label", "probability_of_pneumonia"])
        writer.writerows([[a.path, a.label, f"{a.probability:.8f}"] for a in answers])
