"""Cards and metrics.json of published networks → docs/model-card.md (Mitchell et al. 2019)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from handlers.card import TrainedNetwork
from train import checkpoint, split
from train.sections import table, with_interval

PATH = Path("docs/model-card.md")
_TEMPLATE = Path(__file__).with_suffix(".md")


def write(weights: Path, metrics: Path, path: Path = PATH) -> Path:
    """Write the model card of the networks in a folder of weights; its path."""
    checkpoint.write_text(path, text(weights, metrics))
    return path


def text(weights: Path, metrics: Path) -> str:
    """The model card, from the networks' cards and the metrics.json of the run they come from."""
    cards = [checkpoint.read_network_card(file) for file in sorted(weights.glob("*.safetensors"))]
    figures = json.loads(metrics.read_text())
    data, project = cards[0].training.data, cards[0].project
    return Template(_TEMPLATE.read_text()).substitute(
        version="unknown" if project is None else project.version,
        networks=_networks(cards),
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
        test = model["parts"][split.TEST]
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
        [name, series, f"{with_interval(of['recall'], of['interval'])} of {of['images']}"]
        for name, model in networks.items()
        for series, of in model["parts"][split.TEST]["recall_by_series"].items()
    ]
    return table(["network", "series", "recall"], rows) if rows else ""


def _points(networks: Mapping[str, Any]) -> str:
    rows = [
        [name, point, f"{values['threshold']:.4f}"]
        for name, model in networks.items()
        for point, values in model["operating_points"].items()
    ]
    return table(["network", "operating point", "threshold"], rows)


def _evidence(by_network: Mapping[str, Any]) -> str:
    if not by_network:
        return "Where the maps' evidence lies was not measured: the run had no lung masks."
    rows = [
        [
            name,
            with_interval(of["share"], of["share_interval"]),
            f"{of['area']:.3f}",
            with_interval(of["peak"], of["peak_interval"]),
            f"{of['outside_swapped']:.2f}",
            f"{of['lungs_swapped']:.2f}",
        ]
        for name, of in ((name, groups["all"]) for name, groups in by_network.items())
    ]
    head = ["network", "evidence in the lungs", "lungs' area", "peak in the lungs"]
    moves = ["logit moves when all else is swapped", "when the lungs are"]
    return (
        f"On images of `{split.SELECT}` whose lungs were drawn by hand, in the mean:\n\n"
        + table([*head, *moves], rows)
    )
