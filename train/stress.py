"""Robustness: AUC, log-loss and accuracy on images as another hospital might send them.

A fixed, seeded set of changes, drawn once for each image and independent of the network. Choices
are made by the figures here too, beside those on the images as they are.
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
from train import split
from train.data import Dataset
from train.judge import CalibratedModel
from train.networks import Classifier, predict

Picture = Image.Image
Draw = np.random.Generator
Change = Callable[[Picture, Draw], Picture]

AS_IT_IS, MIXED, INVERTED = "as it is", "mixed", "inverted"
TOGETHER = 3  # changes in a mixed one


def _jpeg(quality: int) -> Change:
    def change(picture: Picture, _draw: Draw) -> Picture:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("L")

    return change


def _smaller(share: float) -> Change:
    def change(picture: Picture, _draw: Draw) -> Picture:
        side = max(8, round(share * picture.width))
        small = picture.resize((side, side), Resampling.BILINEAR)
        return small.resize(picture.size, Resampling.BILINEAR)

    return change


def _blur(share: float) -> Change:
    return lambda picture, _draw: picture.filter(ImageFilter.GaussianBlur(share * picture.width))


def _gamma(exponent: float) -> Change:
    table = [round(255 * (value / 255) ** exponent) for value in range(256)]
    return lambda picture, _draw: picture.point(table)


def _border(share: float) -> Change:
    """Black on all sides, as where the film was larger than the beam."""

    def change(picture: Picture, _draw: Draw) -> Picture:
        width = round(share * picture.width)
        inner = picture.crop((width, width, picture.width - width, picture.height - width))
        framed = Image.new("L", picture.size)
        framed.paste(inner, (width, width))
        return framed

    return change


def _rotation(degrees: float) -> Change:
    return lambda picture, draw: picture.rotate(
        draw.choice([-degrees, degrees]), Resampling.BILINEAR
    )


def _stretch(width: float, height: float) -> Change:
    """The image's middle, of that share of its width and height, as the whole."""

    def change(picture: Picture, _draw: Draw) -> Picture:
        side = picture.width
        left, top = side * (1 - width) / 2, side * (1 - height) / 2
        box = (left, top, side - left, side - top)
        return picture.transform(picture.size, Transform.EXTENT, box, Resampling.BILINEAR)

    return change


def _noise(deviation: float) -> Change:
    """Gaussian noise, in grey levels."""

    def change(picture: Picture, draw: Draw) -> Picture:
        noisy = np.asarray(picture) + draw.normal(0, deviation, (picture.height, picture.width))
        return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))

    return change


def _invert(picture: Picture, _draw: Draw) -> Picture:
    return picture.point([255 - value for value in range(256)])


_SINGLE: dict[str, Change] = {
    "JPEG 50": _jpeg(50),
    "JPEG 20": _jpeg(20),
    "half size": _smaller(0.5),
    "blur": _blur(0.012),
    "gamma 0.6": _gamma(0.6),
    "gamma 1.6": _gamma(1.6),
    "border": _border(0.08),
    "rotation": _rotation(10),
    "wider": _stretch(0.78, 1.0),
    "higher": _stretch(1.0, 0.78),
    "noise": _noise(8),
}


def _mixed(picture: Picture, draw: Draw) -> Picture:
    for name in draw.choice(list(_SINGLE), TOGETHER, replace=False):
        picture = _SINGLE[name](picture, draw)
    return picture


# Inverted contrast is another kind of image, not a worse one: it is left out of the mean.
CHANGES: dict[str, Change] = {**_SINGLE, MIXED: _mixed, INVERTED: _invert}


def change(pixels: Pixels, name: str, seed: int = 0) -> Pixels:
    """Pixels (N, S, S) changed; the same name and seed give the same."""
    number = list(CHANGES).index(name)
    return np.stack(
        [
            np.asarray(
                CHANGES[name](Image.fromarray(image), np.random.default_rng([seed, number, place]))
            )
            for place, image in enumerate(pixels)
        ]
    )


@dataclass(frozen=True)
class RobustnessResult:
    """A network on changed images."""

    auc: float
    log_loss: float
    accuracy: float  # at the default operating point


def measure(
    network: Classifier, model: CalibratedModel, dataset: Dataset
) -> dict[str, RobustnessResult]:
    """A network as it is served, offset in its bias, on `block-select` as it is and changed."""
    rows = dataset.rows(split.SELECT)
    labels, pixels = dataset.labels[rows], dataset.pixels[rows]
    results = {AS_IT_IS: _result(labels, model.scores(split.SELECT), model.threshold)}
    for name in tqdm(CHANGES, desc=f"{model.name}: stress", unit=" changes", disable=None):
        changed = torch.from_numpy(change(pixels, name))
        logits = predict(network, changed, pixels.shape[-1]).double().cpu().numpy()
        scores = decision.printed_probability(logits, model.calibration.temperature)
        results[name] = _result(labels, scores, model.threshold)
    return results


def _result(
    labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float64], threshold: float
) -> RobustnessResult:
    right = decision.is_positive(scores, threshold) == (labels == 1)
    return RobustnessResult(
        auc=float(roc_auc_score(labels, scores)),
        log_loss=float(log_loss(labels, scores, labels=[0, 1])),
        accuracy=float(right.mean()),
    )


def mean(results: Mapping[str, RobustnessResult]) -> RobustnessResult:
    """The mean over the changes, without the images as they are and without inversion."""
    changed = [result for name, result in results.items() if name not in (AS_IT_IS, INVERTED)]
    return RobustnessResult(
        *(
            float(np.mean([getattr(result, key) for result in changed]))
            for key in ("auc", "log_loss", "accuracy")
        )
    )
