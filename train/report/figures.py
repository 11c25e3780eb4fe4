"""Figures of an evaluation's numbers, by matplotlib; each function returns the file's path."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from handlers import files
from train.data.classes import CLASSES
from train.evaluation import selective_prediction
from train.evaluation.calibrated_model import UNCHANGED, MeasuredModel
from train.evaluation.robustness import RobustnessResult
from train.fitting.epoch import Epoch
from train.metrics import classification


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG and close it; its path."""
    with files.replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=110, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return path


def confusion(models: Sequence[MeasuredModel], part: str, path: Path) -> Path:
    """Confusion matrices on a part, one per model: images, and shares of the row."""
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
    """ROC curves on a part, with each model's operating points marked."""
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

    A dot's area is proportional to the number of images in its bin.
    """
    figure, axes = plt.subplots(
        1, len(models), figsize=(4 * len(models), 4.2), squeeze=False, layout="constrained"
    )
    for axis, model in zip(axes[0], models, strict=True):
        series = [("after", "C0", model.scores(part))]
        if model.calibration != UNCHANGED:
            series.insert(0, ("before", "C7", model.uncalibrated(part)))
        for label, colour, scores in series:
            predicted, observed, count = classification.reliability(labels, scores).T
            error = classification.calibration_error(labels, scores)
            axis.plot(predicted, observed, color=colour, label=f"{label}: error {error:.3f}")
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
    """Decision curves on a part: net benefit by threshold, against treating all and none."""
    thresholds = np.linspace(0.01, 0.95, 95)
    figure, axis = plt.subplots(figsize=(6.5, 4.5))
    for model in models:
        axis.plot(
            thresholds,
            classification.net_benefit(labels, model.scores(part), thresholds),
            label=model.name,
        )
    everyone = classification.net_benefit(labels, np.ones(len(labels)), thresholds)
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
    errors: npt.NDArray[np.bool_],
    part: str,
    path: Path,
) -> Path:
    """Error rate by the share of images answered, for each measure of doubt (N,).

    `errors` (N,) are true where the model's answer is wrong.
    """
    figure, axis = plt.subplots(figsize=(6.5, 4.5))
    coverage = np.arange(1, len(errors) + 1) / len(errors)
    for measure, doubt in doubts.items():
        axis.plot(coverage, selective_prediction.risk_curve(doubt, errors), label=measure)
    axis.axhline(errors.mean(), color="grey", linestyle=":", label="all answered")
    axis.set(xlabel="share of the images answered", ylabel="error rate", xlim=(0, 1))
    axis.set_title(f"{name}, {part}: risk and coverage")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return save(figure, path)


def robustness(by_network: Mapping[str, Mapping[str, RobustnessResult]], path: Path) -> Path:
    """AUC and accuracy under each corruption; a line marks the figure on unchanged images."""
    names = list(next(iter(by_network.values())))
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained", sharey=True)
    height = 0.8 / len(by_network)
    for number, (network, results) in enumerate(by_network.items()):
        positions = np.arange(len(names)) + number * height
        for axis, key in zip(axes, ("auc", "accuracy"), strict=True):
            values = [getattr(results[name], key) for name in names]
            axis.barh(positions, values, height, color=f"C{number}", label=network)
            axis.axvline(values[0], color=f"C{number}", linestyle=":")
    for axis, title in zip(axes, ("AUC", "accuracy"), strict=True):
        axis.set(xlim=(0.5, 1), xlabel=title)
        axis.grid(alpha=0.3, axis="x")
    axes[0].set_yticks(np.arange(len(names)) + height * (len(by_network) - 1) / 2, names)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(by_network), fontsize=8)
    figure.suptitle("Robustness on block-select")
    return save(figure, path)


def learning(histories: Mapping[str, Sequence[Epoch]], path: Path) -> Path:
    """Loss and validation AUC by epoch; a line marks where the image size changes."""
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
