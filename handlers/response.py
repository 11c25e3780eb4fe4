"""The HTTP contract: from the networks' outputs to the answer, and its JSON."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from handlers import decision, ensemble
from handlers.arrays import Logits, Maps
from handlers.card import Archived, GraphCard
from handlers.decision import DECIMALS, Decision, class_probabilities
from handlers.engine import ModelOutput
from handlers.ensemble import Combined
from handlers.inputs import PREDICTED, Inputs

COARSE = 4  # cells: a map with fewer per side can't locate anything

JSON, PNG = "application/json", "image/png"


@dataclass(frozen=True)
class Answer:
    """The answer to one request."""

    inputs: Inputs
    combined: Combined
    decisions: Mapping[str, Decision]  # by operating point
    decision: Decision  # at the request's operating point
    shown: int  # index of the class whose map is shown
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Reply:
    """An HTTP response."""

    status: int
    body: bytes
    content_type: str = JSON


def prefers_png(accept: str) -> bool:
    """Whether an Accept header prefers image/png to JSON; a tie goes to JSON.

    RFC 9110, section 12.5.1: of the ranges that match, the most specific gives the weight.
    """
    weights: dict[str, float] = {}
    for entry in accept.lower().split(","):
        range_, *parameters = (part.strip() for part in entry.split(";"))
        weights[range_] = _weight(parameters)

    def weight(kind: str) -> float:
        ranges = (kind, kind.partition("/")[0] + "/*", "*/*")
        return next((weights[range_] for range_ in ranges if range_ in weights), 0.0)

    return weight(PNG) > weight(JSON)


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            # A malformed weight counts as 0.
            return float(value) if re.fullmatch(r"0(\.\d{0,3})?|1(\.0{0,3})?", value) else 0.0
    return 1.0


def answer(
    card: Archived,
    inputs: Inputs,
    outputs: Sequence[ModelOutput],
    image_warnings: Sequence[str] = (),
) -> Answer:
    """The answer to a request, from the outputs of the archive's networks on its image.

    Raises:
        ValueError: a logit is NaN or infinite.
    """
    combined = ensemble.combine(card, outputs)
    novelty = combined.novelty
    unlike = novelty is not None and novelty.unlike
    agreement = combined.agreement
    disagreement = None if agreement is None else agreement.probability_difference
    decisions = decision.decide_all(card, combined.positive, disagreement, unlike=unlike)
    chosen = decisions[inputs.operating_point]
    named = inputs.map_class != PREDICTED
    return Answer(
        inputs=inputs,
        combined=combined,
        decisions=decisions,
        decision=chosen,
        shown=card.classes.index(inputs.map_class) if named else chosen.label,
        warnings=(
            *([novelty.warning()] if novelty is not None and novelty.unlike else []),
            *_card_warnings(card, *combined.output.maps.shape[1:]),
            *image_warnings,
        ),
    )


def document(
    card: Archived,
    answer: Answer,
    request_id: str,
    overlay: bytes | None = None,
    erasure: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The JSON object of an answer, as docs/api.md describes it.

    `overlay` is a PNG; `erasure` is the result of the function of that name, for /explanations.
    """
    combined, inputs = answer.combined, answer.inputs
    logits, maps, _ = combined.output
    fields: dict[str, Any] = {
        "model": card.network,
        "version": card.version,
        "request_id": request_id,
        "label": card.classes[answer.decision.label],
        "probability": _by_class(card.classes, class_probabilities(combined.positive)),
        "logit": _by_class(card.classes, map(_digits, logits)),
        "temperature": card.temperature,
        "threshold": answer.decision.threshold,
        "operating_point": answer.decision.operating_point,
        "decisions": {name: _decision(card, each) for name, each in answer.decisions.items()},
    }
    if combined.agreement is not None:
        fields["networks"] = {
            network.network: _network(network, answer, output, positive)
            for network, output, positive in zip(
                card.networks, combined.outputs, combined.positives, strict=True
            )
        }
        fields["agreement"] = {
            "probability_difference": combined.agreement.probability_difference,
            "map_correlation": combined.agreement.map_correlation,
        }
    fields |= _triage(answer.decision)
    if combined.novelty is not None:
        fields["novelty"] = {
            "score": round(combined.novelty.score, 4),
            "resembles": combined.novelty.resembles,
        }
    if inputs.explain:
        if inputs.heatmap != "none":
            fields["heatmaps"] = [
                _explained(card, index, logits, maps) for index in range(len(card.classes))
            ]
        fields["erasure"] = erasure
    elif inputs.heatmap != "none":
        fields["heatmap"] = _heatmap(card, answer.shown, maps)
        if overlay is not None:
            fields["heatmap"]["overlay"] = base64.b64encode(overlay).decode()
    return {**fields, "warnings": list(answer.warnings)}


