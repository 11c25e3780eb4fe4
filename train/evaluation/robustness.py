"""Robustness: AUC, log-loss and accuracy under corruptions that imitate another hospital's images.

The corruptions are fixed and seeded: the same for every network. Recipes are chosen by these
figures as well as by those on unchanged images.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter
from PIL.Image import Resampling, Transform
from sklearn.metrics import log_loss, roc_auc_score
from tqdm import tqdm

from handlers import decision
from handlers.arrays import Pixels
from train.data import splits
from train.data.dataset import Dataset
from train.evaluation.calibrated_model import CalibratedModel
from train.model.networks import Classifier, predict

Picture = Image.Image
Generator = np.random.Generator
Corruption = Callable[[Picture, Generator], Picture]

UNCHANGED, MIXED, INVERTED = "as it is", "mixed", "inverted"
MIXED_COUNT = 3  # corruptions in a mixed one


def _jpeg(quality: int) -> Corruption:
    def corruption(picture: Picture, _generator: Generator) -> Picture:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("L")

    return corruption


def _downscale(share: float) -> Corruption:
    """Downscaled to that share of the side, and back."""

    def corruption(picture: Picture, _generator: Generator) -> Picture:
        side = max(8, round(share * picture.width))
        small = picture.resize((side, side), Resampling.BILINEAR)
        return small.resize(picture.size, Resampling.BILINEAR)

    return corruption


def _blur(share: float) -> Corruption:
    """Gaussian blur; its standard deviation is a share of the width."""
    return lambda picture, _: picture.filter(ImageFilter.GaussianBlur(share * picture.width))


def _gamma(exponent: float) -> Corruption:
    table = [round(255 * (value / 255) ** exponent) for value in range(256)]
    return lambda picture, _: picture.point(table)


def _border(share: float) -> Corruption:
    """A corruption that blackens a share of the width on all four sides; the size stays."""

    def corruption(picture: Picture, _generator: Generator) -> Picture:
        width = round(share * picture.width)
        inner = picture.crop((width, width, picture.width - width, picture.height - width))
        framed = Image.new("L", picture.size)
        framed.paste(inner, (width, width))
        return framed

    return corruption


def _rotation(degrees: float) -> Corruption:
    """Rotated to a random side."""
    return lambda picture, generator: picture.rotate(
        generator.choice([-degrees, degrees]), Resampling.BILINEAR
    )


def _stretch(width: float, height: float) -> Corruption:
    """The centre crop, of these shares of width and height, stretched to the whole image."""

    def corruption(picture: Picture, _generator: Generator) -> Picture:
        side = picture.width
        left, top = side * (1 - width) / 2, side * (1 - height) / 2
        box = (left, top, side - left, side - top)
        return picture.transform(picture.size, Transform.EXTENT, box, Resampling.BILINEAR)

    return corruption


def _noise(deviation: float) -> Corruption:
    """Gaussian noise; the standard deviation is in grey levels."""

    def corruption(picture: Picture, generator: Generator) -> Picture:
        noise = generator.normal(0, deviation, (picture.height, picture.width))
        noisy = np.asarray(picture) + noise
        return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))

    return corruption


def _invert(picture: Picture, _generator: Generator) -> Picture:
    return picture.point([255 - value for value in range(256)])


_SINGLE: dict[str, Corruption] = {
    "JPEG 50": _jpeg(50),
    "JPEG 20": _jpeg(20),
    "half size": _downscale(0.5),
    "blur": _blur(0.012),
    "gamma 0.6": _gamma(0.6),
    "gamma 1.6": _gamma(1.6),
    "border": _border(0.08),
    "rotation": _rotation(10),
    "wider": _stretch(0.78, 1.0),
    "higher": _stretch(1.0, 0.78),
    "noise": _noise(8),
}


def _mix(picture: Picture, generator: Generator) -> Picture:
    for name in generator.choice(list(_SINGLE), MIXED_COUNT, replace=False):
        picture = _SINGLE[name](picture, generator)
    return picture


# Inverted contrast is a different kind of image, not a worse one: it is left out of the mean.
CORRUPTIONS: dict[str, Corruption] = {**_SINGLE, MIXED: _mix, INVERTED: _invert}


def corrupt(pixels: Pixels, name: str, seed: int = 0) -> Pixels:
    """Corrupted pixels (N, S, S); the same name and seed give the same result."""
    corruption, number = CORRUPTIONS[name], list(CORRUPTIONS).index(name)
    pictures = [
        corruption(Image.fromarray(image), np.random.default_rng([seed, number, k]))
        for k, image in enumerate(pixels)
    ]
    return np.stack([np.asarray(picture) for picture in pictures])


@dataclass(frozen=True)
class RobustnessResult:
    """A network's figures on images under one corruption."""

    auc: float
    log_loss: float
    accuracy: float  # at the default operating point


def measure(
    network: Classifier, model: CalibratedModel, dataset: Dataset
) -> dict[str, RobustnessResult]:
    """Results on `block-select`, unchanged and under each corruption, by name.

    `network` is as it is served, with the offset in its bias.
    """
    rows = dataset.rows(splits.SELECT)
    labels, pixels = dataset.labels[rows], dataset.pixels[rows]
    results = {UNCHANGED: _result(labels, model.scores(splits.SELECT), model.threshold)}
    description = f"{model.name}: robustness"
    for name in tqdm(CORRUPTIONS, desc=description, unit=" corruptions", disable=None):
        corrupted = torch.from_numpy(corrupt(pixels, name))
        logits = predict(network, corrupted, pixels.shape[-1]).double().cpu().numpy()
        scores = decision.printed_probability(logits, model.calibration.temperature)
        results[name] = _result(labels, scores, model.threshold)
    return results


def _result(
    labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float64], threshold: float
) -> RobustnessResult:
    correct = decision.is_positive(scores, threshold) == (labels == 1)
    return RobustnessResult(
        auc=float(roc_auc_score(labels, scores)),
        log_loss=float(log_loss(labels, scores, labels=[0, 1])),
        accuracy=float(correct.mean()),
    )


def mean(results: Mapping[str, RobustnessResult]) -> RobustnessResult:
    """The mean over all corruptions except inversion; the unchanged images are not in it."""
    corrupted = [result for name, result in results.items() if name not in (UNCHANGED, INVERTED)]
    return RobustnessResult(
        *(
            float(np.mean([getattr(result, key) for result in corrupted]))
            for key in ("auc", "log_loss", "accuracy")
        )
    )
