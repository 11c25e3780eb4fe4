"""Resolution: how answers differ between original files and their small copies."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from handlers import decision
from handlers.arrays import Pixels
from handlers.pixels import decode
from train.data.dataset import Dataset
from train.data.patients import DataError
from train.evaluation.calibrated_model import CalibratedModel
from train.model.networks import Classifier, predict

Originals = tuple[Pixels, npt.NDArray[np.int64]]  # (N, S, S), and their rows in the data set


@dataclass(frozen=True)
class ResolutionResult:
    """Differences between the answers for originals and for their small copies."""

    images: int
    median: float  # absolute difference of P(PNEUMONIA)
    largest: float  # absolute difference of P(PNEUMONIA)
    changed: int  # labels that differ at the default operating point


def read_originals(folder: Path, dataset: Dataset) -> Originals:
    """Pixels (N, S, S) of the files in a folder's class folders, and their rows in the data set.

    A file belongs to the image with the same class folder and name; suffixes may differ.

    Raises:
        DataError: a file has no image of its name in the data set, or there are no files.
    """
    rows = {(image.path.parent.name, image.path.stem): k for k, image in enumerate(dataset.images)}
    files = [path for path in sorted(folder.glob("*/[!.]*")) if path.is_file()]
    if not files:
        raise DataError(f"TWINS={folder}: no files: put the originals into class folders there")
    unmatched = [path for path in files if (path.parent.name, path.stem) not in rows]
    if unmatched:
        raise DataError(
            f"TWINS={folder}: {unmatched[0]} has no twin of its name in {dataset.root}: remove it"
        )
    size = dataset.pixels.shape[-1]
    pixels = np.stack([decode(path.read_bytes(), size) for path in files])
    return pixels, np.array([rows[path.parent.name, path.stem] for path in files])


def measure(
    network: Classifier, model: CalibratedModel, dataset: Dataset, originals: Originals
) -> ResolutionResult:
    """Differences between the answers for originals and for their small copies.

    `network` is as it is served, with the offset in its bias.
    """
    original_pixels, rows = originals
    scores = []
    for pixels in (original_pixels, dataset.pixels[rows]):
        logits = predict(network, torch.from_numpy(pixels), pixels.shape[-1]).double().cpu().numpy()
        scores.append(decision.printed_probability(logits, model.calibration.temperature))
    differences = np.abs(scores[0] - scores[1])
    labels = [decision.is_positive(file_scores, model.threshold) for file_scores in scores]
    return ResolutionResult(
        images=len(rows),
        median=float(np.median(differences)),
        largest=float(differences.max()),
        changed=int((labels[0] != labels[1]).sum()),
    )
