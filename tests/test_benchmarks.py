"""What the serving benchmark believes, and what it does not."""

import argparse
import base64
import http.server
import io
import json
import math
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import facts, floor, images, load, measured, orders, processes, ratios, serving
from benchmarks.load import MAP, NONE, OVERLAY, Answer, UnverifiedError, Verifier
from benchmarks.parts import Bench
from handlers.card import ArchivedEnsemble, ArchivedNetwork, parse
from tests import cards
from tests.test_classifier import SIZE, logit, picture, write
from train import checkpoint

# Ratios


def measurement(group: str, subject: str, number: int, **figures: float) -> dict[str, Any]:
    part, network, *_ = group.split("/")
    where = {"part": part, "network": network, "group": group, "subject": subject, "round": number}
    return {**where, **figures}


def compared(found: list[dict[str, Any]], over: str, under: str, figure: str) -> Any:
    (one,) = [
        one for one in found if (one["over"], one["under"], one["figure"]) == (over, under, figure)
    ]
    return one


def test_ratios_are_of_the_same_round() -> None:
    group = "peers/resnet50/captum"
    found = []
    for number, rates in enumerate([(40.0, 80.0, 8.0), (50.0, 90.0, 20.0), (36.0, 60.0, 9.0)], 1):
        for subject, rate in zip(("f32", "int8", "captum"), rates, strict=True):
            one = measurement(group, subject, number, rate=rate, cpu_ms=1000 / rate)
            found.append(one)
    found = ratios.all_of(found, ["f32", "int8"])
    beside = compared(found, "f32", "captum", "rate")
    assert beside["group"] == group
    assert beside["values"] == [5.0, 2.5, 4.0]  # the median of rates would say 40 / 9
    assert (beside["median"], beside["least"], beside["most"]) == (4.0, 2.5, 5.0)
    assert compared(found, "int8", "f32", "rate")["values"] == [2.0, 1.8, 1.6667]
    assert compared(found, "int8", "captum", "cpu_ms")["values"] == [0.1, 0.2222, 0.15]
    assert not [one for one in found if one["over"] == "captum"]


def test_heatmaps_are_compared_with_none_and_floors_with_as_large_a_batch() -> None:
    matrix = "matrix/resnet50/f32/16"
    floor = "floor/resnet50/f32"
    turns = [
        measurement(matrix, NONE, 1, rate=50.0, cpu_ms=20.0, p50=300.0),
        measurement(matrix, MAP, 1, rate=40.0, cpu_ms=22.0, p50=330.0),
        measurement(matrix, OVERLAY, 1, rate=25.0, cpu_ms=30.0, p50=600.0),
        measurement(floor, "ours 1", 1, rate=20.0, cpu_ms=66.0, p50=50.0),
        measurement(floor, "ours 16", 1, rate=30.0, cpu_ms=60.0, p50=500.0),
        measurement(floor, "openvino 1", 1, rate=25.0, cpu_ms=60.0, p50=40.0),
        measurement(floor, "openvino 4", 1, rate=33.0, cpu_ms=50.0, p50=30.0),
    ]
    found = ratios.all_of(turns, ["f32"])
    assert compared(found, MAP, NONE, ratios.TIME)["values"] == [1.25]  # 25 ms, 20 ms
    assert compared(found, OVERLAY, NONE, ratios.TIME)["values"] == [2.0]
    assert compared(found, OVERLAY, NONE, "cpu_ms")["values"] == [1.5]
    assert compared(found, "ours 1", "openvino 1", "p50")["values"] == [1.25]
    assert compared(found, "ours 1", "openvino 1", "cpu_ms")["values"] == [1.1]
    assert compared(found, "ours 16", "openvino 4", "cpu_ms")["values"] == [1.2]


def test_latencies_are_percentiles_in_milliseconds() -> None:
    seconds = [number / 1000 for number in range(101)]
    assert load.latencies(seconds) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}


# Answers


def png(side: int = 384, mode: str = "RGB", format: str = "PNG") -> str:
    file = io.BytesIO()
    Image.new(mode, (side, side), 100 if mode == "L" else (200, 100, 0)).save(file, format)
    return base64.b64encode(file.getvalue()).decode()


WITHOUT_HEATMAP = {"label": "PNEUMONIA", "logit": {"NORMAL": -2.5, "PNEUMONIA": 2.5}}


def said(label: str = "PNEUMONIA", **heatmap: Any) -> dict[str, Any]:
    """An answer whose map's mean is 2 and whose bias is .5."""
    numbers = {"class": "PNEUMONIA", "map": [[1.0, 2.0], [2.0, 3.0]], "bias": 0.5}
    return {**WITHOUT_HEATMAP, "label": label, "heatmap": {**numbers, **heatmap}}


def answer(content: object, image: int = 0, status: int = 200) -> Answer:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Answer(image, status, body, 0.01)


