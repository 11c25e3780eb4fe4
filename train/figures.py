"""Figures a person would want to look at: matplotlib draws, PNG files come out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from handlers import heatmap
from handlers.arrays import Pixels
from train import doubt, metrics
from train.crosscheck import Check
from train.fit import Epoch
from train.judge import UNCHANGED, MeasuredModel
from train.networks import CLASSES
from train.stress import RobustnessResult

Maps = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """One image (S, S) with the map (h, w) of the predicted class, in logits."""

    title: str
    pixels: Pixels
    map: Maps
    right: bool


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG and close it; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return path


def confusion(models: Sequence[MeasuredModel], part: str, path: Path) -> Path:
    """Confusion matrices on a part, one a network, images and shares of the row."""
    figure, axes = plt.subplots(1, len(models), figsize=(4 * len(models), 3.8), squeeze=False)
    for axis, model in zip(axes[0], models, strict=True):
        counts = np.array(model.parts[part].confusion)
        shares = counts / counts.sum(1, keepdims=True)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row in range(2):
            for column in range(2):
                axis.text(
                    column,
                    row,
                    f"{counts[row, column]}\n{shares[row, column]:.1%}",
                    ha="center",
                    va="center",
                    color="white" if shares[row, column] > 0.5 else "black",
                )
        axis.set(xticks=[0, 1], yticks=[0, 1], xlabel="predicted", ylabel="actual")
        axis.set_xticklabels(CLASSES)
        axis.set_yticklabels(CLASSES, rotation=90, va="center")
        axis.set_title(f"{model.name}, threshold {model.threshold:.3f}", fontsize=10)
    figure.suptitle(f"Confusion matrix, {part}, operating point balanced")
    return save(figure, path)


def roc(
    models: Sequence[MeasuredModel], labels: npt.NDArray[np.int64], part: str, path: Path
) -> Path:
    """ROC curves on a part with each network's operating points marked."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 5))
    for number, model in enumerate(models):
        scores = model.scores(part)
        false_alarms, sensitivity, _ = roc_curve(labels, scores)
        low, high = model.parts[part].intervals.get("auc", (float("nan"),) * 2)
        label = f"{model.name}: AUC {model.parts[part].auc:.3f} [{low:.3f}, {high:.3f}]"
        for axis in axes:
            axis.plot(false_alarms, sensitivity, color=f"C{number}", label=label)
            for point, marker in zip(model.operating_points, "osD", strict=False):
                positive = scores >= model.operating_points[point].threshold
                axis.plot(
                    positive[labels == 0].mean(),
                    positive[labels == 1].mean(),
                    marker,
                    color=f"C{number}",
                    label=f"  {point}" if axis is axes[0] else None,
                )
    axes[0].plot([0, 1], [0, 1], ":", color="grey")
    axes[0].legend(fontsize=8, loc="lower right")
    axes[1].set(xlim=(0, 0.4), ylim=(0.6, 1.005), title="upper left corner")
    for axis in axes:
        axis.set(xlabel="1 − specificity", ylabel="sensitivity")
        axis.grid(alpha=0.3)
    figure.suptitle(f"ROC, {part}")
    return save(figure, path)


def reliability(
    models: Sequence[MeasuredModel], labels: npt.NDArray[np.int64], part: str, path: Path
) -> Path:
    """Share of PNEUMONIA by predicted probability, before and after calibration.

    A dot's area grows with the number of images it stands for.
    """
    figure, axes = plt.subplots(
        1, len(models), figsize=(4 * len(models), 4.2), squeeze=False, layout="constrained"
    )
    for axis, model in zip(axes[0], models, strict=True):
        for scores, colour, when in (
            (model.uncalibrated(part), "C7", "before"),
            (model.scores(part), "C0", "after"),
        ):
            predicted, observed, count = metrics.reliability(labels, scores).T
            if when == "before" and model.calibration == UNCHANGED:
                continue
            error = metrics.calibration_error(labels, scores)
            axis.plot(predicted, observed, color=colour, label=f"{when}: error {error:.3f}")
            axis.scatter(predicted, observed, 400 * count / len(labels), color=colour, alpha=0.6)
        axis.plot([0, 1], [0, 1], ":", color="grey")
        axis.set(title=model.name, xlabel="predicted probability", ylabel="share of PNEUMONIA")
        axis.legend(fontsize=8, loc="upper left")
        axis.grid(alpha=0.3)
    figure.suptitle(f"Reliability, {part}")
    return save(figure, path)


def decision(
    models: Sequence[MeasuredModel], labels: npt.NDArray[np.int64], part: str, path: Path
) -> Path:
    """Decision curves on a part: net benefit by threshold, beside treating all and none."""
    thresholds = np.linspace(0.01, 0.95, 95)
    figure, axis = plt.subplots(figsize=(6.5, 4.5))
    for model in models:
        axis.plot(
            thresholds,
            metrics.net_benefit(labels, model.scores(part), thresholds),
            label=model.name,
        )
    everyone = metrics.net_benefit(labels, np.ones(len(labels)), thresholds)
    axis.plot(thresholds, everyone, ":", color="grey", label="treat all")
    axis.axhline(0, color="grey", linestyle="--", label="treat none")
    share = labels.mean()
    axis.set(ylim=(-0.05 * share, 1.05 * share), xlabel="threshold", ylabel="net benefit")
    axis.set_title(f"Decision curve, {part}: {share:.1%} are sick")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return save(figure, path)


