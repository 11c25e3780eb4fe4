"""Runs of the serving benchmark → docs/results/speed.md, its tables and its chart.

`python -m benchmarks.speed_report` writes them again from what `benchmarks.serving` kept. What a
run did not measure is left out; of several runs every figure stands beside the first's.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import speed_chart, speed_tables, targets
from benchmarks.measured import FOLDER, NOTHING, TITLES, Run, number, read
from benchmarks.speed_tables import table
from benchmarks.targets import Row
from train import checkpoint

RESULTS = Path("docs/results")
FILE = Path("speed.md")
CHART = FOLDER / "requests.png"


def write(results: Path) -> Path:
    """Write the report on all runs that are kept, and its chart; the report's path.

    Raises:
        FileNotFoundError: no run is kept.
    """
    runs = read(results)
    chart = speed_chart.draw(runs, results / CHART)
    picture = f"![Requests a second]({CHART.as_posix()})\n" if chart else ""
    below = "\n".join(part for part in (speed_tables.agreement(runs), picture) if part)
    sections = [
        _head(runs),
        _section("What it must reach", "", _targets(runs)),
        _section("Beside what people build", PEERS, speed_tables.peers(runs), below),
        _section("Where each millisecond goes", PROFILE, speed_tables.profile(runs)),
        _section("Beside the floor", FLOOR, speed_tables.floor(runs)),
        _section("Ours", OURS, speed_tables.ours(runs)),
        _section("Start and memory", START, speed_tables.start(runs)),
        _section("Where it was measured", "", _machine(runs)),
        _quiet(runs),
    ]
    path = results / FILE
    checkpoint.write_text(path, "\n".join(section for section in sections if section))
    return path


PEERS = """\
The same weights, the same images, overlays of the same size; each peer as its own documents teach
(`benchmarks/peers`), started alone and in turn with ours. The last column is how many times as
many requests a second ours answers."""
PROFILE = """\
Milliseconds of a request that comes alone, with overlay: means, since these add up. The steps are
those of the handler in a process of its own; TorchServe's share is what a server takes beyond
them, in turn with it."""
FLOOR = """\
The same work in one process without a server: decoding, the archive's own graph by each runtime,
overlay, JSON. The server takes turns with it."""
OURS = """\
The worker's memory is what it had under that load; Java's comes to it. Of so few requests the 99th
percentile is a hint."""
START = """\
From the order to load an archive until its worker answers; memory after 16 clients. An empty worker
is one of a handler that does nothing, in the same server."""


def _section(title: str, text: str, rows: str, below: str = "") -> str:
    """Nothing without rows."""
    if not rows:
        return ""
    return "\n".join(part for part in (f"## {title}\n", text and f"{text}\n", rows, below) if part)


def _head(runs: Sequence[Run]) -> str:
    settings = runs[0].found["settings"]
    answers = sum(run.answers for run in runs)
    lines = [
        f"""\
# Speed

A full-size JPEG in; label, probability, map and overlay out. `python -m benchmarks.serving`
(`make bench`) measured it, `python -m benchmarks.speed_report` wrote this from what was kept.

What is compared takes turns, in windows of at most {settings["seconds"]:g} s: each of
{settings["pairs"]} rounds gives a ratio. Figures are medians of rounds, with the least and the most
where both are given. All {answers:,} answers of servers were verified: status, label, picture, and
of ours that mean(map) + bias is the logit.
"""
    ]
    if len(runs) > 1:
        lines.append(f"It ran {len(runs)} times: of figures in one cell the first is run 1's.\n")
    if failed := [group for run in runs for group in run.found["failed"]]:
        lines.append(f"**Failed, and left out: {', '.join(failed)}.**\n")
    if any(run.found["settings"]["random_peers"] for run in runs):
        lines.append("**Peers without published weights had random ones: a smoke run.**\n")
    return "\n".join(lines)


def _targets(runs: Sequence[Run]) -> str:
    by_run = [{row.what: row for row in targets.rows(run)} for run in runs]
    names = [""] if len(runs) == 1 else [f"run {k}: " for k in range(1, len(runs) + 1)]
    header = ["", "target"]
    header += [column for name in names for column in (f"{name}median", "least to most")]
    rows = []
    for what in dict.fromkeys(what for one in by_run for what in one):
        found = [one.get(what) for one in by_run]
        cells = [cell for row in found for cell in _measured(row)]
        there = [row for row in found if row]
        rows.append([what, _limit(there[0]), *cells, _reached(there)])
    return table([*header, "reached"], rows)


def _limit(row: Row) -> str:
    return f"{'at least' if row.at_least else 'at most'} {row.limit:g} {row.unit}"


def _measured(row: Row | None) -> tuple[str, str]:
    if row is None:
        return NOTHING, NOTHING
    beside = f", beside {row.beside}" if row.beside else ""
    least, median, most = (
        number(value, row.limit)
        for value in (min(row.values), statistics.median(row.values), max(row.values))
    )
    return f"{median}{beside}", f"{least} to {most}"


def _reached(rows: Sequence[Row]) -> str:
    said = [row.reached for row in rows]
    if all(said):
        return "yes"
    return f"in {sum(said)} of {len(said)} runs" if any(said) else "**no**"


def _machine(runs: Sequence[Run]) -> str:
    by_run = [_facts(run) for run in runs]
    rows = []
    for name in dict.fromkeys(name for facts in by_run for name in facts):
        cells = [facts.get(name, NOTHING) for facts in by_run]
        rows.append([name, " / ".join(dict.fromkeys(cells))])  # once, where the runs agree
    return table(["", ""], rows)


def _facts(run: Run) -> dict[str, str]:
    machine, images = run.found["machine"], run.found["images"]
    archives = run.found["archives"]
    return {
        "processor": f"{machine['cpu']}, {_cores(machine)} ({', '.join(machine['flags'])})",
        "memory": f"{machine['memory_gb']} GB",
        "system": f"{machine['system']}, Python {machine['python']}, Java {machine['java']}",
        "packages": ", ".join(f"{name} {v}" for name, v in machine["versions"].items()),
        "source": str(machine["revision"]),
        "began": str(machine["started"]),
        "took": f"{machine['took_seconds'] / 60:.0f} minutes",
        "images": f"{images['count']}, {images['source']}; kB {_range(images['bytes'], 1000)}; "
        f"megapixels {_range(images['megapixels'], 1)} (least, median, largest)",
        "archives": ", ".join(
            f"{TITLES[one['network']]} {one['label']} by {one['engine']}" for one in archives
        ),
    }


def _cores(machine: dict[str, Any]) -> str:
    used, there = machine["cores"], machine["cores_of_machine"]
    return f"{there} cores" if used in (there, None) else f"{used} of its {there} cores"


def _range(values: Sequence[float], unit: float) -> str:
    return ", ".join(f"{value / unit:.4g}" for value in values)


def _quiet(runs: Sequence[Run]) -> str:
    """How much of the machine others took, at most and in the median window."""
    found = [one for run in runs for one in run.found["measurements"] if "others" in one]
    if not found:
        return ""
    worst = max(found, key=lambda one: one["others"])
    middle = statistics.median(one["others"] for one in found)
    return (
        f"Other programs, and other guests of the machine, took {number(middle)} cores in the "
        f"median window, and {number(worst['others'])} in the worst ({worst['group']}).\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: docs/results")
    print(f"written: {write(parser.parse_args().results)}")


if __name__ == "__main__":
    main()
