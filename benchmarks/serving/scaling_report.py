"""Measurements of `benchmarks.serving.scaling` → charts and docs/results/growth.md.

`python -m benchmarks.serving.scaling_report` writes them again from the stored measurements.
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from train.model import checkpoint
from train.report import figures, report_sections

RESULTS = Path("docs/results")
FOLDER = Path("speed")
FILE, REPORT = FOLDER / "growth.json", Path("growth.md")
SIZES, CLIENTS = FOLDER / "growth-sizes.png", FOLDER / "growth-clients.png"
COLOURS = {1: "#d1495b", 2: "#30638e"}  # by workers
TITLES = {1: "one worker", 2: "two workers"}

Measurement = Mapping[str, Any]
Series = dict[float, list[Measurement]]  # measurements by megapixels, or by clients

HEAD = """\
# Scaling of cost

JPEG in; label, probability, map and overlay out. Measured by
`python -m benchmarks.serving.scaling` in two rounds, one in ascending and one in descending order;
figures are their means. Every answer was verified.
"""


def write(results: Path) -> Path:
    """Write the report on the stored parts, and its charts; return the report's path."""
    content = json.loads((results / FILE).read_text())
    sections = [HEAD]
    if "sizes" in content:
        measurements = content["sizes"]["measurements"]
        single, many = (_series(measurements, "megapixels", clients=n) for n in (1, 16))
        draw_sizes(single, many, results / SIZES)
        sections.append(sizes(single, many))
    if "clients" in content:
        measurements = content["clients"]["measurements"]
        by_workers = {n: _series(measurements, "clients", workers=n) for n in TITLES}
        draw_clients(by_workers, results / CLIENTS)
        sections.append(clients(by_workers))
    sections.append(_conditions(content))
    checkpoint.write_text(results / REPORT, "\n".join(sections))
    return results / REPORT


def _series(measurements: Sequence[Measurement], by: str, **only: object) -> Series:
    """Measurements that have the figures `only`, by the figure `by`, ascending."""
    series: Series = defaultdict(list)
    for measurement in measurements:
        if all(measurement[key] == figure for key, figure in only.items()):
            series[measurement[by]].append(measurement)
    return dict(sorted(series.items()))


def _means(series: Series, figure: str) -> list[float]:
    return [statistics.mean(rounds[figure] for rounds in group) for group in series.values()]


def sizes(single: Series, many: Series) -> str:
    """The section on image sizes, with measurements of one client and of 16."""
    slope, start = np.polyfit(list(single), _means(single, "cpu_ms"), 1)
    columns = {
        "megapixels": [f"{size:g}" for size in single],
        "kB": _integers(_means(single, "kilobytes")),
        "p50, one client, ms": _integers(_means(single, "p50")),
        "CPU, ms": _integers(_means(single, "cpu_ms")),
        "requests/s, 16 clients": [f"{rate:.1f}" for rate in _means(many, "rate")],
        "p99, 16 clients, ms": _integers(_means(many, "p99")),
    }
    return f"""\
## Larger images

![Larger images]({SIZES.as_posix()})

{_table(columns)}
A line fitted to the CPU times: {start:.0f} ms for the network and everything else that does
not grow, and {slope:.1f} ms per megapixel for decoding and resizing.
"""


def clients(by_workers: Mapping[int, Series]) -> str:
    """The section on the number of clients, with one worker and with two."""
    columns = {"clients": [str(count) for count in by_workers[1]]}
    for workers, series in by_workers.items():
        title = TITLES[workers]
        columns[f"{title}: requests/s"] = [f"{rate:.1f}" for rate in _means(series, "rate")]
        columns[f"{title}: p50, ms"] = _integers(_means(series, "p50"))
        columns[f"{title}: p99, ms"] = _integers(_means(series, "p99"))
    longest = 100 / _means(by_workers[1], "rate")[-1]
    return f"""\
## More clients

Images of 1.5 megapixels; each client sends its next request when its last one is answered.

![More clients]({CLIENTS.as_posix()})

{_table(columns)}
{"".join(_saturation(TITLES[workers], series) for workers, series in by_workers.items())}
A queue holds 100 requests (`job_queue_size`); beyond that a version answers 503 at once. So no
request waits longer than about 100 requests take, {longest:.0f} s with one worker.
"""


def _saturation(title: str, series: Series) -> str:
    """Whether the rate falls under load, and p99 as a multiple of clients / rate."""
    rates, counts = _means(series, "rate"), list(series)
    waits = [
        p99 * rate / 1000 / count
        for p99, rate, count in zip(_means(series, "p99"), rates, counts, strict=True)
        if count >= 4
    ]
    return (
        f"- {title.capitalize()}: {max(rates):.1f} requests per second at most, {rates[-1]:.1f} "
        f"with {counts[-1]:g} clients. From 4 clients on p99 is {min(waits):.2f} to "
        f"{max(waits):.2f} times clients / (requests per second), the time of waiting in a "
        "queue.\n"
    )


def draw_sizes(single: Series, many: Series, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    left.plot(list(single), _means(single, "p50"), "o-", color=COLOURS[1], label="p50, one client")
    left.plot(list(single), _means(single, "cpu_ms"), "s--", color=COLOURS[2], label="CPU time")
    right.plot(list(many), _means(many, "rate"), "o-", color=COLOURS[1], label="16 clients")
    _finish(left, "megapixels", "milliseconds per request")
    _finish(right, "megapixels", "requests per second")
    figures.save(figure, path)


def draw_clients(by_workers: Mapping[int, Series], path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    counts = list(by_workers[1])
    for workers, series in by_workers.items():
        title, colour = TITLES[workers], COLOURS[workers]
        left.plot(counts, _means(series, "rate"), "o-", color=colour, label=title)
        right.plot(counts, _means(series, "p50"), "o-", color=colour, label=f"p50, {title}")
        right.plot(counts, _means(series, "p99"), "^:", color=colour, label=f"p99, {title}")
    waiting = [
        1000 * n / rate for n, rate in zip(counts, _means(by_workers[1], "rate"), strict=True)
    ]
    label = "clients / (requests per second)"
    right.plot(counts, waiting, color="#aaaaaa", label=label, zorder=0)
    right.set_yscale("log")
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        axis.set_xticks(counts, [f"{n:g}" for n in counts])
    _finish(left, "clients", "requests per second")
    _finish(right, "clients", "milliseconds")
    figures.save(figure, path)


def _finish(axis: Axes, x_label: str, y_label: str) -> None:
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    if axis.get_yscale() == "linear":
        axis.set_ylim(0, 1.05 * axis.dataLim.y1)  # else markers at the top are cut
    axis.legend(frameon=False, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def _integers(values: Sequence[float]) -> list[str]:
    return [f"{value:.0f}" for value in values]


def _table(columns: Mapping[str, Sequence[str]]) -> str:
    return report_sections.table(list(columns), list(zip(*columns.values(), strict=True)))


def _conditions(content: Mapping[str, Measurement]) -> str:
    """Archive, machine and window length, and the most that other programs used."""
    part = next(iter(content.values()))
    machine, archive = part["machine"], part["archive"]
    background = max(
        window["others"] for part in content.values() for window in part["measurements"]
    )
    served = f"{archive['network']} {archive['version']}, {archive['precision']}"
    return (
        f"{served} by {archive['engine']}; {machine['cpu']}, {machine['cores']} cores; windows of "
        f"{part['seconds']:g} s. Other programs took {background:.2f} cores in the worst window.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: docs/results")
    print(f"written: {write(parser.parse_args().results)}")


if __name__ == "__main__":
    main()
