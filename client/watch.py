"""Is a version well under real traffic? By the server's own metrics page."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from client import api
from client.gate import NOTICED, Limits

EVERY = 1.0  # seconds between looks
ENOUGH = 5  # batches whose mean time means something

# TorchServe's counter Requests5XX; the parser gives a counter's samples OpenMetrics' suffix.
ERRORS = "Requests5XX_total"
BATCHES = "pneumocam_network_seconds_count"
SECONDS = "pneumocam_network_seconds_sum"


@dataclass(frozen=True)
class Counts:
    """What the metrics page says, counted since the server started."""

    errors: float  # answers of 500 and above, of the whole server
    batches: float  # of one version
    seconds: float  # that its network took for them


def counts(metrics: str, network: str, version: str) -> Counts:
    """One look at the metrics page at an address.

    Raises ServerError or NoServerError where there is none, ValueError where it is malformed.
    """
    page = samples(api.call("GET", api.Address(metrics), "/metrics").text)
    labels = {"ModelName": network, "Version": version}
    return Counts(
        errors=total(page, ERRORS, {}),
        batches=total(page, BATCHES, labels),
        seconds=total(page, SECONDS, labels),
    )


def samples(page: str) -> list[Sample]:
    """Every sample of a page in Prometheus' text format. Raises ValueError where it is not."""
    families = text_string_to_metric_families(page)
    return [sample for family in families for sample in family.samples]


def total(page: Sequence[Sample], name: str, labels: dict[str, str]) -> float:
    """The sum of the samples of a name that carry these labels, 0 where there are none."""
    return sum(
        sample.value
        for sample in page
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def trouble(
    metrics: str, network: str, versions: tuple[str, str], allowed: Limits, seconds: float
) -> Iterator[str | None]:
    """Look for so long at the version after (of before, after); yield what is wrong, or None.

    Errors of the whole server count, since a failing worker answers in its own name no more. The
    network's mean time is held against that of the version before. A metrics page that can't be
    read is wrong too: nothing is known of the version then.
    """
    try:
        yield from _looks(metrics, network, versions, allowed, seconds)
    except (api.ServerError, api.NoServerError, ValueError) as error:
        yield f"its metrics can't be read: {error}"


def _looks(
    metrics: str, network: str, versions: tuple[str, str], allowed: Limits, seconds: float
) -> Iterator[str | None]:
    if seconds <= 0:
        return
    old = counts(metrics, network, versions[0])
    usual = max(old.seconds / old.batches, NOTICED) if old.batches else None
    start = counts(metrics, network, versions[1])
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(min(EVERY, seconds))
        now = counts(metrics, network, versions[1])
        errors, batches = now.errors - start.errors, now.batches - start.batches
        mean = (now.seconds - start.seconds) / batches if batches >= ENOUGH else 0.0
        if errors > allowed.errors:
            yield f"{errors:.0f} errors since the switch"
        elif usual and mean > allowed.latency * usual:
            yield f"a batch takes {1000 * mean:.0f} ms, before {1000 * usual:.0f}"
        else:
            yield None
