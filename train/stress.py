"""Images as another hospital might send them: a fixed, seeded set of changes that must be borne.

Choices are made by what a network does here too, beside the images as they are. The changes are
drawn once for each image and do not depend on the network.
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

from handlers.pixels import Pixels
from train import split
from train.data import Dataset
from train.judge import Judged, probabilities
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
                CHANGES[name](Image.fromarray(one), np.random.default_rng([seed, number, k]))
            )
            for k, one in enumerate(pixels)
        ]
    )


@dataclass(frozen=True)
class Borne:
    """A network on changed images."""

    auc: float
    log_loss: float
    accuracy: float  # at the default operating point


def measure(
    network: Classifier, judged: Judged, dataset: Dataset, device: torch.device
) -> dict[str, Borne]:
    """A network, calibrated as it is served, on `block-select` as it is and under each change."""
    rows = dataset.rows(split.SELECT)
    labels, pixels = dataset.labels[rows], dataset.pixels[rows]
    network.to(device)
    found = {AS_IT_IS: _borne(labels, judged.scores(split.SELECT), judged.threshold)}
    for name in tqdm(CHANGES, desc=f"{judged.name}: stress", unit=" changes", disable=None):
        changed = torch.from_numpy(change(pixels, name))
        logits = predict(network, changed, pixels.shape[-1]).double().cpu().numpy()
        scores = probabilities(logits, judged.calibration.temperature)[:, 1]
        found[name] = _borne(labels, scores, judged.threshold)
    return found


def _borne(
    labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float64], threshold: float
) -> Borne:
    return Borne(
        auc=float(roc_auc_score(labels, scores)),
        log_loss=float(log_loss(labels, scores, labels=[0, 1])),
        accuracy=float(((scores >= threshold) == (labels == 1)).mean()),
    )


def mean(found: Mapping[str, Borne]) -> Borne:
    """The mean over the stress set, without the images as they are and without inversion."""
    some = [borne for name, borne in found.items() if name not in (AS_IT_IS, INVERTED)]
    return Borne(
        *(
            float(np.mean([getattr(one, key) for one in some]))
            for key in ("auc", "log_loss", "accuracy")
        )
    )
