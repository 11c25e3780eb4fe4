"""Parts of the serving benchmark: which systems are measured in turns, under which load."""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.serving import floor, load, processes, servers, worker
from benchmarks.serving.load import MAP, NONE, OVERLAY
from benchmarks.serving.servers import PEERS, PREDICT, ROOT, Server
from client import archives
from client.archives import Archive
from client.state import Running

CLIENTS = (1, 4, 16)
MAX_CLIENTS = max(CLIENTS)
HEATMAPS = (NONE, MAP, OVERLAY)
# Share of --seconds: the window of every system but the peers, which are about three times slower.
SHORT = 1 / 3
WARM_UP = 2.0  # seconds with 16 clients, after every image was sent once

Measure = Callable[[float], dict[str, Any]]  # a window's seconds → measured figures


@dataclass(frozen=True)
class LabelledArchive:
    """An archive to measure, its label, and how its graph is run."""

    label: str
    archive: Archive
    precision: str
    engine: str
    weights_sha256: str = ""

    @property
    def network(self) -> str:
        """Name of the archive's network."""
        return self.archive.network

    @property
    def path(self) -> Path:
        """Path of the archive's file."""
        return self.archive.path


@dataclass
class Bench:
    """The options of a run, and its measurements so far."""

    options: argparse.Namespace
    images: list[bytes]
    measurements: list[dict[str, Any]] = field(default_factory=list)
    labels: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # network, system, image
    failed: list[str] = field(default_factory=list)  # groups

    @contextmanager
    def attempt(self, group: str) -> Iterator[None]:
        """Measure a group; if it fails, print why, drop its measurements and continue."""
        try:
            yield
        except Exception as error:
            print(f"{group} FAILED AND IS LEFT OUT: {error}", flush=True)
            self.failed.append(group)
            kept = [measured for measured in self.measurements if measured["group"] != group]
            self.measurements = kept

    def take_turns(
        self, group: str, turns: Mapping[str, Measure], seconds: float, rounds: int | None = None
    ) -> None:
        """Measure every subject once per round; figures are compared within a round only."""
        part, network, *_ = group.split("/")
        rounds = rounds or self.options.pairs
        for number in range(1, rounds + 1):
            for subject, measure in turns.items():
                figures = measure(seconds)
                keys = {"part": part, "network": network, "group": group}
                self.measurements.append({**keys, "subject": subject, "round": number, **figures})
                print(f"{group} {number}/{rounds} {subject}: {_line(figures)}", flush=True)


def _line(figures: Mapping[str, Any]) -> str:
    units = {
        **{"rate": "requests/s", "p50": "ms p50", "cpu_ms": "ms CPU"},
        **{"others": "cores by other programs", "ready_seconds": "s until ready"},
        **{"rss_mb": "MB", "above_mb": "MB above empty", "worker": "ms"},
    }
    return ", ".join(f"{figures[key]:.1f} {unit}" for key, unit in units.items() if key in figures)


def warm(server: Server, network: str, bench: Bench) -> None:
    """Send every image once, store the labels, then load the server for two seconds."""
    target, verifier = server.target(bench.images, network), server.verifier(network)
    load.warm(target, verifier, MAX_CLIENTS, WARM_UP)
    labels = [verifier.labels[image] for image in range(len(bench.images))]
    bench.labels.setdefault(network, {})[server.name] = labels


def under_load(
    server: Server,
    network: str,
    bench: Bench,
    *,
    heatmap: str = OVERLAY,
    clients: int = MAX_CLIENTS,
    share: float = 1,
) -> Measure:
    """The function that measures this server under load, for a share of a window's seconds."""
    target, verifier = server.target(bench.images, network, heatmap), server.verifier(network)

    def measure(seconds: float) -> dict[str, Any]:
        return load.measure(target, server.pid, verifier, heatmap, clients, share * seconds)

    return measure


def peers(bench: Bench, network: str, running: Mapping[str, Server], weights: Path | None) -> None:
    """pneumocam with every label in turns with each peer: 16 clients, with overlays.

    Without weights there are no peers, and only the labels take turns.
    """
    turns = {
        label: under_load(server, network, bench, share=SHORT) for label, server in running.items()
    }
    seconds = bench.options.seconds
    if weights is None:
        group = f"peers/{network}/none"
        with bench.attempt(group):
            bench.take_turns(group, turns, seconds)
        return
    for peer in PEERS:
        group = f"peers/{network}/{peer.name}"
        with bench.attempt(group), servers.peer_server(peer, weights) as server:
            warm(server, network, bench)
            measure = under_load(server, network, bench)
            bench.take_turns(group, {**turns, peer.name: measure}, seconds)


