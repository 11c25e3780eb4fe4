"""Benchmark of serving: pneumocam against peers and against the floor of a request's cost.

`python -m benchmarks.serving --archive f32=FOLDER --archive int8=FOLDER` measures, and writes
`docs/results/speed/speed.json`, the tables and the chart. With `--run 2` it writes `speed-2.json`,
and cells show both runs. `python -m benchmarks.serving.report` writes tables and chart again.
Systems that are compared run in turns: each round gives a ratio, and the range of the ratios shows
how reliable they are.

Five parts per network: `peers`, with overlay and 16 clients; `matrix`, all heatmap options and
client counts; `floor`, decoding, network, overlay and JSON in one process; `profile`, milliseconds
of a single request by step; `start`, start and memory of a worker.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.serving import environment, images, ratios, report, scenarios, servers
from benchmarks.serving import results as result_files
from benchmarks.serving.inputs import install_peers, peer_weights, read_archives
from benchmarks.serving.scenarios import CLIENTS, HEATMAPS, SHORT, Bench, LabelledArchive
from benchmarks.serving.servers import PEERS, Server
from client.archives import ENSEMBLE
from train.model.networks import NETWORKS

RESULTS = Path("docs/results")
PARTS = ("peers", "matrix", "floor", "profile", "start")


@contextmanager
def serving(
    archived: Sequence[LabelledArchive], bench: Bench, network: str
) -> Iterator[dict[str, Server]]:
    """A warm server for each label."""
    with ExitStack() as stack:
        running = {}
        for labelled in archived:
            label = labelled.label
            server = servers.pneumocam(label, [labelled.path])
            running[label] = stack.enter_context(server)
            scenarios.warm(running[label], network, bench)
        yield running


def measure(bench: Bench, archived: Sequence[LabelledArchive]) -> None:
    """Measure the selected parts, network by network, into `bench.measurements`."""
    parts = bench.options.only
    for network in [*NETWORKS, ENSEMBLE]:
        selected = [labelled for labelled in archived if labelled.network == network]
        if not selected:
            print(f"NO ARCHIVE OF {network}: it is not measured", flush=True)
            continue
        if set(parts) - {"start"}:
            with serving(selected, bench, network) as running:
                measure_running(bench, network, running, selected)
        if "start" in parts:
            scenarios.start(bench, selected)


def measure_running(
    bench: Bench,
    network: str,
    running: dict[str, Server],
    archived: Sequence[LabelledArchive],
) -> None:
    """Measure the parts that load a running server; only the matrix for the ensemble."""
    options = bench.options
    if "peers" in options.only and network != ENSEMBLE:
        with tempfile.TemporaryDirectory() as folder:
            random = Path(folder) if options.random_peers else None
            scenarios.peers(bench, network, running, peer_weights(network, archived, random))
    if "matrix" in options.only:
        scenarios.matrix(bench, network, running)
    if "floor" in options.only and network != ENSEMBLE:
        scenarios.against_floor(bench, network, running, archived)
    if "profile" in options.only and network != ENSEMBLE:
        scenarios.profile(bench, network, running, archived)


def minutes(options: argparse.Namespace, archived: Sequence[LabelledArchive]) -> float:
    """Estimated duration: windows, requests in flight at their end, starts and stops."""
    short, rounds, total = SHORT * options.seconds + 0.4, options.pairs, 0.0
    for network in {labelled.network for labelled in archived}:
        labels = sum(labelled.network == network for labelled in archived)
        per_label = 0.0
        if network != ENSEMBLE:
            if "peers" in options.only:
                total += len(PEERS) * (18 + rounds * (labels * short + options.seconds + 4))
            if "floor" in options.only:
                per_label += 10 + rounds * 6 * short
            if "profile" in options.only:
                per_label += 6 + rounds * 2 * short
        if "matrix" in options.only:
            per_label += len(HEATMAPS) * short * (len(CLIENTS) - 1 + rounds)
        if "start" in options.only:
            per_label += 5 + rounds * 8
        total += labels * (12 + per_label)
    return total / 60


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archive", action="append", default=[], metavar="LABEL=FILE_OR_FOLDER")
    parser.add_argument("--images", type=Path, help="folder of full-size JPEG; default: phantoms")
    parser.add_argument("--seconds", type=float, default=4, help="per window (default: 4)")
    parser.add_argument("--pairs", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: docs/results")
    parser.add_argument(
        "--run", type=int, default=1, help="1 replaces all stored runs; 2 and so on are added"
    )
    parser.add_argument(
        "--random-peers",
        action="store_true",
        help="random weights for peers without published ones: for smoke runs only",
    )
    return parser.parse_args(arguments)


def results(bench: Bench, archived: Sequence[LabelledArchive]) -> dict[str, Any]:
    """The stored content of a run without the machine's facts: measurements and ratios."""
    options = bench.options
    source = "files of a folder" if options.images else "phantoms written at full size"
    return {
        "settings": {
            **{"seconds": options.seconds, "pairs": options.pairs, "only": list(options.only)},
            "random_peers": options.random_peers,
        },
        "images": images.facts(bench.images, source),
        "peers": {peer.name: peer.title for peer in PEERS},
        "archives": [
            {
                **{"label": labelled.label, "network": labelled.network},
                **{"version": labelled.archive.version, "sha256": labelled.archive.sha256},
                **{"precision": labelled.precision, "engine": labelled.engine},
            }
            for labelled in archived
        ],
        "labels": bench.labels,
        "failed": bench.failed,
        "measurements": bench.measurements,
        "ratios": ratios.compute(bench.measurements, [labelled.label for labelled in archived]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # exit handlers stop the servers
    archived = read_archives(options.archive)
    if "peers" in options.only:
        install_peers()
    bench, machine = Bench(options, images.read(options.images)), environment.machine()
    print(f"about {minutes(options, archived):.0f} minutes; leave the machine idle", flush=True)
    started = time.monotonic()
    measure(bench, archived)
    machine["took_seconds"] = round(time.monotonic() - started)
    result_files.keep(
        options.results, options.run, {"machine": machine, **results(bench, archived)}
    )
    print(f"written: {report.write(options.results)}", flush=True)
    if bench.failed:
        sys.exit(f"FAILED AND LEFT OUT: {', '.join(bench.failed)}")


if __name__ == "__main__":
    main()
