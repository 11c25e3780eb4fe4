"""Which server settings suit this machine: `python -m benchmarks.tune_server`.

Two servers with the archives of the model store take turns, one with the present settings and one
with a single change: requests per second of 16 clients, p50 latency of one. The changes that win
are measured once more, together; if they win again, they are written into config.properties.
"""

import argparse
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from pathlib import Path
from statistics import median

import psutil

from benchmarks import images, load, processes, systems
from benchmarks.load import OVERLAY, UnverifiedError, Verifier
from benchmarks.systems import Server
from client import api, archives, serve, settings
from client import state as states
from client.archives import TOGETHER, Archive
from handlers import engine
from train import checkpoint, sections

RATE, P50 = "requests/s", "p50"
CLIENTS = {RATE: 16, P50: 1}
WARM_UP = 3.0  # seconds, with 16 clients
MIN_GAIN = 0.02  # a smaller one is not worth a change
MAX_LOSS = 0.10  # of a winner in any other figure
BUSY = 0.2  # cores used by other processes above which figures are unreliable

Values = Mapping[str, str]  # of config.properties
# By figure ("resnet50 p50") one ratio per pair of windows: how many times as good, above 1 is
# better. Empty if nothing could be measured.
Gains = dict[str, list[float]]


def cores() -> int:
    """Physical cores that this process may use: the engines' own choice of threads."""
    usable = engine.cores()
    return min(usable, psutil.cpu_count(logical=False) or usable)


