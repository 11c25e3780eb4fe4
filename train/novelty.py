"""What is unlike the training images: Mahalanobis distances in a network's early features.

Lee et al. 2018 (arXiv:1807.03888), on the means of each feature map's upper and lower half: late
features know of nothing but lungs, and means over the whole map don't know up from down. The
training images are taken as training saw them, augmented: what the network has learned to bear is
not new to it. Turned and inverted X-rays have means of their own, to be told apart and named.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor, nn
from tqdm import tqdm

from handlers import novelty
from handlers.pixels import Pixels
from train import augment, checkpoint, split, stress
from train.checkpoint import Card, CheckpointError
from train.data import Dataset
from train.networks import Classifier, architecture

CARD = "novelty"
REFERENCE = "reference.safetensors"
QUARTER_TURNS = {"turned to the left": 1, "upside down": 2, "turned to the right": 3}
ALTERATIONS = (*QUARTER_TURNS, "inverted")
FAR = tuple(name for name in ALTERATIONS if name != "upside down")
TRAINING = 3000  # at most so many training images are looked at
SAMPLE = 200  # images that a change is tried on
USUAL, UNUSUAL = 0.99, 0.05  # quantiles of distances that the threshold lies between
BATCH = 64

Distances = npt.NDArray[np.float32]  # (N, 1 + K)
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
    found = []
    parts = torch.split(torch.from_numpy(pixels), BATCH)
    for part in tqdm(parts, desc=desc, unit=" batches", disable=True if desc is None else None):
        maps = network.normalise(part.to(device))
        for name, stage in network.trunk.named_children():
            maps = stage(maps)
            if name == early:
                break
        found.append(halves(maps).float().cpu())
    return torch.cat(found)


def alter(pixels: Pixels, name: str) -> Pixels:
    """Pixels (N, S, S) turned or inverted."""
    if name in QUARTER_TURNS:
        return np.ascontiguousarray(np.rot90(pixels, QUARTER_TURNS[name], axes=(1, 2)))
    return 255 - pixels


@dataclass(frozen=True)
class Fitted:
    """The reference of a network, its rule for the card, and what is warned of."""

    reference: Reference
    rule: Mapping[str, Any]
    unlike: Mapping[str, npt.NDArray[np.bool_]]  # (N,) by part
    warned: Mapping[str, float]  # share of the images of `block-select`, by change


def fit(
    network: Classifier,
    name: str,
    dataset: Dataset,
    parts: Sequence[str],
    reference: Reference | None = None,
) -> Fitted:
    """The reference, where none is given, of the images that a network was trained on, and what it
    warns of."""
    early = architecture(name).early
    reference = reference or _measure(network, name, early, dataset)

    def distances(pixels: Pixels) -> Distances:
        found: Distances = reference(features(network, early, pixels)).numpy()
        return found

    rule = {"stage": early, **fit_rule(distances, dataset)}

    def unlike(pixels: Pixels) -> npt.NDArray[np.bool_]:
        return np.array([novelty.judge(rule, one).unlike for one in distances(pixels)])

    selected = dataset.pixels[dataset.sample(split.SELECT, SAMPLE)]
    changed = {
        **{one: alter(selected, one) for one in ALTERATIONS},
        **{one: stress.change(selected, one) for one in stress.CHANGES if one != stress.INVERTED},
    }
    return Fitted(
        reference,
        rule,
        {part: unlike(dataset.pixels[dataset.rows(part)]) for part in parts},
        {one: float(unlike(pixels).mean()) for one, pixels in changed.items()},
    )


def _measure(network: Classifier, name: str, early: str, dataset: Dataset) -> Reference:
    images = dataset.pixels[dataset.sample(split.FIT, TRAINING)]
    usual = features(network, early, _augmented(images), f"{name}: features").double().numpy()
    altered = [
        features(network, early, alter(images[:SAMPLE], one)).double().numpy().mean(0)
        for one in ALTERATIONS
    ]
    return _reference(early, usual, altered)


def fit_rule(distances: Callable[[Pixels], Distances], dataset: Dataset) -> dict[str, Any]:
    """The rule for a card, of what measures distances (N, 1 + K) of pixels (N, S, S).

    The threshold lies halfway, in the logarithm, between what 99% of the calibration images stay
    below and what 95% of them exceed, turned to a side or inverted. (Upside down has no part in it:
    there the mean of its own tells.) A margin lets 99% of the calibration images resemble none of
    the alterations, even where these change nothing.
    """
    calibration = distances(dataset.pixels[dataset.rows(split.CALIBRATE)])
    nearer = calibration[:, :1] - calibration[:, 1:]  # to an alteration than to what they are
    sample = dataset.pixels[dataset.sample(split.CALIBRATE, SAMPLE)]
    far = np.concatenate([distances(alter(sample, one))[:, 0] for one in FAR])
    return {
        "threshold": _between(calibration[:, 0], far),
        "alterations": list(ALTERATIONS),
        "margins": np.quantile(nearer, USUAL, axis=0).clip(min=0).tolist(),
    }


def _augmented(pixels: Pixels) -> Pixels:
    generator = torch.Generator().manual_seed(0)
    changed = [
        augment.apply(part, augment.draw(len(part), augment.Strength(), generator)).round().byte()
        for part in torch.split(torch.from_numpy(pixels), BATCH)
    ]
    found: Pixels = torch.cat(changed).numpy()
    return found


def _reference(stage: str, usual: Array, altered: Sequence[Array]) -> Reference:
    """Of features (N, D) and of the mean (D,) under each alteration."""
    mean, spread = usual.mean(0), usual.std(0) + 1e-6
    fitted = LedoitWolf(assume_centered=True).fit((usual - mean) / spread)
    # The precision is L Lᵀ, so |Lᵀ x|² is the square of the distance.
    whitening = np.linalg.cholesky(fitted.precision_).T / spread
    centres = np.stack([whitening @ (one - mean) for one in altered])
    tensors = (torch.tensor(each, dtype=torch.float32) for each in (mean, whitening, centres))
    return Reference(stage, *tensors)


def _between(usual: Array, unusual: Array) -> float:
    low, high = np.quantile(usual, USUAL), np.quantile(unusual, UNUSUAL)
    return float(np.sqrt(low * max(low, high)))


def save(folder: Path, fitted: Fitted, card: Card) -> Card:
    """Write a reference beside the weights in a folder; the card, now with its rule and hash.

    Its matrix is written in half precision: 2 MB instead of 4.
    """
    path = folder / REFERENCE
    tensors = fitted.reference.state_dict()
    checkpoint.write_weights(path, {**tensors, "whitening": tensors["whitening"].half()})
    return {**card, CARD: {**fitted.rule, "reference_sha256": checkpoint.sha256(path)}}


def load(weights: Path, card: Card) -> Reference | None:
    """The reference of the weights in a folder or published file; None if the card knows of none.

    Raises:
        CheckpointError: it is missing, or not that of the card.
    """
    if CARD not in card:
        return None
    path = beside(weights)
    if not path.is_file() or checkpoint.sha256(path) != card[CARD]["reference_sha256"]:
        raise CheckpointError(f"{path} is missing or not the card's: run make evaluate")
    return Reference(card[CARD]["stage"], **checkpoint.read_weights(path))


def beside(weights: Path) -> Path:
    """Where the reference of the weights in a folder, or of a published file, lies."""
    if weights.suffix == ".safetensors":
        return weights.parent / "reference" / weights.name
    return weights / REFERENCE
