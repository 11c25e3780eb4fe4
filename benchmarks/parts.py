"""The parts of the serving benchmark: what takes turns with what."""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import floor, load, orders, processes, systems
from benchmarks.load import MAP, NONE, OVERLAY
from benchmarks.systems import PEERS, ROAD, ROOT, Server
from client import archives
from client.archives import Archive
from client.state import Running

CLIENTS = (1, 4, 16)
MOST = max(CLIENTS)
HEATMAPS = (NONE, MAP, OVERLAY)
SHORT = 1 / 3  # of --seconds: the window of all but the peers, which answer a third as often
WARM_UP = 2.0  # seconds with 16 clients, after every image was asked about once

Measure = Callable[[float], dict[str, Any]]  # of a window's seconds


@dataclass(frozen=True)
class Packed:
    """One archive to measure: its label, and how its graph is run."""

    label: str
    archive: Archive
    precision: str
    engine: str
    weights_sha256: str = ""


@dataclass
class Bench:
    """What is asked for, and what was measured so far."""

    options: argparse.Namespace
    images: list[bytes]
    measurements: list[dict[str, Any]] = field(default_factory=list)
    labels: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # network, system, image
    failed: list[str] = field(default_factory=list)  # groups

    @contextmanager
    def attempt(self, group: str) -> Iterator[None]:
        """A group that fails in the block is left out, and said; the others go on."""
        try:
            yield
        except Exception as error:
            print(f"{group} FAILED AND IS LEFT OUT: {error}", flush=True)
            self.failed.append(group)
            self.measurements = [one for one in self.measurements if one["group"] != group]

    def in_turn(
        self, group: str, turns: Mapping[str, Measure], seconds: float, rounds: int | None = None
    ) -> None:
        """Measure each once a round; a round's figures are compared with each other alone."""
        part, network, *_ = group.split("/")
        rounds = rounds or self.options.pairs
        for number in range(1, rounds + 1):
            for subject, measure in turns.items():
                found = measure(seconds)
                where = {"part": part, "network": network, "group": group}
                self.measurements.append({**where, "subject": subject, "round": number, **found})
                print(f"{group} {number}/{rounds} {subject}: {_line(found)}", flush=True)


def _line(found: Mapping[str, Any]) -> str:
    names = {"rate": "requests/s", "p50": "ms p50", "cpu_ms": "ms CPU", "others": "cores by others"}
    names |= {
        "ready_seconds": "s until ready",
        "rss_mb": "MB",
        "above_mb": "MB above empty",
        "worker": "ms",
    }
    return ", ".join(f"{found[key]:.1f} {name}" for key, name in names.items() if key in found)


def warm(server: Server, network: str, bench: Bench) -> None:
    """Every image once, whose answers tell the labels; then all clients for two seconds."""
    target, verifier = server.target(bench.images, network), server.verifier(network)
    verifier.check(load.each_once(target).answers, OVERLAY)
    known = [verifier.labels[image] for image in range(len(bench.images))]
    bench.labels.setdefault(network, {})[server.name] = known
    verifier.check(load.run(target, MOST, WARM_UP).answers, OVERLAY)


def asking(
    server: Server,
    network: str,
    bench: Bench,
    *,
    heatmap: str = OVERLAY,
    clients: int = MOST,
    share: float = 1,
) -> Measure:
    """To measure this server, for that share of a window's seconds."""
    target, verifier = server.target(bench.images, network, heatmap), server.verifier(network)

    def measure(seconds: float) -> dict[str, Any]:
        return load.measure(target, server.pid, verifier, heatmap, clients, share * seconds)

    return measure


def peers(bench: Bench, network: str, served: Mapping[str, Server], weights: Path | None) -> None:
    """Ours of every label and one peer, in turn: 16 clients, with overlays.

    Without weights there are no peers, and ours of several labels take turns alone.
    """
    ours = {label: asking(server, network, bench, share=SHORT) for label, server in served.items()}
    seconds = bench.options.seconds
    if weights is None:
        group = f"peers/{network}/none"
        with bench.attempt(group):
            bench.in_turn(group, ours, seconds)
        return
    for one in PEERS:
        group = f"peers/{network}/{one.name}"
        with bench.attempt(group), systems.peer(one, weights) as server:
            warm(server, network, bench)
            turns = {**ours, one.name: asking(server, network, bench)}
            bench.in_turn(group, turns, seconds)


