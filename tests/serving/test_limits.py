"""What one client can cost the others: bombs, a full queue, a worker that dies."""

import io
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests
from PIL import Image

from client import api, transport
from tests.serving.conftest import Place, client, new_place, picture, write_archive
from tests.serving.test_server import chunk

RAW = {"Content-Type": "application/octet-stream"}
SLOW = 0.1  # seconds for an overlay


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """resnet50 as it is, and `slow`, whose overlays take their time."""
    place = new_place(tmp_path_factory.mktemp("limits"))
    write_archive(place, "resnet50", "1.0")
    line = (
        "import time, handlers.heatmap as h\n"
        f"draw, h.overlay = h.overlay, lambda *w: (time.sleep({SLOW}), draw(*w))[1]"
    )
    write_archive(place, "slow", "1.0", line=line)
    started = client("serve", place)
    assert started.returncode == 0, started.stdout + started.stderr
    yield place
    assert client("stop", place).returncode == 0


def ask(place: Place, network: str, content: bytes) -> requests.Response:
    url = f"{place.inference}/predictions/{network}"
    return requests.post(url, data=content, headers=RAW, timeout=30)


def worker(place: Place, network: str) -> psutil.Process:
    (entry,) = api.call("GET", place.management_at, f"/models/{network}").json()
    return psutil.Process(entry["workers"][0]["pid"])


def png(side: int, depth: int, colours: int, bytes_a_pixel: int) -> bytes:
    """A black PNG of few bytes and many pixels."""
    packer = zlib.compressobj(9)
    row = bytes(1 + side * bytes_a_pixel)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = side.to_bytes(4) * 2 + bytes([depth, colours, 0, 0, 0])
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    stream = io.BytesIO()
    Image.new("L", (2800, 2800), 90).save(stream, "JPEG", progressive=True)
    jpeg = stream.getvalue()
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * count + jpeg[-2:]


@pytest.mark.parametrize(
    ("make", "status"),
    [
        pytest.param(lambda: png(30_000, 8, 0, 1), 413, id="900 million pixels"),
        pytest.param(lambda: png(7000, 16, 0, 2), 413, id="49 million of 16 bits"),
        pytest.param(lambda: png(7000, 8, 6, 4), 413, id="49 million of four channels"),
        pytest.param(lambda: png(2800, 16, 0, 2), 200, id="8 million of 16 bits"),
        pytest.param(lambda: png(2800, 8, 6, 4), 200, id="8 million of four channels"),
        pytest.param(lambda: scans(1000), 413, id="1000 scans"),
        pytest.param(lambda: scans(50), 200, id="50 scans"),
    ],
)
def test_a_bomb_costs_little(place: Place, make: Callable[[], bytes], status: int) -> None:
    bomb, process = make(), worker(place, "resnet50")
    assert len(bomb) < 1e6
    assert ask(place, "resnet50", picture(100)).status_code == 200
    before, peak, done = process.memory_info().rss, [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], process.memory_info().rss)

    watching = threading.Thread(target=watch)
    watching.start()
    started = process.cpu_times()
    answered = ask(place, "resnet50", bomb)
    used = process.cpu_times()
    done.set()
    watching.join()
    assert answered.status_code == status, answered.text
    assert peak[0] - before < 100e6
    # Of this process, not of the clock: the machine may be busy with other things.
    assert used.user + used.system - started.user - started.system < 1.0


def test_a_full_queue_says_so_and_recovers(place: Place) -> None:
    with ThreadPoolExecutor(200) as pool:
        result = list(pool.map(lambda _: ask(place, "slow", picture(100)), range(200)))
    codes = [answer.status_code for answer in result]
    assert set(codes) == {200, 503}
    assert codes.count(200) >= 100  # what waited was answered
    refused = next(answer for answer in result if answer.status_code == 503)
    assert "has no worker" in refused.json()["message"]  # it means the queue
    assert transport.message_of(refused) == transport.FULL
    assert ask(place, "slow", picture(100)).status_code == 200


def test_a_worker_that_is_killed_comes_back(place: Place) -> None:
    process = worker(place, "slow")
    with ThreadPoolExecutor(12) as pool:
        sent = [pool.submit(ask, place, "slow", picture(100)) for _ in range(40)]
        time.sleep(3 * SLOW)
        process.kill()
        killed = time.monotonic()
        codes = [each.result().status_code for each in sent]  # none hangs beyond its timeout
    assert set(codes) <= {200, 500, 503, 507}
    while ask(place, "slow", picture(100)).status_code != 200:
        assert time.monotonic() - killed < 15
        time.sleep(0.2)
    assert worker(place, "slow").pid != process.pid
    assert ask(place, "resnet50", picture(100)).status_code == 200
