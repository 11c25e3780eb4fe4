"""Our server beside its peers and beside what an answer costs at least.

`python -m benchmarks.serving --archive f32=FOLDER --archive int8=FOLDER` measures, and writes
`docs/results/speed/speed.json`, the tables and the chart; with `--run 2`, `speed-2.json`, whose
figures stand beside the first's. `python -m benchmarks.speed_report` writes tables and chart again.
Whatever is compared takes turns (ours, peer, ours, peer): each round gives a ratio, and the spread
of the ratios says what they are worth.

Five parts, for each network: `peers`, with overlay, 16 clients; `matrix`, of heatmaps and clients;
`floor`, decode, network, overlay and JSON in one process; `profile`, where the milliseconds of a
lone request go; `start`, of a worker, and its memory.
"""

import argparse
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import facts, images, measured, parts, ratios, speed_report, systems
from benchmarks.parts import CLIENTS, HEATMAPS, SHORT, Bench, Packed
from benchmarks.systems import PEERS, ROOT, Server
from client import archives
from client.archives import TOGETHER
from handlers import card as cards
from handlers import files
from handlers.card import ArchivedNetwork, TrainedNetwork
from handlers.card_fields import Dataset, Input, MapGrid, Training
from train import checkpoint
from train.networks import NETWORKS, build

RESULTS = Path("docs/results")
STORE = Path("model_store")
REQUIREMENTS = ROOT / "benchmarks" / "requirements.txt"
PARTS = ("peers", "matrix", "floor", "profile", "start")


@contextmanager
def serving(packed: Sequence[Packed], bench: Bench, network: str) -> Iterator[dict[str, Server]]:
    """A server for each label, warm."""
    with ExitStack() as stack:
        servers = {}
        for one in packed:
            servers[one.label] = stack.enter_context(systems.ours(one.label, [one.archive.path]))
            parts.warm(servers[one.label], network, bench)
        yield servers


def weights_of(network: str, packed: Sequence[Packed], random: Path | None) -> Path | None:
    """The published weights, for the peers; without them random ones in a folder, or none.

    What is amiss is said loudly.
    """
    path = ROOT / checkpoint.PUBLISHED / f"{network}.safetensors"
    if path.is_file():
        mine = checkpoint.read_network_card(path).weights_sha256
        if any(one.weights_sha256 != mine for one in packed):
            print(f"THE PEERS OF {network} HAVE OTHER WEIGHTS than its archive", flush=True)
        return path
    if random is None:
        print(f"NO PEERS FOR {network}: there is no {path.name} in weights/", flush=True)
        return None
    print(f"RANDOM WEIGHTS FOR THE PEERS OF {network}: a smoke run, no result", flush=True)
    path = random / path.name
    checkpoint.write_weights(path, build(network).state_dict())
    cards.write(path.with_suffix(".json"), _random_card(network, files.sha256(path)))
    return path


def _random_card(network: str, sha256: str) -> TrainedNetwork:
    """The card of a network that was never trained."""
    return TrainedNetwork(
        network=network,
        input=Input(size=224),
        map=MapGrid(rows=14, columns=14, dilated=True),
        classes=("NORMAL", "PNEUMONIA"),
        bias=(0.0, 0.0),
        training=Training(
            data=Dataset(name="none", sha256="", counts={}), seed=0, init="random", preset="none"
        ),
        warnings=("never trained: for a smoke run of the benchmark",),
        weights_sha256=sha256,
    )


def read_archives(given: Sequence[str]) -> list[Packed]:
    """What `--archive LABEL=FILE_OR_FOLDER` names; without any, the model store, as `f32`.

    Raises:
        ValueError: an option is not so written, or a label has two archives of one network.
    """
    found: list[Packed] = []
    for word in given or [f"f32={STORE}"]:
        label, _, named = word.partition("=")
        if not named or not re.fullmatch(r"[\w.-]+", label) or label in [one.name for one in PEERS]:
            raise ValueError(f"--archive {word}: write LABEL=FILE_OR_FOLDER, no peer's name")
        path = Path(named)
        files = [path] if path.is_file() else sorted(path.glob("*.mar"))
        if not files:
            print(f"NOTHING OF {label}: {path} holds no archives", flush=True)
        found += [_packed(label, file) for file in files]
    names = [(one.label, one.archive.network) for one in found]
    if len(set(names)) < len(names):
        raise ValueError(f"two archives of one network have the same label: {names}")
    if not found:
        raise ValueError("there are no archives: build them with make archive")
    return found


def _packed(label: str, path: Path) -> Packed:
    archive, card = archives.read(path), archives.card_of(path)
    graph = card.networks[0].graph
    weights = card.weights_sha256 if isinstance(card, ArchivedNetwork) else None
    return Packed(label, archive, graph.precision, graph.engine, weights or "")


