"""Ratios of figures measured in the same round, with their median, minimum and maximum."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.serving.load import MAP, NONE, OVERLAY

Measurement = Mapping[str, Any]

TIME = "time"  # milliseconds of the whole server per request: 1000 / rate


def compute(measurements: Sequence[Measurement], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The ratios of all groups: `over` divided by `under`, one value per round.

    `labels` are the subjects that are pneumocam's own servers.
    """
    groups: dict[str, dict[str, list[Measurement]]] = defaultdict(lambda: defaultdict(list))
    for measurement in measurements:
        groups[measurement["group"]][measurement["subject"]].append(measurement)
    ratios = []
    for group, subjects in groups.items():
        for over, under, figure in _comparisons(group, list(subjects), labels):
            rounds = zip(subjects[over], subjects[under], strict=False)
            pairs = [(figure_of(a, figure), figure_of(b, figure)) for a, b in rounds]
            # A window may be too short for any CPU time to be counted.
            values = [
                round(numerator / denominator, 4) for numerator, denominator in pairs if denominator
            ]
            if values:
                names = {"group": group, "over": over, "under": under, "figure": figure}
                ratios.append({**names, **summary(values)})
    return ratios


def _comparisons(
    group: str, subjects: Sequence[str], labels: Sequence[str]
) -> Iterator[tuple[str, str, str]]:
    """Numerator, denominator and figure of every ratio of a group."""
    part = group.split("/", maxsplit=1)[0]
    servers = [subject for subject in subjects if subject in labels]
    peers = [subject for subject in subjects if subject not in labels]
    if part == "peers":
        for over in servers:
            for under in [*peers, *servers]:
                if under != over:
                    yield over, under, "rate"
                    yield over, under, "cpu_ms"
    elif part == "matrix":
        for over in (MAP, OVERLAY):
            for figure in (TIME, "cpu_ms", "p50"):
                yield over, NONE, figure
    elif part == "floor":
        for runtime in sorted({subject.split()[0] for subject in subjects} - {"ours"}):
            yield "ours 1", f"{runtime} 1", "p50"
            yield "ours 1", f"{runtime} 1", "cpu_ms"
            yield "ours 16", f"{runtime} 4", "cpu_ms"


def figure_of(measurement: Measurement, figure: str) -> float:
    """A figure of a measurement, by its key or `TIME`."""
    if figure == TIME:
        return 1000 / float(measurement["rate"])
    return float(measurement[figure])


def summary(values: Sequence[float]) -> dict[str, Any]:
    """The values with their median, minimum (`least`) and maximum (`most`)."""
    return {
        "values": list(values),
        "median": round(statistics.median(values), 4),
        "least": min(values),
        "most": max(values),
    }
