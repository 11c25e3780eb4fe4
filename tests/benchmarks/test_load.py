"""The load's clients, and the verification of answers."""

import base64
import http.server
import io
import json
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from benchmarks.serving import load, processes
from benchmarks.serving.load import MAP, NONE, OVERLAY, Answer, UnverifiedError, Verifier


def test_latencies_are_percentiles_in_milliseconds() -> None:
    seconds = [number / 1000 for number in range(101)]
    assert load.latencies(seconds) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}


def test_cpu_time_is_of_processes_that_survive_the_window() -> None:
    assert processes.spent({1: 2.0, 2: 1.0}, {1: 2.5, 2: 4.0, 3: 0.25}) == {1: 0.5, 2: 3.0, 3: 0.25}
    with pytest.raises(processes.DiedError, match="2"):
        processes.spent({1: 2.0, 2: 1.0}, {1: 2.5})


# Verification


def png(side: int = 384, mode: str = "RGB", format: str = "PNG") -> str:
    file = io.BytesIO()
    Image.new(mode, (side, side), 100 if mode == "L" else (200, 100, 0)).save(file, format)
    return base64.b64encode(file.getvalue()).decode()


WITHOUT_HEATMAP = {"label": "PNEUMONIA", "logit": {"NORMAL": -2.5, "PNEUMONIA": 2.5}}


def content(label: str = "PNEUMONIA", **heatmap: Any) -> dict[str, Any]:
    """An answer's content; the map's mean is 2 and its bias is 0.5."""
    numbers = {"class": "PNEUMONIA", "map": [[1.0, 2.0], [2.0, 3.0]], "bias": 0.5}
    return {**WITHOUT_HEATMAP, "label": label, "heatmap": {**numbers, **heatmap}}


def answer(content: object, image: int = 0, status: int = 200) -> Answer:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Answer(image, status, body, 0.01)


def test_right_answers_pass() -> None:
    verifier = Verifier()
    verifier.check([answer(content(overlay=png())), answer(content(overlay=png()), 1)], OVERLAY)
    verifier.check([answer(content())], MAP)
    verifier.check([answer(WITHOUT_HEATMAP)], NONE)
    assert verifier.labels == {0: "PNEUMONIA", 1: "PNEUMONIA"}
    # A peer's answer has an overlay and no numbers.
    Verifier().check([answer({"label": "NORMAL", "heatmap": {"overlay": png()}})], OVERLAY)


@pytest.mark.parametrize(
    ("body", "heatmap", "message"),
    [
        (content("NORMAL"), MAP, "image 0 was PNEUMONIA and is NORMAL now"),
        (content(), OVERLAY, "requested heatmap=overlay, got map"),
        (content(overlay=png()), MAP, "requested heatmap=map, got overlay"),
        (content(), NONE, "requested heatmap=none, got map"),
        (WITHOUT_HEATMAP, MAP, "requested heatmap=map, got none"),
        (content(overlay=png()[:400]), OVERLAY, "can't be decoded"),
        (content(overlay="no base64!"), OVERLAY, "can't be decoded"),
        (content(overlay=png(mode="L")), OVERLAY, "PNG L, not a colour PNG"),
        (content(overlay=png(format="JPEG")), OVERLAY, "JPEG RGB, not a colour PNG"),
        (content(overlay=png(side=224)), OVERLAY, "less than 384 per side"),
        (content(bias=0.502), MAP, "differs from the logit"),
        (content(map=[[float("nan"), 2.0]]), MAP, "differs from the logit"),
        (b"Prediction failed", MAP, "not JSON"),
        ({"predictions": []}, MAP, "no label"),
    ],
)
def test_wrong_answers_are_refused(body: object, heatmap: str, message: str) -> None:
    verifier = Verifier()
    verifier.check([answer(content())], MAP)
    with pytest.raises(UnverifiedError, match=message):
        verifier.check([answer(body)], heatmap)


def test_error_statuses_and_missing_answers_are_refused() -> None:
    with pytest.raises(UnverifiedError, match=r"status 503: .*the queue is full"):
        Verifier().check([answer(b"the queue is full", status=503)], OVERLAY)
    with pytest.raises(UnverifiedError, match="no answer arrived"):
        Verifier().check([], OVERLAY)


# Clients


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with the request's body; closes the connection if it is empty."""

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
        """Print nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_clients_send_all_images_in_turn(port: int) -> None:
    target = load.Target(port, "/", [b"zero", b"one", b"two"])
    answers = load.run(target, 4, 0.1).answers
    assert len(answers) >= 4  # each client sends at least once
    counts = Counter(answer.image for answer in answers)
    assert max(counts.values()) - min(counts.values()) <= 1
    for received in answers:
        assert (received.status, received.body) == (200, target.bodies[received.image])
    assert [received.image for received in load.send_each(target).answers] == [0, 1, 2]


def test_a_closed_connection_is_refused(port: int) -> None:
    (received,) = load.send_each(load.Target(port, "/", [b""])).answers
    assert received.status == 0
    with pytest.raises(UnverifiedError, match=r"status 0: .*Disconnected"):
        Verifier().check([received], OVERLAY)
