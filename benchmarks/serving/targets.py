"""Targets of serving on two cores, and the figures of a run that they are compared with."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.serving.load import MAP, NONE, OVERLAY
from benchmarks.serving.ratios import TIME
from benchmarks.serving.results import Archive, Run
from client.archives import ENSEMBLE

F32, INT8 = "f32", "int8"

# By network and precision; a pair that is missing has no target.
AGAINST_CAPTUM = {("resnet50", F32): 4.5, ("resnet50", INT8): 9.0}
AGAINST_BEST = {("resnet50", F32): 1.7, ("resnet50", INT8): 4.0, ("densenet161", INT8): 5.0}
AGAINST_F32 = {"resnet50": 1.6, "densenet161": 2.5}
CPU_AGAINST_FLOOR, P50_AGAINST_FLOOR = 1.15, 1.25
AGAINST_NONE = {MAP: 1.03, OVERLAY: 1.15}
READY = 5.0  # seconds
MEMORY = {F32: 250.0, INT8: 120.0}  # MB above an empty worker

TIMES = "times"


@dataclass(frozen=True)
class TargetResult:
    """A target and the values that a run measured for it, one per round."""

    name: str
    limit: float
    values: Sequence[float]
    at_least: bool = False  # else at most
    unit: str = TIMES
    reference: str = ""  # title of the compared system, if it was chosen by its figures

    @property
    def reached(self) -> bool:
        """Whether the median is within the limit."""
        median = statistics.median(self.values)
        return median >= self.limit if self.at_least else median <= self.limit


def evaluate(run: Run) -> Iterator[TargetResult]:
    """The result of every target for which the run has measurements."""
    targets: tuple[Callable[[Run, Archive], Iterator[TargetResult]], ...] = (
        *(_against_captum, _against_best, _against_f32, _against_floor, _against_none),
        *(_ready, _memory),
    )
    for target in targets:
        for archive in run.archives:
            if archive.network != ENSEMBLE:
                yield from (result for result in target(run, archive) if result.values)


def _against_captum(run: Run, archive: Archive) -> Iterator[TargetResult]:
    limit = AGAINST_CAPTUM.get((archive.network, archive.precision))
    if limit and "captum" in run.peers:
        values = run.ratio(f"peers/{archive.network}/captum", archive.label, "captum", "rate")
        name = f"{archive.title}: requests per second against {run.peers['captum']}"
        yield TargetResult(name, limit, values, at_least=True)


def _against_best(run: Run, archive: Archive) -> Iterator[TargetResult]:
    limit = AGAINST_BEST.get((archive.network, archive.precision))
    ratios = {
        peer: values
        for peer, group in run.peer_groups(archive.network).items()
        if (values := run.ratio(group, archive.label, peer, "rate"))
    }
    if limit and ratios:
        best = min(ratios, key=lambda peer: statistics.median(ratios[peer]))
        name = f"{archive.title}: requests per second against the best of the peers"
        yield TargetResult(name, limit, ratios[best], at_least=True, reference=run.peers[best])


def _against_f32(run: Run, archive: Archive) -> Iterator[TargetResult]:
    """int8 against f32, from the rounds with every peer: all labels take turns in each."""
    if archive.precision != INT8:
        return
    for baseline in run.archives:
        if (baseline.network, baseline.precision) == (archive.network, F32):
            group = f"peers/{archive.network}/"
            values = run.ratio(group, archive.label, baseline.label, "rate")
            name = f"{archive.title}: requests per second against {baseline.label}"
            yield TargetResult(name, AGAINST_F32[archive.network], values, at_least=True)


def _against_floor(run: Run, archive: Archive) -> Iterator[TargetResult]:
    for server, batch, figure, limit, title in (
        ("ours 16", 4, "cpu_ms", CPU_AGAINST_FLOOR, "CPU time per request, 16 clients"),
        ("ours 1", 1, "cpu_ms", CPU_AGAINST_FLOOR, "CPU time per request, one client"),
        ("ours 1", 1, "p50", P50_AGAINST_FLOOR, "p50, one client"),
    ):
        group = f"floor/{archive.network}/{archive.label}"
        runtimes = {subject.split()[0] for subject in run.subjects(group)} - {"ours"}
        ratios = {
            runtime: values
            for runtime in sorted(runtimes)
            if (values := run.ratio(group, server, f"{runtime} {batch}", figure))
        }
        if ratios:  # the floor is the runtime that needs less
            lowest = max(ratios, key=lambda runtime: statistics.median(ratios[runtime]))
            name = f"{archive.title}: {title}, against the floor"
            yield TargetResult(name, limit, ratios[lowest], reference=lowest)


def _against_none(run: Run, archive: Archive) -> Iterator[TargetResult]:
    group = f"matrix/{archive.network}/{archive.label}/16"
    for heatmap, limit in AGAINST_NONE.items():
        values = run.ratio(group, heatmap, NONE, TIME)
        figure = f"time per request with `heatmap={heatmap}`, against `none`, 16 clients"
        yield TargetResult(f"{archive.title}: {figure}", limit, values)


def _ready(run: Run, archive: Archive) -> Iterator[TargetResult]:
    group = f"start/{archive.network}/{archive.label}"
    values = run.figures(group, archive.label, "ready_seconds")
    yield TargetResult(f"{archive.title}: worker ready after", READY, values, unit="s")


def _memory(run: Run, archive: Archive) -> Iterator[TargetResult]:
    group = f"start/{archive.network}/{archive.label}"
    values = run.figures(group, archive.label, "above_mb")
    name = f"{archive.title}: memory of a worker above an empty one"
    yield TargetResult(name, MEMORY[archive.precision], values, unit="MB")
