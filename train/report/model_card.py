"""Writes docs/model-card.md from the published networks' cards and metrics.json.

After Mitchell et al. 2019, "Model Cards for Model Reporting".
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from handlers.card import TrainedNetwork
from train.data import splits
from train.model import checkpoint
from train.report import attribution
from train.report.report_sections import table, with_interval

PATH = Path("docs/model-card.md")
_TEMPLATE = Path(__file__).with_suffix(".md")


def write(weights: Path, metrics: Path, path: Path = PATH) -> Path:
    """Write the model card of the networks in a folder of published weights; returns its path."""
    checkpoint.write_text(path, text(weights, metrics))
    return path


def text(weights: Path, metrics: Path) -> str:
    """The model card's Markdown, from the cards in `weights` and the metrics.json of their run."""
    cards = [checkpoint.read_network_card(file) for file in sorted(weights.glob("*.safetensors"))]
    figures = json.loads(metrics.read_text())
    data, project = cards[0].training.data, cards[0].project
    return Template(_TEMPLATE.read_text()).substitute(
        version="unknown" if project is None else project.version,
        networks=_networks(cards),
        credits=attribution.model_card_paragraph(cards),
        data=f"{data.name}, sha256 {data.sha256[:12]}",
        counts=table(
            ["part", *cards[0].classes],
            [[part, *map(str, counts.values())] for part, counts in data.counts.items()],
        ),
        figures=_figures(figures["networks"]),
        series=_series(figures["networks"]),
        points=_points(figures["networks"]),
        evidence=_evidence(figures.get("evidence", {})),
    )


def _networks(cards: Sequence[TrainedNetwork]) -> str:
    head = ["network", "input, grey", "map", "start", "training", "lung masks", "weights (sha256)"]
    rows = [
        [
            card.network,
            f"{card.input.size} × {card.input.size}",
            f"{card.map.rows} × {card.map.columns}",
            card.training.init,
            f"{card.training.preset}, seed {card.training.seed}",
            "none" if card.training.lungs is None else str(card.training.lungs.images),
            f"`{(card.weights_sha256 or '')[:12]}`",
        ]
        for card in cards
    ]
    return table(head, rows)


def _figures(networks: Mapping[str, Any]) -> str:
    head = [
        "network",
        "AUC",
        "accuracy",
        "sensitivity",
        "specificity",
        "Brier",
        "calibration error",
    ]
    rows = []
    for name, model in networks.items():
        test = model["parts"][splits.TEST]
        intervals, by_class = test["intervals"], test["by_class"]
        rows.append(
            [
                name,
                with_interval(test["auc"], intervals.get("auc")),
                with_interval(test["accuracy"], intervals["accuracy"]),
                with_interval(by_class["PNEUMONIA"]["recall"], intervals["sensitivity"]),
                with_interval(by_class["NORMAL"]["recall"], intervals["specificity"]),
                f"{test['brier']:.3f}",
                f"{test['calibration_error']:.3f}",
            ]
        )
    return table(head, rows)


def _series(networks: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            series,
            f"{with_interval(recall['recall'], recall['interval'])} of {recall['images']}",
        ]
        for name, model in networks.items()
        for series, recall in model["parts"][splits.TEST]["recall_by_series"].items()
    ]
    return table(["network", "series", "recall"], rows) if rows else ""


def _points(networks: Mapping[str, Any]) -> str:
    rows = [
        [name, point_name, f"{point['threshold']:.4f}"]
        for name, model in networks.items()
        for point_name, point in model["operating_points"].items()
    ]
    return table(["network", "operating point", "threshold"], rows)


def _evidence(by_network: Mapping[str, Any]) -> str:
    if not by_network:
        return "The location of the maps' evidence was not measured: the run had no lung masks."
    rows = []
    for name, groups in by_network.items():
        summary = groups["all"]
        rows.append(
            [
                name,
                with_interval(summary["share"], summary["share_interval"]),
                f"{summary['area']:.3f}",
                with_interval(summary["peak"], summary["peak_interval"]),
                f"{summary['outside_swapped']:.2f}",
                f"{summary['lungs_swapped']:.2f}",
            ]
        )
    head = ["network", "evidence in the lungs", "lungs' area", "peak in the lungs"]
    changes = ["change of the logit, everything else swapped", "lungs swapped"]
    return (
        f"Means over the images of `{splits.SELECT}` whose lungs were drawn by hand:\n\n"
        + table([*head, *changes], rows)
    )
