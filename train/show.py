"""Any folder of images through one network, without a server: answers and overlays."""

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from handlers import heatmap, pixels
from handlers.errors import ImageError
from train import checkpoint, figures
from train.cam import explain
from train.judge import probabilities
from train.networks import CLASSES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What the network says of one file: the predicted class and the probability of PNEUMONIA."""

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
    network, card = checkpoint.load(weights)
    if "temperature" not in card:
        raise checkpoint.CheckpointError(f"{weights} was never judged: run make evaluate")
    for warning in card["warnings"]:
        log.warning("warning: %s", warning)
    paths = (
        [images] if images.is_file() else sorted(p for p in images.rglob("[!.]*") if p.is_file())
    )
    if not paths:
        raise FileNotFoundError(f"{images}: no image is there")
    out.mkdir(parents=True, exist_ok=True)
    threshold = card["operating_points"][card["default_operating_point"]]["threshold"]
    scale = card["map"]["scale"]
    answers: list[Answer] = []
    refused: dict[Path, str] = {}
    examples: list[figures.Example] = []
    for number, path in enumerate(tqdm(paths, "images", unit=" images", disable=None)):
        try:
            image = pixels.decode(path.read_bytes(), card["input"]["size"])
        except ImageError as error:
            refused[path] = str(error)
            continue
        logits, maps = explain(network, torch.from_numpy(image[None]))
        score = float(probabilities(logits.double().numpy(), card["temperature"])[0, 1])
        predicted = int(score >= threshold)
        answers.append(Answer(path, CLASSES[predicted], score))
        evidence = maps[0, predicted].numpy()
        (out / f"{number:04d}-{path.stem}.png").write_bytes(heatmap.overlay(image, evidence, scale))
        if len(examples) < 24:
            title = f"{path.name}\n{CLASSES[predicted]}, P(PNEUMONIA) = {score:.3f}"
            examples.append(figures.Example(title, image, np.asarray(evidence), right=True))
    _write(answers, out / "answers.csv")
    if examples:
        figures.gallery(examples, scale, f"{card['network']}: {images}", out / "gallery.png")
    return answers, refused


def _write(answers: Sequence[Answer], path: Path) -> None:
    with path.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["file", "label", "probability_of_pneumonia"])
        writer.writerows([[a.path, a.label, f"{a.probability:.8f}"] for a in answers])
