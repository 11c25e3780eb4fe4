"""A closed loop of clients: each sends its next image as soon as it has the last one's answer.

What is counted goes from the first request to the last answer, those under way at the end of the
window included, so that no work is paid for by another measurement. Answers are kept, and verified
when the clock has stopped.
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

from benchmarks import processes

OVERLAY, MAP, NONE = "overlay", "map", "none"
TIMEOUT = 120  # seconds, for an answer
SIDE = 384  # pixels: the smallest overlay
TOLERANCE = 1e-3  # logits
PERCENTILES = {"p50": 50, "p95": 95, "p99": 99}


class UnverifiedError(RuntimeError):
    """An answer is not what it must be, so none of the figures counts."""


@dataclass(frozen=True)
class Target:
    """Where on this machine to send what: a body an image."""

    port: int
    path: str
    bodies: Sequence[bytes]
    content_type: str = "application/octet-stream"


@dataclass(frozen=True)
class Answer:
    """What one request got: `image` is the body's number; seconds until the last byte."""

    image: int
    status: int
    body: bytes
    seconds: float


@dataclass
class Load:
    """All answers of a window; its seconds, and the CPU seconds of the clients themselves."""

    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0
    client_cpu: float = 0.0


def run(target: Target, clients: int, seconds: float) -> Load:
    """Load a server with so many clients; none begins a request after so many seconds."""
    load, order = Load(), itertools.count()
    connections = [_connect(target) for _ in range(clients)]
    started = 0.0
    start = threading.Event()

    def client(connection: http.client.HTTPConnection) -> None:
        start.wait()
        while time.perf_counter() < started + seconds:
            load.answers.append(_ask(connection, target, next(order) % len(target.bodies)))
        connection.close()

    threads = [threading.Thread(target=client, args=(one,), daemon=True) for one in connections]
    for thread in threads:
        thread.start()
    cpu, started = time.process_time(), time.perf_counter()
    start.set()
    for thread in threads:
        thread.join()
    load.seconds = time.perf_counter() - started
    load.client_cpu = time.process_time() - cpu
    return load


def each_once(target: Target) -> Load:
    """One client that sends every image once."""
    load, started = Load(), time.perf_counter()
    connection = _connect(target)
    load.answers = [_ask(connection, target, image) for image in range(len(target.bodies))]
    connection.close()
    load.seconds = time.perf_counter() - started
    return load


def _connect(target: Target) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=TIMEOUT)
    connection.connect()
    return connection


def _ask(connection: http.client.HTTPConnection, target: Target, image: int) -> Answer:
    headers = {"Content-Type": target.content_type}
    started = time.perf_counter()
    try:
        connection.request("POST", target.path, target.bodies[image], headers)
        response = connection.getresponse()
        status, body = response.status, response.read()
    except (OSError, http.client.HTTPException) as error:  # for `Verifier.check` to tell
        connection.close()
        status, body = 0, repr(error).encode()
    return Answer(image, status, body, time.perf_counter() - started)


class Verifier:
    """Knows each image's label from the first verified answer for it, of one server's network."""

    def __init__(self) -> None:
        """Know no image."""
        self.labels: dict[int, str] = {}
        self._pictures: set[bytes] = set()  # hashes of overlays that were decoded

    def check(self, answers: Sequence[Answer], heatmap: str) -> None:
        """Every answer: status 200, the image's label, a map or an overlay as it was asked for.

        Raises:
            UnverifiedError: one is otherwise, or there is none.
        """
        if not answers:
            raise UnverifiedError("no answer came within the window: give it more --seconds")
        for answer in answers:
            if answer.status != 200:
                raise UnverifiedError(f"status {answer.status}: {answer.body[:300]!r}")
            said = _read(answer.body)
            expected = self.labels.setdefault(answer.image, said["label"])
            if said["label"] != expected:
                raise UnverifiedError(
                    f"image {answer.image} was {expected} and is {said['label']} now"
                )
            self._check_heatmap(said.get("heatmap"), heatmap)
            _check_sum(said)

    def _check_heatmap(self, said: dict[str, Any] | None, heatmap: str) -> None:
        there = NONE if said is None else OVERLAY if "overlay" in said else MAP
        if there != heatmap:
            raise UnverifiedError(f"asked for heatmap={heatmap}, got {there}")
        if said is None or there != OVERLAY:
            return
        encoded = said["overlay"]
        digest = hashlib.blake2b(encoded.encode()).digest()
        if digest not in self._pictures:  # else the same picture was decoded before
            _check_picture(encoded)
            self._pictures.add(digest)


def _read(body: bytes) -> dict[str, Any]:
    """An answer's JSON, which has a label."""
    try:
        said = json.loads(body)
    except ValueError as error:
        raise UnverifiedError(f"an answer is no JSON: {body[:300]!r}") from error
    if not isinstance(said, dict) or "label" not in said:
        raise UnverifiedError(f"an answer has no label: {body[:300]!r}")
    return said


def _check_picture(encoded: str) -> None:
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))) as picture:
            picture.load()
    except (ValueError, OSError) as error:
        raise UnverifiedError(f"an overlay can't be decoded: {error}") from error
    if picture.format != "PNG" or picture.mode not in ("RGB", "RGBA", "P"):
        raise UnverifiedError(f"an overlay is {picture.format} {picture.mode}, no colour PNG")
    if min(picture.size) < SIDE:
        raise UnverifiedError(f"an overlay has {picture.size} pixels, and must have {SIDE} a side")


def _check_sum(said: dict[str, Any]) -> None:
    """Where an answer has numbers of a map, as ours have: mean(map) + bias is the logit."""
    shown = said.get("heatmap") or {}
    if "map" not in shown:
        return
    apart = float(np.mean(shown["map"])) + shown["bias"] - said["logit"][shown["class"]]
    if not abs(apart) <= TOLERANCE:  # nor nan
        raise UnverifiedError(f"mean(map) + bias is {apart} apart from the logit")


def measure(
    target: Target, pid: int, verifier: Verifier, heatmap: str, clients: int, seconds: float
) -> dict[str, Any]:
    """Load the server whose first process is `pid`; figures of the window, all answers verified.

    `rate` is requests a second; p50, p95, p99, `cpu_ms` (the server's), `frontend_cpu_ms` (its
    first process's) and `client_cpu_ms` (ours) are milliseconds a request; `others` is how many
    cores anyone else kept busy; memory is in MB.
    """
    busy, before = processes.machine_busy(), processes.cpu_seconds(pid)
    load = run(target, clients, seconds)
    used = processes.spent(before, processes.cpu_seconds(pid))
    others = processes.machine_busy() - busy - sum(used.values()) - load.client_cpu
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
        "others": round(max(0.0, others) / load.seconds, 3),
        "memory_mb": memory,
    }


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    values = np.percentile(1000 * np.array(seconds), list(PERCENTILES.values()))
    return {name: round(float(v), 3) for name, v in zip(PERCENTILES, values, strict=True)}


def _milliseconds(seconds: float, count: int) -> float:
    return round(1000 * seconds / count, 3)
