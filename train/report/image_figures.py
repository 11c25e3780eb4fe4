"""Figures of images and maps: gallery, cross-check, augmentation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt

from handlers import heatmap
from handlers.arrays import Pixels
from train.evaluation.captum_check import CrossCheck
from train.report.figures import save

Maps = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """An image (S, S) with the map (h, w) of its predicted class, in logits."""

    title: str
    pixels: Pixels
    map: Maps
    correct: bool


def gallery(examples: Sequence[Example], scale: float, title: str, path: Path) -> Path:
    """Draw image, map and overlay of each example, the overlay as the server draws it.

    `scale`, in logits, is where colours saturate. Returns the figure's path.
    """
    columns = 2
    rows = -(-len(examples) // columns)
    size = (13, 2.5 * rows)
    figure, axes = plt.subplots(
        rows, 3 * columns, figsize=size, squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for number, example in enumerate(examples):
        image_axis, map_axis, overlay_axis = axes[number % rows, 3 * (number // rows) :][:3]
        image_axis.imshow(example.pixels, cmap="gray", vmin=0, vmax=255)
        map_axis.imshow(example.map, cmap="RdBu_r", vmin=-scale, vmax=scale)
        overlay_axis.imshow(heatmap.draw(example.pixels, example.map, scale))
        map_axis.set_title(
            example.title, fontsize=8, color="black" if example.correct else "firebrick"
        )
    figure.suptitle(title)
    return save(figure, path)


def crosscheck(pixels: Pixels, check: CrossCheck, title: str, path: Path) -> Path:
    """Draw the maps of PNEUMONIA by hook and by Captum, and their difference; the figure's path.

    `pixels` (N, S, S) are the images of the check's maps.
    """
    hook, captum = check.hook[:, 1].numpy(), check.captum[:, 1].numpy()
    limit = float(np.abs(hook).max())
    count = len(pixels)
    figure, axes = plt.subplots(
        count, 4, figsize=(10, 2.5 * count), squeeze=False, layout="constrained"
    )
    for row, axis in enumerate(axes):
        difference = np.abs(hook[row] - captum[row])
        axis[0].imshow(pixels[row], cmap="gray", vmin=0, vmax=255)
        axis[1].imshow(hook[row], cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis[2].imshow(captum[row], cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis[3].imshow(difference, cmap="Greys", vmin=0, vmax=max(difference.max(), 1e-12))
        axis[3].set_title(f"largest {difference.max():.1e}", fontsize=8)
        for panel in axis:
            panel.axis("off")
    for axis, name in zip(axes[0], ("image", "hook", "Captum LayerGradCam"), strict=False):
        axis.set_title(name, fontsize=9)
    figure.suptitle(title)
    return save(figure, path)


def augmentation(pixels: Pixels, title: str, path: Path) -> Path:
    """Draw 16 augmented images (16, S, S); the figure's path."""
    figure, axes = plt.subplots(2, 8, figsize=(13, 3.6), layout="constrained")
    for axis, image in zip(axes.flat, pixels, strict=True):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        axis.axis("off")
    figure.suptitle(title)
    return save(figure, path)
