"""The inputs of a request: image and options, from the fields that TorchServe passes."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handlers.card import Archived
from handlers.errors import RequestError

OPTIONS = ("class", "heatmap", "operating_point")
HEATMAPS = ("overlay", "map", "none")
PREDICTED = "predicted"

MAX_VALUES = 1000  # of a JSON body, which holds an image and three options

_JSON = "application/json"
_DATA_URL = re.compile(r"data:[^,]*;base64,")


@dataclass(frozen=True)
class Inputs:
    """The bytes of the image and the options of a request; `map_class` may be `predicted`.

    `explain`: the answer has the maps of both classes and the erasure test.
    """

    image: bytes | bytearray
    map_class: str
    heatmap: str
    operating_point: str
    explain: bool = False


def read(
    fields: Mapping[str, Any], content_type: str, card: Archived, *, explain: bool = False
) -> Inputs:
    """The inputs of one request, from its fields by name.

    TorchServe makes a field of each parameter of the query and each part of a form: bytes, or text
    if that is the part's type. The body is the field `body`, already decoded if its type is JSON.
    The field whose name is not that of an option is the image, or the JSON object that holds it.

    Raises:
        RequestError: there is not exactly one image, an option or its value is unknown, or the JSON
            or base64 is broken.
    """
    options = {name: value for name, value in fields.items() if name in OPTIONS}
    images = {name: value for name, value in fields.items() if name not in OPTIONS}
    if not images:
        raise RequestError(
            400, "NoImage", "There is no image: send it as the body, or as the one file of a form."
        )
    if len(images) > 1:
        raise RequestError(
            400,
            "ManyImages",
            f"The fields {_listing(images)} can't all be the image: send exactly one. "
            f"Options are {_listing(OPTIONS)}.",
        )
    (value,) = images.values()
    if _is_json(value, content_type):
        value, json_options = _unpack(_object(value))
        repeated = json_options.keys() & options.keys()
        if repeated:
            raise RequestError(
                400, "GivenTwice", f"{_listing(sorted(repeated))}: give it in the query or in JSON."
            )
        options |= json_options
    elif isinstance(value, str):
        raise RequestError(
            415,
            "NotAnImage",
            "A text is no image: send the bytes of a JPEG or PNG file, "
            "with Content-Type application/octet-stream.",
        )
    return Inputs(value, *_choose(options, card), explain)


def _is_json(value: Any, content_type: str) -> bool:
    if not isinstance(value, bytes | bytearray | str):
        return True  # decoded by a TorchServe with other settings than ours
    kind = content_type.partition(";")[0].strip().lower()
    # TorchServe decodes `application/json` only and passes everything else unchanged, broken JSON
    # too; gRPC has no content types. No image begins with a brace or a bracket.
    start = value[:64].lstrip()[:1]
    return kind == _JSON or kind.endswith("+json") or start in (b"{", b"[", "{", "[")


def _object(value: Any) -> dict[str, Any]:
    if isinstance(value, bytes | bytearray | str):
        _check_values(value)
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


def _check_values(text: bytes | bytearray | str) -> None:
    """Refuse JSON of very many values before it is built: ten million take gigabytes.

    Brackets and commas are counted wherever they are; base64 has none of them.

    Raises:
        RequestError: 413.
    """
    content = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    count = sum(content.count(sign) for sign in (b"[", b"{", b","))
    if count > MAX_VALUES:
        raise RequestError(
            413,
            "TooManyValues",
            f"The JSON has {count:,} brackets and commas, the limit is {MAX_VALUES:,}: "
            'send {"image": "<base64>", …} with its options alone.',
        )


def _unpack(document: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """The bytes of the image and the options of a JSON body."""
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


def _choose(options: Mapping[str, Any], card: Archived) -> tuple[str, str, str]:
    """The class, heatmap and operating point of a request, or their defaults."""
    valid: dict[str, tuple[str, ...]] = {
        "class": (PREDICTED, *card.classes),
        "heatmap": HEATMAPS,
        "operating_point": tuple(card.operating_points),
    }
    chosen = {"operating_point": card.default_operating_point}
    for name, values in valid.items():
        value = options.get(name, chosen.get(name, values[0]))
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
