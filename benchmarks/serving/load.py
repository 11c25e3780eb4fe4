"""A closed loop of clients: each sends its next image when the last answer has arrived.

A measurement lasts from the first request to the last answer, including requests that are in
flight at the end of the window, so that no work is counted in another measurement. Answers are
stored, and verified after the clock has stopped.
"""

import base64
import hashlib
import http.client
import io
import itertools
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.serving import processes

OVERLAY, MAP, NONE = "overlay", "map", "none"
TIMEOUT = 120  # seconds per answer
SIDE = 384  # pixels: the smallest overlay
TOLERANCE = 1e-3  # logits
PERCENTILES = {"p50": 50, "p95": 95, "p99": 99}


class UnverifiedError(RuntimeError):
    """An answer is wrong, so no figure of its window counts."""


@dataclass(frozen=True)
class Target:
    """A port and path of this machine, and the bodies to send to it, one per image."""

    port: int
    path: str
    bodies: Sequence[bytes]
    content_type: str = "application/octet-stream"


@dataclass(frozen=True)
class Answer:
    """The response to one request: `image` is the body's index; seconds until the last byte."""

    image: int
    status: int  # 0 if the connection failed
    body: bytes
    seconds: float


@dataclass
class Load:
    """All answers of a window; its seconds, and the CPU seconds of the clients themselves."""

    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0
    client_cpu: float = 0.0


def run(target: Target, clients: int, seconds: float) -> Load:
    """Load a server with a number of clients; none starts a request after `seconds`."""
    load, order = Load(), itertools.count()
    connections = [_connect(target) for _ in range(clients)]
    started = 0.0
    start = threading.Event()

    def client(connection: http.client.HTTPConnection) -> None:
        start.wait()
        while time.perf_counter() < started + seconds:
            load.answers.append(_send(connection, target, next(order) % len(target.bodies)))
        connection.close()

    threads = [
        threading.Thread(target=client, args=(connection,), daemon=True)
        for connection in connections
    ]
    for thread in threads:
        thread.start()
    cpu, started = time.process_time(), time.perf_counter()
    start.set()
    for thread in threads:
        thread.join()
    load.seconds = time.perf_counter() - started
    load.client_cpu = time.process_time() - cpu
    return load


def send_each(target: Target) -> Load:
    """Send every image once, with one client."""
    load, started = Load(), time.perf_counter()
    connection = _connect(target)
    load.answers = [_send(connection, target, image) for image in range(len(target.bodies))]
    connection.close()
    load.seconds = time.perf_counter() - started
    return load


def _connect(target: Target) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=TIMEOUT)
    connection.connect()
    return connection


def _send(connection: http.client.HTTPConnection, target: Target, image: int) -> Answer:
    headers = {"Content-Type": target.content_type}
    started = time.perf_counter()
    try:
        connection.request("POST", target.path, target.bodies[image], headers)
        response = connection.getresponse()
        status, body = response.status, response.read()
    except (OSError, http.client.HTTPException) as error:  # `Verifier.check` raises for status 0
        connection.close()
        status, body = 0, repr(error).encode()
    return Answer(image, status, body, time.perf_counter() - started)


def warm(target: Target, verifier: "Verifier", clients: int, seconds: float) -> None:
    """Send every image once, then with all clients; every answer must have a valid overlay."""
    verifier.check(send_each(target).answers, OVERLAY)
    verifier.check(run(target, clients, seconds).answers, OVERLAY)


