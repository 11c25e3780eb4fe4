"""Originals beside their small copies: does the file's own size and encoding change the answer?"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from handlers import decision
from handlers.arrays import Pixels
from handlers.pixels import decode
from train.data import Dataset
from train.judge import CalibratedModel
from train.networks import Classifier, predict
from train.patients import DataError

Originals = tuple[Pixels, npt.NDArray[np.int64]]  # (N, S, S), and their rows in the data set


@dataclass(frozen=True)
class Twins:
    """Images of which two copies are there, and how far their answers are apart."""

    images: int
    median: float  # difference of P(PNEUMONIA), absolute
    largest: float
    changed: int  # labels at the default operating point


def read(folder: Path, dataset: Dataset) -> Originals:
    """Pixels (N, S, S) of the files below a folder, and the rows of the data set they belong to.

    A file belongs to the image of its class folder and name, whatever its suffix.

    Raises:
        DataError: a file has no twin in the data set, or there are none.
    """
    rows = {
        (path.parent.name, path.stem): k for k, path in enumerate(i.path for i in dataset.images)
    }
    files = [path for path in sorted(folder.glob("*/[!.]*")) if path.is_file()]
    strangers = [path for path in files if (path.parent.name, path.stem) not in rows]
    if strangers or not files:
        what = (
            f"{strangers[0]} has no twin of its name in {dataset.root}" if strangers else "no files"
        )
        raise DataError(f"TWINS={folder}: {what}")
    size = dataset.pixels.shape[-1]
    pixels = np.stack([decode(path.read_bytes(), size) for path in files])
    return pixels, np.array([rows[path.parent.name, path.stem] for path in files])


def measure(
    network: Classifier, model: CalibratedModel, dataset: Dataset, originals: Originals
) -> Twins:
    """How a network as it is served answers originals and their small copies."""
    pixels_of_originals, rows = originals
    scores = []
    for pixels in (pixels_of_originals, dataset.pixels[rows]):
        logits = predict(network, torch.from_numpy(pixels), pixels.shape[-1]).double().cpu().numpy()
        scores.append(decision.printed_probability(logits, model.calibration.temperature))
    differences = np.abs(scores[0] - scores[1])
    labels = [decision.is_positive(of_copy, model.threshold) for of_copy in scores]
    return Twins(
        images=len(rows),
        median=float(np.median(differences)),
        largest=float(differences.max()),
        changed=int((labels[0] != labels[1]).sum()),
    )
