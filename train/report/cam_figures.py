"""Figures of the faithfulness tests of decision maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from handlers.arrays import Pixels
from train.evaluation.cam_faithfulness import Curves, Maps
from train.report.figures import save


def deletion(curves: Mapping[str, Curves], name: str, path: Path) -> Path:
    """Draw the mean deletion and insertion curves of each order of pixels; the figure's path."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axis, kind in zip(axes, ("deletion", "insertion"), strict=True):
        for order, pair in curves.items():
            mean = getattr(pair, kind).mean(0)
            axis.plot(np.linspace(0, 1, len(mean)), mean, label=order)
        axis.set(title=kind, xlabel="share of the image")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("P(predicted class)")
    axes[1].legend(fontsize=8)
    figure.suptitle(name)
    return save(figure, path)


def cascade(
    pixels: Pixels,
    shown: Sequence[tuple[str, Maps]],
    correlations: Mapping[str, Mapping[str, Any]],
    name: str,
    path: Path,
) -> Path:
    """Draw a row for each image (n, S, S): the image, then its map after each stage.

    Every map has a colour scale of its own. Returns the figure's path.
    """
    figure, axes = plt.subplots(
        len(pixels),
        1 + len(shown),
        figsize=(1.7 * (1 + len(shown)), 1.9 * len(pixels)),
        squeeze=False,
        layout="constrained",
    )
    for row, image in enumerate(pixels):
        axes[row, 0].imshow(image, cmap="gray", vmin=0, vmax=255)
        for axis, (_, maps) in zip(axes[row, 1:], shown, strict=True):
            limit = max(float(np.abs(maps[row]).max()), 1e-12)
            axis.imshow(maps[row], cmap="RdBu_r", vmin=-limit, vmax=limit)
    for axis, (stage, _) in zip(axes[0, 1:], shown, strict=True):
        correlation = correlations.get(stage)
        title = stage if correlation is None else f"{stage}\nr = {correlation['mean']:.2f}"
        axis.set_title(title, fontsize=9)
    for axis in axes.flat:
        axis.axis("off")
    figure.suptitle(f"{name}: weights re-initialised from the head down")
    return save(figure, path)
