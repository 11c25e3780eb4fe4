import base64
import hashlib
import io
import json
import logging
import math
import shutil
import struct
import sys
import threading
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from ts.context import Context
from ts.model_loader import ModelLoaderFactory
from ts.protocol import otf_message_handler as protocol
from ts.service import Service
from ts.utils.util import list_classes_from_module

from handlers import classifier, engine, pixels
from handlers.classifier import Classifier
from handlers.engine import ModelOutput, OnnxRuntime
from tests.cards import archived, ensemble

SIZE = 64
GAIN = 8.0  # logits from black to white

# Maps of 4 x 4 cells: the brighter, the more PNEUMONIA. A white pixel in the first corner is more
# than the table of corners holds, and the graph fails on it, as a graph may on what no one foresaw.
GRAPH = """
<ir_version: 9, opset_import: ["": 17]>
brightness (uint8[{batch},64,64] pixels) => (float[N,2] logits, float[N,2,4,4] maps)
<
  int64[1] channel = {{1}}, int64[2] first = {{0, 0}}, int64[2] last = {{1, 1}},
  int64[2] sides = {{1, 2}}, int64[1] corners = {{250}}, float[1] nothing = {{0}},
  float[2,1,1,1] gain = {{-0.03137255, 0.03137255}}, float[2] bias = {{4.0, -4.0}}
>
{{
  grey = Cast<to=1>(pixels)
  image = Unsqueeze(grey, channel)
  cells = AveragePool<kernel_shape=[16,16], strides=[16,16]>(image)
  maps = Conv(cells, gain)
  means = ReduceMean<axes=[2,3], keepdims=0>(maps)
  corner = Slice(pixels, first, last, sides)
  index = Cast<to=7>(corner)
  table = Expand(nothing, corners)
  zeros = Gather(table, index)
  zero = ReduceSum<keepdims=0>(zeros)
  biased = Add(means, bias)
  logits = Add(biased, zero)
}}
"""

JSON_TYPE, RAW, FORM = "application/json", "application/octet-stream", "multipart/form-data"


def picture(grey: int, side: int = 80, format: str = "PNG") -> bytes:
    """An even picture of one grey."""
    file = io.BytesIO()
    Image.new("L", (side, side), grey).save(file, format)
    return file.getvalue()


def logit(grey: int) -> float:
    """What the graph gives PNEUMONIA for an even picture; NORMAL gets the opposite."""
    return GAIN * grey / 255 - GAIN / 2


def write(folder: Path, batch: str = "N", **changes: Any) -> Path:
    """A model's folder as TorchServe unpacks it, without the handlers."""
    folder.mkdir(exist_ok=True)
    graph = folder / "graph.onnx"
    onnx.save(onnx.parser.parse_model(GRAPH.format(batch=batch)), graph)
    card = archived(
        **{
            "input": {"size": SIZE, "mode": "L"},
            "map": {"rows": 4, "columns": 4, "dilated": False, "scale": GAIN},
            "bias": [GAIN / 2, -GAIN / 2],
            "graph": {
                "file": "graph.onnx",
                "sha256": hashlib.sha256(graph.read_bytes()).hexdigest(),
                "engine": "onnxruntime",
                "precision": "f32",
            },
            "golden": {"file": "golden.png", "sha256": hashlib.sha256(picture(100)).hexdigest()},
            "golden_logits": [-logit(100), logit(100)],
            **changes,
        }
    )
    (folder / "golden.png").write_bytes(picture(100))
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def context_of(folder: Path) -> Context:
    return Context("resnet50", str(folder), {}, 8, None, "0.12.0")


def started(folder: Path) -> Classifier:
    handler = Classifier()
    handler.initialize(context_of(folder))
    return handler


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("model") / "resnet50")


@pytest.fixture(scope="module")
def handler(folder: Path) -> Classifier:
    return started(folder)


class Wire(io.BytesIO):
    """What the frontend sent, as the worker's socket gives it out."""

    def recv(self, length: int) -> bytes:
        return self.read(length)


def part(content: bytes, content_type: str = "", name: str = "body") -> dict[str, Any]:
    """One field of a request, through TorchServe's own reading of it."""
    wire = b"".join(struct.pack("!i", len(w)) + w for w in (name.encode(), content_type.encode()))
    result = protocol._retrieve_input_data(Wire(wire + struct.pack("!i", len(content)) + content))
    assert result is not None
    return result


