"""What an answer costs as work grows: `python -m benchmarks.growth`.

Two parts, each in two rounds, there and back: `sizes`, images of 0.05 to 20 megapixels, asked for
by one client and by 16; `clients`, 1 to 64 of them, of one worker and of two. What was measured is
kept in `docs/results/speed/growth.json`, a part that is not measured again stays as it was;
`python -m benchmarks.growth_report` writes charts and `docs/results/growth.md` again.
"""

import argparse
import io
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks import facts, growth_report, load, trials
from benchmarks.growth_report import FILE, RESULTS
from benchmarks.images import QUALITY, SIDE
from benchmarks.load import OVERLAY, Verifier
from benchmarks.systems import Server
from client import archives, serve, settings
from client.archives import Archive
from train import checkpoint, phantoms

WORKERS = (1, 2)
PARTS = ("sizes", "clients")
MEGAPIXELS = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
CLIENTS = (1, 2, 4, 8, 16, 32, 64)
ALONE, MANY = 1, 16  # clients that ask for images of a size
IMAGES = 4  # of each size
AS_LARGE = 1.5  # megapixels of those that more and more clients ask for
ROUNDS = 2

Found = dict[str, Any]


def phantoms_of(megapixels: float) -> list[bytes]:
    """JPEG files of square phantoms with so many pixels."""
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


def sizes(options: argparse.Namespace, archive: Archive) -> list[Found]:
    """One client and 16, for images of every size."""
    found: list[Found] = []
    bodies = {size: phantoms_of(size) for size in MEGAPIXELS}
    where = options.config, [archive], options.log_config
    with trials.serving({settings.WORKERS: "1"}, *where) as server:
        verifiers = {size: _warm(server, archive, bodies[size]) for size in MEGAPIXELS}
        for number in range(ROUNDS):
            for size in _there_and_back(MEGAPIXELS, number):
                target = server.target(bodies[size], archive.network)
                for clients in (ALONE, MANY):
                    measured = load.measure(
                        target, server.pid, verifiers[size], OVERLAY, clients, options.seconds
                    )
                    kilobytes = round(sum(map(len, bodies[size])) / IMAGES / 1000, 1)
                    found.append({"megapixels": size, "kilobytes": kilobytes, **measured})
                    _say(f"{size} megapixels", measured)
    return found


def clients(options: argparse.Namespace, archive: Archive) -> list[Found]:
    """More and more clients, of one worker and of two in turn."""
    found: list[Found] = []
    bodies = phantoms_of(AS_LARGE)
    where = options.config, [archive], options.log_config
    with ExitStack() as stack:
        servers = {
            workers: stack.enter_context(trials.serving({settings.WORKERS: str(workers)}, *where))
            for workers in WORKERS
        }
        verifiers = {w: _warm(server, archive, bodies) for w, server in servers.items()}
        for number in range(ROUNDS):
            for count in _there_and_back(CLIENTS, number):
                for workers, server in servers.items():
                    target = server.target(bodies, archive.network)
                    measured = load.measure(
                        target, server.pid, verifiers[workers], OVERLAY, count, options.seconds
                    )
                    found.append({"workers": workers, **measured})
                    _say(f"{workers} workers", measured)
    return found


def _warm(server: Server, archive: Archive, bodies: Sequence[bytes]) -> Verifier:
    target, verifier = server.target(bodies, archive.network), Verifier()
    verifier.check(load.each_once(target).answers, OVERLAY)
    verifier.check(load.run(target, MANY, 1.0).answers, OVERLAY)
    return verifier


def _there_and_back(values: Sequence[Any], number: int) -> Sequence[Any]:
    return values[::-1] if number % 2 else values


def _say(what: str, measured: Found) -> None:
    line = "{clients} clients, {rate:.1f} requests/s, {p50:.0f} ms p50, {p99:.0f} ms p99"
    print(f"{what}: {line.format(**measured)}", flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = serve.Options()
    parser.add_argument("--archive", type=Path, default=Path("model_store/resnet50-1.0.mar"))
    parser.add_argument("--config", type=Path, default=default.config)
    parser.add_argument("--log-config", type=Path, default=default.log_config)
    parser.add_argument("--seconds", type=float, default=4, help="of a window (default: 4)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="of the parts")
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: docs/results")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped
    archive = archives.read(options.archive)
    path = options.results / FILE
    kept: Found = json.loads(path.read_text()) if path.is_file() else {}
    for part, measure in (("sizes", sizes), ("clients", clients)):
        if part in options.only:
            kept[part] = {
                **{"machine": facts.machine(), "archive": facts_of(archive)},
                **{"seconds": options.seconds, "measurements": measure(options, archive)},
            }
            checkpoint.write_text(path, json.dumps(kept, indent=1) + "\n")
    growth_report.write(options.results)


def facts_of(archive: Archive) -> Found:
    """What a result says of the archive."""
    graph = archives.card_of(archive.path).networks[0].graph
    return {
        **{"network": archive.network, "version": archive.version},
        **{"precision": graph.precision, "engine": graph.engine},
    }


if __name__ == "__main__":
    main()
