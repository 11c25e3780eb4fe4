import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers import card, inputs, response
from handlers.card import ArchivedNetwork
from handlers.engine import ModelOutput
from handlers.errors import RequestError
from handlers.inputs import Inputs
from handlers.response import Answer, prefers_png
from tests.cards import archived, operating_point


def card_with(**changes: Any) -> ArchivedNetwork:
    parsed = card.parse(
        archived(
            **{
                "bias": [-0.25, 0.25],
                "operating_points": {
                    "screening": operating_point(0.2),
                    "balanced": operating_point(0.5),
                    "rule_in": operating_point(0.9),
                },
                "warnings": ["trained on phantoms: not for patients"],
                **changes,
            }
        )
    )
    assert isinstance(parsed, ArchivedNetwork)
    return parsed


CARD = card_with()
IMAGE = b"\x89PNG any bytes"
BASE64 = base64.b64encode(IMAGE).decode()
DEFAULTS = ("predicted", "overlay", "balanced")

RAW, AS_JSON, FORM = "image/png", "application/json", "multipart/form-data; boundary=b"


def read(fields: dict[str, Any], content_type: str = "") -> Inputs:
    request = inputs.read(fields, content_type, CARD)
    assert bytes(request.image) == IMAGE
    return request


def options(request: Inputs) -> tuple[str, str, str]:
    return request.map_class, request.heatmap, request.operating_point


def refused(fields: dict[str, Any], content_type: str = "") -> RequestError:
    with pytest.raises(RequestError) as refusal:
        inputs.read(fields, content_type, CARD)
    return refusal.value


# Finding the image


@pytest.mark.parametrize(
    ("fields", "content_type"),
    [
        pytest.param({"body": bytearray(IMAGE)}, RAW, id="raw"),
        pytest.param({"body": bytearray(IMAGE)}, "", id="raw without a type"),
        pytest.param({"data": IMAGE}, "", id="gRPC"),
        pytest.param({"anything": bytearray(IMAGE)}, FORM, id="form"),
        pytest.param({"body": {"image": BASE64}}, AS_JSON, id="JSON"),
        pytest.param({"body": {"image": f"data:image/png;base64,{BASE64}"}}, AS_JSON, id="URL"),
        pytest.param(
            {"body": json.dumps({"image": BASE64}).encode()},
            "application/json; charset=utf-8",
            id="JSON that TorchServe does not know",
        ),
        pytest.param({"body": b' \n{"image": "%s"}' % BASE64.encode()}, "", id="JSON untold"),
        pytest.param({"body": json.dumps({"image": BASE64})}, "text/plain", id="JSON as text"),
        pytest.param({"file": {"image": BASE64}}, FORM, id="JSON as a form's file"),
    ],
)
def test_finding_the_image(fields: dict[str, Any], content_type: str) -> None:
    assert options(read(fields, content_type)) == DEFAULTS


CHOSEN = {"class": "NORMAL", "heatmap": "none", "operating_point": "rule_in"}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(
            {"x": IMAGE, **{k: bytearray(v.encode()) for k, v in CHOSEN.items()}}, id="as bytes"
        ),
        pytest.param({"x": IMAGE, **CHOSEN}, id="as text"),
        pytest.param({"body": {"image": BASE64, **CHOSEN}}, id="in JSON"),
        pytest.param(
            {"body": {"image": BASE64, "heatmap": "none"}, "class": b"NORMAL"}
            | {"operating_point": b"rule_in"},
            id="in JSON and query",
        ),
    ],
)
def test_options_by_every_road(fields: dict[str, Any]) -> None:
    assert options(read(fields)) == ("NORMAL", "none", "rule_in")


@pytest.mark.parametrize("name", ["class", "heatmap", "operating_point"])
def test_every_valid_value_is_accepted(name: str) -> None:
    valid = {
        "class": ["predicted", "NORMAL", "PNEUMONIA"],
        "heatmap": ["overlay", "map", "none"],
        "operating_point": ["screening", "balanced", "rule_in"],
    }
    place = list(valid).index(name)
    for value in valid[name]:
        assert options(read({"body": IMAGE, name: value}))[place] == value