def test_right_answers_pass() -> None:
    verifier = Verifier()
    verifier.check([answer(said(overlay=png())), answer(said(overlay=png()), 1)], OVERLAY)
    verifier.check([answer(said())], MAP)
    verifier.check([answer(WITHOUT_HEATMAP)], NONE)
    assert verifier.labels == {0: "PNEUMONIA", 1: "PNEUMONIA"}
    # A peer's: an overlay and no numbers.
    Verifier().check([answer({"label": "NORMAL", "heatmap": {"overlay": png()}})], OVERLAY)


@pytest.mark.parametrize(
    ("content", "heatmap", "why"),
    [
        (said("NORMAL"), MAP, "image 0 was PNEUMONIA and is NORMAL now"),
        (said(), OVERLAY, "asked for heatmap=overlay, got map"),
        (said(overlay=png()), MAP, "asked for heatmap=map, got overlay"),
        (said(), NONE, "asked for heatmap=none, got map"),
        (WITHOUT_HEATMAP, MAP, "asked for heatmap=map, got none"),
        (said(overlay=png()[:400]), OVERLAY, "can't be decoded"),
        (said(overlay="no base64!"), OVERLAY, "can't be decoded"),
        (said(overlay=png(mode="L")), OVERLAY, "PNG L, no colour PNG"),
        (said(overlay=png(format="JPEG")), OVERLAY, "JPEG RGB, no colour PNG"),
        (said(overlay=png(side=224)), OVERLAY, "must have 384 a side"),
        (said(bias=0.502), MAP, "apart from the logit"),
        (said(map=[[float("nan"), 2.0]]), MAP, "apart from the logit"),
        (b"Prediction failed", MAP, "no JSON"),
        ({"predictions": []}, MAP, "no label"),
    ],
)
def test_wrong_answers_are_refused(content: object, heatmap: str, why: str) -> None:
    verifier = Verifier()
    verifier.check([answer(said())], MAP)
    with pytest.raises(UnverifiedError, match=why):
        verifier.check([answer(content)], heatmap)


def test_other_statuses_and_silence_are_refused() -> None:
    with pytest.raises(UnverifiedError, match=r"status 503: .*the queue is full"):
        Verifier().check([answer(b"the queue is full", status=503)], OVERLAY)
    with pytest.raises(UnverifiedError, match="no answer came"):
        Verifier().check([], OVERLAY)


# The machine


def test_processor_time_is_that_of_processes_which_lived_through_it() -> None:
    assert processes.spent({1: 2.0, 2: 1.0}, {1: 2.5, 2: 4.0, 3: 0.25}) == {1: 0.5, 2: 3.0, 3: 0.25}
    with pytest.raises(processes.DiedError, match="2"):
        processes.spent({1: 2.0, 2: 1.0}, {1: 2.5})


def test_facts_name_versions_and_no_place() -> None:
    found = facts.machine()
    assert found["versions"]["torchserve"] == "0.12.0"  # type: ignore[index]
    assert found["cores_of_machine"]
    assert str(Path.home()) not in json.dumps(found)
    assert str(facts.ROOT) not in json.dumps(found)
    assert facts.version("no-such-package") is None


# Images


def jpeg(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side), 100).save(file, "JPEG")
    return file.getvalue()


def test_images_are_spread_over_a_folder(tmp_path: Path) -> None:
    for number in range(24):
        (tmp_path / f"{number:02}.jpeg").write_bytes(jpeg(100 + number))
    (tmp_path / "notes.txt").write_text("no image")
    found = images.read(tmp_path)
    sides = [Image.open(io.BytesIO(image)).width - 100 for image in found]
    assert sides == [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22]
    (tmp_path / "few").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no JPEG"):
        images.read(tmp_path / "few")


def test_facts_of_images() -> None:
    found = images.facts([jpeg(100), jpeg(2000), jpeg(1000)], "of a test")
    assert found["count"] == 3
    assert found["megapixels"] == [0.01, 1.0, 4.0]
    assert found["bytes"] == sorted(len(jpeg(side)) for side in (100, 1000, 2000))


def test_a_phantom_is_written_at_full_size() -> None:
    with Image.open(io.BytesIO(images._phantom(0))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (1248, 1248))


# Clients


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with what it got; without a word where that is empty."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not body:
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_clients_ask_about_every_image_in_turn(port: int) -> None:
    target = load.Target(port, "/", [b"zero", b"one", b"two"])
    found = load.run(target, 4, 0.1).answers
    assert len(found) >= 4  # each client asks at least once
    counts = Counter(answer.image for answer in found)
    assert max(counts.values()) - min(counts.values()) <= 1
    for one in found:
        assert (one.status, one.body) == (200, target.bodies[one.image])
    assert [one.image for one in load.each_once(target).answers] == [0, 1, 2]


def test_a_connection_that_ends_is_no_answer(port: int) -> None:
    (found,) = load.each_once(load.Target(port, "/", [b""])).answers
    assert found.status == 0
    with pytest.raises(UnverifiedError, match=r"status 0: .*Disconnected"):
        Verifier().check([found], OVERLAY)


