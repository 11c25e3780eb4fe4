"""What was measured in one round, compared: ratios, their median, least and most."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.load import MAP, NONE, OVERLAY

Measurement = Mapping[str, Any]

TIME = "time"  # milliseconds a request that the whole server takes: 1000 / rate


def all_of(measurements: Sequence[Measurement], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The ratios of all groups: `over` divided by `under`, one for each round."""
    groups: dict[str, dict[str, list[Measurement]]] = defaultdict(lambda: defaultdict(list))
    for one in measurements:
        groups[one["group"]][one["subject"]].append(one)
    found = []
    for group, subjects in groups.items():
        for over, under, figure in _comparisons(group, list(subjects), labels):
            both = zip(subjects[over], subjects[under], strict=False)  # by round
            pairs = [(value(a, figure), value(b, figure)) for a, b in both]
            # No processor time is counted in too short a window.
            values = [round(one / other, 4) for one, other in pairs if other]
            if values:
                names = {"group": group, "over": over, "under": under, "figure": figure}
                found.append({**names, **summary(values)})
    return found


def _comparisons(
    group: str, subjects: Sequence[str], labels: Sequence[str]
) -> Iterator[tuple[str, str, str]]:
    """What is divided by what, in which figure."""
    part = group.split("/", maxsplit=1)[0]
    ours = [subject for subject in subjects if subject in labels]
    others = [subject for subject in subjects if subject not in labels]
    if part == "peers":
        for over in ours:
            for under in [*others, *ours]:
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


def value(measurement: Measurement, figure: str) -> float:
    """A figure of a measurement."""
    if figure == TIME:
        return 1000 / float(measurement["rate"])
    return float(measurement[figure])


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Values with their median, least and most."""
    return {
        "values": list(values),
        "median": round(statistics.median(values), 4),
        "least": min(values),
        "most": max(values),
    }
