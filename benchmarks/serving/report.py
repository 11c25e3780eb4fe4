"""Stored runs of the serving benchmark → docs/results/speed.md, with tables and a chart.

`python -m benchmarks.serving.report` writes them again from the stored runs. A part that no run
measured is left out. With several runs, each cell has one figure per run.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.serving import chart as charts
from benchmarks.serving import tables, targets
from benchmarks.serving.results import FOLDER, NOTHING, TITLES, Run, number, read
from benchmarks.serving.tables import table
from benchmarks.serving.targets import TargetResult
from train.model import checkpoint

RESULTS = Path("docs/results")
FILE = Path("speed.md")
CHART = FOLDER / "requests.png"


def write(results: Path) -> Path:
    """Write the report on all stored runs, and its chart; return the report's path.

    Raises:
        FileNotFoundError: no run is stored.
    """
    runs = read(results)
    chart = charts.draw(runs, results / CHART)
    picture = f"![Requests per second]({CHART.as_posix()})\n" if chart else ""
    below = "\n".join(part for part in (tables.agreement(runs), picture) if part)
    sections = [
        _head(runs),
        _section("Targets", "", _targets(runs)),
        _section("Comparison with peers", PEERS, tables.peers(runs), below),
        _section("Where each millisecond goes", PROFILE, tables.profile(runs)),
        _section("Comparison with the floor", FLOOR, tables.floor(runs)),
        _section("All heatmap options and client counts", MATRIX, tables.matrix(runs)),
        _section("Start and memory", START, tables.start(runs)),
        _section("Where it was measured", "", _machine(runs)),
        _background_load(runs),
    ]
    path = results / FILE
    checkpoint.write_text(path, "\n".join(section for section in sections if section))
    return path


PEERS = """\
The same weights, the same images, overlays of the same size. Each peer is built as its own
documentation shows (`benchmarks/peers`), and runs alone, in turns with pneumocam. The last column
is the ratio of requests per second, pneumocam's to the peer's."""
PROFILE = """\
Milliseconds of a single request with overlay; means, because means add up. The steps are measured
with the handler in a process of its own. TorchServe's share is the rest of a server's time,
measured in turns with it."""
FLOOR = """\
The floor is the same work in one process without a server: decoding, the archive's graph with
each runtime, overlay, JSON. Floor and server run in turns."""
MATRIX = """\
The worker's memory is measured under that load; TorchServe's Java process needs more in addition.
With so few requests the 99th percentile is only indicative."""
START = """\
Time from the request to load an archive until its worker answers, and memory after the load of
16 clients. An empty worker runs a handler that does nothing, in the same server."""


def _section(title: str, text: str, rows: str, below: str = "") -> str:
    """A section of Markdown; empty if its table has no rows."""
    if not rows:
        return ""
    return "\n".join(part for part in (f"## {title}\n", text and f"{text}\n", rows, below) if part)


def _head(runs: Sequence[Run]) -> str:
    settings = runs[0].content["settings"]
    answers = sum(run.answers for run in runs)
    paragraphs = [
        f"""\
# Speed

A full-size JPEG in; label, probability, map and overlay out. Measured by
`python -m benchmarks.serving` (`make bench`).