# What is measured


def packed(folder: Path, network: str = "resnet50", version: str = "1.0") -> Path:
    """An archive of the stand-in that measures brightness."""
    folder.mkdir()
    model = write(folder / "model", network=network, version=version)
    path = folder / f"{network}-{version}.mar"
    with zipfile.ZipFile(path, "w") as archive:
        for file in model.iterdir():
            archive.write(file, file.name)
        said = {"modelName": network, "modelVersion": version}
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": said}))
    return path


def test_archives_are_named_by_label(tmp_path: Path) -> None:
    path, other = packed(tmp_path / "a"), packed(tmp_path / "b", "densenet161")
    nothing = tmp_path / "nothing"
    found = serving.read_archives([f"f32={path}", f"int8={other.parent}", f"other={nothing}"])
    assert [(one.label, one.archive.network, one.engine) for one in found] == [
        ("f32", "resnet50", "onnxruntime"),
        ("int8", "densenet161", "onnxruntime"),
    ]
    for given, why in (
        ([str(path)], "LABEL=FILE_OR_FOLDER"),
        ([f"captum={path}"], "no peer's name"),
        ([f"a/b={path}"], "LABEL=FILE_OR_FOLDER"),
        ([f"f32={path}", f"f32={path}"], "same label"),
        ([f"f32={tmp_path}"], "make archive"),
    ):
        with pytest.raises(ValueError, match=why):
            serving.read_archives(given)


@pytest.mark.usefixtures("small_networks")
def test_peers_without_published_weights_have_random_ones(tmp_path: Path) -> None:
    assert serving.weights_of("small", [], None) is None
    path = serving.weights_of("small", [], tmp_path)
    assert path
    network, card = checkpoint.load(path)
    assert (card.network, card.input.size, card.classes) == (
        *("small", 224),
        ("NORMAL", "PNEUMONIA"),
    )
    assert card.warnings == ("never trained: for a smoke run of the benchmark",)
    assert not network.training


def test_what_fails_is_left_out_and_the_rest_goes_on() -> None:
    bench = Bench(argparse.Namespace(pairs=2), [])

    def refused(_: float) -> dict[str, Any]:
        raise UnverifiedError("status 503")

    for group, second in (("matrix/a/f32/1", refused), ("matrix/a/f32/4", lambda _: {"rate": 2})):
        with bench.attempt(group):
            bench.in_turn(group, {"none": lambda _: {"rate": 1}, "map": second}, 0.1)
    assert bench.failed == ["matrix/a/f32/1"]
    assert [(one["subject"], one["round"], one["rate"]) for one in bench.measurements] == [
        *(("none", 1, 1), ("map", 1, 2), ("none", 2, 1), ("map", 2, 2)),
    ]
    assert {one["group"] for one in bench.measurements} == {"matrix/a/f32/4"}


def test_the_floor_answers_as_the_handler_does(tmp_path: Path) -> None:
    model = write(tmp_path / "model")
    card = parse(json.loads((model / "card.json").read_text()))
    assert isinstance(card, ArchivedNetwork)
    of_torch = replace(card, graph=replace(card.graph, file="graph.pt2"))
    several = parse(cards.ensemble([cards.archived(), cards.archived()]))
    assert isinstance(several, ArchivedEnsemble)
    assert floor.runtimes(of_torch) == floor.runtimes(several) == []
    for runtime in floor.runtimes(card):
        network = floor.OPEN[runtime](model / "graph.onnx", (2, SIZE, SIZE))
        found = list(floor.answer_all([picture(30), picture(200)], card, network))
        assert [one["label"] for one in found] == ["NORMAL", "PNEUMONIA"]
        for grey, one in zip((30, 200), found, strict=True):
            # Two logits, each the other's opposite.
            expected = 1 / (1 + math.exp(-2 * logit(grey)))
            assert one["probability"][1] == pytest.approx(expected, abs=1e-6)
            load._check_picture(one["heatmap"]["overlay"])


@pytest.mark.parametrize("module", ["floor", "profile_request"])
def test_a_process_beside_the_servers_measures_when_told_to(module: str, tmp_path: Path) -> None:
    archive = packed(tmp_path / "a")
    with orders.process(f"benchmarks.{module}", archive, [picture(30), picture(200)]) as order:
        if module == "floor":
            for batch in floor.BATCHES:
                found = order(runtime="onnxruntime", batch=batch, seconds=0.05)
                assert found["requests"] % batch == 0
                assert found["rate"] == pytest.approx(found["requests"] / found["seconds"], rel=0.1)
        else:
            found = order(seconds=0.05)
            steps = [found[step] for step in measured.STEPS]
            assert min(steps) > 0
            assert sum(steps) == pytest.approx(found[measured.WORKER], abs=0.01)
