"""Novelty: Mahalanobis distances from the training images in a network's early features.

Lee et al. 2018 (arXiv:1807.03888), on the means of each feature map's upper and lower half. Late
features respond to lungs only, and means over the whole map can't distinguish up from down. The
training images are augmented as in training, since the network has learned to tolerate those
changes. Turned and inverted X-rays have means of their own, so that a warning can name them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor, nn
from tqdm import tqdm

from handlers import files
from handlers.arrays import Pixels
from handlers.card import EvaluatedNetwork, TrainedNetwork
from handlers.card_fields import NoveltyRule
from train.data import splits
from train.data.dataset import Dataset
from train.evaluation import robustness
from train.fitting import augment
from train.model import checkpoint
from train.model.checkpoint import CheckpointError
from train.model.networks import Classifier, architecture

REFERENCE = "reference.safetensors"
QUARTER_TURNS = {"turned to the left": 1, "upside down": 2, "turned to the right": 3}
ALTERATIONS = (*QUARTER_TURNS, "inverted")
FAR = tuple(name for name in ALTERATIONS if name != "upside down")
TRAINING = 3000  # training images in the reference, at most
SAMPLE = 200  # images per alteration or corruption
BATCH = 64

Distances = npt.NDArray[np.float32]  # (N, 1 + K)
Measure = Callable[[Pixels], Distances]  # pixels (N, S, S) → distances
Array = npt.NDArray[np.floating[Any]]


class Reference(nn.Module):
    """The training images' distribution in the early features of a network.

    Maps features f (N, D) to distances (N, 1 + K): first ``|W (f − μ)|`` from the training images,
    the Mahalanobis distance because ``Wᵀ W`` is the inverse of their covariance; then, with the
    same covariance, from the means of the training images under K alterations.
    """

    mean: Tensor
    whitening: Tensor
    centres: Tensor

    def __init__(self, stage: str, mean: Tensor, whitening: Tensor, centres: Tensor) -> None:
        """For features of a trunk's `stage`: μ (D,), W (D, D), whitened altered means (K, D)."""
        super().__init__()
        self.stage = stage
        self.register_buffer("mean", mean)
        self.register_buffer("whitening", whitening)
        self.register_buffer("centres", centres)

    def forward(self, features: Tensor) -> Tensor:
        """Distances (N, 1 + K) of features (N, D)."""
        whitened = (features - self.mean) @ self.whitening.T
        centres = torch.cat([torch.zeros_like(self.centres[:1]), self.centres])
        distances: Tensor = ((whitened.unsqueeze(1) - centres) ** 2).sum(2).sqrt()
        return distances


def halves(maps: Tensor) -> Tensor:
    """Features (N, 2 C): the means of the upper and of the lower half of maps (N, C, h, w)."""
    middle = maps.shape[2] // 2
    return torch.cat([maps[:, :, :middle].mean((2, 3)), maps[:, :, middle:].mean((2, 3))], dim=1)


@torch.inference_mode()
def features(network: Classifier, early: str, pixels: Pixels, desc: str | None = None) -> Tensor:
    """Features (N, D), on the CPU, of pixels (N, S, S), after the stage `early`.

    Later stages are not run. `desc` labels a progress bar; None shows no bar.
    """
    network.eval()
    device = network.head.weight.device
    means = []
    batches = torch.split(torch.from_numpy(pixels), BATCH)
    for batch in tqdm(batches, desc=desc, unit=" batches", disable=True if desc is None else None):
        maps = network.normalise(batch.to(device))
        for name, stage in network.trunk.named_children():
            maps = stage(maps)
            if name == early:
                break
        means.append(halves(maps).float().cpu())
    return torch.cat(means)


def alter(pixels: Pixels, name: str) -> Pixels:
    """Pixels (N, S, S) under one of `ALTERATIONS`: turned or inverted."""
    if name in QUARTER_TURNS:
        return np.ascontiguousarray(np.rot90(pixels, QUARTER_TURNS[name], axes=(1, 2)))
    return 255 - pixels


@dataclass(frozen=True)
class CalibrationDistances:
    """Distances of calibration images, on which a rule is fitted.

    `original` (N, 1 + K) are those of all images. `far` (M,) are distances from the training images
    of a sample, turned to a side or inverted.
    """

    original: Distances
    far: npt.NDArray[np.float32]


@dataclass(frozen=True)
class NetworkDistances:
    """A network's reference, and the distances (N, 1 + K) that it gives.

    `calibration` are those on which the rule is fitted, `parts` those of each part, and `changed`
    those of a sample of `block-select` under each alteration and corruption.
    """

    reference: Reference
    calibration: CalibrationDistances
    parts: Mapping[str, Distances]
    changed: Mapping[str, Distances]


