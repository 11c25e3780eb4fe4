"""Is a version well under real traffic? By the server's own metrics page."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import requests

from client.gate import NOTICED, Limits

EVERY = 1.0  # seconds between looks
ENOUGH = 5  # batches whose mean time means something


@dataclass(frozen=True)
class Sample:
    """What the metrics page says, counted since the server started."""

    errors: float  # answers of 500 and above, of the whole server
    batches: float  # of one version
    seconds: float  # that its network took for them


def sample(metrics: str, network: str, version: str) -> Sample:
    """One look at the metrics page at an address."""
    page = requests.get(f"{metrics}/metrics", timeout=10).text
    of = {"ModelName": network, "Version": version}
    return Sample(
        errors=_sum(page, "Requests5XX", {}),
        batches=_sum(page, "pneumocam_network_seconds_count", of),
        seconds=_sum(page, "pneumocam_network_seconds_sum", of),
    )


def _sum(page: str, name: str, labels: dict[str, str]) -> float:
    """The sum of a metric's samples with these labels."""
    total = 0.0
    for found, value in re.findall(rf"^{name}\{{(.*)\}} (\S+)$", page, re.MULTILINE):
        if labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', found)).items():
            total += float(value)
    return total


def trouble(
    metrics: str, network: str, versions: tuple[str, str], allowed: Limits, seconds: float
) -> Iterator[str | None]:
    """Look for so long at the version after (of before, after); yield what is wrong, or None.

    Errors of the whole server count, since a failing worker answers in its own name no more. The
    network's mean time is held against that of the version before.
    """
    old = sample(metrics, network, versions[0])
    usual = max(old.seconds / old.batches, NOTICED) if old.batches else None
    start = sample(metrics, network, versions[1])
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(min(EVERY, seconds))
        now = sample(metrics, network, versions[1])
        errors, batches = now.errors - start.errors, now.batches - start.batches
        mean = (now.seconds - start.seconds) / batches if batches >= ENOUGH else 0.0
        if errors > allowed.errors:
            yield f"{errors:.0f} errors since the switch"
        elif usual and mean > allowed.latency * usual:
            yield f"a batch takes {1000 * mean:.0f} ms, before {1000 * usual:.0f}"
        else:
            yield None