def changes(present: Values, cores: int) -> list[Values]:
    """What to try, one at a time, without what the present settings have already."""
    workers = [(1, cores), (2, cores), (2, cores // 2), (4, cores // 4)]
    candidates: list[Values] = [
        *[{settings.BATCH_SIZE: str(size)} for size in (1, 2, 4, 8)],
        *[{settings.MAX_BATCH_DELAY: str(delay)} for delay in (1, 5, 20)],
        *[{settings.WORKERS: str(n), settings.THREADS: str(t)} for n, t in workers if t],
        {"async_logging": "true"},
        {"number_of_netty_threads": "1"},
    ]
    defaults = {
        settings.WORKERS: "1",
        settings.THREADS: str(cores),
        settings.BATCH_SIZE: str(api.BATCH_SIZE),
        settings.MAX_BATCH_DELAY: str(api.MAX_BATCH_DELAY_MS),
    }
    values = {**defaults, **present}
    return [change for change in candidates if not change.items() <= values.items()]


def newest(store: Path, networks: list[str] | None) -> list[Archive]:
    """The newest archive of each network; the one of all together only by name, or alone."""
    by_network = {archive.network: archive for archive in archives.find(store, networks)}
    if TOGETHER not in (networks or []) and len(by_network) > 1:
        by_network.pop(TOGETHER, None)
    return list(by_network.values())


def measure(
    change: Values, packed: Sequence[Archive], bodies: Sequence[bytes], options: argparse.Namespace
) -> Gains:
    """A change beside the present settings; both servers start anew and take turns."""
    print(label(change), flush=True)
    paths = [archive.path for archive in packed]
    verifiers = {archive.network: Verifier() for archive in packed}
    gains: Gains = {}
    others: list[float] = []  # cores that other processes used, by window

    def speed(server: Server, network: str, figure: str) -> float:
        target, verifier = server.target(bodies, network), verifiers[network]
        clients, seconds = CLIENTS[figure], options.seconds
        window = load.measure(target, server.pid, verifier, OVERLAY, clients, seconds)
        others.append(window["others"])
        return float(window["rate"] if figure == RATE else 1 / window["p50"])

    try:
        with (
            systems.ours("present", paths, {}, options.config) as present,
            systems.ours("changed", paths, change, options.config) as changed,
        ):
            for network, server in product(verifiers, (present, changed)):
                target = server.target(bodies, network)
                load.warm(target, verifiers[network], CLIENTS[RATE], WARM_UP)
            for pair in range(options.pairs):
                servers = (present, changed) if pair % 2 == 0 else (changed, present)
                for network, figure in product(verifiers, CLIENTS):
                    speeds = {server.name: speed(server, network, figure) for server in servers}
                    gain = speeds["changed"] / speeds["present"]
                    gains.setdefault(f"{network} {figure}", []).append(gain)
            memory = [
                processes.memory(server.pid)["workers"]["rss"] for server in (present, changed)
            ]
            print("  workers' memory: {:.0f} → {:.0f} MB".format(*memory), flush=True)
            if max(others) > BUSY:
                print(f"  unreliable: other processes used {max(others):.2f} cores", flush=True)
    except (settings.StartError, api.ServerError, UnverifiedError, processes.DiedError) as error:
        print(f"  failed: {error}", flush=True)
        return {}
    return gains


def wins(gains: Gains, baseline: Gains) -> bool:
    """Whether some figure gains and none loses more than a tenth.

    A figure gains if every pair does, and the median by more than 2% and by more than the present
    settings differ from themselves in any pair (`baseline`).
    """
    gained = any(
        min(ratios) > 1
        and median(ratios) - 1 > max(MIN_GAIN, *(abs(ratio - 1) for ratio in baseline[figure]))
        for figure, ratios in gains.items()
    )
    return gained and min(map(median, gains.values())) >= 1 / (1 + MAX_LOSS)


def combine(trials: Sequence[tuple[Values, Gains]], baseline: Gains) -> Values:
    """All winning changes as one; where two set the same, the greater product of its medians."""
    winners = [(change, gains) for change, gains in trials if wins(gains, baseline)]
    winners.sort(key=lambda winner: prod(map(median, winner[1].values())))
    return {key: value for change, _ in winners for key, value in change.items()}


def label(change: Values) -> str:
    """The change as one line."""
    return ", ".join(f"{key}={value}" for key, value in change.items()) or "present settings"


def table(trials: Sequence[tuple[Values, Gains]], baseline: Gains) -> str:
    """A row per change: median, least and most of each figure's gains, and whether it wins."""
    rows = []
    for change, gains in trials:
        cells = [f"{median(r):.3f} ({min(r):.3f} to {max(r):.3f})" for r in gains.values()]
        outcome = ("yes" if wins(gains, baseline) else "no") if gains else "failed"
        rows.append([label(change), *(cells or ["–"] * len(baseline)), outcome])
    return sections.table(["change", *baseline, "wins"], rows)


def update(text: str, values: Values) -> str:
    """The text of a properties file with these values; all other lines, comments too, stay."""
    for key, value in values.items():
        pair = f"{key}={value}"
        pattern = rf"(?m)^[ \t]*{re.escape(key)}[ \t]*=.*$"
        text, count = re.subn(pattern, pair.replace("\\", r"\\"), text)
        if not count:
            text = f"{text.rstrip()}\n\n# Found by make tune-server.\n{pair}\n"
    return text


def tune(options: argparse.Namespace) -> None:
    """Measure every change, print the table, write the winners."""
    packed, bodies = newest(options.model_store, options.networks), images.read(options.images)
    present = settings.read(options.config, {})
    candidates = changes(present, cores())
    windows = options.pairs * 2 * len(CLIENTS)
    minutes = (len(candidates) + 2) * len(packed) * (windows * options.seconds + 25) / 60
    print(f"about {minutes:.0f} minutes; leave the machine alone", flush=True)
    baseline = measure({}, packed, bodies, options)
    if not baseline:
        raise settings.StartError("the server fails with the present settings: see above")
    trials = [(change, measure(change, packed, bodies, options)) for change in candidates]
    winner = combine(trials, baseline)
    if winner:
        trials.append((winner, measure(winner, packed, bodies, options)))
    print("\nHow many times as good as the present settings, median (least to most):\n")
    print(table([({}, baseline), *trials], baseline))
    if not winner or not wins(trials[-1][1], baseline):
        print(f"{options.config} stays as it is.")
        return
    for key, value in winner.items():
        print(f"{key}: {present.get(key, 'default')} → {value}")
    if options.dry_run:
        print(f"{options.config} is not written (--dry-run).")
        return
    checkpoint.write_text(options.config, update(options.config.read_text(), winner))
    print(f"{options.config} is written; next: make serve.")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = serve.Options()
    parser.add_argument("--networks", nargs="+", help="to ask (default: all of the store)")
    parser.add_argument("--model-store", type=Path, default=default.model_store)
    parser.add_argument("--config", type=Path, default=default.config, help="read and written")
    parser.add_argument("--state", type=Path, default=default.state)
    parser.add_argument("--images", type=Path, help="folder of full-size JPEG; default: phantoms")
    parser.add_argument("--seconds", type=float, default=4, help="of a window (default: 4)")
    parser.add_argument("--pairs", type=int, default=4, help="windows of each (default: 4)")
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped
    try:
        if states.running(options.state):
            raise settings.StartError("a server runs here and would be measured too: make stop")
        if os.environ.get("PNEUMOCAM_THREADS"):
            raise settings.StartError("PNEUMOCAM_THREADS overrides what is tried: unset it")
        tune(options)
    except (archives.ArchiveError, settings.StartError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
