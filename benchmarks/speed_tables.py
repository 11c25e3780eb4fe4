"""The tables of measured figures. Of several runs, a cell has the figure of each: `61.2 / 60.8`."""

import statistics
from collections.abc import Iterable, Sequence

from benchmarks import measured
from benchmarks.load import PERCENTILES
from benchmarks.measured import NOTHING, TITLES, WORKER, Archive, Run, number, spread

Cells = Sequence[str]

STEPS = {
    measured.DECODE: "decoding the JPEG",
    measured.NETWORK: "network, with map and distances",
    measured.OVERLAY: "overlay",
    measured.ANSWER: "the answer: numbers, base64, JSON",
    measured.REST: "the rest of the worker: reading the request, log, metrics",
}
TORCHSERVE = "TorchServe: its frontend, the sockets, waiting for more to come"
WHOLE = "**all**"


def table(header: Cells, rows: Iterable[Cells]) -> str:
    """A table of Markdown; without rows, nothing."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(header)} |", "|" + " --- |" * len(header), *lines, ""])


def peers(runs: Sequence[Run]) -> str:
    """Ours and the peers with 16 clients and overlays, and the ratios of the pairs."""
    rows = []
    for network, labels in _labels(runs).items():
        below = f"peers/{network}/"
        for label in labels:
            if _any(runs, below):
                rows.append([TITLES[network], f"ours, {label}", *_load(runs, below, label), ""])
        for name, title in runs[0].peers.items():
            group = f"{below}{name}"
            if _any(runs, group):
                beside = [f"{label}: {_ratios(runs, group, label, name)}" for label in labels]
                figures = _load(runs, group, name)
                rows.append([TITLES[network], title, *figures, "<br>".join(beside)])
    header = ["", "", "requests a second", "core-ms a request", "p50, ms", "ours: times"]
    return table(header, rows)


def _load(runs: Sequence[Run], group: str, subject: str) -> list[str]:
    return _figures(runs, group, subject, ("rate", "cpu_ms", "p50"))


def _ratios(runs: Sequence[Run], group: str, over: str, under: str) -> str:
    return " / ".join(spread(run.ratio(group, over, under, "rate")) for run in runs)


def agreement(runs: Sequence[Run]) -> str:
    """To how many images all gave the same label, by network; nothing where nobody said any."""
    said = []
    for network in _labels(runs):
        by_image = [
            set(one)
            for run in runs
            for one in zip(*run.found["labels"].get(network, {}).values(), strict=True)
        ]
        if by_image:
            same = sum(len(labels) == 1 for labels in by_image)
            said.append(f"{TITLES[network]} {same} of {len(by_image)}")
    return f"Images to which all gave the same label: {', '.join(said)}.\n" if said else ""


def profile(runs: Sequence[Run]) -> str:
    """Milliseconds of a lone request by step, for each archive."""
    some = [one for one in archives(runs) if _any(runs, _profile_group(one))]
    spent = {one: [_spent(run, _profile_group(one)) for run in runs] for one in some}
    rows = [
        [step, *[" / ".join(by_run[step] for by_run in spent[one]) for one in some]]
        for step in (*STEPS.values(), TORCHSERVE, WHOLE)
    ]
    return table(["", *[one.title for one in some]], rows if some else [])


def _profile_group(one: Archive) -> str:
    return f"profile/{one.network}/{one.label}"


def _spent(run: Run, group: str) -> dict[str, str]:
    """Milliseconds by step, as text; means, of which the median round is taken."""
    found = {title: run.cell(group, "handler", step) for step, title in STEPS.items()}
    rates, worker = run.figures(group, "server", "rate"), run.figures(group, "handler", WORKER)
    if not rates:
        return {**found, TORCHSERVE: NOTHING, WHOLE: NOTHING}
    whole = 1000 / statistics.median(rates)
    left = whole - statistics.median(worker)
    return {**found, TORCHSERVE: number(left), WHOLE: f"**{number(whole)}**"}


def floor(runs: Sequence[Run]) -> str:
    """The server with one and 16 clients, and the same work without a server."""
    rows = []
    for one in archives(runs):
        group = f"floor/{one.network}/{one.label}"
        for subject in _subjects(runs, group):
            who, count = subject.split()
            what = f"the server, {count} clients" if who == "ours" else f"{who}, batches of {count}"
            figures = _figures(runs, group, subject, ("rate", "p50", "cpu_ms"))
            rows.append([one.title, _singular(what), *figures])
    return table(["", "", "requests a second", "p50, ms", "core-ms a request"], rows)


def _singular(what: str) -> str:
    return what.replace(" 1 clients", " one client").replace("batches of 1", "one at a time")


def ours(runs: Sequence[Run]) -> str:
    """Every heatmap with every number of clients."""
    rows = []
    for one in archives(runs):
        below = f"matrix/{one.network}/{one.label}/"
        for clients in _clients(runs, below):
            for heatmap in _subjects(runs, f"{below}{clients}"):
                figures = _figures(
                    *(runs, f"{below}{clients}", heatmap),
                    ("rate", *PERCENTILES, "cpu_ms", "memory_mb.workers.rss"),
                )
                rows.append([one.title, str(clients), f"`{heatmap}`", *figures])
    header = ["", "clients", "heatmap", "requests a second"]
    header += [*[f"{name}, ms" for name in PERCENTILES], "core-ms a request", "worker, MB"]
    return table(header, rows)


def _clients(runs: Sequence[Run], below: str) -> list[int]:
    return sorted({one["clients"] for run in runs for one in run.of_group(below)})


def start(runs: Sequence[Run]) -> str:
    """Until a worker answers, and its memory."""
    figures = ("ready_seconds", "rss_mb", "empty_rss_mb", "above_mb", "uss_mb", "above_uss_mb")
    rows = [
        [one.title, *_figures(runs, group, one.label, figures)]
        for one in archives(runs)
        if _any(runs, group := f"start/{one.network}/{one.label}")
    ]
    header = ["", "ready after, s", "worker, MB", "empty worker, MB", "above it, MB"]
    return table([*header, "its own, MB", "above an empty one's own, MB"], rows)


def archives(runs: Sequence[Run]) -> list[Archive]:
    """Those of any run, once."""
    return list(dict.fromkeys(one for run in runs for one in run.archives))


def _labels(runs: Sequence[Run]) -> dict[str, list[str]]:
    """By network."""
    found: dict[str, list[str]] = {}
    for one in archives(runs):
        labels = found.setdefault(one.network, [])
        labels += [one.label] * (one.label not in labels)
    return found


def _figures(runs: Sequence[Run], group: str, subject: str, figures: Sequence[str]) -> list[str]:
    return [" / ".join(run.cell(group, subject, figure) for run in runs) for figure in figures]


def _subjects(runs: Sequence[Run], group: str) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.subjects(group)))


def _any(runs: Sequence[Run], group: str) -> bool:
    return any(run.of_group(group) for run in runs)
