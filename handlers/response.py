"""The HTTP contract: from logits and maps to the decision, and to JSON."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from handlers import ensemble
from handlers.ensemble import Found, Logits, Maps
from handlers.question import PREDICTED, Question

Card = Mapping[str, Any]

POSITIVE = 1  # the class that the threshold is about: PNEUMONIA
DECIMALS = 8  # of printed probabilities and thresholds
COARSE = 4  # cells a side below which a map locates nothing

JSON, PNG = "application/json", "image/png"


@dataclass(frozen=True)
class Verdict:
    """What is printed of the decision: by class index, and the class whose map is shown."""

    probability: tuple[float, float]
    threshold: float
    label: int
    shown: int


@dataclass(frozen=True)
class Reply:
    """What goes back to the client."""

    status: int
    body: bytes
    content_type: str = JSON


def prefers_png(accept: str) -> bool:
    """Whether an Accept header weighs image/png above JSON, which wins a tie.

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
            # A weight that can't be read asks for nothing.
            return float(value) if re.fullmatch(r"0(\.\d{0,3})?|1(\.0{0,3})?", value) else 0.0
    return 1.0


def judge(logits: Logits, question: Question, card: Card) -> Verdict:
    """The decision on logits (2,): softmax(logits / temperature) against the threshold.

    It falls on the numbers as printed, so that a reader comes to the same.

    Raises:
        ValueError: a logit is no finite number.
    """
    probability = _probability(logits, card["temperature"])
    threshold = round(
        float(card["operating_points"][question.operating_point]["threshold"]), DECIMALS
    )
    label = int(probability[POSITIVE] >= threshold)
    named = question.of_class != PREDICTED
    return Verdict(
        probability=probability,
        threshold=threshold,
        label=label,
        shown=card["classes"].index(question.of_class) if named else label,
    )


def _probability(logits: Logits, temperature: float) -> tuple[float, float]:
    if not np.isfinite(logits).all():
        raise ValueError("the graph gave a logit that is no finite number")
    scaled = logits.astype(np.float64) / temperature
    odds = np.exp(scaled - scaled.max())
    positive = round(float(odds[POSITIVE] / odds.sum()), DECIMALS)
    return round(1 - positive, DECIMALS), positive


def answer(
    card: Card,
    question: Question,
    verdict: Verdict,
    request_id: str,
    found: Sequence[Found],
    overlay: bytes | None = None,
    erasure: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The contract's answer for what the archive's networks found.

    `overlay` is a PNG; `erasure`, of the function of that name, is asked for by /explanations.
    """
    logits, maps, _ = ensemble.combine(card, found)
    novelty = ensemble.novelty_of(card, found)
    classes = card["classes"]
    said: dict[str, Any] = {
        "model": card["network"],
        "version": card["version"],
        "request_id": request_id,
        "label": classes[verdict.label],
        "probability": dict(zip(classes, verdict.probability, strict=True)),
        "logit": dict(zip(classes, map(_digits, logits), strict=True)),
        "temperature": card["temperature"],
        "threshold": verdict.threshold,
        "operating_point": question.operating_point,
        **_networks(card, question, verdict, found, unlike=novelty is not None and novelty.unlike),
    }
    if novelty is not None:
        said["novelty"] = {"score": round(novelty.score, 4), "resembles": novelty.resembles}
    if question.explain:
        if question.heatmap != "none":
            said["heatmaps"] = [_explained(card, k, logits, maps) for k in range(len(classes))]
        said["erasure"] = erasure
    elif question.heatmap != "none":
        said["heatmap"] = _heatmap(card, verdict.shown, maps)
        if overlay is not None:
            said["heatmap"]["overlay"] = base64.b64encode(overlay).decode()
    unlike = [novelty.warning()] if novelty is not None and novelty.unlike else []
    return {**said, "warnings": unlike + _warnings(card, *maps.shape[1:])}


def erasure(
    card: Card, verdict: Verdict, found: Sequence[Sequence[Found]], share: float
) -> dict[str, Any]:
    """How the shown class's probability falls when a share of the image is erased.

    `found` is of the image without its strongest region, then without random ones.
    """
    strongest, *others = (
        _probability(ensemble.combine(card, one)[0], card["temperature"])[verdict.shown]
        for one in found
    )
    before = verdict.probability[verdict.shown]
    return {
        "class": card["classes"][verdict.shown],
        "share": round(share, 6),
        "probability": before,
        "without_strongest": strongest,
        "without_random": others,
        "fall": round(before - strongest, DECIMALS),
        "random_fall": round(before - sum(others) / len(others), DECIMALS),
    }


def _heatmap(card: Card, shown: int, maps: Maps) -> dict[str, Any]:
    return {
        "class": card["classes"][shown],
        "map": [[_digits(value) for value in row] for row in maps[shown]],
        "bias": card["bias"][shown],
    }


def _explained(card: Card, shown: int, logits: Logits, maps: Maps) -> dict[str, Any]:
    """A class's map, and what map and bias leave of its logit."""
    said = _heatmap(card, shown, maps)
    left = maps[shown].mean(dtype=np.float64) + card["bias"][shown] - logits[shown]
    return {**said, "completeness": float(left)}


def _networks(
    card: Card, question: Question, verdict: Verdict, found: Sequence[Found], *, unlike: bool
) -> dict[str, Any]:
    """Of several networks each one's answer and how far they agree; triage by the card's rules."""
    said: dict[str, Any] = {}
    disagreement = None
    if "members" in card:
        members = list(zip(card["members"], found, strict=True))
        positive = [
            _probability(one.logits, member["temperature"])[POSITIVE] for member, one in members
        ]
        agreement = ensemble.agreement(positive, [one.maps for one in found])
        disagreement = agreement["probability_difference"]
        said["networks"] = {
            member["network"]: _alone(member, question, verdict, one) for member, one in members
        }
        said["agreement"] = agreement
    if "triage" in card:
        decision, reasons = ensemble.triage(
            card["triage"],
            verdict.probability[POSITIVE],
            verdict.threshold,
            disagreement,
            unlike=unlike,
        )
        said["triage"] = {"decision": decision, "reasons": reasons}
    return said


def _alone(member: Card, question: Question, verdict: Verdict, found: Found) -> dict[str, Any]:
    """One of several networks: its own probability, and its map of the class that is shown."""
    classes = member["classes"]
    probability = _probability(found.logits, member["temperature"])
    said: dict[str, Any] = {
        "probability": dict(zip(classes, probability, strict=True)),
        "logit": dict(zip(classes, map(_digits, found.logits), strict=True)),
        "temperature": member["temperature"],
    }
    if question.heatmap != "none":
        said["heatmap"] = _heatmap(member, verdict.shown, found.maps)
    return said


def _digits(value: np.float32) -> float:
    """Nine significant digits: as many as tell any two float32 apart."""
    return float(f"{value:.9g}")


def _warnings(card: Card, rows: int, columns: int) -> list[str]:
    said = list(card["warnings"])
    if min(rows, columns) < COARSE:
        said.append(f"the map has {rows}×{columns} cells: too coarse to locate anything")
    return said


def encode(said: Mapping[str, Any]) -> bytes:
    """JSON; a number that is none is an error, since no reader of JSON would take it."""
    return json.dumps(said, allow_nan=False).encode()


def refusal(status: int, type: str, message: str) -> Reply:
    """The reply to a request that is not answered."""
    return Reply(status, encode({"code": status, "type": type, "message": message}))
