"""Which server settings suit this machine: `python -m benchmarks.serving.tune_server`.

Two servers with the archives of the model store run in turns, one with the current settings and one
with a single change. The figures are requests per second with 16 clients and p50 latency with one.
The changes that win are measured once more, together; if they win again, they are written into
config.properties.
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

from benchmarks.serving import images, load, processes, servers
from benchmarks.serving.load import OVERLAY, UnverifiedError, Verifier
from benchmarks.serving.servers import Server
from client import api, archives, serve, settings
from client import state as states
from client.archives import ENSEMBLE, Archive
from handlers import engine
from train.model import checkpoint
from train.report import report_sections

RATE, P50 = "requests/s", "p50"
CLIENTS = {RATE: 16, P50: 1}
WARM_UP = 3.0  # seconds, with 16 clients
MIN_GAIN = 0.02  # a smaller gain does not justify a change
MAX_LOSS = 0.10  # that a winner may have in any figure
BUSY = 0.2  # if other programs use more cores, figures are unreliable

Values = Mapping[str, str]  # of config.properties
# By figure ("resnet50 p50"), the ratio of the changed to the current settings per pair of windows,
# above 1 is better. Empty if the measurement failed.
Gains = dict[str, list[float]]


def cores() -> int:
    """Physical cores that this process may use: the engines' default number of threads."""
    usable = engine.cores()
    return min(usable, psutil.cpu_count(logical=False) or usable)


def changes(current: Values, cores: int) -> list[Values]:
    """The changes to try, one at a time, without those that the current settings already have."""
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
    values = {**defaults, **current}
    return [change for change in candidates if not change.items() <= values.items()]


def newest(store: Path, networks: list[str] | None) -> list[Archive]:
    """The newest archive of each network; the ensemble's only if it is named, or alone."""
    by_network = {archive.network: archive for archive in archives.find(store, networks)}
    if ENSEMBLE not in (networks or []) and len(by_network) > 1:
        by_network.pop(ENSEMBLE, None)
    return list(by_network.values())


def measure(
    change: Values,
    archived: Sequence[Archive],
    bodies: Sequence[bytes],
    options: argparse.Namespace,
) -> Gains:
    """The gains of a change over the current settings; both servers are started for it.

    Empty, with the reason printed, if a server does not start or answers wrongly.
    """
    print(label(change), flush=True)
    paths = [archive.path for archive in archived]
    verifiers = {archive.network: Verifier() for archive in archived}
    gains: Gains = {}
    background: list[float] = []  # cores that other programs used, by window

    def speed(server: Server, network: str, figure: str) -> float:
        target, verifier = server.target(bodies, network), verifiers[network]
        clients, seconds = CLIENTS[figure], options.seconds
        window = load.measure(target, server.pid, verifier, OVERLAY, clients, seconds)
        background.append(window["others"])
        return float(window["rate"] if figure == RATE else 1 / window["p50"])

    try:
        with (
            servers.pneumocam("current", paths, {}, options.config) as current,
            servers.pneumocam("changed", paths, change, options.config) as changed,
        ):
            for network, server in product(verifiers, (current, changed)):
                target = server.target(bodies, network)
                load.warm(target, verifiers[network], CLIENTS[RATE], WARM_UP)
            for pair in range(options.pairs):
                turns = (current, changed) if pair % 2 == 0 else (changed, current)
                for network, figure in product(verifiers, CLIENTS):
                    speeds = {server.name: speed(server, network, figure) for server in turns}
                    gain = speeds["changed"] / speeds["current"]
                    gains.setdefault(f"{network} {figure}", []).append(gain)
            memory = [
                processes.memory(server.pid)["workers"]["rss"] for server in (current, changed)
            ]
            print("  workers' memory: {:.0f} → {:.0f} MB".format(*memory), flush=True)
            if (most := max(background)) > BUSY:
                print(f"  unreliable: other programs used {most:.2f} cores", flush=True)
    except (settings.StartError, api.ServerError, UnverifiedError, processes.DiedError) as error:
        print(f"  failed: {error}", flush=True)
        return {}
    return gains