def matrix(bench: Bench, network: str, running: Mapping[str, Server]) -> None:
    """Every heatmap option with 1, 4 and 16 clients: one round, and `--pairs` rounds with 16."""
    for label, server in running.items():
        for clients in CLIENTS:
            turns = {
                heatmap: under_load(server, network, bench, heatmap=heatmap, clients=clients)
                for heatmap in HEATMAPS
            }
            rounds = None if clients == MAX_CLIENTS else 1
            group = f"matrix/{network}/{label}/{clients}"
            with bench.attempt(group):
                bench.take_turns(group, turns, SHORT * bench.options.seconds, rounds)


def against_floor(
    bench: Bench, network: str, running: Mapping[str, Server], archived: Sequence[LabelledArchive]
) -> None:
    """A server with 1 and 16 clients, and its archive's graph alone in batches of 1 and 4."""
    for labelled in archived:
        group = f"floor/{network}/{labelled.label}"
        process = worker.process("benchmarks.serving.floor", labelled.path, bench.images)
        with bench.attempt(group), process as command:
            server = running[labelled.label]
            turns: dict[str, Measure] = {
                f"ours {clients}": under_load(server, network, bench, clients=clients)
                for clients in (1, MAX_CLIENTS)
            }
            for runtime in floor.runtimes(archives.card_of(labelled.path)):
                for batch in floor.BATCHES:
                    turns[f"{runtime} {batch}"] = _by(command, runtime=runtime, batch=batch)
            bench.take_turns(group, turns, SHORT * bench.options.seconds)


def profile(
    bench: Bench, network: str, running: Mapping[str, Server], archived: Sequence[LabelledArchive]
) -> None:
    """A server with one client, and the handler alone with a clock around its steps."""
    for labelled in archived:
        group = f"profile/{network}/{labelled.label}"
        process = worker.process("benchmarks.serving.profile", labelled.path, bench.images)
        with bench.attempt(group), process as command:
            turns = {
                "server": under_load(running[labelled.label], network, bench, clients=1),
                "handler": _by(command),
            }
            bench.take_turns(group, turns, SHORT * bench.options.seconds)


def _by(command: worker.Command, **fields: Any) -> Measure:
    """The function that measures by a command to a process, whose graph is loaded here."""
    command(**fields, seconds=0.1)
    return lambda seconds: command(**fields, seconds=seconds)


def start(bench: Bench, archived: Sequence[LabelledArchive]) -> None:
    """Seconds until a worker answers, and its memory under load, above that of an empty worker."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        servers.pack("empty", ROOT / "benchmarks" / "peers" / "empty_handler.py", store)
        with servers.empty_torchserve(store) as running:
            servers.register(running, "empty.mar", running.batch_size)
            port, empty = running.ports["inference"], servers.worker_pid(running, "empty")
            target = load.Target(port, "/predictions/empty", bench.images)
            load.run(target, MAX_CLIENTS, WARM_UP)
            for labelled in archived:
                shutil.copy(labelled.path, store / "network.mar")
                server = Server(labelled.label, running.pid, port, PREDICT)
                measure = _worker_start(bench, running, server, labelled.network, empty)
                group = f"start/{labelled.network}/{labelled.label}"
                with bench.attempt(group):
                    bench.take_turns(group, {labelled.label: measure}, WARM_UP)


def _worker_start(
    bench: Bench, running: Running, server: Server, network: str, empty: int
) -> Measure:
    """The function that starts, loads and stops a worker; `empty` is an empty worker's pid."""
    target, verifier = server.target(bench.images, network), server.verifier(network)

    def measure(seconds: float) -> dict[str, Any]:
        ready = servers.register(running, "network.mar", running.batch_size)
        pid = servers.worker_pid(running, network)
        fresh = processes.memory_of(pid)
        verifier.check(load.run(target, MAX_CLIENTS, seconds).answers, OVERLAY)
        loaded, baseline = processes.memory_of(pid), processes.memory_of(empty)
        servers.unregister(running, network)
        return {
            "ready_seconds": round(ready, 3),
            "fresh_rss_mb": fresh.rss,
            "rss_mb": loaded.rss,
            "uss_mb": loaded.uss,
            "empty_rss_mb": baseline.rss,
            "empty_uss_mb": baseline.uss,
            "above_mb": round(loaded.rss - baseline.rss, 1),
            "above_uss_mb": round(loaded.uss - baseline.uss, 1),
        }

    return measure
