"""Thousands of requests, good and bad mixed in the same batches: each gets what it gets alone."""

import base64
import io
import json
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from client import api
from tests.handlers.test_dicom import file, radiograph
from tests.serving.conftest import Place, client, new_place, write_archive

CLIENTS = 24
BATCH = 8
DELAY_MS = 5
ROUNDS, TOGETHER = 100, 25  # requests of a round, each asked together and then alone
SETTLED = 20  # rounds after which the worker's memory stays
GROWTH = 20e6  # bytes that it may wander by: 4 kB a request would be more


def encoded(pixels: Any, format: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format)
    return stream.getvalue()


RANDOM = np.random.default_rng(0)
NOISE = RANDOM.integers(0, 256, (90, 70), np.uint8)
IMAGES = [
    encoded(NOISE, "PNG"),
    encoded(NOISE, "JPEG"),
    encoded(RANDOM.integers(0, 256, (64, 64, 3), np.uint8), "PNG"),
    encoded(RANDOM.integers(0, 65536, (80, 80), np.uint16), "PNG"),
    encoded(np.full((500, 400), 180, np.uint8), "JPEG"),
    file(radiograph(RANDOM.integers(0, 4096, (70, 60), np.uint16), 12)),
    file(radiograph(RANDOM.integers(0, 4096, (70, 60), np.uint16), 12, Modality="CT")),
]


@dataclass(frozen=True)
class SentRequest:
    """One request, as `requests` takes it."""

    road: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What came back, without what differs from request to request."""

    status: int
    kind: str
    reply: Any

    @property
    def bad(self) -> bool:
        return self.status >= 400


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """An image as it is, cut short, with some bytes changed, or no image at all."""
    image = draw(st.sampled_from(IMAGES))
    match draw(st.sampled_from(["as it is", "as it is", "cut", "changed", "other"])):
        case "cut":
            return image[: draw(st.integers(0, len(image)))]
        case "changed":
            changed = bytearray(image)
            for place in draw(st.lists(st.integers(0, len(image) - 1), min_size=1, max_size=8)):
                changed[place] = draw(st.integers(0, 255))
            return bytes(changed)
        case "other":
            return draw(st.binary(max_size=200))
        case _:
            return image


OPTIONS = st.dictionaries(
    st.sampled_from(["class", "heatmap", "operating_point"]),
    st.sampled_from(["PNEUMONIA", "NORMAL", "predicted", "map", "none", "overlay", "rule_in", "x"]),
    max_size=2,
)
ACCEPT = st.sampled_from(["", "image/png", "application/json", "*/*", "image/png;q=0.5", ";;q=z"])
ODD = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60)


@st.composite
def requests_(draw: st.DrawFn) -> SentRequest:
    """Raw bytes, a form or JSON; a prediction or an explanation; options of both kinds."""
    body = draw(bodies())
    options = draw(OPTIONS)
    headers = {"Accept": draw(ACCEPT), "X-Request-Id": draw(ODD)}
    headers = {name: value for name, value in headers.items() if value}
    match draw(st.sampled_from(["raw", "raw", "query", "form", "json", "broken json", "explain"])):
        case "query":
            return SentRequest("m/2.0/predict", body, {**headers, **RAW}, options)
        case "form":
            prepared = requests.Request(
                "POST", "http://x/", files={"image": ("x", body)}, data=options
            ).prepare()
            kind = {"Content-Type": prepared.headers["Content-Type"]}
            assert isinstance(prepared.body, bytes)
            return SentRequest("predictions/m/2.0", prepared.body, {**headers, **kind})
        case "json":
            reply = {"image": base64.b64encode(body).decode(), **options}
            return SentRequest("predictions/m/2.0", json.dumps(reply).encode(), {**headers, **JSON})
        case "broken json":
            text = draw(st.text(max_size=60)).encode()
            return SentRequest("predictions/m/2.0", text, {**headers, **JSON})
        case "explain":
            return SentRequest("explanations/m/2.0", body, {**headers, **RAW})
        case _:
            return SentRequest("predictions/m/2.0", body, {**headers, **RAW})


RAW = {"Content-Type": "application/octet-stream"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """`m` 1.0 as `serve` loads it, and 2.0 with batches of 8 that wait for company."""
    place = new_place(tmp_path_factory.mktemp("isolation"))
    write_archive(place, "m", "1.0")
    started = client("serve", place)
    assert started.returncode == 0, started.stdout + started.stderr
    write_archive(place, "m", "2.0")
    query = {"url": "m-2.0.mar", "initial_workers": "1", "synchronous": "true"}
    batches = {"batch_size": str(BATCH), "max_batch_delay": str(DELAY_MS)}
    api.call("POST", place.management_at, "/models", params={**query, **batches})
    yield place
    assert client("stop", place).returncode == 0


def ask(session: requests.Session, place: Place, sent: SentRequest) -> Answer:
    url = f"{place.inference}/{sent.road}"
    result = session.post(url, data=sent.body, headers=sent.headers, params=sent.query, timeout=60)
    kind = result.headers.get("Content-Type", "")
    reply: Any = result.content
    if kind.startswith("application/json"):
        reply = result.json()
        reply.pop("request_id", None)
    return Answer(result.status_code, kind, reply)


def check_same(together: Answer, alone: Answer, sent: SentRequest) -> None:
    """The same label and, to 1e-5, probability; the same refusal; of pictures the same bytes."""
    assert together.status == alone.status, (sent, together.reply, alone.reply)
    assert together.status < 500, (sent, together.reply)
    if together.bad or not isinstance(together.reply, dict):
        assert together.reply == alone.reply, sent
        return
    assert together.reply["label"] == alone.reply["label"]
    for name, value in alone.reply["probability"].items():
        assert together.reply["probability"][name] == pytest.approx(value, abs=1e-5)
    assert together.reply.keys() == alone.reply.keys()


def batch_sizes(place: Place) -> float:
    """The mean size of the batches of 2.0 so far, by the server's own metrics."""
    page = requests.get(place.metrics, timeout=10).text
    lines = [line for line in page.splitlines() if 'Version="2.0"' in line]
    total, count = (
        sum(
            float(line.split()[-1])
            for line in lines
            if line.startswith(f"pneumocam_batch_size_{kind}")
        )
        for kind in ("sum", "count")
    )
    return total / count


