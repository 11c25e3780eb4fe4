"""What to set for this machine: `python -m benchmarks.tune_server`.

Each change of the server's settings takes turns with the present ones, on the archives of the model
store: requests a second of 16 clients, and p50 of one. Those that win have to win again, together,
before they are written into config.properties. Every change that was measured is a line in
`.server/tuned.jsonl`; the same command goes on where it was.
"""

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks import tuning
from benchmarks.trials import CLIENTS, Bench
from benchmarks.tuning import ITSELF, Change, Trial
from client import archives, serve, settings
from client import state as states
from client.archives import TOGETHER, Archive
from train import checkpoint


def cores() -> int:
    """Physical cores that this process may use, as the engines count them."""
    usable = len(psutil.Process().cpu_affinity()) if psutil.LINUX else os.cpu_count() or 1
    return min(usable, psutil.cpu_count(logical=False) or usable)


def to_measure(store: Path, networks: Sequence[str] | None) -> list[Archive]:
    """The highest version of each network; of all together only where it is named.

    Raises:
        ArchiveError: nothing is there.
    """
    found = archives.find(store, list(networks) if networks else None)
    last = {one.network: one for one in found if networks or one.network != TOGETHER}
    return list(last.values()) or found[-1:]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = serve.Options()
    parser.add_argument("--networks", nargs="+", help="to ask (all of the store, each alone)")
    parser.add_argument("--model-store", type=Path, default=default.model_store)
    parser.add_argument("--config", type=Path, default=default.config, help="read and written")
    parser.add_argument("--log-config", type=Path, default=default.log_config)
    parser.add_argument("--state", type=Path, default=default.state)
    parser.add_argument("--images", type=Path, help="folder of full-size JPEG; default: phantoms")
    parser.add_argument("--seconds", type=float, default=4, help="of a window (default: 4)")
    parser.add_argument("--pairs", type=int, default=4, help="windows of each (default: 4)")
    parser.add_argument("--groups", nargs="+", help="of changes, such as batch and workers")
    parser.add_argument("--most", type=int, default=-1, help="so many changes now, others later")
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    return parser.parse_args(arguments)


def tune(options: argparse.Namespace) -> int:
    """Measure, print, write."""
    bench = Bench(options, to_measure(options.model_store, options.networks))
    wanted = tuning.changes(bench.present, cores())
    if options.groups:
        wanted = [change for change in wanted if change.group in options.groups]
    window = options.seconds * len(CLIENTS) * len(bench.packed)
    each = 2 * options.pairs * window + 25 * len(bench.packed)
    print(f"about {(len(wanted) + 2) * each / 60:.0f} minutes; leave the machine alone")
    itself = bench.trial(ITSELF)
    if itself and itself.failed:
        print(f"error: {itself.label}: {itself.failed}", file=sys.stderr)
        return 1
    tried = [(change, bench.trial(change)) for change in wanted]
    done = [(change, trial) for change, trial in tried if trial]
    winner = tuning.best(done, itself) if itself and len(done) == len(tried) else None
    again = bench.trial(winner) if winner else None
    if itself is None or len(done) < len(tried) or (winner and again is None):
        print("not all is measured: the same command goes on")
        return 0
    present = ", ".join(f"{figure} {value:.1f}" for figure, value in itself.present.items())
    trials = [itself, *[trial for _, trial in done], *([again] if again else [])]
    print(f"\nnow: {present}; how many times as good, median (least to most):\n")
    print(tuning.table(trials, itself))
    if winner is None or again is None or not tuning.wins(again, itself):
        print(f"{options.config} stays as it is.")
        return 0
    _write(options, winner, again, bench.present)
    return 0


def _write(
    options: argparse.Namespace, winner: Change, again: Trial, present: Mapping[str, str]
) -> None:
    for key, value in winner.values.items():
        print(f"{key}: {present.get(key, 'left out')} → {value}")
    print("workers' memory: {:.0f} → {:.0f} MB".format(*again.megabytes))
    if options.dry_run:
        print(f"{options.config} is not written (--dry-run)")
        return
    text = tuning.written(options.config.read_text(), winner.values)
    checkpoint.write_text(options.config, text)
    print(f"{options.config} is written; next: make serve. Once more may find more.")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped
    problem = None
    if states.running(options.state):
        problem = "a server runs here and would be measured too: make stop"
    if os.environ.get("PNEUMOCAM_THREADS"):
        problem = "PNEUMOCAM_THREADS goes over what is to be tried: unset it"
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    try:
        return tune(options)
    except (archives.ArchiveError, settings.StartError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