def erasure(
    card: Archived, answer: Answer, outputs: Sequence[Sequence[ModelOutput]], share: float
) -> dict[str, Any]:
    """The JSON object of the erasure test: how far the shown class's probability falls.

    `outputs` are those of the networks on the image without its strongest evidence, then on the
    images without a random region of the same size, a `share` of the image.
    """
    before, strongest, *random = (
        class_probabilities(positive)[answer.shown]
        for positive in (
            answer.combined.positive,
            *(
                float(
                    decision.printed_probability(ensemble.mean(card, each).logits, card.temperature)
                )
                for each in outputs
            ),
        )
    )
    return {
        "class": card.classes[answer.shown],
        "share": round(share, 6),
        "probability": before,
        "without_strongest": strongest,
        "without_random": random,
        "fall": round(before - strongest, DECIMALS),
        "random_fall": round(before - sum(random) / len(random), DECIMALS),
    }


def _by_class(classes: Sequence[str], values: Any) -> dict[str, float]:
    return dict(zip(classes, values, strict=True))


def _decision(card: Archived, made: Decision) -> dict[str, Any]:
    return {
        "threshold": made.threshold,
        "label": card.classes[made.label],
        **_triage(made),
    }


def _triage(made: Decision) -> dict[str, Any]:
    if made.triage is None:
        return {}
    return {"triage": {"decision": made.triage.decision, "reasons": list(made.triage.reasons)}}


def _heatmap(card: Archived | GraphCard, index: int, maps: Maps) -> dict[str, Any]:
    """The map of a class and its bias; mean(map) + bias = logit."""
    return {
        "class": card.classes[index],
        "map": [[_digits(value) for value in row] for row in maps[index]],
        "bias": card.bias[index],
    }


def _explained(card: Archived, index: int, logits: Logits, maps: Maps) -> dict[str, Any]:
    """The map of a class, and the difference between mean(map) + bias and the logit."""
    difference = maps[index].mean(dtype=np.float64) + card.bias[index] - logits[index]
    return {**_heatmap(card, index, maps), "completeness": float(difference)}


def _network(
    network: GraphCard, answer: Answer, output: ModelOutput, positive: float
) -> dict[str, Any]:
    """One network of several: its own probability, and its map of the shown class."""
    fields: dict[str, Any] = {
        "probability": _by_class(network.classes, class_probabilities(positive)),
        "logit": _by_class(network.classes, map(_digits, output.logits)),
        "temperature": network.temperature,
    }
    if answer.inputs.heatmap != "none":
        fields["heatmap"] = _heatmap(network, answer.shown, output.maps)
    return fields


def _digits(value: np.float32) -> float:
    """Nine significant digits: enough to distinguish any two float32."""
    return float(f"{value:.9g}")


def _card_warnings(card: Archived, rows: int, columns: int) -> list[str]:
    warnings = list(card.warnings)
    if min(rows, columns) < COARSE:
        warnings.append(f"the map has {rows}×{columns} cells: too coarse to locate anything")
    return warnings


def encode(fields: Mapping[str, Any]) -> bytes:
    """JSON. NaN and infinity raise ValueError: JSON has no such values."""
    return json.dumps(fields, allow_nan=False).encode()


def refusal(status: int, type: str, message: str) -> Reply:
    """The reply to a request that is not answered."""
    return Reply(status, encode({"code": status, "type": type, "message": message}))