@pytest.mark.minutes
def test_requests_in_a_batch_are_answered_as_if_alone(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    (entry,) = api.call("GET", place.management_at, "/models/m/2.0").json()
    assert entry["batchSize"] == BATCH
    worker = psutil.Process(entry["workers"][0]["pid"])
    memory: list[int] = []
    answered: list[Answer] = []
    sizes: list[float] = []
    session = requests.Session()
    sessions = [requests.Session() for _ in range(CLIENTS)]

    @settings(
        max_examples=ROUNDS,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(requests_(), min_size=TOGETHER, max_size=TOGETHER))
    def run(every: list[SentRequest]) -> None:
        with ThreadPoolExecutor(CLIENTS) as pool:
            result = pool.map(
                lambda pair: ask(sessions[pair[0] % CLIENTS], place, pair[1]), enumerate(every)
            )
            together = list(result)
        sizes.append(batch_sizes(place))
        for sent, answer in zip(every, together, strict=True):
            check_same(answer, ask(session, place, sent), sent)
        answered.extend(together)
        memory.append(worker.memory_info().rss)

    run()
    (entry,) = api.call("GET", place.management_at, "/models/m/2.0").json()
    assert entry["workers"][0]["pid"] == worker.pid
    bad = sum(answer.bad for answer in answered)
    with capsys.disabled():
        print(
            f"\n{2 * len(answered)} requests, {bad / len(answered):.0%} of them bad, "
            f"{len({(a.status, str(a.reply.get('type'))) for a in answered if a.bad})} refusals; "
            f"batches of {sizes[0]:.1f}; worker {memory[SETTLED] / 1e6:.0f} MB after "
            f"{SETTLED} rounds, {memory[-1] / 1e6:.0f} MB at the end"
        )
    assert 0.2 < bad / len(answered) < 0.8
    assert sizes[0] > 1.5  # later the lone ones count in
    assert (
        statistics.median(memory[-5:]) < statistics.median(memory[SETTLED : SETTLED + 5]) + GROWTH
    )
