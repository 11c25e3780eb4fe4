"""What is unlike the training images: Mahalanobis distances in a network's early features.

Lee et al. 2018 (arXiv:1807.03888), on the means of each feature map's upper and lower half: late
features know of nothing but lungs, and means over the whole map don't know up from down. The
training images are taken as training saw them, augmented: what the network has learned to bear is
not new to it. Turned and inverted X-rays have means of their own, to be told apart and named.
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
from train import augment, checkpoint, split, stress
from train.checkpoint import CheckpointError
from train.data import Dataset
from train.networks import Classifier, architecture

REFERENCE = "reference.safetensors"
QUARTER_TURNS = {"turned to the left": 1, "upside down": 2, "turned to the right": 3}
ALTERATIONS = (*QUARTER_TURNS, "inverted")
FAR = tuple(name for name in ALTERATIONS if name != "upside down")
TRAINING = 3000  # at most so many training images are looked at
SAMPLE = 200  # images that a change is tried on
BATCH = 64

Distances = npt.NDArray[np.float32]  # (N, 1 + K)
Measure = Callable[[Pixels], Distances]  # of pixels (N, S, S)
Array = npt.NDArray[np.floating[Any]]


class Reference(nn.Module):
    """Where the training images lie among the first features of a network.

    Features f (N, D) → distances (N, 1 + K): ``|W (f − μ)|`` from the training images, which is
    Mahalanobis' where ``Wᵀ W`` is the inverse of their covariance; then, by the same covariance,
    from the means of these images under K alterations.
    """

    mean: Tensor
    whitening: Tensor
    centres: Tensor

    def __init__(self, stage: str, mean: Tensor, whitening: Tensor, centres: Tensor) -> None:
        """Of features of a stage of the trunk: μ (D,), W (D, D), whitened altered means (K, D)."""
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
    """Features (N, D), on the CPU, of pixels (N, S, S); no later stage than `early` is run."""
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
    """Pixels (N, S, S) turned or inverted."""
    if name in QUARTER_TURNS:
        return np.ascontiguousarray(np.rot90(pixels, QUARTER_TURNS[name], axes=(1, 2)))
    return 255 - pixels


@dataclass(frozen=True)
class CalibrationDistances:
    """Distances that a rule is fitted on, of calibration images.

    `original` (N, 1 + K) of all of them; `far` (M,), from the training images, of some, turned to a
    side or inverted.
    """

    original: Distances
    far: npt.NDArray[np.float32]


@dataclass(frozen=True)
class NetworkDistances:
    """A network's reference, and distances (N, 1 + K) of images from its training images.

    Those that the rule is fitted on; those of each part; and those of images of `block-select`
    under each change.
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
    """Distances by a network's reference; where none is given, it is taken from the images that
    the network was trained on."""
    early = architecture(name).early
    reference = reference or _fit_reference(network, name, early, dataset)

    def measure(pixels: Pixels) -> Distances:
        distances: Distances = reference(features(network, early, pixels)).numpy()
        return distances

    selected = dataset.pixels[dataset.sample(split.SELECT, SAMPLE)]
    changed = {
        **{change: alter(selected, change) for change in ALTERATIONS},
        **{
            change: stress.change(selected, change)
            for change in stress.CHANGES
            if change != stress.INVERTED
        },
    }
    return NetworkDistances(
        reference,
        measure_calibration(measure, dataset),
        {part: measure(dataset.pixels[dataset.rows(part)]) for part in parts},
        {change: measure(pixels) for change, pixels in changed.items()},
    )


def measure_calibration(measure: Measure, dataset: Dataset) -> CalibrationDistances:
    """Distances of the calibration images, for `novelty_rule.fit`."""
    sample = dataset.pixels[dataset.sample(split.CALIBRATE, SAMPLE)]
    return CalibrationDistances(
        measure(dataset.pixels[dataset.rows(split.CALIBRATE)]),
        np.concatenate([measure(alter(sample, change))[:, 0] for change in FAR]),
    )


def _fit_reference(network: Classifier, name: str, early: str, dataset: Dataset) -> Reference:
    images = dataset.pixels[dataset.sample(split.FIT, TRAINING)]
    usual = features(network, early, _augmented(images), f"{name}: features").double().numpy()
    altered = [
        features(network, early, alter(images[:SAMPLE], alteration)).double().numpy().mean(0)
        for alteration in ALTERATIONS
    ]
    return _reference(early, usual, altered)


def _augmented(pixels: Pixels) -> Pixels:
    generator = torch.Generator().manual_seed(0)
    changed = [
        augment.apply(part, augment.draw(len(part), augment.Strength(), generator)).round().byte()
        for part in torch.split(torch.from_numpy(pixels), BATCH)
    ]
    augmented: Pixels = torch.cat(changed).numpy()
    return augmented


def _reference(stage: str, usual: Array, altered: Sequence[Array]) -> Reference:
    """Of features (N, D) and of the mean (D,) under each alteration."""
    mean, spread = usual.mean(0), usual.std(0) + 1e-6
    fitted = LedoitWolf(assume_centered=True).fit((usual - mean) / spread)
    # The precision is L Lᵀ, so |Lᵀ x|² is the square of the distance.
    whitening = np.linalg.cholesky(fitted.precision_).T / spread
    centres = np.stack([whitening @ (altered_mean - mean) for altered_mean in altered])
    tensors = (torch.tensor(each, dtype=torch.float32) for each in (mean, whitening, centres))
    return Reference(stage, *tensors)


def save(folder: Path, reference: Reference, rule: NoveltyRule) -> NoveltyRule:
    """Write a reference beside the weights in a folder; the rule, now with stage and hash.

    Its matrix is written in half precision: 2 MB instead of 4.

    Raises:
        CheckpointError: a full disk, a read-only folder.
    """
    path = folder / REFERENCE
    tensors = reference.state_dict()
    checkpoint.write_weights(path, {**tensors, "whitening": tensors["whitening"].half()})
    return replace(rule, stage=reference.stage, reference_sha256=files.sha256(path))


def load(weights: Path, card: TrainedNetwork) -> Reference | None:
    """The reference of the weights in a folder or published file; None where the card has no rule.

    Raises:
        CheckpointError: it is missing, or not that of the card.
    """
    rule = card.novelty if isinstance(card, EvaluatedNetwork) else None
    if rule is None:
        return None
    path = beside(weights)
    matches = path.is_file() and files.sha256(path) == rule.reference_sha256
    if not matches or rule.stage is None:
        raise CheckpointError(f"{path} is missing or not the card's: run make evaluate")
    return Reference(rule.stage, **checkpoint.read_weights(path))


def beside(weights: Path) -> Path:
    """Where the reference of the weights in a folder, or of a published file, lies."""
    if weights.suffix == ".safetensors":
        return weights.parent / "reference" / weights.name
    return weights / REFERENCE
