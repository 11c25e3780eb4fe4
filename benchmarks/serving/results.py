"""Stored runs of the serving benchmark, and the figures that reports read from one."""

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.archives import ENSEMBLE
from train.model import checkpoint
from train.model.networks import NETWORKS

FOLDER = Path("speed")  # below the folder of results
FILE = FOLDER / "speed.json"  # of the first run; the second is speed-2.json, and so on
NOTHING = "–"

# Steps of a request in a worker, and their sum (`benchmarks.serving.profile`).
DECODE, NETWORK, OVERLAY, ANSWER, REST = "decode", "network", "overlay", "answer", "rest"
STEPS = (DECODE, NETWORK, OVERLAY, ANSWER, REST)
WORKER = "worker"

TITLES = {"resnet50": "ResNet50", "densenet161": "DenseNet161", ENSEMBLE: "both together"}


@dataclass(frozen=True)
class Archive:
    """An archive that a run measured, with the label that the run gave it."""

    network: str
    label: str
    precision: str
    engine: str

    @property
    def title(self) -> str:
        """Network and label, for a row of a table: `ResNet50 f32`."""
        return f"{TITLES[self.network]} {self.label}"


@dataclass(frozen=True)
class Run:
    """The stored content of one run (`benchmarks.serving.main.results`)."""

    content: Mapping[str, Any]

    @property
    def archives(self) -> list[Archive]:
        """The measured archives by network, then in the order of the command line."""
        keys = ("network", "label", "precision", "engine")
        archives = [Archive(**{key: a[key] for key in keys}) for a in self.content["archives"]]
        order = [*NETWORKS, ENSEMBLE]
        return sorted(archives, key=lambda archive: order.index(archive.network))

    @property
    def peers(self) -> dict[str, str]:
        """The peers' titles by name."""
        return dict(self.content["peers"])

    @property
    def answers(self) -> int:
        """Number of requests that servers answered in measured windows."""
        windows = [window for window in self.content["measurements"] if "clients" in window]
        return sum(window["requests"] for window in windows)

    def measurements(self, group: str) -> list[Mapping[str, Any]]:
        """Measurements of a group, or of all groups below a prefix that ends in a slash."""
        measurements = self.content["measurements"]
        return [measured for measured in measurements if _matches(measured["group"], group)]

    def subjects(self, group: str) -> list[str]:
        """Names of the systems or variants that a group compares; empty if it was not measured."""
        return list(dict.fromkeys(measured["subject"] for measured in self.measurements(group)))

    def figures(self, group: str, subject: str, figure: str) -> list[float]:
        """One figure per round; `figure` is a key of a measurement, or keys joined by dots."""
        figures: list[Any] = [
            measured for measured in self.measurements(group) if measured["subject"] == subject
        ]
        for key in figure.split("."):
            figures = [content[key] for content in figures]
        return [float(number) for number in figures]

    def cell(self, group: str, subject: str, figure: str) -> str:
        """The median of a figure over the rounds, as text; a dash if it was not measured."""
        figures = self.figures(group, subject, figure)
        return number(statistics.median(figures)) if figures else NOTHING

    def ratio(self, group: str, over: str, under: str, figure: str) -> list[float]:
        """Ratios of two subjects, one per round; `group` as in `measurements`."""
        ratios = []
        for ratio in self.content["ratios"]:
            names = (ratio["over"], ratio["under"], ratio["figure"])
            if _matches(ratio["group"], group) and names == (over, under, figure):
                ratios += ratio["values"]
        return ratios

    def peer_groups(self, network: str) -> dict[str, str]:
        """By name of a peer, the group in which it was compared for a network."""
        groups = {name: f"peers/{network}/{name}" for name in self.peers}
        return {name: group for name, group in groups.items() if self.measurements(group)}


def _matches(name: str, group: str) -> bool:
    return name == group or (group.endswith("/") and name.startswith(group))


def keep(results: Path, number: int, content: Mapping[str, Any]) -> Path:
    """Store a run and return its path; run 1 also deletes the runs that followed the old run 1."""
    path = results / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    if number == 1:
        for old in _files(results)[1:]:
            old.unlink()
    else:
        path = path.with_stem(f"{path.stem}-{number}")
    checkpoint.write_text(path, json.dumps(content, indent=1) + "\n")
    return path


def read(results: Path) -> list[Run]:
    """All stored runs, in order.

    Raises:
        FileNotFoundError: no run is stored.
    """
    files = [path for path in _files(results) if path.is_file()]
    if not files:
        raise FileNotFoundError(f"{results / FILE} is missing: measure with make bench")
    return [Run(json.loads(path.read_text())) for path in files]


def _files(results: Path) -> list[Path]:
    """The first run's path, existing or not, and the existing paths of the following runs."""
    first = results / FILE
    following = [
        (int(match[1]), path)
        for path in first.parent.glob(f"{first.stem}-*.json")
        if (match := re.fullmatch(rf"{first.stem}-(\d+)\.json", path.name))
    ]
    return [first, *(path for _, path in sorted(following))]


def number(value: float, scale: float | None = None) -> str:
    """A number with three or four significant digits.

    `scale`, if given, sets the number of decimals in place of the value, so that numbers beside
    each other have as many.
    """
    size = value if scale is None else scale
    decimals = 3 if size < 2 else 2 if size < 10 else 1 if size < 100 else 0
    return f"{value:.{decimals}f}"


def spread(values: Sequence[float]) -> str:
    """`median (minimum to maximum)`, or a dash if there are no values."""
    if not values:
        return NOTHING
    median = statistics.median(values)
    low, high = (number(value, median) for value in (min(values), max(values)))
    return f"{number(median)} ({low} to {high})"