@pytest.mark.parametrize("name", ["class", "heatmap", "operating_point"])
@pytest.mark.parametrize("value", [b"nonsense", "", "NORMAl", b"\xff\xd8\xff" * 999, 7, None, []])
def test_an_unknown_value_is_refused_with_the_valid_values(name: str, value: Any) -> None:
    valid = {"class": "PNEUMONIA", "heatmap": "overlay", "operating_point": "screening"}[name]
    for fields in ({"body": IMAGE, name: value}, {"body": {"image": BASE64, name: value}}):
        error = refused(fields)
        assert (error.status, error.type) == (400, "UnknownValue")
        assert name in str(error)
        assert valid in str(error)
        assert len(str(error)) < 200


@pytest.mark.parametrize(
    ("fields", "content_type", "status", "kind", "words"),
    [
        pytest.param({}, FORM, 400, "NoImage", "one file", id="empty form"),
        pytest.param(CHOSEN, FORM, 400, "NoImage", "one file", id="options alone"),
        pytest.param({"class": IMAGE}, FORM, 400, "NoImage", "one file", id="reserved name"),
        pytest.param(
            {"one": IMAGE, "other": IMAGE}, FORM, 400, "ManyImages", "one, other", id="two files"
        ),
        pytest.param(
            {"body": IMAGE, "heat": b"x"}, RAW, 400, "ManyImages", "heat", id="unknown option"
        ),
        pytest.param({"body": [1, 2]}, AS_JSON, 400, "NotAnObject", "object", id="list"),
        pytest.param({"body": 7}, AS_JSON, 400, "NotAnObject", "object", id="number"),
        pytest.param({"body": None}, AS_JSON, 400, "NotAnObject", "object", id="null"),
        pytest.param({"body": True}, AS_JSON, 400, "NotAnObject", "object", id="true"),
        pytest.param({"body": "lung"}, AS_JSON, 400, "BrokenJSON", "JSON", id="string"),
        pytest.param({"body": b"[1, 2]"}, "", 400, "NotAnObject", "object", id="list untold"),
        pytest.param({"body": b'{"image": '}, AS_JSON, 400, "BrokenJSON", "mend", id="broken"),
        pytest.param({"body": b'{"image": '}, "", 400, "BrokenJSON", "mend", id="broken untold"),
        pytest.param({"body": IMAGE}, AS_JSON, 400, "BrokenJSON", "mend", id="not JSON"),
        pytest.param({"body": b'{"a": "\xff"}'}, "", 400, "BrokenJSON", "mend", id="no UTF-8"),
        pytest.param({"body": b"[" * 999}, "", 400, "BrokenJSON", "mend", id="deep"),
        pytest.param({"body": b"[" * 9_999}, "", 413, "TooManyValues", "9,999", id="deeper"),
        pytest.param(
            {"body": b"[" + b"[]," * 500_000 + b"[]]"},
            AS_JSON,
            413,
            "TooManyValues",
            "1,000,002",
            id="many lists",
        ),
        pytest.param(
            {"body": "{" + '"a":1,' * 2_000 + '"b":1}'},
            AS_JSON,
            413,
            "TooManyValues",
            "2,001",
            id="many keys",
        ),
        pytest.param({"body": {}}, AS_JSON, 400, "NoImage", "base64", id="empty object"),
        pytest.param({"body": {"image": 7}}, AS_JSON, 400, "NoImage", "base64", id="no text"),
        pytest.param({"body": {"image": None}}, AS_JSON, 400, "NoImage", "base64", id="null"),
        pytest.param(
            {"body": {"picture": "x"}}, AS_JSON, 400, "UnknownKey", "picture", id="unknown key"
        ),
        pytest.param(
            {"body": {"image": BASE64, "Class": "x"}},
            AS_JSON,
            400,
            "UnknownKey",
            "Class",
            id="case",
        ),
        pytest.param(
            {"body": {"image": BASE64, "class": "NORMAL"}, "class": b"NORMAL"},
            AS_JSON,
            400,
            "GivenTwice",
            "class",
            id="twice",
        ),
        pytest.param(
            {"body": {"image": "not base64!"}}, AS_JSON, 400, "BadBase64", "4648", id="base64"
        ),
        pytest.param(
            {"body": {"image": BASE64 + "\n"}}, AS_JSON, 400, "BadBase64", "breaks", id="wrapped"
        ),
        pytest.param({"body": {"image": "abc"}}, AS_JSON, 400, "BadBase64", "4648", id="padding"),
        pytest.param({"body": {"image": "lüng"}}, AS_JSON, 400, "BadBase64", "4648", id="umlaut"),
        pytest.param(
            {"body": {"image": "data:image/png,x"}}, AS_JSON, 400, "BadBase64", "4648", id="URL"
        ),
        pytest.param({"body": "a lung"}, "text/plain", 415, "NotAnImage", "octet", id="text"),
        pytest.param({"body": "<html>"}, "text/html", 415, "NotAnImage", "octet", id="HTML"),
    ],
)
def test_refusals(
    fields: dict[str, Any], content_type: str, status: int, kind: str, words: str
) -> None:
    error = refused(fields, content_type)
    assert (error.status, error.type) == (status, kind)
    assert words in str(error)