def install_peers() -> None:
    """Install what the peers need, where it is not there."""
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if "==" in line]
    there = [facts.version(line.split("==")[0]) == line.split("==")[1] for line in lines]
    if all(there):
        return
    print("installing what the peers need ...", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["-c", str(ROOT / "requirements.lock"), "-r", str(REQUIREMENTS)]
    subprocess.run(command, check=True)


def measure(bench: Bench, packed: Sequence[Packed]) -> None:
    """What is asked for, network by network."""
    only = bench.options.only
    for network in [*NETWORKS, TOGETHER]:
        some = [one for one in packed if one.archive.network == network]
        if not some:
            print(f"NOTHING OF {network}: there is no archive of it", flush=True)
            continue
        if set(only) - {"start"}:
            with serving(some, bench, network) as served:
                under_load(bench, network, served, some)
        if "start" in only:
            parts.start(bench, some)


def under_load(
    bench: Bench, network: str, served: dict[str, Server], packed: Sequence[Packed]
) -> None:
    """The parts that load a server; of several networks together, the matrix alone."""
    options = bench.options
    if "peers" in options.only and network != TOGETHER:
        with tempfile.TemporaryDirectory() as folder:
            random = Path(folder) if options.random_peers else None
            parts.peers(bench, network, served, weights_of(network, packed, random))
    if "matrix" in options.only:
        parts.matrix(bench, network, served)
    if "floor" in options.only and network != TOGETHER:
        parts.beside_floor(bench, network, served, packed)
    if "profile" in options.only and network != TOGETHER:
        parts.profile(bench, network, served, packed)


def minutes(options: argparse.Namespace, packed: Sequence[Packed]) -> float:
    """About how long it takes: windows, what is under way at their end, starts and stops."""
    short, rounds, total = SHORT * options.seconds + 0.4, options.pairs, 0.0
    for network in {one.archive.network for one in packed}:
        labels = sum(one.archive.network == network for one in packed)
        alone = 0.0  # of one label
        if network != TOGETHER:
            if "peers" in options.only:
                total += len(PEERS) * (18 + rounds * (labels * short + options.seconds + 4))
            if "floor" in options.only:
                alone += 10 + rounds * 6 * short
            if "profile" in options.only:
                alone += 6 + rounds * 2 * short
        if "matrix" in options.only:
            alone += len(HEATMAPS) * short * (len(CLIENTS) - 1 + rounds)
        if "start" in options.only:
            alone += 5 + rounds * 8
        total += labels * (12 + alone)
    return total / 60


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archive", action="append", default=[], metavar="LABEL=FILE_OR_FOLDER")
    parser.add_argument("--images", type=Path, help="folder of full-size JPEG; default: phantoms")
    parser.add_argument("--seconds", type=float, default=4, help="of a window (default: 4)")
    parser.add_argument("--pairs", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="of the parts")
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: docs/results")
    parser.add_argument(
        "--run", type=int, default=1, help="1 begins anew; 2 and so on stand beside it"
    )
    parser.add_argument(
        "--random-peers", action="store_true", help="where weights lack: smoke runs alone"
    )
    return parser.parse_args(arguments)


def results(bench: Bench, packed: Sequence[Packed]) -> dict[str, Any]:
    """What is kept beside the machine's facts: every measurement, every pair's ratios."""
    options = bench.options
    source = "files of a folder" if options.images else "phantoms written at full size"
    return {
        "settings": {
            **{"seconds": options.seconds, "pairs": options.pairs, "only": list(options.only)},
            "random_peers": options.random_peers,
        },
        "images": images.facts(bench.images, source),
        "peers": {one.name: one.title for one in PEERS},
        "archives": [
            {
                **{"label": one.label, "network": one.archive.network},
                **{"version": one.archive.version, "sha256": one.archive.sha256},
                **{"precision": one.precision, "engine": one.engine},
            }
            for one in packed
        ],
        "labels": bench.labels,
        "failed": bench.failed,
        "measurements": bench.measurements,
        "ratios": ratios.all_of(bench.measurements, [one.label for one in packed]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped
    packed = read_archives(options.archive)
    if "peers" in options.only:
        install_peers()
    bench, machine = Bench(options, images.read(options.images)), facts.machine()
    print(f"about {minutes(options, packed):.0f} minutes; leave the machine alone", flush=True)
    started = time.monotonic()
    measure(bench, packed)
    machine["took_seconds"] = round(time.monotonic() - started)
    found = {"machine": machine, **results(bench, packed)}
    measured.keep(options.results, options.run, found)
    print(f"written: {speed_report.write(options.results)}", flush=True)
    if bench.failed:
        sys.exit(f"FAILED AND LEFT OUT: {', '.join(bench.failed)}")


if __name__ == "__main__":
    main()
