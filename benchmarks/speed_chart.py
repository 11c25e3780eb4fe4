"""Requests a second of ours and the peers, drawn."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.measured import TITLES, Run, number
from benchmarks.speed_tables import archives
from train import figures

OURS, PEER, SPREAD = "#d1495b", "#8d99ae", "#222222"


def draw(runs: Sequence[Run], path: Path) -> Path | None:
    """Ours and the peers with 16 clients, a panel a network; its path, none where nothing is."""
    networks = list(dict.fromkeys(one.network for one in archives(runs)))
    found = {network: _rates(runs, network) for network in networks}
    found = {network: rates for network, rates in found.items() if rates}
    if not found:
        path.unlink(missing_ok=True)
        return None
    size = (6 * len(found), 1.2 + 0.45 * max(map(len, found.values())))
    figure, axes = plt.subplots(1, len(found), figsize=size, squeeze=False, layout="constrained")
    for axis, (network, rates) in zip(axes[0], found.items(), strict=True):
        _panel(axis, rates)
        axis.set_title(TITLES[network])
    figure.suptitle("Full-size JPEG in, overlay out, 16 clients: requests a second", fontsize=11)
    return figures.save(figure, path)


def _rates(runs: Sequence[Run], network: str) -> dict[str, list[float]]:
    """The requests a second of every round, by who is drawn."""
    below = f"peers/{network}/"
    names = {
        one.label: f"ours, {one.label}" for one in archives(runs) if one.network == network
    } | runs[0].peers
    found = {
        title: [rate for run in runs for rate in run.figures(below, name, "rate")]
        for name, title in names.items()
    }
    return {title: rates for title, rates in found.items() if rates}


def _panel(axis: Axes, rates: dict[str, list[float]]) -> None:
    for row, (title, values) in enumerate(rates.items()):
        median = statistics.median(values)
        axis.barh(row, median, color=OURS if title.startswith("ours") else PEER)
        axis.plot([min(values), max(values)], [row, row], color=SPREAD, linewidth=1)
        # A little to the right of the line.
        axis.annotate(
            number(median),
            (max(values), row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    axis.set_yticks(range(len(rates)), list(rates))
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.spines[["top", "right"]].set_visible(False)