def test_an_empty_image_is_for_the_decoder_to_refuse() -> None:
    for fields in ({"body": b""}, {"body": {"image": ""}}):
        assert inputs.read(fields, "", CARD).image == b""


def test_reading_does_not_change_the_request() -> None:
    fields = {"body": {"image": BASE64, "class": "NORMAL"}}
    inputs.read(fields, AS_JSON, CARD)
    assert fields == {"body": {"image": BASE64, "class": "NORMAL"}}


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("image"), inner),
    max_leaves=8,
)


@given(
    fields=st.dictionaries(
        st.sampled_from(["body", "data", "class", "heatmap", "x"]) | st.text(),
        st.binary() | st.binary().map(bytearray) | st.text() | _JSON,
        max_size=3,
    ),
    content_type=st.sampled_from([AS_JSON, "", "text/plain", FORM]),
)
def test_any_request_is_a_question_or_a_request_error(
    fields: dict[str, Any], content_type: str
) -> None:
    try:
        image: object = inputs.read(fields, content_type, CARD).image
    except RequestError as error:
        image = b"" if error.status in (400, 413, 415) and len(str(error)) < 700 else error
    assert isinstance(image, bytes | bytearray)


# Accept


@pytest.mark.parametrize(
    ("accept", "png"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("image/png", True),
        ("IMAGE/PNG", True),
        (" image/png ; q=0.5 ", True),
        ("image/png, */*", False),  # a tie
        ("image/png, */*;q=0.9", True),
        ("image/png;q=0.4, application/json;q=0.5", False),
        ("application/json;q=0.4,image/png;q=0.5", True),
        ("application/json, image/png", False),
        ("application/*;q=0.1, image/png;q=0.2", True),
        ("image/*", True),
        ("image/*, application/*", False),
        ("image/png;q=0", False),
        ("image/png;q=0, */*", False),
        ("image/*;q=0.5, image/png;q=0, */*;q=0.1", False),
        ("image/jpeg", False),
        ("image/png;q=", False),
        ("image/png;q=much", False),
        ("image/png;q=nan", False),
        ("image/png;q=1.5", False),
        ("image/png;q=-1, application/json;q=0", False),
        ("image/png;level=1;q=0.3", True),
        ("image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        (",,;;,", False),
        ("image/png" * 10_000, False),
    ],
)
def test_png_is_preferred_by_weight(accept: str, png: bool) -> None:
    assert prefers_png(accept) is png


@given(st.text())
def test_no_accept_header_is_too_odd(accept: str) -> None:
    assert prefers_png(accept) in (True, False)


# Answering


def inputs_for(
    map_class: str = "predicted", point: str = "balanced", heatmap: str = "overlay"
) -> Inputs:
    return Inputs(b"", map_class, heatmap, point)


def output(normal: float, pneumonia: float) -> ModelOutput:
    logits = np.array([normal, pneumonia], np.float32)
    return ModelOutput(logits, np.zeros((2, 4, 4), np.float32))


def answer_to(normal: float, pneumonia: float, **changes: Any) -> Answer:
    return response.answer(card_with(**changes), inputs_for(), [output(normal, pneumonia)])


def probabilities(answer: Answer) -> list[float]:
    return list(response.document(CARD, answer, "id")["probability"].values())


def test_probability_is_the_softmax_of_logits_over_temperature() -> None:
    calibrated = probabilities(answer_to(-1.0, 1.0, temperature=2.0))
    assert calibrated[1] == round(1 / (1 + math.exp(-1)), 8) == 0.73105858
    assert calibrated[0] == 0.26894142
    assert probabilities(answer_to(0.0, 0.0)) == [0.5, 0.5]
    assert probabilities(answer_to(-3e38, 3e38)) == [0.0, 1.0]
    assert probabilities(answer_to(9e3, -9e3)) == [1.0, 0.0]


@given(st.floats(-40, 40, width=32), st.floats(-40, 40, width=32), st.floats(0.05, 20))
def test_printed_numbers_add_up_and_decide(
    normal: float, pneumonia: float, temperature: float
) -> None:
    exact = 1 / (1 + math.exp(min(700, (normal - pneumonia) / temperature)))
    for threshold in (0.5, exact, round(exact, 8), min(1.0, exact + 1e-9), 0.0, 1.0):
        points = {"balanced": operating_point(threshold)}
        answer = answer_to(normal, pneumonia, temperature=temperature, operating_points=points)
        printed = json.loads(
            json.dumps([*probabilities(answer), answer.decisions["balanced"].threshold])
        )
        assert printed[0] + printed[1] == pytest.approx(1, abs=1e-8)
        assert printed[1] == pytest.approx(exact, abs=1e-8)
        assert answer.decision.label == (printed[1] >= printed[2])
        assert printed[2] == pytest.approx(threshold, abs=1e-8)


def test_the_operating_point_decides() -> None:
    labels = {"screening": 1, "balanced": 1, "rule_in": 0}
    for point, label in labels.items():
        answer = response.answer(CARD, inputs_for(point=point), [output(0.0, 1.0)])  # 0.731
        assert answer.decision.label == label
        assert {name: each.label for name, each in answer.decisions.items()} == labels


def test_the_map_that_is_shown() -> None:
    for normal, pneumonia, predicted in ((1.0, -1.0, 0), (-1.0, 1.0, 1)):
        for map_class, shown in (("predicted", predicted), ("NORMAL", 0), ("PNEUMONIA", 1)):
            answer = response.answer(CARD, inputs_for(map_class), [output(normal, pneumonia)])
            assert answer.shown == shown


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_no_decision_on_a_logit_that_is_not_finite(broken: float) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        answer_to(0.0, broken)


LOGITS = np.array([-1.7101132, 1.7254419], np.float32)
MAPS = np.stack([np.full((5, 6), -1.4601132), np.full((5, 6), 1.4754419)]).astype(np.float32)


def answer(heatmap: str = "overlay", maps: Any = MAPS, overlay: bytes | None = b"PNG") -> Any:
    answer = response.answer(CARD, inputs_for(heatmap=heatmap), [ModelOutput(LOGITS, maps)])
    return json.loads(response.encode(response.document(CARD, answer, "id-1", overlay)))


def test_the_whole_answer() -> None:
    assert answer() == {
        "model": "resnet50",
        "version": "1.0",
        "request_id": "id-1",
        "label": "PNEUMONIA",
        "probability": {"NORMAL": 0.03120257, "PNEUMONIA": 0.96879743},
        "logit": {"NORMAL": -1.71011317, "PNEUMONIA": 1.72544193},
        "temperature": 1.0,
        "threshold": 0.5,
        "operating_point": "balanced",
        "decisions": {
            "screening": {"threshold": 0.2, "label": "PNEUMONIA"},
            "balanced": {"threshold": 0.5, "label": "PNEUMONIA"},
            "rule_in": {"threshold": 0.9, "label": "PNEUMONIA"},
        },
        "heatmap": {
            "class": "PNEUMONIA",
            "map": [[1.47544193] * 6] * 5,
            "bias": 0.25,
            "overlay": "UE5H",
        },
        "warnings": ["trained on phantoms: not for patients"],
    }


def test_map_and_bias_give_the_logit() -> None:
    heatmap = answer()["heatmap"]
    assert np.mean(heatmap["map"]) + heatmap["bias"] == pytest.approx(LOGITS[1], abs=1e-6)


def test_numbers_alone_and_no_heatmap() -> None:
    assert set(answer("map", overlay=None)["heatmap"]) == {"class", "map", "bias"}
    assert "heatmap" not in answer("none", overlay=None)


@pytest.mark.parametrize(("shape", "coarse"), [((4, 4), False), ((3, 3), True), ((3, 8), True)])
def test_a_coarse_map_is_warned_of(shape: tuple[int, int], coarse: bool) -> None:
    warnings = answer(maps=np.zeros((2, *shape), np.float32))["warnings"]
    assert warnings[0] == "trained on phantoms: not for patients"
    assert any("too coarse to locate" in warning for warning in warnings) is coarse
    assert CARD.warnings == ("trained on phantoms: not for patients",)


def test_numbers_that_json_has_not_are_errors() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        response.encode({"map": [math.nan]})


def test_a_refusal() -> None:
    reply = response.refusal(415, "NotAnImage", "Send a JPEG.")
    assert (reply.status, reply.content_type) == (415, "application/json")
    expected = {"code": 415, "type": "NotAnImage", "message": "Send a JPEG."}
    assert json.loads(reply.body) == expected