def matrix(bench: Bench, network: str, served: Mapping[str, Server]) -> None:
    """Every heatmap with 1, 4 and 16 clients; the 16 in as many rounds as the pairs."""
    for label, server in served.items():
        for clients in CLIENTS:
            turns = {
                heatmap: asking(server, network, bench, heatmap=heatmap, clients=clients)
                for heatmap in HEATMAPS
            }
            rounds = None if clients == MOST else 1
            group = f"matrix/{network}/{label}/{clients}"
            with bench.attempt(group):
                bench.in_turn(group, turns, SHORT * bench.options.seconds, rounds)


def beside_floor(
    bench: Bench, network: str, served: Mapping[str, Server], packed: Sequence[Packed]
) -> None:
    """A server with 1 and 16 clients, and its archive's graph alone in batches of 1 and 4."""
    for one in packed:
        group = f"floor/{network}/{one.label}"
        process = orders.process("benchmarks.floor", one.archive.path, bench.images)
        with bench.attempt(group), process as order:
            turns: dict[str, Measure] = {
                f"ours {clients}": asking(served[one.label], network, bench, clients=clients)
                for clients in (1, MOST)
            }
            for runtime in floor.runtimes(archives.card_of(one.archive.path)):
                for batch in floor.BATCHES:
                    turns[f"{runtime} {batch}"] = _ordering(order, runtime=runtime, batch=batch)
            bench.in_turn(group, turns, SHORT * bench.options.seconds)


def profile(
    bench: Bench, network: str, served: Mapping[str, Server], packed: Sequence[Packed]
) -> None:
    """A server with one client, and the handler alone with a clock in its steps."""
    for one in packed:
        group = f"profile/{network}/{one.label}"
        process = orders.process("benchmarks.profile_request", one.archive.path, bench.images)
        with bench.attempt(group), process as order:
            turns = {
                "server": asking(served[one.label], network, bench, clients=1),
                "handler": _ordering(order),
            }
            bench.in_turn(group, turns, SHORT * bench.options.seconds)


def _ordering(order: orders.Order, **fields: Any) -> Measure:
    order(**fields, seconds=0.1)  # loads the graph, outside of any window
    return lambda seconds: order(**fields, seconds=seconds)


def start(bench: Bench, packed: Sequence[Packed]) -> None:
    """How long a worker takes until it answers; its memory, loaded, above an empty one's."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        systems.pack("empty", ROOT / "benchmarks" / "peers" / "empty_handler.py", store)
        with systems.bare(store) as running:
            systems.register(running, "empty.mar", running.batch_size)
            port, empty = running.ports["inference"], systems.worker(running, "empty")
            load.run(load.Target(port, "/predictions/empty", bench.images), MOST, WARM_UP)
            for one in packed:
                shutil.copy(one.archive.path, store / "one.mar")
                server = Server(one.label, running.pid, port, ROAD)
                turns = {one.label: _starting(bench, running, server, one.archive.network, empty)}
                group = f"start/{one.archive.network}/{one.label}"
                with bench.attempt(group):
                    bench.in_turn(group, turns, WARM_UP)


def _starting(bench: Bench, running: Running, server: Server, network: str, empty: int) -> Measure:
    target, verifier = server.target(bench.images, network), server.verifier(network)

    def measure(seconds: float) -> dict[str, Any]:
        ready = systems.register(running, "one.mar", running.batch_size)
        worker = systems.worker(running, network)
        fresh = processes.memory_of(worker)
        verifier.check(load.run(target, MOST, seconds).answers, OVERLAY)
        loaded, nothing = processes.memory_of(worker), processes.memory_of(empty)
        systems.unregister(running, network)
        return {
            "ready_seconds": round(ready, 3),
            "fresh_rss_mb": fresh.rss,
            "rss_mb": loaded.rss,
            "uss_mb": loaded.uss,
            "empty_rss_mb": nothing.rss,
            "empty_uss_mb": nothing.uss,
            "above_mb": round(loaded.rss - nothing.rss, 1),
            "above_uss_mb": round(loaded.uss - nothing.uss, 1),
        }

    return measure
