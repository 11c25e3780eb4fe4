"""What `benchmarks.growth` kept → charts and docs/results/growth.md.

`python -m benchmarks.growth_report` writes them again.
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

from train import checkpoint, figures, sections

RESULTS = Path("docs/results")
FOLDER = Path("speed")
FILE, REPORT = FOLDER / "growth.json", Path("growth.md")
SIZES, CLIENTS = FOLDER / "growth-sizes.png", FOLDER / "growth-clients.png"
COLOURS = {1: "#d1495b", 2: "#30638e"}  # by workers
TITLES = {1: "one worker", 2: "two workers"}

Found = Mapping[str, Any]
Series = dict[float, list[Found]]  # measurements by megapixels, or by clients

HEAD = """\
# Cost as work grows

JPEG in; label, probability, map and overlay out. `python -m benchmarks.growth` measured it in two
rounds, there and back; figures are their means. Every answer was verified.
"""


def write(results: Path) -> Path:
    """Write the report on the parts that are kept, and its charts; the report's path."""
    kept = json.loads((results / FILE).read_text())
    parts = [HEAD]
    if "sizes" in kept:
        measurements = kept["sizes"]["measurements"]
        alone, many = (_series(measurements, "megapixels", clients=n) for n in (1, 16))
        draw_sizes(alone, many, results / SIZES)
        parts.append(sizes(alone, many))
    if "clients" in kept:
        measurements = kept["clients"]["measurements"]
        by_workers = {n: _series(measurements, "clients", workers=n) for n in TITLES}
        draw_clients(by_workers, results / CLIENTS)
        parts.append(clients(by_workers))
    parts.append(_where(kept))
    checkpoint.write_text(results / REPORT, "\n".join(parts))
    return results / REPORT


def _series(measurements: Sequence[Found], by: str, **only: object) -> Series:
    found: Series = defaultdict(list)
    for one in measurements:
        if only.items() <= one.items():
            found[one[by]].append(one)
    return dict(sorted(found.items()))


def _means(series: Series, figure: str) -> list[float]:
    return [statistics.mean(one[figure] for one in found) for found in series.values()]


def sizes(alone: Series, many: Series) -> str:
    """The section on larger images, asked for by one client and by 16."""
    slope, start = np.polyfit(list(alone), _means(alone, "cpu_ms"), 1)
    columns = {
        "megapixels": [f"{size:g}" for size in alone],
        "kB": _whole(_means(alone, "kilobytes")),
        "p50, one client, ms": _whole(_means(alone, "p50")),
        "CPU, ms": _whole(_means(alone, "cpu_ms")),
        "requests/s, 16 clients": [f"{rate:.1f}" for rate in _means(many, "rate")],
        "p99, 16 clients, ms": _whole(_means(many, "p99")),
    }
    return f"""\
## Larger images

![Larger images]({SIZES.as_posix()})

{_table(columns)}
The straight line through the CPU times: {start:.0f} ms for the network and all else that does not
grow, and {slope:.1f} ms a megapixel, which is decoding and resizing.
"""


def clients(by_workers: Mapping[int, Series]) -> str:
    """The section on more and more clients, of one worker and of two."""
    columns = {"clients": [str(count) for count in by_workers[1]]}
    for workers, series in by_workers.items():
        title = TITLES[workers]
        columns[f"{title}: requests/s"] = [f"{rate:.1f}" for rate in _means(series, "rate")]
        columns[f"{title}: p50, ms"] = _whole(_means(series, "p50"))
        columns[f"{title}: p99, ms"] = _whole(_means(series, "p99"))
    longest = 100 / _means(by_workers[1], "rate")[-1]
    return f"""\
## More clients

Images of 1.5 megapixels; each client sends its next one when it has the answer to its last.

![More clients]({CLIENTS.as_posix()})

{_table(columns)}
{"".join(_knee(TITLES[workers], series) for workers, series in by_workers.items())}
A queue holds 100 requests (`job_queue_size`), beyond which a version answers 503 at once; so none
waits longer than about 100 requests take, {longest:.0f} s with one worker.
"""


def _knee(title: str, series: Series) -> str:
    """Whether throughput falls, and what latency is beside the time that its queue takes."""
    rates, counts = _means(series, "rate"), list(series)
    beside = [p99 * rate / 1000 / n for p99, rate, n in _beside(series) if n >= 4]
    return (
        f"- {title.capitalize()}: {max(rates):.1f} requests a second at most, {rates[-1]:.1f} with "
        f"{counts[-1]:g} clients. From 4 clients on p99 is {min(beside):.2f} to {max(beside):.2f} "
        "times clients / requests a second, which is what waiting in turn takes.\n"
    )


def _beside(series: Series) -> list[tuple[float, float, float]]:
    return list(zip(_means(series, "p99"), _means(series, "rate"), series, strict=True))


def draw_sizes(alone: Series, many: Series, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    left.plot(list(alone), _means(alone, "p50"), "o-", color=COLOURS[1], label="p50, one client")
    left.plot(list(alone), _means(alone, "cpu_ms"), "s--", color=COLOURS[2], label="CPU time")
    right.plot(list(many), _means(many, "rate"), "o-", color=COLOURS[1], label="16 clients")
    _finish(left, "megapixels", "milliseconds a request")
    _finish(right, "megapixels", "requests a second")
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
    right.plot(counts, waiting, color="#aaaaaa", label="clients / requests a second", zorder=0)
    right.set_yscale("log")
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        axis.set_xticks(counts, [f"{n:g}" for n in counts])
    _finish(left, "clients", "requests a second")
    _finish(right, "clients", "milliseconds")
    figures.save(figure, path)


def _finish(axis: Axes, horizontal: str, vertical: str) -> None:
    axis.set_xlabel(horizontal)
    axis.set_ylabel(vertical)
    if axis.get_yscale() == "linear":
        axis.set_ylim(0, 1.05 * axis.dataLim.y1)  # or markers at the top are cut
    axis.legend(frameon=False, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def _whole(values: Sequence[float]) -> list[str]:
    return [f"{value:.0f}" for value in values]


def _table(columns: Mapping[str, Sequence[str]]) -> str:
    return sections.table(list(columns), list(zip(*columns.values(), strict=True)))


def _where(kept: Mapping[str, Found]) -> str:
    """Where it was measured, and how much others took of the machine."""
    one = next(iter(kept.values()))
    machine, archive = one["machine"], one["archive"]
    others = max(m["others"] for part in kept.values() for m in part["measurements"])
    served = f"{archive['network']} {archive['version']}, {archive['precision']}"
    return (
        f"{served} by {archive['engine']}; {machine['cpu']}, {machine['cores']} cores; windows of "
        f"{one['seconds']:g} s. Other programs took {others:.2f} cores in the worst window.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: docs/results")
    print(f"written: {write(parser.parse_args().results)}")


if __name__ == "__main__":
    main()
