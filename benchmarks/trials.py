"""A change of the server's settings beside the present ones: two servers, asked in turn."""

import argparse
import hashlib
import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import images, load, processes, systems, tuning
from benchmarks.load import OVERLAY, UnverifiedError, Verifier
from benchmarks.systems import ROAD, Server
from benchmarks.tuning import P50, RATE, Change, Trial
from client import api, serve, settings
from client import server as torchserve
from client import state as states
from client.archives import Archive

CLIENTS = {RATE: 16, P50: 1}
WARM_UP = 3.0  # seconds with all clients
BUSY = 0.2  # cores that something else uses, from which on figures mean little
TRIES = 3  # of a pair, where something else is busy


@contextmanager
def serving(
    values: Mapping[str, str], config: Path, packed: Sequence[Archive], log_config: Path
) -> Iterator[Server]:
    """A server of these archives with values over those of a settings file."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        store, changed = folder / "store", folder / "config.properties"
        store.mkdir()
        for one in packed:
            shutil.copy(one.path, store)
        metrics = settings.read(config, {}).get("metrics_config")  # relative to the file it is in
        over = {**values, "metrics_config": metrics} if metrics else values
        changed.write_text(tuning.written(config.read_text(), over))
        options = serve.Options(
            model_store=store,
            config=changed,
            log_config=log_config,
            state=folder / "state",
            data=folder,
            ports=systems.free_ports(list(settings.PORTS)),
        )
        try:
            with (folder / "printed").open("w") as file, redirect_stdout(file):
                serve.serve(options)
            running = states.running(options.state)
            assert running
            yield Server("", running.pid, running.ports["inference"], ROAD)
        finally:
            torchserve.stop(options.state)


class Bench:
    """What is asked for, and the trials that were made so far."""

    def __init__(self, options: argparse.Namespace, packed: Sequence[Archive]) -> None:
        """Read the images and what was measured before."""
        self.options, self.packed = options, packed
        self.images = images.read(options.images)
        self.present = tuning.filled(settings.read(options.config, {}))
        self.verifiers = {one.network: Verifier() for one in packed}
        self.file: Path = options.state / "tuned.jsonl"
        self.left: int = options.most

    def trial(self, change: Change) -> Trial | None:
        """A change beside the present settings, measured now or before; None: for another call."""
        key = self.key(change)
        lines = self.file.read_text().splitlines() if self.file.is_file() else []
        for line in lines:
            if (known := json.loads(line))["key"] == key:
                return tuning.from_json(known["trial"])
        if self.left == 0:
            return None
        self.left -= 1
        print(change.label, flush=True)
        try:
            found = self._measure(change)
        except (settings.StartError, api.ServerError) as error:
            print(f"  {error}", flush=True)
            found = Trial(change.label, failed="does not start")
        except (UnverifiedError, processes.DiedError) as error:
            print(f"  {error}", flush=True)
            found = Trial(change.label, failed="does not answer rightly")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as file:
            file.write(json.dumps({"key": key, "trial": asdict(found)}) + "\n")
        return found

    def key(self, change: Change) -> str:
        """What a trial's figures hold for: settings, archives, images, windows."""
        said = [
            *(self.present, dict(change.values), change.group, self.options.seconds),
            *(self.options.pairs, [one.sha256 for one in self.packed]),
            [hashlib.sha256(image).hexdigest() for image in self.images],
        ]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def _measure(self, change: Change) -> Trial:
        options = self.options
        where = options.config, self.packed, options.log_config
        # Both start afresh: Java grows faster as it runs.
        with serving({}, *where) as present, serving(change.values, *where) as changed:
            servers = present, changed
            for network, verifier in self.verifiers.items():
                for server in servers:
                    self._warm(server, network, verifier)
            pairs: dict[str, list[tuple[float, float]]] = {}
            for number in range(options.pairs):
                for network in self.verifiers:
                    for figure in CLIENTS:
                        pair = self._pair(servers, network, figure, turned=number % 2 == 1)
                        pairs.setdefault(f"{network} {figure}", []).append(pair)
            memory = [processes.memory(one.pid)["workers"]["rss"] for one in servers]
        return _trial(change.label, pairs, (memory[0], memory[1]))

    def _warm(self, server: Server, network: str, verifier: Verifier) -> None:
        target = server.target(self.images, network)
        verifier.check(load.each_once(target).answers, OVERLAY)
        verifier.check(load.run(target, CLIENTS[RATE], WARM_UP).answers, OVERLAY)

    def _pair(
        self, servers: tuple[Server, Server], network: str, figure: str, *, turned: bool
    ) -> tuple[float, float]:
        """A figure of both servers, one after the other, the second first where it is turned.

        Where something else was busy meanwhile, both are asked again.
        """
        for _ in range(TRIES):
            found, busy = [0.0, 0.0], 0.0
            for which in (1, 0) if turned else (0, 1):
                measured = self._ask(servers[which], network, CLIENTS[figure])
                found[which] = measured["rate" if figure == RATE else "p50"]
                busy = max(busy, measured["others"])
            print(f"  {network} {figure}: {found[0]:.1f} → {found[1]:.1f}", flush=True)
            if busy < BUSY:
                break
            print(f"  something else here uses {busy:.2f} cores", flush=True)
        return found[0], found[1]

    def _ask(self, server: Server, network: str, clients: int) -> dict[str, Any]:
        target, verifier = server.target(self.images, network), self.verifiers[network]
        seconds = self.options.seconds
        return load.measure(target, server.pid, verifier, OVERLAY, clients, seconds)


def _trial(
    label: str, pairs: Mapping[str, Sequence[tuple[float, float]]], megabytes: tuple[float, float]
) -> Trial:
    """What pairs of figures, present and changed, say."""
    gains, present = {}, {}
    for figure, found in pairs.items():
        higher_is_better = figure.endswith(RATE)
        ratios = [(b / a if higher_is_better else a / b) for a, b in found]
        gains[figure] = [round(ratio, 4) for ratio in ratios]
        present[figure] = statistics.median(a for a, _ in found)
    return Trial(label, gains, present, megabytes)
