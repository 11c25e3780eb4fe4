"""What serving must reach on two cores, and what a run of the benchmark reached."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.load import MAP, NONE, OVERLAY
from benchmarks.measured import Archive, Run
from benchmarks.ratios import TIME
from client.archives import TOGETHER

F32, INT8 = "f32", "int8"

# By network and precision; what has no number here has no target.
BESIDE_CAPTUM = {("resnet50", F32): 4.5, ("resnet50", INT8): 9.0}
BESIDE_BEST = {("resnet50", F32): 1.7, ("resnet50", INT8): 4.0, ("densenet161", INT8): 5.0}
BESIDE_F32 = {"resnet50": 1.6, "densenet161": 2.5}
CPU_BESIDE_FLOOR, P50_BESIDE_FLOOR = 1.15, 1.25
BESIDE_NONE = {MAP: 1.03, OVERLAY: 1.15}
READY = 5.0  # seconds
MEMORY = {F32: 250.0, INT8: 120.0}  # MB above an empty worker

TIMES = "times"


@dataclass(frozen=True)
class Row:
    """One target, and what every round of a run found."""

    what: str
    limit: float
    values: Sequence[float]
    at_least: bool = False  # else at most
    unit: str = TIMES
    beside: str = ""  # whom, where the run chose

    @property
    def reached(self) -> bool:
        """By the median."""
        median = statistics.median(self.values)
        return median >= self.limit if self.at_least else median <= self.limit


def rows(run: Run) -> Iterator[Row]:
    """All targets of which a run has measured anything."""
    kinds: tuple[Callable[[Run, Archive], Iterator[Row]], ...] = (
        *(_beside_captum, _beside_best, _beside_f32, _beside_floor, _beside_none),
        *(_ready, _memory),
    )
    for kind in kinds:
        for one in run.archives:
            if one.network != TOGETHER:
                yield from (row for row in kind(run, one) if row.values)


def _beside_captum(run: Run, one: Archive) -> Iterator[Row]:
    limit = BESIDE_CAPTUM.get((one.network, one.precision))
    if limit and "captum" in run.peers:
        values = run.ratio(f"peers/{one.network}/captum", one.label, "captum", "rate")
        what = f"{one.title}: requests a second beside {run.peers['captum']}"
        yield Row(what, limit, values, at_least=True)


def _beside_best(run: Run, one: Archive) -> Iterator[Row]:
    limit = BESIDE_BEST.get((one.network, one.precision))
    found = {
        name: run.ratio(group, one.label, name, "rate")
        for name, group in run.peer_groups(one.network).items()
    }
    found = {name: values for name, values in found.items() if values}
    if limit and found:
        best = min(found, key=lambda name: statistics.median(found[name]))
        what = f"{one.title}: requests a second beside the best of the peers"
        yield Row(what, limit, found[best], at_least=True, beside=run.peers[best])


def _beside_f32(run: Run, one: Archive) -> Iterator[Row]:
    """From the rounds with every peer: ours of all labels take turns in each."""
    if one.precision != INT8:
        return
    for other in run.archives:
        if (other.network, other.precision) == (one.network, F32):
            values = run.ratio(f"peers/{one.network}/", one.label, other.label, "rate")
            what = f"{one.title}: requests a second beside {other.label}"
            yield Row(what, BESIDE_F32[one.network], values, at_least=True)


def _beside_floor(run: Run, one: Archive) -> Iterator[Row]:
    for ours, batch, figure, limit, what in (
        ("ours 16", 4, "cpu_ms", CPU_BESIDE_FLOOR, "CPU time a request, 16 clients"),
        ("ours 1", 1, "cpu_ms", CPU_BESIDE_FLOOR, "CPU time a request, one client"),
        ("ours 1", 1, "p50", P50_BESIDE_FLOOR, "p50, one client"),
    ):
        group = f"floor/{one.network}/{one.label}"
        runtimes = {name.split()[0] for name in run.subjects(group)} - {"ours"}
        found = {
            name: values
            for name in sorted(runtimes)
            if (values := run.ratio(group, ours, f"{name} {batch}", figure))
        }
        if found:  # the floor is the runtime that needs less
            lowest = max(found, key=lambda name: statistics.median(found[name]))
            title = f"{one.title}: {what}, beside the floor"
            yield Row(title, limit, found[lowest], beside=lowest)


def _beside_none(run: Run, one: Archive) -> Iterator[Row]:
    group = f"matrix/{one.network}/{one.label}/16"
    for heatmap, limit in BESIDE_NONE.items():
        values = run.ratio(group, heatmap, NONE, TIME)
        what = f"{one.title}: time a request with `heatmap={heatmap}`, beside `none`, 16 clients"
        yield Row(what, limit, values)


def _ready(run: Run, one: Archive) -> Iterator[Row]:
    values = run.figures(f"start/{one.network}/{one.label}", one.label, "ready_seconds")
    yield Row(f"{one.title}: worker ready after", READY, values, unit="s")


def _memory(run: Run, one: Archive) -> Iterator[Row]:
    values = run.figures(f"start/{one.network}/{one.label}", one.label, "above_mb")
    what = f"{one.title}: memory of a worker above an empty one"
    yield Row(what, MEMORY[one.precision], values, unit="MB")
