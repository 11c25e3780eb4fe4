"""Errors and latency of a version under real traffic, from the server's metrics page."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from client import api
from client.gate import MIN_LATENCY, Limits

INTERVAL = 1.0  # seconds between readings
MIN_BATCHES = 5  # for a mean

# TorchServe's counter is named Requests5XX; the parser adds OpenMetrics' suffix for counters.
ERRORS = "Requests5XX_total"
BATCHES = "pneumocam_network_seconds_count"
SECONDS = "pneumocam_network_seconds_sum"


@dataclass(frozen=True)
class Counts:
    """Counts of the metrics page since the server started."""

    errors: float  # responses with status 500 or above, of the whole server
    batches: float  # of one version
    seconds: float  # its network's time for these batches


def counts(metrics: str, network: str, version: str) -> Counts:
    """One reading of the metrics page at a URL.

    Raises:
        ServerError, NoServerError: the page can't be read.
        ValueError: it is malformed.
    """
    page = samples(api.call("GET", api.Address(metrics), "/metrics").text)
    labels = {"ModelName": network, "Version": version}
    return Counts(
        errors=total(page, ERRORS, {}),
        batches=total(page, BATCHES, labels),
        seconds=total(page, SECONDS, labels),
    )


def samples(page: str) -> list[Sample]:
    """Every sample of a page in Prometheus' text format. Raises ValueError if it is malformed."""
    families = text_string_to_metric_families(page)
    return [sample for family in families for sample in family.samples]


def total(page: Sequence[Sample], name: str, labels: dict[str, str]) -> float:
    """The sum of the samples with this name and these labels, 0 without any."""
    return sum(
        sample.value
        for sample in page
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def trouble(
    metrics: str, network: str, versions: tuple[str, str], allowed: Limits, seconds: float
) -> Iterator[str | None]:
    """Read the metrics page (its address is `metrics`) once a second, for a number of seconds.

    Yields a sentence that names the problem, or None, for each reading.

    `versions` are the one before the switch and the one after it, which is watched. Errors of the
    whole server count, since a failed worker no longer reports metrics with its version. The
    network's mean time per batch is compared with that of the version before. A page that can't be
    read is a problem as well.
    """
    try:
        yield from _readings(metrics, network, versions, allowed, seconds)
    except (api.ServerError, api.NoServerError, ValueError) as error:
        yield f"its metrics can't be read: {error}"


def _readings(
    metrics: str, network: str, versions: tuple[str, str], allowed: Limits, seconds: float
) -> Iterator[str | None]:
    if seconds <= 0:
        return
    old = counts(metrics, network, versions[0])
    usual = max(old.seconds / old.batches, MIN_LATENCY) if old.batches else None
    start = counts(metrics, network, versions[1])
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(min(INTERVAL, seconds))
        now = counts(metrics, network, versions[1])
        errors, batches = now.errors - start.errors, now.batches - start.batches
        mean = (now.seconds - start.seconds) / batches if batches >= MIN_BATCHES else 0.0
        if errors > allowed.errors:
            yield f"{errors:.0f} errors since the switch"
        elif usual and mean > allowed.latency * usual:
            yield f"a batch takes {1000 * mean:.0f} ms, before {1000 * usual:.0f}"
        else:
            yield None