def wins(gains: Gains, baseline: Gains) -> bool:
    """Whether some figure gains and none loses more than a tenth.

    A figure gains if every pair does, and the median by more than 2% and by more than any pair of
    the `baseline` differs from 1: two servers with the current settings.
    """
    gained = any(
        min(ratios) > 1
        and median(ratios) - 1 > max(MIN_GAIN, *(abs(ratio - 1) for ratio in baseline[figure]))
        for figure, ratios in gains.items()
    )
    return gained and min(map(median, gains.values())) >= 1 / (1 + MAX_LOSS)


def combine(trials: Sequence[tuple[Values, Gains]], baseline: Gains) -> Values:
    """All winning changes as one. If two set the same key, the greater product of medians wins."""
    winners = [(change, gains) for change, gains in trials if wins(gains, baseline)]
    winners.sort(key=lambda winner: prod(map(median, winner[1].values())))
    return {key: value for change, _ in winners for key, value in change.items()}


def label(change: Values) -> str:
    """The change as one line."""
    return ", ".join(f"{key}={value}" for key, value in change.items()) or "current settings"


def table(trials: Sequence[tuple[Values, Gains]], baseline: Gains) -> str:
    """A row per change: median, minimum and maximum of each figure's gains, and whether it wins."""
    rows = []
    for change, gains in trials:
        cells = [f"{median(r):.3f} ({min(r):.3f} to {max(r):.3f})" for r in gains.values()]
        outcome = ("yes" if wins(gains, baseline) else "no") if gains else "failed"
        rows.append([label(change), *(cells or ["–"] * len(baseline)), outcome])
    return report_sections.table(["change", *baseline, "wins"], rows)


def update(text: str, values: Values) -> str:
    """The text of a properties file with these values; comments and the rest stay as they are."""
    for key, value in values.items():
        pair = f"{key}={value}"
        pattern = rf"(?m)^[ \t]*{re.escape(key)}[ \t]*=.*$"
        text, count = re.subn(pattern, pair.replace("\\", r"\\"), text)
        if not count:
            text = f"{text.rstrip()}\n\n# Found by make tune-server.\n{pair}\n"
    return text


def tune(options: argparse.Namespace) -> None:
    """Measure every change, print the table, write the winners.

    Raises:
        StartError: the current settings could not be measured.
    """
    archived, bodies = newest(options.model_store, options.networks), images.read(options.images)
    current = settings.read(options.config, {})
    candidates = changes(current, cores())
    windows = options.pairs * 2 * len(CLIENTS)
    minutes = (len(candidates) + 2) * len(archived) * (windows * options.seconds + 25) / 60
    print(f"about {minutes:.0f} minutes; leave the machine idle", flush=True)
    baseline = measure({}, archived, bodies, options)
    if not baseline:
        raise settings.StartError("the server fails with the current settings: see above")
    trials = [(change, measure(change, archived, bodies, options)) for change in candidates]
    winner = combine(trials, baseline)
    if winner:
        trials.append((winner, measure(winner, archived, bodies, options)))
    print("\nRatio to the current settings, above 1 is better: median (minimum to maximum)\n")
    print(table([({}, baseline), *trials], baseline))
    if not winner or not wins(trials[-1][1], baseline):
        print(f"{options.config} is unchanged.")
        return
    for key, value in winner.items():
        print(f"{key}: {current.get(key, 'default')} → {value}")
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
    parser.add_argument("--networks", nargs="+", help="to measure (default: all of the store)")
    parser.add_argument("--model-store", type=Path, default=default.model_store)
    parser.add_argument("--config", type=Path, default=default.config, help="read and written")
    parser.add_argument("--state", type=Path, default=default.state)
    parser.add_argument("--images", type=Path, help="folder of full-size JPEG; default: phantoms")
    parser.add_argument("--seconds", type=float, default=4, help="per window (default: 4)")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of windows (default: 4)")
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # exit handlers stop the servers
    try:
        if states.running(options.state):
            raise settings.StartError("a server is running and would be measured too: make stop")
        if os.environ.get("PNEUMOCAM_THREADS"):
            raise settings.StartError("PNEUMOCAM_THREADS overrides the settings to try: unset it")
        tune(options)
    except (archives.ArchiveError, settings.StartError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