def request(*parts: dict[str, Any], **headers: str) -> dict[str, Any]:
    """One request as the worker has read it; `_` stands for the hyphen of a header's name."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {
        "requestId": b"from-torchserve",
        "parameters": parts,
        "headers": [{"name": k.encode(), "value": v.encode()} for k, v in named.items()],
    }


def raw(content: bytes, **headers: str) -> dict[str, Any]:
    return request(part(content, RAW), **headers)


def as_json(reply: object, **headers: str) -> dict[str, Any]:
    content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
    return request(part(content, JSON_TYPE), Content_Type=JSON_TYPE, **headers)


class Answer:
    """One answer as the frontend gets it."""

    def __init__(self, context: Context, index: int, body: bytes) -> None:
        self.status, self.phrase = context.get_response_status(index)
        self.content_type = context.get_response_content_type(index)
        self.body = body

    @property
    def json(self) -> Any:
        assert self.content_type == JSON_TYPE
        return json.loads(self.body)

    @property
    def probability(self) -> float:
        assert self.status == 200, self.body
        return float(self.json["probability"]["PNEUMONIA"])


def answers(handler: Classifier, *requests: Mapping[str, Any]) -> list[Answer]:
    """A batch through TorchServe's own unpacking and packing."""
    context = context_of(Path())
    headers, data, ids = Service.retrieve_data_for_inference(requests)
    context.request_ids, context.request_processor = ids, headers
    bodies = handler.handle(data, context)
    assert len(bodies) == len(requests)
    assert protocol.create_predict_response(bodies, ids, "", 200, context)
    return [Answer(context, index, body) for index, body in enumerate(bodies)]


def answer(handler: Classifier, request: Mapping[str, Any]) -> Answer:
    return answers(handler, request)[0]


# Starting


def test_torchserve_finds_a_single_class_in_the_file() -> None:
    assert list_classes_from_module(classifier) == [Classifier]


def test_torchserve_loads_the_handler_from_an_archives_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(classifier.__file__, write(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "classifier", raising=False)
    service = ModelLoaderFactory.get_model_loader().load(
        "resnet50", str(tmp_path), "classifier.py", batch_size=1
    )
    assert Path(sys.modules["classifier"].__file__ or "") == tmp_path / "classifier.py"
    assert service._entry_point.__func__.__qualname__ == "Classifier.handle"
    monkeypatch.delitem(sys.modules, "classifier")


def test_a_graph_with_a_wrong_hash_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with (tmp_path / "graph.onnx").open("ab") as graph:
        graph.write(b"\0")
    with pytest.raises(RuntimeError, match=r"graph\.onnx has sha256 .*make archive"):
        started(tmp_path)
    (tmp_path / "graph.onnx").unlink()
    with pytest.raises(RuntimeError, match=r"no graph\.onnx"):
        started(tmp_path)
    (tmp_path / "card.json").unlink()
    with pytest.raises(RuntimeError, match=r"no card\.json"):
        started(tmp_path)


def test_the_golden_image_must_be_answered_as_before(tmp_path: Path) -> None:
    started(write(tmp_path, golden_logits=[-logit(100) + 9e-4, logit(100)]))
    with pytest.raises(RuntimeError, match="resnet50 answers the golden image with logits"):
        started(write(tmp_path, golden_logits=[-logit(100) + 2e-3, logit(100)]))
    (write(tmp_path) / "golden.png").write_bytes(picture(101))
    with pytest.raises(RuntimeError, match=r"golden\.png has sha256"):
        started(tmp_path)


def test_a_map_with_a_wrong_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="make archive"):
        started(write(tmp_path, map={"rows": 2, "columns": 2, "scale": 1.0}))


def test_threads_come_from_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNEUMOCAM_THREADS", "1")

    def used(threads: int | None = None) -> int:
        runs = engine.load("onnxruntime", folder / "graph.onnx", threads)
        assert isinstance(runs, OnnxRuntime)
        return int(runs._session.get_session_options().intra_op_num_threads)

    assert used() == 1
    assert used(threads=2) == 2
    for nonsense in ("0", "-1", "many", "1.5", "²"):
        monkeypatch.setenv("PNEUMOCAM_THREADS", nonsense)
        with pytest.raises(ValueError, match=r"PNEUMOCAM_THREADS=.*whole number"):
            engine.load("openvino", folder / "graph.onnx")


