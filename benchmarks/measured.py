"""Runs of the serving benchmark as they were kept, and what the tables ask of one."""

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.archives import TOGETHER
from train import checkpoint
from train.networks import NETWORKS

FOLDER = Path("speed")  # of the results
FILE = FOLDER / "speed.json"  # of the first run; of the second speed-2.json, and so on
NOTHING = "–"

# Where the milliseconds of a request go in a worker, and their sum (`benchmarks.profile_request`).
DECODE, NETWORK, OVERLAY, ANSWER, REST = "decode", "network", "overlay", "answer", "rest"
STEPS = (DECODE, NETWORK, OVERLAY, ANSWER, REST)
WORKER = "worker"

TITLES = {"resnet50": "ResNet50", "densenet161": "DenseNet161", TOGETHER: "both together"}


@dataclass(frozen=True)
class Archive:
    """What was measured under a label, of one network."""

    network: str
    label: str
    precision: str
    engine: str

    @property
    def title(self) -> str:
        """For a row of a table."""
        return f"{TITLES[self.network]} {self.label}"


@dataclass(frozen=True)
class Run:
    """What `benchmarks.serving` kept of one run."""

    found: Mapping[str, Any]

    @property
    def archives(self) -> list[Archive]:
        """By network, then in the order in which they were given."""
        names = ("network", "label", "precision", "engine")
        all_of_them = [Archive(**{k: one[k] for k in names}) for one in self.found["archives"]]
        order = [*NETWORKS, TOGETHER]
        return sorted(all_of_them, key=lambda one: order.index(one.network))

    @property
    def peers(self) -> dict[str, str]:
        """Their titles, by name."""
        return dict(self.found["peers"])

    @property
    def answers(self) -> int:
        """How many requests servers answered while they were measured."""
        served = [one for one in self.found["measurements"] if "clients" in one]
        return sum(one["requests"] for one in served)

    def of_group(self, group: str) -> list[Mapping[str, Any]]:
        """Its measurements; of a group that ends in a slash, those of all groups below it."""
        return [one for one in self.found["measurements"] if _within(one["group"], group)]

    def subjects(self, group: str) -> list[str]:
        """Who took turns in a group; nobody where it was not measured."""
        return list(dict.fromkeys(one["subject"] for one in self.of_group(group)))

    def figures(self, group: str, subject: str, figure: str) -> list[float]:
        """A figure of every round; `figure` is a key, or keys joined by dots."""
        found: list[Any] = [one for one in self.of_group(group) if one["subject"] == subject]
        for key in figure.split("."):
            found = [one[key] for one in found]
        return [float(one) for one in found]

    def cell(self, group: str, subject: str, figure: str) -> str:
        """The median over the rounds, as text; a dash where it was not measured."""
        found = self.figures(group, subject, figure)
        return number(statistics.median(found)) if found else NOTHING

    def ratio(self, group: str, over: str, under: str, figure: str) -> list[float]:
        """The ratios of every round; none where it was not measured. Groups as in `of_group`."""
        found = []
        for one in self.found["ratios"]:
            names = (one["over"], one["under"], one["figure"])
            if _within(one["group"], group) and names == (over, under, figure):
                found += one["values"]
        return found

    def peer_groups(self, network: str) -> dict[str, str]:
        """The peers that were measured beside a network, and the group of each."""
        groups = {name: f"peers/{network}/{name}" for name in self.peers}
        return {name: group for name, group in groups.items() if self.of_group(group)}


def _within(one: str, group: str) -> bool:
    return one == group or (group.endswith("/") and one.startswith(group))


def keep(results: Path, number: int, found: Mapping[str, Any]) -> Path:
    """Write a run; the first takes the place of all that there were. Its path."""
    path = results / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    if number == 1:
        for other in _files(results)[1:]:
            other.unlink()
    else:
        path = path.with_stem(f"{path.stem}-{number}")
    checkpoint.write_text(path, json.dumps(found, indent=1) + "\n")
    return path


def read(results: Path) -> list[Run]:
    """All runs that are kept, in order.

    Raises:
        FileNotFoundError: there is none.
    """
    files = [path for path in _files(results) if path.is_file()]
    if not files:
        raise FileNotFoundError(f"there is no {results / FILE}: measure with make bench")
    return [Run(json.loads(path.read_text())) for path in files]


def _files(results: Path) -> list[Path]:
    """The first run's, there or not, and those of the others that are there."""
    first = results / FILE
    others = [
        (int(said[1]), path)
        for path in first.parent.glob(f"{first.stem}-*.json")
        if (said := re.fullmatch(rf"{first.stem}-(\d+)\.json", path.name))
    ]
    return [first, *(path for _, path in sorted(others))]


def number(value: float, like: float | None = None) -> str:
    """In as many digits as mean something here: of another number, where they shall look alike."""
    size = value if like is None else like
    digits = 3 if size < 2 else 2 if size < 10 else 1 if size < 100 else 0
    return f"{value:.{digits}f}"


def spread(values: Sequence[float]) -> str:
    """`median (least to most)`; without values, a dash."""
    if not values:
        return NOTHING
    median = statistics.median(values)
    least, most = (number(value, median) for value in (min(values), max(values)))
    return f"{number(median)} ({least} to {most})"
