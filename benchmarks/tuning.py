"""Settings of the server: which changes are tried, which win, and how they are written down."""

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from client import api, settings
from train import sections

RATE, P50 = "requests/s", "p50"  # with many clients; with one
LEAST = 0.02  # a smaller gain is worth no change
BEARABLE = 0.10  # what a winner may lose elsewhere

Values = Mapping[str, str]


@dataclass(frozen=True)
class Change:
    """Values of config.properties that are put over the present ones; one of a group can win."""

    group: str
    label: str
    values: Values


ITSELF = Change("present", "the present settings, beside themselves", {})


@dataclass(frozen=True)
class Trial:
    """A change beside the present settings, each measured in turn."""

    label: str
    # By figure ("resnet50 p50"), how many times as good: one number a pair, above 1 is better.
    gains: dict[str, list[float]] = field(default_factory=dict)
    present: dict[str, float] = field(default_factory=dict)  # the figures' medians
    megabytes: tuple[float, float] = (0.0, 0.0)  # of the workers: present, changed
    failed: str = ""  # why there is nothing to compare


def changes(present: Values, cores: int) -> list[Change]:
    """What is tried, one at a time; what the present settings are already is left out."""
    return [
        change
        for change in _all(present, cores)
        if any(present.get(key) != value for key, value in change.values.items())
    ]


def _all(present: Values, cores: int) -> Iterator[Change]:
    for size in (1, 2, 4, 8):
        yield Change("batch", f"batches of {size}", {settings.BATCH_SIZE: str(size)})
    for delay in (1, 5, 20):
        values = {settings.MAX_BATCH_DELAY: str(delay)}
        yield Change("delay", f"{delay} ms for a batch to fill", values)
    for workers, threads in ((1, cores), (2, cores), (2, cores // 2), (4, cores // 4)):
        if threads and (workers, threads) != _workers(present, cores):
            values = {settings.WORKERS: str(workers), settings.THREADS: str(threads)}
            yield Change("workers", f"workers: {workers}, threads each: {threads}", values)
    java = present.get("vmargs", "")
    for name in ("Serial", "Parallel", "G1"):
        collected = re.sub(r"-XX:\+Use\w+GC", f"-XX:+Use{name}GC", java)
        yield Change("java", f"Java: {name}GC", {"vmargs": collected})
    # Half the heap for bodies stays: config.properties says why.
    large = re.sub(r"-Xmx\S+", "-Xmx1536m", java)
    large = re.sub(r"-XX:MaxDirectMemorySize=\S+", "-XX:MaxDirectMemorySize=768m", large)
    yield Change("java", "Java: 1.5 GB of heap", {"vmargs": large})
    for label, word in (
        ("Java: its first compiler alone", "-XX:TieredStopAtLevel=1"),
        ("no access log", "-Dpneumocam.access=off"),
    ):
        if word not in java.split():
            yield Change("java", label, {"vmargs": f"{java} {word}".strip()})
    yield Change("log", "logs written by a thread of their own", {"async_logging": "true"})
    yield Change("netty", "one thread for connections", {"number_of_netty_threads": "1"})


def _workers(present: Values, cores: int) -> tuple[int, int]:
    """Workers and threads of each, as they are."""
    workers = int(present.get(settings.WORKERS, 1))
    return workers, int(present.get(settings.THREADS, cores))


def filled(present: Values) -> dict[str, str]:
    """The present settings, those that are left out and have a number of ours too."""
    defaults = {
        settings.WORKERS: 1,
        settings.BATCH_SIZE: api.BATCH_SIZE,
        settings.MAX_BATCH_DELAY: api.MAX_BATCH_DELAY_MS,
    }
    return {**{key: str(value) for key, value in defaults.items()}, **present}


def wins(trial: Trial, itself: Trial) -> bool:
    """Whether some figure gains and none loses more than a tenth.

    It gains where every pair does, and their median by more than 2% and more than the present
    settings ever differed from themselves.
    """
    medians = {figure: statistics.median(found) for figure, found in trial.gains.items()}
    gained = any(
        min(trial.gains[figure]) > 1
        and median - 1 > max([LEAST, *[abs(one - 1) for one in itself.gains[figure]]])
        for figure, median in medians.items()
    )
    return gained and min(medians.values()) >= 1 / (1 + BEARABLE)


def score(trial: Trial) -> float:
    """All figures in one: the product of their medians."""
    return prod(statistics.median(found) for found in trial.gains.values())


def best(tried: Sequence[tuple[Change, Trial]], itself: Trial) -> Change | None:
    """The winners as one change, of each group the best; None where there is none."""
    chosen: dict[str, tuple[Change, Trial]] = {}
    for change, trial in tried:
        if wins(trial, itself):
            before = chosen.get(change.group)
            if before is None or score(trial) > score(before[1]):
                chosen[change.group] = (change, trial)
    if not chosen:
        return None
    found = [change for change, _ in chosen.values()]
    values = {key: value for change in found for key, value in change.values.items()}
    return Change("all", f"again: {'; '.join(change.label for change in found)}", values)


def table(trials: Sequence[Trial], itself: Trial) -> str:
    """A row a trial: median, least and most of each figure's gains, and whether it wins."""
    figures = list(itself.gains)
    return sections.table(
        ["what is changed", *figures, "workers' MB", "wins"],
        [[one.label, *_cells(one, figures), _outcome(one, itself)] for one in trials],
    )


def _cells(trial: Trial, figures: Sequence[str]) -> list[str]:
    if trial.failed:
        return ["–"] * (len(figures) + 1)
    gains = [trial.gains[figure] for figure in figures]
    said = [f"{statistics.median(g):.3f} ({min(g):.3f} to {max(g):.3f})" for g in gains]
    return [*said, "{:.0f} → {:.0f}".format(*trial.megabytes)]


def _outcome(trial: Trial, itself: Trial) -> str:
    if trial.failed:
        return trial.failed
    return "" if trial is itself else "yes" if wins(trial, itself) else "no"


def written(text: str, values: Values) -> str:
    """A properties file with these values; its other lines, comments too, stay as they are."""
    lines = text.splitlines()
    keys = [line.split("=", 1)[0].strip() if "=" in line else "" for line in lines]
    lines = [
        f"{key}={values[key]}" if key in values else line
        for key, line in zip(keys, lines, strict=True)
    ]
    new = [f"{key}={value}" for key, value in values.items() if key not in keys]
    if new:
        lines += ["", "# Found by make tune-server.", *new]
    return "\n".join(lines) + "\n"


def from_json(content: Mapping[str, Any]) -> Trial:
    """A trial as `dataclasses.asdict` and JSON made of it."""
    return Trial(**{**content, "megabytes": tuple(content["megabytes"])})