Systems that are compared run in turns, in windows of at most {settings["seconds"]:g} s; each of
{settings["pairs"]} rounds gives a ratio. Figures are medians over the rounds, with minimum and
maximum where a range is given. All {answers:,} answers were verified: status, label, picture, and
for pneumocam that mean(map) + bias is the logit.
"""
    ]
    if len(runs) > 1:
        order = "cells give the figures in the order of the runs"
        paragraphs.append(f"The benchmark ran {len(runs)} times; {order}.\n")
    if failed := [group for run in runs for group in run.content["failed"]]:
        paragraphs.append(f"**Failed and left out: {', '.join(failed)}.**\n")
    if any(run.content["settings"]["random_peers"] for run in runs):
        paragraphs.append("**Peers without published weights had random weights: a smoke run.**\n")
    return "\n".join(paragraphs)


def _targets(runs: Sequence[Run]) -> str:
    by_run = [{result.name: result for result in targets.evaluate(run)} for run in runs]
    prefixes = [""] if len(runs) == 1 else [f"run {k}: " for k in range(1, len(runs) + 1)]
    header = ["", "target"]
    for prefix in prefixes:
        header += [f"{prefix}median", "minimum to maximum"]
    rows = []
    for name in dict.fromkeys(name for results in by_run for name in results):
        results = [run_results.get(name) for run_results in by_run]
        cells = [cell for result in results for cell in _measured(result)]
        measured = [result for result in results if result]
        rows.append([name, _limit(measured[0]), *cells, _reached(measured)])
    return table([*header, "reached"], rows)


def _limit(result: TargetResult) -> str:
    return f"{'at least' if result.at_least else 'at most'} {result.limit:g} {result.unit}"


def _measured(result: TargetResult | None) -> tuple[str, str]:
    """Cells of the median, with the compared system, and of the range."""
    if result is None:
        return NOTHING, NOTHING
    reference = f" (against {result.reference})" if result.reference else ""
    values = result.values
    low, median, high = (
        number(value, result.limit)
        for value in (min(values), statistics.median(values), max(values))
    )
    return f"{median}{reference}", f"{low} to {high}"


def _reached(results: Sequence[TargetResult]) -> str:
    reached = [result.reached for result in results]
    if all(reached):
        return "yes"
    return f"in {sum(reached)} of {len(reached)} runs" if any(reached) else "**no**"


def _machine(runs: Sequence[Run]) -> str:
    by_run = [_facts(run) for run in runs]
    rows = []
    for name in dict.fromkeys(name for facts in by_run for name in facts):
        cells = [facts.get(name, NOTHING) for facts in by_run]
        rows.append([name, " / ".join(dict.fromkeys(cells))])  # once if the runs agree
    return table(["", ""], rows)


def _facts(run: Run) -> dict[str, str]:
    machine, images = run.content["machine"], run.content["images"]
    archives = run.content["archives"]
    return {
        "processor": f"{machine['cpu']}, {_cores(machine)} ({', '.join(machine['flags'])})",
        "memory": f"{machine['memory_gb']} GB",
        "system": f"{machine['system']}, Python {machine['python']}, Java {machine['java']}",
        "packages": ", ".join(f"{name} {v}" for name, v in machine["versions"].items()),
        "source": str(machine["revision"]),
        "began": str(machine["started"]),
        "took": f"{machine['took_seconds'] / 60:.0f} minutes",
        "images": f"{images['count']}, {images['source']}; kB {_range(images['bytes'], 1000)}; "
        f"megapixels {_range(images['megapixels'], 1)} (minimum, median, maximum)",
        "archives": ", ".join(
            f"{TITLES[archive['network']]} {archive['label']} by {archive['engine']}"
            for archive in archives
        ),
    }


def _cores(machine: dict[str, Any]) -> str:
    used, total = machine["cores"], machine["cores_of_machine"]
    return f"{total} cores" if used in (total, None) else f"{used} of its {total} cores"


def _range(values: Sequence[float], unit: float) -> str:
    return ", ".join(f"{value / unit:.4g}" for value in values)


def _background_load(runs: Sequence[Run]) -> str:
    """How many cores other programs took, in the median window and in the worst."""
    windows = [
        window for run in runs for window in run.content["measurements"] if "others" in window
    ]
    if not windows:
        return ""
    worst = max(windows, key=lambda window: window["others"])
    median = statistics.median(window["others"] for window in windows)
    return (
        f"Other programs, and other virtual machines of the host, took {number(median)} cores in "
        f"the median window\nand {number(worst['others'])} in the worst ({worst['group']}).\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: docs/results")
    print(f"written: {write(parser.parse_args().results)}")


if __name__ == "__main__":
    main()
