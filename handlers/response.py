"""The HTTP contract: from TorchServe's dict of a request to a question, from logits to JSON."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from handlers.errors import RequestError

Card = Mapping[str, Any]
Logits = npt.NDArray[np.float32]
Maps = npt.NDArray[np.float32]

OPTIONS = ("class", "heatmap", "operating_point")
HEATMAPS = ("overlay", "map", "none")
PREDICTED = "predicted"
POSITIVE = 1  # the class that the threshold is about: PNEUMONIA

DECIMALS = 8  # of printed probabilities and thresholds
COARSE = 4  # cells a side below which a map locates nothing

JSON, PNG = "application/json", "image/png"

_DATA_URL = re.compile(r"data:[^,]*;base64,")


@dataclass(frozen=True)
class Question:
    """One image's bytes and what is asked about it; `of_class` may be `predicted`."""

    image: bytes | bytearray
    of_class: str
    heatmap: str
    operating_point: str


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


def ask(fields: Mapping[str, Any], content_type: str, card: Card) -> Question:
    """The question in one request, as TorchServe hands it over.

    Query and form give a field each, as bytes, or text where its part says so; a body is the field
    `body`, and decoded where it says it is JSON. What bears no option's name is the image, or the
    JSON object that holds it.

    Raises:
        RequestError: not exactly one image, an unknown option or value, JSON or base64 is broken.
    """
    options = {name: value for name, value in fields.items() if name in OPTIONS}
    others = {name: value for name, value in fields.items() if name not in OPTIONS}
    if not others:
        raise RequestError(
            400, "NoImage", "There is no image: send it as the body, or as the one file of a form."
        )
    if len(others) > 1:
        raise RequestError(
            400,
            "ManyImages",
            f"The fields {_listing(others)} can't all be the image: send exactly one. "
            f"Options are {_listing(OPTIONS)}.",
        )
    (value,) = others.values()
    if _is_json(value, content_type):
        value, in_json = _unpack(_object(value))
        twice = in_json.keys() & options.keys()
        if twice:
            raise RequestError(
                400, "GivenTwice", f"{_listing(sorted(twice))}: give it in the query or in JSON."
            )
        options |= in_json
    elif isinstance(value, str):
        raise RequestError(
            415,
            "NotAnImage",
            "A text is no image: send the bytes of a JPEG or PNG file, "
            "with Content-Type application/octet-stream.",
        )
    return Question(value, *_choose(options, card))


def _is_json(value: Any, content_type: str) -> bool:
    if not isinstance(value, bytes | bytearray | str):
        return True  # decoded by TorchServe
    kind = content_type.partition(";")[0].strip().lower()
    # TorchServe knows `application/json` alone and hands over all else, broken JSON too, as it
    # came; gRPC has no types. No image begins with a brace or a bracket.
    start = value[:64].lstrip()[:1]
    return kind == JSON or kind.endswith("+json") or start in (b"{", b"[", "{", "[")


def _object(value: Any) -> dict[str, Any]:
    if isinstance(value, bytes | bytearray | str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RequestError(
                400, "BrokenJSON", f"The body is no valid JSON ({str(error)[:200]}): mend it."
            ) from error
    if not isinstance(value, dict):
        raise RequestError(
            400, "NotAnObject", 'The JSON must be an object: {"image": "<base64>", …}.'
        )
    return value


def _unpack(document: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """Image and options of a JSON body."""
    unknown = document.keys() - {"image", *OPTIONS}
    if unknown:
        raise RequestError(
            400,
            "UnknownKey",
            f"Unknown JSON keys: {_listing(sorted(unknown))}. "
            f"Known are image, {_listing(OPTIONS)}.",
        )
    image = document.get("image")
    if not isinstance(image, str):
        raise RequestError(400, "NoImage", 'Give the image as base64: {"image": "<base64>"}.')
    prefix = _DATA_URL.match(image[:256])
    options = {name: value for name, value in document.items() if name != "image"}
    try:
        return base64.b64decode(image[prefix.end() if prefix else 0 :], validate=True), options
    except ValueError as error:
        raise RequestError(
            400,
            "BadBase64",
            f"The image is no base64 ({error}): encode the file's bytes by RFC 4648, section 4, "
            "without line breaks.",
        ) from error


def _choose(given: Mapping[str, Any], card: Card) -> tuple[str, str, str]:
    """Values of class, heatmap and operating point."""
    known: dict[str, tuple[str, ...]] = {
        "class": (PREDICTED, *card["classes"]),
        "heatmap": HEATMAPS,
        "operating_point": tuple(card["operating_points"]),
    }
    chosen = {"operating_point": str(card["default_operating_point"])}
    for name, values in known.items():
        value = given.get(name, chosen.get(name, values[0]))
        if isinstance(value, bytes | bytearray):
            value = value.decode(errors="replace")
        if value not in values:
            raise RequestError(
                400, "UnknownValue", f"{name} is {_short(value)}: known are {_listing(values)}."
            )
        chosen[name] = value
    return chosen["class"], chosen["heatmap"], chosen["operating_point"]


def _listing(names: Any) -> str:
    return ", ".join(name if name.isprintable() else repr(name) for name in names)[:200]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


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
    if not np.isfinite(logits).all():
        raise ValueError("the graph gave a logit that is no finite number")
    scaled = logits.astype(np.float64) / card["temperature"]
    odds = np.exp(scaled - scaled.max())
    positive = round(float(odds[POSITIVE] / odds.sum()), DECIMALS)
    threshold = round(
        float(card["operating_points"][question.operating_point]["threshold"]), DECIMALS
    )
    label = int(positive >= threshold)
    named = question.of_class != PREDICTED
    return Verdict(
        probability=(round(1 - positive, DECIMALS), positive),
        threshold=threshold,
        label=label,
        shown=card["classes"].index(question.of_class) if named else label,
    )


def answer(
    card: Card,
    question: Question,
    verdict: Verdict,
    request_id: str,
    logits: Logits,
    maps: Maps,
    overlay: bytes | None,
    noticed: Sequence[str] = (),
) -> dict[str, Any]:
    """The contract's answer for logits (2,) and maps (2, h, w); `overlay` is a PNG.

    `noticed` are warnings about the image.
    """
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
    }
    if question.heatmap != "none":
        said["heatmap"] = {
            "class": classes[verdict.shown],
            "map": [[_digits(value) for value in row] for row in maps[verdict.shown]],
            "bias": card["bias"][verdict.shown],
        }
        if overlay is not None:
            said["heatmap"]["overlay"] = base64.b64encode(overlay).decode()
    return {**said, "warnings": [*_warnings(card, *maps.shape[1:]), *noticed]}


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
