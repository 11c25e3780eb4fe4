"""Chart of the requests per second of pneumocam and the peers."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.serving.results import TITLES, Run, number
from benchmarks.serving.tables import archives
from train.report import figures

PNEUMOCAM = "pneumocam"
PNEUMOCAM_COLOUR, PEER_COLOUR, RANGE_COLOUR = "#d1495b", "#8d99ae", "#222222"


def draw(runs: Sequence[Run], path: Path) -> Path | None:
    """Draw the rates with 16 clients, a panel per network, and return the chart's path.

    None if no rates were measured; an old chart is deleted then.
    """
    networks = dict.fromkeys(archive.network for archive in archives(runs))
    panels = {network: rates for network in networks if (rates := _rates(runs, network))}
    if not panels:
        path.unlink(missing_ok=True)
        return None
    size = (6 * len(panels), 1.2 + 0.45 * max(map(len, panels.values())))
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False, layout="constrained")
    for axis, (network, rates) in zip(axes[0], panels.items(), strict=True):
        _panel(axis, rates)
        axis.set_title(TITLES[network])
    title = "Full-size JPEG in, overlay out, 16 clients: requests per second"
    figure.suptitle(title, fontsize=11)
    return figures.save(figure, path)


def _rates(runs: Sequence[Run], network: str) -> dict[str, list[float]]:
    """Requests per second in every round, by title of the system."""
    prefix = f"peers/{network}/"
    labels = [archive.label for archive in archives(runs) if archive.network == network]
    titles = {label: f"{PNEUMOCAM}, {label}" for label in labels} | runs[0].peers
    rates = {
        title: [rate for run in runs for rate in run.figures(prefix, subject, "rate")]
        for subject, title in titles.items()
    }
    return {title: values for title, values in rates.items() if values}


def _panel(axis: Axes, rates: dict[str, list[float]]) -> None:
    for row, (title, values) in enumerate(rates.items()):
        median = statistics.median(values)
        colour = PNEUMOCAM_COLOUR if title.startswith(PNEUMOCAM) else PEER_COLOUR
        axis.barh(row, median, color=colour)
        axis.plot([min(values), max(values)], [row, row], color=RANGE_COLOUR, linewidth=1)
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