def risk_coverage(
    name: str,
    doubts: Mapping[str, npt.NDArray[np.float64]],
    wrong: npt.NDArray[np.bool_],
    part: str,
    path: Path,
) -> Path:
    """Error rate among the images answered, when the most doubtful are set aside."""
    figure, axis = plt.subplots(figsize=(6.5, 4.5))
    coverage = np.arange(1, len(wrong) + 1) / len(wrong)
    for measure, values in doubts.items():
        axis.plot(coverage, doubt.risks(values, wrong), label=measure)
    axis.axhline(wrong.mean(), color="grey", linestyle=":", label="all answered")
    axis.set(xlabel="share of the images answered", ylabel="error rate", xlim=(0, 1))
    axis.set_title(f"{name}, {part}: risk and coverage")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return save(figure, path)


def stressed(by_network: Mapping[str, Mapping[str, RobustnessResult]], path: Path) -> Path:
    """AUC and accuracy under each change, a line where they are on the images as they are."""
    names = list(next(iter(by_network.values())))
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained", sharey=True)
    height = 0.8 / len(by_network)
    for number, (network, by_change) in enumerate(by_network.items()):
        places = np.arange(len(names)) + number * height
        for axis, key in zip(axes, ("auc", "accuracy"), strict=True):
            values = [getattr(by_change[name], key) for name in names]
            axis.barh(places, values, height, color=f"C{number}", label=network)
            axis.axvline(values[0], color=f"C{number}", linestyle=":")
    for axis, title in zip(axes, ("AUC", "accuracy"), strict=True):
        axis.set(xlim=(0.5, 1), xlabel=title)
        axis.grid(alpha=0.3, axis="x")
    axes[0].set_yticks(np.arange(len(names)) + height * (len(by_network) - 1) / 2, names)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(by_network), fontsize=8)
    figure.suptitle("Changed images of block-select")
    return save(figure, path)


def learning(histories: Mapping[str, Sequence[Epoch]], path: Path) -> Path:
    """Loss and validation AUC by epoch; a line where the image size rises."""
    figure, axes = plt.subplots(2, len(histories), figsize=(5.5 * len(histories), 6), squeeze=False)
    for (name, epochs), (above, below) in zip(histories.items(), axes.T, strict=True):
        numbers = [epoch.number for epoch in epochs]
        above.plot(numbers, [epoch.train_loss for epoch in epochs], "o-", label="training")
        above.plot(numbers, [epoch.select_loss for epoch in epochs], "o-", label="block-select")
        below.plot(numbers, [epoch.select_auc for epoch in epochs], "o-", label="block-select")
        below.plot(numbers, [epoch.random_auc for epoch in epochs], "o--", label="random")
        above.set(title=name, ylabel="loss, nats")
        below.set(xlabel="epoch", ylabel="AUC")
        for axis in (above, below):
            for before, after in pairwise(epochs):
                if before.size != after.size:
                    axis.axvline(after.number - 0.5, color="grey", linestyle=":")
            axis.legend(fontsize=8)
            axis.grid(alpha=0.3)
    return save(figure, path)


def gallery(examples: Sequence[Example], scale: float, title: str, path: Path) -> Path:
    """Image, map and overlay of each example; the overlay is the one the server draws."""
    columns = 2
    rows = -(-len(examples) // columns)
    size = (13, 2.5 * rows)
    figure, axes = plt.subplots(
        rows, 3 * columns, figsize=size, squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for number, example in enumerate(examples):
        image, colours, both = axes[number % rows, 3 * (number // rows) :][:3]
        image.imshow(example.pixels, cmap="gray", vmin=0, vmax=255)
        colours.imshow(example.map, cmap="RdBu_r", vmin=-scale, vmax=scale)
        both.imshow(heatmap.draw(example.pixels, example.map, scale))
        colours.set_title(
            example.title, fontsize=8, color="black" if example.right else "firebrick"
        )
    figure.suptitle(title)
    return save(figure, path)


def crosschecked(pixels: Pixels, check: Check, title: str, path: Path) -> Path:
    """Both ways of making the map of PNEUMONIA side by side, and their difference."""
    hook, captum = check.hook[:, 1].numpy(), check.captum[:, 1].numpy()
    reach = float(np.abs(hook).max())
    count = len(pixels)
    figure, axes = plt.subplots(
        count, 4, figsize=(10, 2.5 * count), squeeze=False, layout="constrained"
    )
    for row, axis in enumerate(axes):
        difference = np.abs(hook[row] - captum[row])
        axis[0].imshow(pixels[row], cmap="gray", vmin=0, vmax=255)
        axis[1].imshow(hook[row], cmap="RdBu_r", vmin=-reach, vmax=reach)
        axis[2].imshow(captum[row], cmap="RdBu_r", vmin=-reach, vmax=reach)
        axis[3].imshow(difference, cmap="Greys", vmin=0, vmax=max(difference.max(), 1e-12))
        axis[3].set_title(f"largest {difference.max():.1e}", fontsize=8)
        for panel in axis:
            panel.axis("off")
    for axis, name in zip(axes[0], ("image", "hook", "Captum LayerGradCam"), strict=False):
        axis.set_title(name, fontsize=9)
    figure.suptitle(title)
    return save(figure, path)


def augmented(pixels: Pixels, title: str, path: Path) -> Path:
    """Sixteen images (16, S, S) as training sees them."""
    figure, axes = plt.subplots(2, 8, figsize=(13, 3.6), layout="constrained")
    for axis, image in zip(axes.flat, pixels, strict=True):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        axis.axis("off")
    figure.suptitle(title)
    return save(figure, path)