@pytest.mark.parametrize("name", engine.OF_ONNX)
def test_logits_and_maps_of_any_number_of_images(name: str, folder: Path) -> None:
    runs = engine.load(name, folder / "graph.onnx")
    for count in (1, 2, 5):
        images = np.full((count, SIZE, SIZE), 100, np.uint8)
        result = runs(images)
        assert len(result) == count
        for logits, maps, distances in result:
            assert maps.shape == (2, 4, 4)
            expected = maps.mean((1, 2)) + np.array([GAIN / 2, -GAIN / 2])
            np.testing.assert_allclose(logits, expected, atol=1e-5)
            assert distances is None


# Answering


GREY = picture(100)
BASE64 = base64.b64encode(GREY).decode()


def test_an_answer(handler: Classifier) -> None:
    result = answer(handler, raw(GREY))
    assert (result.status, result.phrase) == (200, "OK")
    reply = result.json
    assert list(reply) == [
        "model",
        "version",
        "request_id",
        "label",
        "probability",
        "logit",
        "temperature",
        "threshold",
        "operating_point",
        "decisions",
        "heatmap",
        "warnings",
    ]
    assert (reply["model"], reply["version"], reply["label"]) == ("resnet50", "1.0", "NORMAL")
    assert reply["logit"]["PNEUMONIA"] == pytest.approx(logit(100), abs=1e-5)
    assert reply["probability"]["PNEUMONIA"] == pytest.approx(
        1 / (1 + np.exp(-2 * logit(100))), abs=1e-6
    )
    assert reply["heatmap"]["class"] == "NORMAL"
    assert np.mean(reply["heatmap"]["map"]) + reply["heatmap"]["bias"] == pytest.approx(
        reply["logit"]["NORMAL"], abs=1e-5
    )
    assert reply["warnings"] == ["a stand-in that measures brightness"]
    assert size_of(base64.b64decode(reply["heatmap"]["overlay"])) == (384, 384)


def size_of(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return image.size


def test_every_way_to_send_an_image_gives_the_same_answer(handler: Classifier) -> None:
    sent = [
        raw(GREY),
        request(part(GREY)),
        request(part(GREY, "image/png", "anything"), Content_Type=FORM),
        request(part(GREY, "text/plain"), Content_Type="text/plain"),
        as_json({"image": BASE64}),
        as_json({"image": f"data:image/png;base64,{BASE64}"}),
        request(part(b'{"image": "%s"}' % BASE64.encode(), "application/json; charset=utf-8")),
        raw(picture(100, 200)),
    ]
    result = answers(handler, *sent)
    assert len({each.body for each in result}) == 1
    assert result[0].status == 200


def test_options_by_every_road(handler: Classifier) -> None:
    options = {"heatmap": "map", "operating_point": "rule_in", "class": "PNEUMONIA"}
    fields = [part(value.encode(), "", name) for name, value in options.items()]
    texts = [part(value.encode(), "text/plain", name) for name, value in options.items()]
    sent = [
        request(part(picture(230), RAW), *fields),
        request(part(picture(230), "image/png", "x"), *texts, Content_Type=FORM),
        as_json({"image": base64.b64encode(picture(230)).decode(), **options}),
    ]
    for result in answers(handler, *sent):
        reply = result.json
        assert (reply["operating_point"], reply["threshold"]) == ("rule_in", 0.9999)
        assert reply["label"] == "NORMAL"  # .9985 is not enough to rule in
        assert reply["heatmap"]["class"] == "PNEUMONIA"
        assert "overlay" not in reply["heatmap"]


def test_no_heatmap(handler: Classifier) -> None:
    reply = answer(handler, request(part(GREY, RAW), part(b"none", "", "heatmap"))).json
    assert "heatmap" not in reply


@pytest.mark.parametrize("name", ["Accept", "accept", "ACCEPT"])
@pytest.mark.parametrize("heatmap", ["overlay", "map", "none"])
def test_the_overlay_itself(handler: Classifier, name: str, heatmap: str) -> None:
    request_sent = request(
        part(GREY, RAW), part(heatmap.encode(), "", "heatmap"), **{name: "image/png"}
    )
    result = answer(handler, request_sent)
    assert (result.status, result.content_type) == (200, "image/png")
    assert size_of(result.body) == (384, 384)
    reply = answer(handler, raw(GREY)).json
    assert result.body == base64.b64decode(reply["heatmap"]["overlay"])


def test_the_overlay_of_each_class(handler: Classifier) -> None:
    def overlay(of_class: str) -> bytes:
        request_sent = request(
            part(GREY, RAW), part(of_class.encode(), "", "class"), Accept="image/png"
        )
        return answer(handler, request_sent).body

    assert overlay("predicted") == overlay("NORMAL") != overlay("PNEUMONIA")


def test_an_error_is_json_even_where_png_is_accepted(handler: Classifier) -> None:
    result = answer(handler, raw(b"text", Accept="image/png"))
    assert (result.status, result.json["code"]) == (415, 415)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, "from-torchserve"),
        ({"X_Request_Id": "mine-7"}, "mine-7"),
        ({"x_request_id": "mine-7"}, "mine-7"),
        ({"X_REQUEST_ID": "a" * 999}, "a" * 128),
        ({"X_Request_Id": "one\r\ntwo\x1b[31m"}, "onetwo[31m"),
        ({"X_Request_Id": " \n "}, "from-torchserve"),
    ],
)
def test_the_request_id(handler: Classifier, headers: dict[str, str], expected: str) -> None:
    assert answer(handler, raw(GREY, **headers)).json["request_id"] == expected