class Verifier:
    """Verifies a network's answers. The first answer for an image sets the label of later ones."""

    def __init__(self) -> None:
        """Start without labels."""
        self.labels: dict[int, str] = {}
        self._pictures: set[bytes] = set()  # hashes of overlays that were decoded

    def check(self, answers: Sequence[Answer], heatmap: str) -> None:
        """Check that every answer has status 200, its image's label, and the requested heatmap.

        Raises:
            UnverifiedError: an answer is wrong, or there are no answers.
        """
        if not answers:
            raise UnverifiedError("no answer arrived within the window: give it more --seconds")
        for answer in answers:
            if answer.status != 200:
                raise UnverifiedError(f"status {answer.status}: {answer.body[:300]!r}")
            content = _read(answer.body)
            label = content["label"]
            expected = self.labels.setdefault(answer.image, label)
            if label != expected:
                raise UnverifiedError(f"image {answer.image} was {expected} and is {label} now")
            self._check_heatmap(content.get("heatmap"), heatmap)
            _check_sum(content)

    def _check_heatmap(self, content: dict[str, Any] | None, requested: str) -> None:
        received = NONE if content is None else OVERLAY if "overlay" in content else MAP
        if received != requested:
            raise UnverifiedError(f"requested heatmap={requested}, got {received}")
        if content is None or received != OVERLAY:
            return
        encoded = content["overlay"]
        digest = hashlib.blake2b(encoded.encode()).digest()
        if digest not in self._pictures:  # decode every picture only once
            _check_picture(encoded)
            self._pictures.add(digest)


def _read(body: bytes) -> dict[str, Any]:
    """The JSON object of an answer, which must have a label."""
    try:
        content = json.loads(body)
    except ValueError as error:
        raise UnverifiedError(f"an answer is not JSON: {body[:300]!r}") from error
    if not isinstance(content, dict) or "label" not in content:
        raise UnverifiedError(f"an answer has no label: {body[:300]!r}")
    return content


def _check_picture(encoded: str) -> None:
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))) as picture:
            picture.load()
    except (ValueError, OSError) as error:
        raise UnverifiedError(f"an overlay can't be decoded: {error}") from error
    if picture.format != "PNG" or picture.mode not in ("RGB", "RGBA", "P"):
        raise UnverifiedError(f"an overlay is {picture.format} {picture.mode}, not a colour PNG")
    if min(picture.size) < SIDE:
        raise UnverifiedError(f"an overlay has {picture.size} pixels, less than {SIDE} per side")


def _check_sum(content: dict[str, Any]) -> None:
    """If an answer has the map's numbers, as pneumocam's have, mean(map) + bias is the logit."""
    heatmap = content.get("heatmap") or {}
    if "map" not in heatmap:
        return
    logit = content["logit"][heatmap["class"]]
    difference = float(np.mean(heatmap["map"])) + heatmap["bias"] - logit
    if not abs(difference) <= TOLERANCE:  # NaN fails too
        raise UnverifiedError(f"mean(map) + bias differs from the logit by {difference}")


def measure(
    target: Target, pid: int, verifier: Verifier, heatmap: str, clients: int, seconds: float
) -> dict[str, Any]:
    """Load the server whose root process is `pid`; the window's figures, all answers verified.

    `rate` is requests per second. p50, p95, p99, `cpu_ms` (the server), `frontend_cpu_ms` (its
    root process) and `client_cpu_ms` (the clients) are milliseconds per request. `others` is the
    number of cores that other programs kept busy; `memory_mb` is in MiB.

    Raises:
        UnverifiedError: an answer is wrong.
        DiedError: a process of the server ended.
    """
    busy, before = processes.machine_busy(), processes.cpu_seconds(pid)
    load = run(target, clients, seconds)
    used = processes.spent(before, processes.cpu_seconds(pid))
    background = processes.machine_busy() - busy - sum(used.values()) - load.client_cpu
    memory = processes.memory(pid)
    verifier.check(load.answers, heatmap)
    count = len(load.answers)
    return {
        "clients": clients,
        "heatmap": heatmap,
        "requests": count,
        "seconds": round(load.seconds, 3),
        "rate": round(count / load.seconds, 3),
        **latencies([answer.seconds for answer in load.answers]),
        "cpu_ms": _milliseconds(sum(used.values()), count),
        "frontend_cpu_ms": _milliseconds(used[pid], count),
        "client_cpu_ms": _milliseconds(load.client_cpu, count),
        "others": round(max(0.0, background) / load.seconds, 3),
        "memory_mb": memory,
    }


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    values = np.percentile(1000 * np.array(seconds), list(PERCENTILES.values()))
    return {name: round(float(v), 3) for name, v in zip(PERCENTILES, values, strict=True)}


def _milliseconds(seconds: float, count: int) -> float:
    """Milliseconds per request."""
    return round(1000 * seconds / count, 3)
