"""Scaling of cost with image size and clients: `python -m benchmarks.serving.scaling`.

Two parts, each in two rounds, ascending and descending: `sizes`, images of 0.05 to 20 megapixels
with one client and with 16; `clients`, 1 to 64 clients with one worker and with two. Measurements
are stored in `docs/results/speed/growth.json`, where a part that is not measured again stays.
`python -m benchmarks.serving.scaling_report` writes charts and `docs/results/growth.md` again.
"""

import argparse
import io
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.serving import environment, load, scaling_report, servers
from benchmarks.serving.images import QUALITY, SIDE
from benchmarks.serving.load import OVERLAY, Verifier
from benchmarks.serving.scaling_report import FILE, RESULTS
from benchmarks.serving.servers import Server
from client import archives, serve, settings
from client.archives import Archive
from train.data import phantoms
from train.model import checkpoint

WORKERS = (1, 2)
PARTS = ("sizes", "clients")
MEGAPIXELS = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
CLIENTS = (1, 2, 4, 8, 16, 32, 64)
SIZE_CLIENTS = (1, 16)  # clients of the part `sizes`
IMAGES = 4  # per size
CLIENT_MEGAPIXELS = 1.5  # of the images of the part `clients`
ROUNDS = 2

Measurement = dict[str, Any]


def phantom_jpegs(megapixels: float) -> list[bytes]:
    """JPEG files of square phantoms of this size."""
    side = round((megapixels * 1e6) ** 0.5)
    return [_jpeg(number, side) for number in range(IMAGES)]


def _jpeg(number: int, side: int) -> bytes:
    file = io.BytesIO()
    resized = _drawn(number).resize((side, side), Image.Resampling.BICUBIC)
    resized.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


@cache
def _drawn(number: int) -> Image.Image:
    return Image.fromarray(phantoms.draw(0, number, number % 2, SIDE).image)


def sizes(options: argparse.Namespace, archive: Archive) -> list[Measurement]:
    """Measurements with one client and with 16, for images of every size."""
    measurements: list[Measurement] = []
    bodies = {size: phantom_jpegs(size) for size in MEGAPIXELS}
    with _serving(1, options, archive) as server:
        verifiers = {size: _warm(server, archive, bodies[size]) for size in MEGAPIXELS}
        for number in range(ROUNDS):
            for size in _in_round(MEGAPIXELS, number):
                target = server.target(bodies[size], archive.network)
                for clients in SIZE_CLIENTS:
                    measured = load.measure(
                        target, server.pid, verifiers[size], OVERLAY, clients, options.seconds
                    )
                    kilobytes = round(sum(map(len, bodies[size])) / IMAGES / 1000, 1)
                    measurements.append({"megapixels": size, "kilobytes": kilobytes, **measured})
                    _print(f"{size} megapixels", measured)
    return measurements


def clients(options: argparse.Namespace, archive: Archive) -> list[Measurement]:
    """Measurements with every number of clients, with one worker and two in turns."""
    measurements: list[Measurement] = []
    bodies = phantom_jpegs(CLIENT_MEGAPIXELS)
    with ExitStack() as stack:
        running = {
            workers: stack.enter_context(_serving(workers, options, archive)) for workers in WORKERS
        }
        verifiers = {w: _warm(server, archive, bodies) for w, server in running.items()}
        for number in range(ROUNDS):
            for count in _in_round(CLIENTS, number):
                for workers, server in running.items():
                    target = server.target(bodies, archive.network)
                    measured = load.measure(
                        target, server.pid, verifiers[workers], OVERLAY, count, options.seconds
                    )
                    measurements.append({"workers": workers, **measured})
                    _print(f"{workers} workers", measured)
    return measurements


def _serving(
    workers: int, options: argparse.Namespace, archive: Archive
) -> AbstractContextManager[Server]:
    changes = {settings.WORKERS: str(workers)}
    return servers.pneumocam(f"{workers} workers", [archive.path], changes, options.config)


def _warm(server: Server, archive: Archive, bodies: Sequence[bytes]) -> Verifier:
    verifier = Verifier()
    load.warm(server.target(bodies, archive.network), verifier, max(SIZE_CLIENTS), 1.0)
    return verifier


def _in_round(values: Sequence[Any], number: int) -> Sequence[Any]:
    """The values, in reverse order in every second round."""
    return values[::-1] if number % 2 else values


def _print(title: str, measured: Measurement) -> None:
    line = "{clients} clients, {rate:.1f} requests/s, {p50:.0f} ms p50, {p99:.0f} ms p99"
    print(f"{title}: {line.format(**measured)}", flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archive", type=Path, default=Path("model_store/resnet50-1.0.mar"))
    parser.add_argument("--config", type=Path, default=serve.Options().config)
    parser.add_argument("--seconds", type=float, default=4, help="per window (default: 4)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: docs/results")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # exit handlers stop the servers
    archive = archives.read(options.archive)
    path = options.results / FILE
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for part, measure in (("sizes", sizes), ("clients", clients)):
        if part in options.only:
            content[part] = {
                **{"machine": environment.machine(), "archive": archive_facts(archive)},
                **{"seconds": options.seconds, "measurements": measure(options, archive)},
            }
            checkpoint.write_text(path, json.dumps(content, indent=1) + "\n")
    scaling_report.write(options.results)


def archive_facts(archive: Archive) -> dict[str, str]:
    """Network, version, precision and engine of an archive, for the results."""
    graph = archives.card_of(archive.path).networks[0].graph
    return {
        **{"network": archive.network, "version": archive.version},
        **{"precision": graph.precision, "engine": graph.engine},
    }


if __name__ == "__main__":
    main()