def test_the_card_for_torchserves_describe(handler: Classifier, folder: Path) -> None:
    result = answer(handler, request(describe="True"))
    assert result.json == json.loads((folder / "card.json").read_text())
    # A client's header of that name changes nothing.
    assert answer(handler, raw(GREY, describe="True")).probability < 0.5
    assert answer(handler, raw(b"", describe="True")).status == 400


# Explaining


def split(left: int, right: int) -> bytes:
    """A picture of two greys."""
    file = io.BytesIO()
    halves = np.repeat([[left, right]], SIZE // 2, axis=1)
    Image.fromarray(np.repeat(halves, SIZE, axis=0).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_explanations_and_predictions_share_a_batch(handler: Classifier) -> None:
    explained, predicted = answers(handler, raw(split(0, 255), explain="True"), raw(GREY))
    assert "heatmap" in predicted.json
    assert "erasure" not in predicted.json
    reply = explained.json
    assert "heatmap" not in reply
    assert [each["class"] for each in reply["heatmaps"]] == ["NORMAL", "PNEUMONIA"]
    for each in reply["heatmaps"]:
        logit = reply["logit"][each["class"]]
        assert each["completeness"] == pytest.approx(
            np.mean(each["map"]) + each["bias"] - logit, abs=1e-6
        )
        assert abs(each["completeness"]) < 1e-3


def test_the_erasure_test_erases_the_evidence_for_the_class(handler: Classifier) -> None:
    """Half is white; two white cells of sixteen become the mean grey: 8 × .5 / 8 of a logit."""
    reply = answer(
        handler, request(part(split(0, 255), RAW), part(b"PNEUMONIA", "", "class"), explain="True")
    ).json
    test = reply["erasure"]
    assert (test["class"], test["share"]) == ("PNEUMONIA", 0.125)
    assert test["probability"] == reply["probability"]["PNEUMONIA"] == pytest.approx(0.5)
    grey = 128 / 255
    expected = 1 / (1 + math.exp(2 * GAIN * (1 - grey) / 8))
    assert test["without_strongest"] == pytest.approx(expected, abs=1e-5)
    assert test["fall"] == pytest.approx(0.5 - expected, abs=1e-5)
    assert len(test["without_random"]) == 8
    assert test["random_fall"] < test["fall"]


def test_options_of_an_explanation(handler: Classifier) -> None:
    none = answer(
        handler, request(part(GREY, RAW), part(b"none", "", "heatmap"), explain="True")
    ).json
    assert "heatmaps" not in none
    assert "erasure" in none
    png = answer(handler, raw(GREY, explain="True", Accept="image/png"))
    assert png.content_type == JSON_TYPE


# Unlike the training images


@pytest.mark.parametrize(
    ("distances", "reply", "warning"),
    [
        ([1.0, 9.0], {"score": 0.5, "resembles": None}, None),
        ([5.0, 9.0], {"score": 2.5, "resembles": None}, "unlike the training images (novelty 2.50"),
        ([5.0, 1.0], {"score": 2.5, "resembles": "inverted"}, "the image looks inverted"),
    ],
)
def test_an_image_unlike_the_training_images_is_answered_with_a_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    distances: list[float],
    reply: dict[str, Any],
    warning: str | None,
) -> None:
    rule = {"threshold": 2.0, "alterations": ["inverted"], "margins": [0.0]}
    handler = started(write(tmp_path, novelty=rule, triage=RULES))
    (runs,) = handler._engines

    def measured(images: Any) -> list[ModelOutput]:
        return [
            result._replace(distances=np.array(distances, np.float32)) for result in runs(images)
        ]

    monkeypatch.setattr(handler, "_engines", [measured])
    result = answer(handler, raw(picture(240))).json
    assert result["novelty"] == reply
    own = ["a stand-in that measures brightness"]
    if warning is None:
        assert result["warnings"] == own
        assert result["triage"] == {"decision": "flag", "reasons": []}
    else:
        assert warning in result["warnings"][0]
        assert result["warnings"][1:] == own
        assert result["triage"] == {"decision": "review", "reasons": ["unlike"]}


# Several networks in one archive


RULES = {"doubt": 0.5, "disagreement": 0.3}


def both(folder: Path, temperature: float = 2.0, bias: float = 1.0) -> Path:
    """The same graph twice, the second with another bias in graph and card, and a temperature."""
    write(folder)
    (first,) = [json.loads((folder / "card.json").read_text())]
    model = onnx.parser.parse_model(
        GRAPH.format(batch="N").replace("{4.0, -4.0}", f"{{{4 - bias}, {bias - 4}}}")
    )
    onnx.save(model, folder / "other.onnx")
    digest = hashlib.sha256((folder / "other.onnx").read_bytes()).hexdigest()
    second = {
        **first,
        "network": "densenet161",
        "temperature": temperature,
        "bias": [4 - bias, bias - 4],
        "golden_logits": [-logit(100) - bias, logit(100) + bias],
        "graph": {**first["graph"], "file": "other.onnx", "sha256": digest},
    }
    mean = [(a + b / temperature) / 2 for a, b in zip(first["bias"], second["bias"], strict=True)]
    joint = ensemble(
        [first, second],
        **{name: first[name] for name in ("input", "map", "golden")},
        bias=mean,
        triage=RULES,
    )
    (folder / "card.json").write_text(json.dumps(joint))
    return folder


def test_an_ensemble_answers_with_the_mean_of_two_networks(
    tmp_path: Path, handler: Classifier
) -> None:
    together = started(both(tmp_path))
    reply = answer(together, raw(picture(100))).json
    each = answer(handler, raw(picture(100))).json
    assert reply["model"] == "pneumonia"
    assert reply["temperature"] == 1.0
    assert list(reply["networks"]) == ["resnet50", "densenet161"]
    assert reply["networks"]["resnet50"]["probability"] == each["probability"]
    second = reply["networks"]["densenet161"]
    for k, name in enumerate(("NORMAL", "PNEUMONIA")):
        mean = (each["logit"][name] + second["logit"][name] / 2) / 2
        assert reply["logit"][name] == pytest.approx(mean, abs=1e-5)
        assert np.mean(
            answer(
                together, request(part(picture(100), RAW), part(name.encode(), "", "class"))
            ).json["heatmap"]["map"]
        ) + json.loads((tmp_path / "card.json").read_text())["bias"][k] == pytest.approx(
            mean, abs=1e-3
        )
    assert np.mean(second["heatmap"]["map"]) + second["heatmap"]["bias"] == pytest.approx(
        second["logit"][second["heatmap"]["class"]], abs=1e-3
    )
    difference = abs(second["probability"]["PNEUMONIA"] - each["probability"]["PNEUMONIA"])
    assert reply["agreement"]["probability_difference"] == pytest.approx(difference, abs=1e-7)
    assert reply["agreement"]["map_correlation"] is None  # an even picture has an even map


def test_triage(tmp_path: Path) -> None:
    together = started(both(tmp_path, temperature=1.0, bias=0.1))

    def triage(grey: int) -> dict[str, Any]:
        reply: dict[str, Any] = answer(together, raw(picture(grey))).json["triage"]
        return reply

    assert triage(0) == {"decision": "clear", "reasons": []}
    assert triage(240) == {"decision": "flag", "reasons": []}
    assert triage(126) == {"decision": "review", "reasons": ["doubt"]}
    separate = started(both(tmp_path, temperature=1.0, bias=4.0))
    assert "disagreement" in answer(separate, raw(picture(100))).json["triage"]["reasons"]


def test_an_ensemble_explains_and_refuses_a_missing_graph(tmp_path: Path) -> None:
    together = started(both(tmp_path))
    reply = answer(together, raw(split(0, 255), explain="True")).json
    assert all(abs(each["completeness"]) < 1e-3 for each in reply["heatmaps"])
    assert reply["erasure"]["fall"] > 0
    (tmp_path / "other.onnx").unlink()
    with pytest.raises(RuntimeError, match=r"no other\.onnx"):
        started(tmp_path)


# Batches, good and bad


def test_a_batch_is_decoded_in_parallel_and_run_serially(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(engine.THREADS, "2")
    handler = started(folder)
    reads, both = pixels.read, threading.Barrier(2, timeout=10)

    def read(*arguments: Any) -> pixels.Decoded:
        both.wait()  # for the other image's thread
        return reads(*arguments)

    (runs,) = handler._engines
    running = threading.Lock()

    def alone(images: Any) -> list[ModelOutput]:
        assert running.acquire(blocking=False)  # an engine's memory is of one run
        time.sleep(0.01)
        result = runs(images)
        running.release()
        return result

    monkeypatch.setattr(pixels, "read", read)
    monkeypatch.setattr(handler, "_engines", [alone])
    request_sent = [raw(picture(grey), explain="True") for grey in (60, 200)]
    result = answers(handler, *request_sent)  # each explanation runs the network again
    assert [each.status for each in result] == [200, 200]
    for each, grey in zip(result, (60, 200), strict=True):
        assert each.probability == pytest.approx(1 / (1 + math.exp(-2 * logit(grey))), abs=1e-4)


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    check = struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + check + GREY[33:]


BAD: dict[str, tuple[dict[str, Any], int]] = {
    "empty": (raw(b""), 400),
    "no field": (request(), 400),
    "empty form": (request(Content_Type=FORM), 400),
    "truncated PNG": (raw(GREY[:-30]), 400),
    "truncated JPEG": (raw(picture(9, 400, "JPEG")[:800]), 400),
    "text": (request(part(b"not an image", "text/plain"), Content_Type="text/plain"), 415),
    "bytes of text": (raw(b"not an image"), 415),
    "HTML": (raw(b"<!doctype html><html></html>"), 415),
    "one pixel": (raw(picture(9, 1)), 400),
    "bomb": (raw(png_header(30_000, 30_000)), 413),
    "zeros": (raw(bytes(30_000_000)), 415),
    "too many bytes": (raw(bytes(pixels.MAX_BYTES + 1)), 413),
    "broken JSON": (as_json(b'{"image": '), 400),
    "list": (as_json([1, 2, 3]), 400),
    "number": (as_json(7), 400),
    "null": (as_json(None), 400),
    "no image": (as_json({"heatmap": "none"}), 400),
    "unknown key": (as_json({"picture": "x"}), 400),
    "bad base64": (as_json({"image": "not base64!"}), 400),
    "empty base64": (as_json({"image": ""}), 400),
    "base64 of text": (as_json({"image": base64.b64encode(b"text").decode()}), 415),
    "two files": (
        request(part(GREY, RAW, "one"), part(GREY, RAW, "other"), Content_Type=FORM),
        400,
    ),
    "unknown value": (request(part(GREY, RAW), part(b"x", "", "heatmap")), 400),
}


def test_bad_requests_harm_no_good_request_of_a_batch(handler: Classifier) -> None:
    greys = [round(grey) for grey in np.linspace(0, 240, len(BAD))]
    good = [raw(picture(grey)) for grey in greys]
    alone = [answer(handler, each).probability for each in good]
    mixed = [
        each for pair in zip(good, (bad for bad, _ in BAD.values()), strict=True) for each in pair
    ]
    result = answers(handler, *mixed)
    together = [each.probability for each in result[::2]]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    for each, (name, (_, status)) in zip(result[1::2], BAD.items(), strict=True):
        error = each.json
        assert (each.status, error["code"]) == (status, status), name
        assert set(error) == {"code", "type", "message"}, name
        assert error["type"].isalnum(), name
        assert each.phrase, name


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_alone(handler: Classifier, name: str) -> None:
    bad, status = BAD[name]
    assert answer(handler, bad).status == status


def test_a_batch_of_bad_requests_and_an_empty_batch(handler: Classifier) -> None:
    assert [each.status for each in answers(handler, raw(b""), raw(b"x"))] == [400, 415]
    assert answers(handler) == []


def test_a_graph_that_fails_on_an_image_fails_for_that_request(
    handler: Classifier, caplog: pytest.LogCaptureFixture
) -> None:
    result = answers(handler, raw(GREY), raw(picture(255)), raw(picture(20)))
    assert [each.status for each in result] == [200, 500, 200]
    error = result[1].json
    assert error["type"] == "InternalError"
    assert "indices" not in error["message"]  # what failed is for the log
    assert "idx=255 must be within" in caplog.text
    assert "Traceback" in caplog.text
    assert answer(handler, raw(GREY)).status == 200


def test_a_graph_with_batch_size_1(tmp_path: Path) -> None:
    handler = started(write(tmp_path, batch="1"))
    result = answers(handler, raw(picture(60)), raw(picture(200)))
    assert [each.json["label"] for each in result] == ["NORMAL", "PNEUMONIA"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"operating_points": {"balanced": {}}}, r"operating_points\.balanced\.threshold"),
        ({"temperature": "warm"}, "temperature: a number is needed"),
        ({"graph": None}, "graph: an object is needed"),
        ({"map": {"rows": 4, "columns": 4}}, r"map\.scale: the field is missing"),
        ({"default_operating_point": "other"}, "other is none of the operating_points"),
        ({"schema": 99}, "newer"),
        ({"golden": None}, "no golden image"),
        ({"golden_logits": None}, "no golden_logits"),
    ],
)
def test_a_malformed_card_is_refused_with_the_field(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(RuntimeError, match=f"{words}.*make archive"):
        started(write(tmp_path, **changes))


def test_a_log_line_per_request(handler: Classifier, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="handlers"):
        answers(handler, raw(GREY, X_Request_Id="mine"), raw(b"Jane Doe, born 1970"))
    first, second = [json.loads(record.getMessage()) for record in caplog.records]
    times = {key: first.pop(key) for key in ("decode_ms", "network_ms", "overlay_ms")}
    assert all(0 < taken < 10_000 for taken in times.values())
    assert first == {
        "request_id": "mine", "model": "resnet50", "version": "1.0", "status": 200,
        "label": "NORMAL", "probability": pytest.approx(0.15116542), "batch": 2,
    }  # fmt: skip
    assert second == {
        "request_id": "from-torchserve", "model": "resnet50", "version": "1.0", "status": 415,
        "error": "NotAnImage", "batch": 2,
    }  # fmt: skip
    assert "Jane" not in caplog.text


class PanicError(BaseException):
    """As a decoder written in Rust raises it."""


def test_what_is_not_an_exception_fails_its_own_request_alone(
    handler: Classifier, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read = pixels.read

    def panic(content: bytes, *options: Any) -> pixels.Decoded:
        if content == b"panic":
            raise PanicError("index out of bounds")
        return read(content, *options)

    monkeypatch.setattr(pixels, "read", panic)
    results = answers(handler, raw(GREY), raw(b"panic"), raw(picture(20)))
    assert [result.status for result in results] == [200, 500, 200]
    assert results[1].json["type"] == "InternalError"
    assert "index out of bounds" in caplog.text
    monkeypatch.setattr(pixels, "read", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        answers(handler, raw(GREY))


def test_what_does_not_fit_beside_others_is_tried_again_alone(
    handler: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, tries = pixels.read, {"greedy": 0, "huge": 0}

    def short_of_memory(content: bytes, *options: Any) -> pixels.Decoded:
        for name in tries:
            if content == name.encode():
                tries[name] += 1
                if name == "huge" or tries[name] == 1:
                    raise MemoryError
                content = GREY
        return read(content, *options)

    monkeypatch.setattr(pixels, "read", short_of_memory)
    results = answers(handler, raw(GREY), raw(b"greedy"), raw(b"huge"))
    assert [result.status for result in results] == [200, 200, 413]
    assert results[2].json["type"] == "OutOfMemory"
    assert "send it smaller" in results[2].json["message"]
    assert tries == {"greedy": 2, "huge": 2}
