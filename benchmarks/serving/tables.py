"""Tables of measured figures. With several runs a cell has one figure per run: `61.2 / 60.8`."""

import statistics
from collections.abc import Iterable, Sequence

from benchmarks.serving import results
from benchmarks.serving.load import PERCENTILES
from benchmarks.serving.results import NOTHING, TITLES, WORKER, Archive, Run, number, spread

Cells = Sequence[str]

STEPS = {
    results.DECODE: "decoding the JPEG",
    results.NETWORK: "network, with map and distances",
    results.OVERLAY: "overlay",
    results.ANSWER: "response: numbers, base64, JSON",
    results.REST: "the rest of the worker: reading the request, log, metrics",
}
TORCHSERVE = "TorchServe: frontend, sockets, waiting to fill the batch"
SUM = "**all**"


def table(header: Cells, rows: Iterable[Cells]) -> str:
    """A table of Markdown; empty if there are no rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(header)} |", "|" + " --- |" * len(header), *lines, ""])


def peers(runs: Sequence[Run]) -> str:
    """Table of pneumocam and the peers with 16 clients and overlays, and their ratios."""
    rows = []
    for network, labels in _labels(runs).items():
        prefix = f"peers/{network}/"
        for label in labels:
            if _is_measured(runs, prefix):
                figures = _load_figures(runs, prefix, label)
                rows.append([TITLES[network], f"pneumocam, {label}", *figures, ""])
        for peer, title in runs[0].peers.items():
            group = f"{prefix}{peer}"
            if _is_measured(runs, group):
                ratios = [f"{label}: {_rate_ratios(runs, group, label, peer)}" for label in labels]
                figures = _load_figures(runs, group, peer)
                rows.append([TITLES[network], title, *figures, "<br>".join(ratios)])
    header = ["", "", "requests per second", "core-ms per request", "p50, ms"]
    return table([*header, "ratio, pneumocam to peer"], rows)


def _load_figures(runs: Sequence[Run], group: str, subject: str) -> list[str]:
    return _figures(runs, group, subject, ("rate", "cpu_ms", "p50"))


def _rate_ratios(runs: Sequence[Run], group: str, over: str, under: str) -> str:
    return " / ".join(spread(run.ratio(group, over, under, "rate")) for run in runs)


def agreement(runs: Sequence[Run]) -> str:
    """How many images got the same label from all systems, by network; empty without labels."""
    counts = []
    for network in _labels(runs):
        by_image = [
            set(labels)
            for run in runs
            for labels in zip(*run.content["labels"].get(network, {}).values(), strict=True)
        ]
        if by_image:
            same = sum(len(labels) == 1 for labels in by_image)
            counts.append(f"{TITLES[network]} {same} of {len(by_image)}")
    if not counts:
        return ""
    return f"Images that got the same label from all systems: {', '.join(counts)}.\n"


def profile(runs: Sequence[Run]) -> str:
    """Table of the milliseconds of a single request by step, a column per archive."""
    measured = [
        archive for archive in archives(runs) if _is_measured(runs, _profile_group(archive))
    ]
    times = {
        archive: [_step_times(run, _profile_group(archive)) for run in runs] for archive in measured
    }
    rows = [
        [step, *[" / ".join(by_step[step] for by_step in times[archive]) for archive in measured]]
        for step in (*STEPS.values(), TORCHSERVE, SUM)
    ]
    return table(["", *[archive.title for archive in measured]], rows if measured else [])


def _profile_group(archive: Archive) -> str:
    return f"profile/{archive.network}/{archive.label}"


def _step_times(run: Run, group: str) -> dict[str, str]:
    """Milliseconds by step, as text: the median over the rounds of each round's mean."""
    times = {title: run.cell(group, "handler", step) for step, title in STEPS.items()}
    rates, worker = run.figures(group, "server", "rate"), run.figures(group, "handler", WORKER)
    if not rates:
        return {**times, TORCHSERVE: NOTHING, SUM: NOTHING}
    total = 1000 / statistics.median(rates)
    rest = total - statistics.median(worker)
    return {**times, TORCHSERVE: number(rest), SUM: f"**{number(total)}**"}


def floor(runs: Sequence[Run]) -> str:
    """Table of the server with one and 16 clients, and of the same work without a server."""
    rows = []
    for archive in archives(runs):
        group = f"floor/{archive.network}/{archive.label}"
        for subject in _subjects(runs, group):
            figures = _figures(runs, group, subject, ("rate", "p50", "cpu_ms"))
            rows.append([archive.title, _floor_title(*subject.split()), *figures])
    return table(["", "", "requests per second", "p50, ms", "core-ms per request"], rows)


def _floor_title(system: str, count: str) -> str:
    if system == "ours":
        return f"the server, {'one client' if count == '1' else f'{count} clients'}"
    return f"{system}, {'one at a time' if count == '1' else f'batches of {count}'}"


def matrix(runs: Sequence[Run]) -> str:
    """Table of pneumocam with every heatmap option and number of clients."""
    rows = []
    for archive in archives(runs):
        prefix = f"matrix/{archive.network}/{archive.label}/"
        for clients in _clients(runs, prefix):
            for heatmap in _subjects(runs, f"{prefix}{clients}"):
                figures = _figures(
                    *(runs, f"{prefix}{clients}", heatmap),
                    ("rate", *PERCENTILES, "cpu_ms", "memory_mb.workers.rss"),
                )
                rows.append([archive.title, str(clients), f"`{heatmap}`", *figures])
    header = ["", "clients", "heatmap", "requests per second"]
    header += [*[f"{name}, ms" for name in PERCENTILES], "core-ms per request", "worker, MB"]
    return table(header, rows)


def _clients(runs: Sequence[Run], prefix: str) -> list[int]:
    return sorted({window["clients"] for run in runs for window in run.measurements(prefix)})


def start(runs: Sequence[Run]) -> str:
    """Table of the seconds until a worker answers, and of its memory."""
    figures = ("ready_seconds", "rss_mb", "empty_rss_mb", "above_mb", "uss_mb", "above_uss_mb")
    rows = [
        [archive.title, *_figures(runs, group, archive.label, figures)]
        for archive in archives(runs)
        if _is_measured(runs, group := f"start/{archive.network}/{archive.label}")
    ]
    header = ["", "ready after, s", "worker RSS, MB", "empty worker RSS, MB", "difference, MB"]
    return table([*header, "worker USS, MB", "USS above an empty worker's, MB"], rows)


def archives(runs: Sequence[Run]) -> list[Archive]:
    """The archives of all runs, without repetitions."""
    return list(dict.fromkeys(archive for run in runs for archive in run.archives))


def _labels(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The labels of a network's archives, by network."""
    by_network: dict[str, list[str]] = {}
    for archive in archives(runs):
        labels = by_network.setdefault(archive.network, [])
        labels += [archive.label] * (archive.label not in labels)
    return by_network


def _figures(runs: Sequence[Run], group: str, subject: str, figures: Sequence[str]) -> list[str]:
    return [" / ".join(run.cell(group, subject, figure) for run in runs) for figure in figures]


def _subjects(runs: Sequence[Run], group: str) -> list[str]:
    return list(dict.fromkeys(subject for run in runs for subject in run.subjects(group)))


def _is_measured(runs: Sequence[Run], group: str) -> bool:
    return any(run.measurements(group) for run in runs)
