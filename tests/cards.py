"""Cards for tests, as the JSON documents that `card.json` holds: whole, valid and small."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Document = dict[str, Any]

SHA256 = "0" * 64  # of a file that no test opens
NAMES = ("NORMAL", "PNEUMONIA")
WARNING = "a stand-in that measures brightness"
COUNTS = {"NORMAL": 20, "PNEUMONIA": 20}


def trained(**changes: Any) -> Document:
    """The card of a network that is trained and not yet evaluated; `changes` are by field."""
    document = {
        "network": "resnet50",
        "input": {"size": 64},
        "map": {"rows": 4, "columns": 4},
        "classes": list(NAMES),
        "bias": [4.0, -4.0],
        "training": {
            "data": {"name": "phantoms", "sha256": SHA256, "counts": {"fit": COUNTS}},
            "seed": 0,
            "init": "scratch",
            "preset": "tiny",
        },
        "warnings": [WARNING],
        **changes,
    }
    copied: Document = json.loads(json.dumps(document))  # no list or object in it twice
    return copied


def operating_point(threshold: float) -> Document:
    """An operating point."""
    return {"threshold": threshold, "sensitivity": 0.95, "specificity": 0.9}


def evaluated(**changes: Any) -> Document:
    """The card of a network that was evaluated."""
    fields = {
        "map": {"rows": 4, "columns": 4, "scale": 8.0},
        "temperature": 1.0,
        "operating_points": {
            "balanced": operating_point(0.5),
            "rule_in": operating_point(0.9999),
        },
        "default_operating_point": "balanced",
    }
    return trained(**fields | changes)


def _graph(network: str = "graph") -> Document:
    return {
        "file": f"{network}.onnx",
        "sha256": SHA256,
        "engine": "onnxruntime",
        "precision": "f32",
    }


def archived(**changes: Any) -> Document:
    """The card in an archive of one network."""
    fields = {
        "version": "1.0",
        "graph": _graph(),
        "golden": {"file": "golden.png", "sha256": SHA256},
        "golden_logits": [4.0, -4.0],
    }
    return evaluated(**fields | changes)


def evaluated_ensemble(members: Sequence[Mapping[str, Any]], **changes: Any) -> Document:
    """The card of evaluated networks as one model, of the networks' cards."""
    named = [
        {"network": member["network"], "weights_sha256": member.get("weights_sha256", SHA256)}
        for member in members
    ]
    return evaluated(**{**_joint(members), "members": named, **changes})


def ensemble(members: Sequence[Mapping[str, Any]], **changes: Any) -> Document:
    """The card in an archive of several networks, of the networks' cards with their graphs."""
    graphs = [
        {name: value for name, value in member.items() if name not in ("version", "golden")}
        for member in members
    ]
    document = archived(**{**_joint(members), "members": graphs, **changes})
    return {
        name: value for name, value in document.items() if name not in ("graph", "golden_logits")
    }


def _joint(members: Sequence[Mapping[str, Any]]) -> Document:
    """The bias of the mean of calibrated logits; the temperature is in it already."""
    biases = [[bias / each["temperature"] for bias in each["bias"]] for each in members]
    return {
        "network": "pneumonia",
        "bias": [sum(column) / len(column) for column in zip(*biases, strict=True)],
    }


# --- with every optional field


def _figures() -> Document:
    return {
        "images": 40,
        "patients": 38,
        "threshold": 0.5,
        "auc": 0.97,
        "accuracy": 0.95,
        "log_loss": 0.2,
        "brier": 0.05,
        "calibration_error": 0.02,
        "confusion": [[19, 1], [1, 19]],
        "by_class": {
            name: {"precision": 0.95, "recall": 0.95, "f1": 0.95, "images": 20} for name in NAMES
        },
        "specificity_read_off": 0.9,
        "intervals": {"auc": [0.9, 0.99]},
        "recall_by_series": {"virus": {"recall": 0.9, "interval": [0.7, 0.97], "images": 10}},
    }


def _evaluation() -> Document:
    """The optional fields of every evaluated card."""
    histogram = {"edges": [0.1, 0.9], "shares": [0.4, 0.2, 0.4]}
    stats = {"images": 40, "review": 0.1, "errors": 2, "errors_caught": 0.5}
    return {
        "schema": 1,
        "project": {"name": "pneumocam", "version": "0.1.0"},
        "input": {"size": 64, "mode": "L", "resize": "squashed to the square"},
        "map": {"rows": 4, "columns": 4, "dilated": True, "scale": 8.0},
        "training": {
            "data": {"name": "phantoms", "sha256": SHA256, "counts": {"fit": COUNTS}},
            "seed": 2,
            "split_seed": 0,
            "init": "scratch",
            "preset": "tiny",
            "lungs": {"images": 30, "sha256": SHA256},
            "recipes": [{"batch": 16, "phases": [{"size": 64, "epochs": 1}]}],
        },
        "figures": {"validation": _figures(), "test": _figures()},
        "calibration": {"offset": 2.0, "prevalence": 0.7, "raw_bias": [3.0, -3.0]},
        "ages": [1, 5],
        "reference": {"probability": histogram, "brightness": histogram},
        "novelty": {
            "stage": "layer2",
            "threshold": 26.5,
            "alterations": ["upside down"],
            "margins": [0.0],
            "reference_sha256": SHA256,
        },
        "triage": {"doubt": 1.0, "disagreement": 0.2, "caught": {"test": stats}},
    }


def _network() -> Document:
    """The optional fields of a network in an archive."""
    graph = {
        "milliseconds": {"onnxruntime": 30.0},
        "gate": {"auc": 0.001},
        "max_logit_difference": 1e-5,
    }
    return {
        "weights_sha256": SHA256,
        "half_precision": {"max_probability_difference": 1e-5, "from_sha256": SHA256},
        "graph": {**_graph(), **graph},
    }


def every_field() -> Document:
    """The card in an archive of one network, with each field that a card can have."""
    return archived(**_evaluation(), **_network())


def every_field_of_an_ensemble() -> Document:
    """The card in an archive of two networks, with each field that a card can have."""
    members = [every_field(), every_field() | {"network": "densenet161"}]
    return ensemble(members, **_evaluation())