def measure_network(
    network: Classifier,
    name: str,
    dataset: Dataset,
    parts: Sequence[str],
    reference: Reference | None = None,
) -> NetworkDistances:
    """Distances by a network's reference.

    Without a `reference`, one is fitted on the images that the network was trained on. `name` is
    the network's.
    """
    early = architecture(name).early
    reference = reference or _fit_reference(network, name, early, dataset)

    def measure(pixels: Pixels) -> Distances:
        distances: Distances = reference(features(network, early, pixels)).numpy()
        return distances

    selected = dataset.pixels[dataset.sample(splits.SELECT, SAMPLE)]
    changed = {
        **{alteration: alter(selected, alteration) for alteration in ALTERATIONS},
        **{
            corruption: robustness.corrupt(selected, corruption)
            for corruption in robustness.CORRUPTIONS
            if corruption != robustness.INVERTED
        },
    }
    return NetworkDistances(
        reference,
        measure_calibration(measure, dataset),
        {part: measure(dataset.pixels[dataset.rows(part)]) for part in parts},
        {name: measure(pixels) for name, pixels in changed.items()},
    )


def measure_calibration(measure: Measure, dataset: Dataset) -> CalibrationDistances:
    """Distances of the calibration images, for `novelty_rule.fit`."""
    sample = dataset.pixels[dataset.sample(splits.CALIBRATE, SAMPLE)]
    return CalibrationDistances(
        measure(dataset.pixels[dataset.rows(splits.CALIBRATE)]),
        np.concatenate([measure(alter(sample, alteration))[:, 0] for alteration in FAR]),
    )


def _fit_reference(network: Classifier, name: str, early: str, dataset: Dataset) -> Reference:
    images = dataset.pixels[dataset.sample(splits.FIT, TRAINING)]
    original = features(network, early, _augmented(images), f"{name}: features").double().numpy()
    altered = [
        features(network, early, alter(images[:SAMPLE], alteration)).double().numpy().mean(0)
        for alteration in ALTERATIONS
    ]
    return _reference(early, original, altered)


def _augmented(pixels: Pixels) -> Pixels:
    generator = torch.Generator().manual_seed(0)
    batches = []
    for batch in torch.split(torch.from_numpy(pixels), BATCH):
        changes = augment.draw(len(batch), augment.Strength(), generator)
        batches.append(augment.apply(batch, changes).round().byte())
    augmented: Pixels = torch.cat(batches).numpy()
    return augmented


def _reference(stage: str, original: Array, altered: Sequence[Array]) -> Reference:
    """The reference fitted on features (N, D) and on the mean (D,) under each alteration."""
    mean, spread = original.mean(0), original.std(0) + 1e-6
    fitted = LedoitWolf(assume_centered=True).fit((original - mean) / spread)
    # The precision is L Lᵀ, so |Lᵀ x|² is the square of the distance.
    whitening = np.linalg.cholesky(fitted.precision_).T / spread
    centres = np.stack([whitening @ (altered_mean - mean) for altered_mean in altered])
    tensors = (torch.tensor(array, dtype=torch.float32) for array in (mean, whitening, centres))
    return Reference(stage, *tensors)


def save(folder: Path, reference: Reference, rule: NoveltyRule) -> NoveltyRule:
    """Write a reference to a network's folder; returns the rule with its stage and hash.

    The matrix is written in half precision: 2 MB instead of 4.

    Raises:
        CheckpointError: the disk is full or the folder is read-only.
    """
    path = folder / REFERENCE
    tensors = reference.state_dict()
    checkpoint.write_weights(path, {**tensors, "whitening": tensors["whitening"].half()})
    return replace(rule, stage=reference.stage, reference_sha256=files.sha256(path))


def load(weights: Path, card: TrainedNetwork) -> Reference | None:
    """The reference of a network's folder or published file; None if its card has no rule.

    Raises:
        CheckpointError: the reference is missing, or its hash is not the card's.
    """
    rule = card.novelty if isinstance(card, EvaluatedNetwork) else None
    if rule is None:
        return None
    path = reference_path(weights)
    matches = path.is_file() and files.sha256(path) == rule.reference_sha256
    if not matches or rule.stage is None:
        raise CheckpointError(f"{path} is missing or not the card's: run make evaluate")
    return Reference(rule.stage, **checkpoint.read_weights(path))


def reference_path(weights: Path) -> Path:
    """The path of the reference of a network's folder or published file."""
    if weights.suffix == ".safetensors":
        return weights.parent / "reference" / weights.name
    return weights / REFERENCE
