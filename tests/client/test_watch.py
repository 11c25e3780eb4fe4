"""The metrics page, and the problems that a watch reads from it."""

from pathlib import Path

import pytest

from client import gate, watch
from tests.client.local_server import local_server

LIMITS = gate.limits(Path(__file__).parents[2] / "deploy" / "gate.toml")

# TorchServe's own page, shortened, after answers of two versions.
PAGE = r"""
# HELP pneumocam_network_seconds Torchserve prometheus histogram metric with unit: s
# TYPE pneumocam_network_seconds histogram
pneumocam_network_seconds_bucket{ModelName="resnet50",Version="1.0",Hostname="h",le="0.005",} 3.0
pneumocam_network_seconds_bucket{ModelName="resnet50",Version="1.0",Hostname="h",le="+Inf",} 3.0
pneumocam_network_seconds_count{ModelName="resnet50",Version="1.0",Hostname="h",} 3.0
pneumocam_network_seconds_sum{ModelName="resnet50",Version="1.0",Hostname="h",} 9.258570003112254E-4
pneumocam_network_seconds_bucket{ModelName="resnet50",Version="2.0",Hostname="h",le="+Inf",} 7.0
pneumocam_network_seconds_count{ModelName="resnet50",Version="2.0",Hostname="h",} 7.0
pneumocam_network_seconds_sum{ModelName="resnet50",Version="2.0",Hostname="h",} 0.002905059999648074
# HELP CPUUtilization Torchserve prometheus gauge metric with unit: Percent
# TYPE CPUUtilization gauge
# HELP Requests5XX Torchserve prometheus counter metric with unit: Count
# TYPE Requests5XX counter
Requests5XX{Level="Host",Hostname="h",} 3.0
# HELP ts_inference_requests_total Torchserve prometheus counter metric with unit: Count
# TYPE ts_inference_requests_total counter
ts_inference_requests_total{model_name="resnet50",model_version="default",hostname="h",} 8.0
# HELP WorkerLoadTime Torchserve prometheus gauge metric with unit: Milliseconds
# TYPE WorkerLoadTime gauge
WorkerLoadTime{WorkerName="W-9000-resnet50_1.0",Level="Host",Hostname="h",} 3901.0
"""

# Label values with each character that has a meaning in the format.
AWKWARD = r"""
# HELP pneumocam_network_seconds A "quoted" text, with a {brace} and a back\\slash
# TYPE pneumocam_network_seconds histogram
pneumocam_network_seconds_sum{ModelName="a,Version=\"1.0\"",Version="2.0",Hostname="h",} 1.0
pneumocam_network_seconds_sum{ModelName="b} 99",Version="1.0",Hostname="h",} 2.0
pneumocam_network_seconds_sum{ModelName="c\\",Version="1.0",Hostname="h",} 4.0
pneumocam_network_seconds_sum{ModelName="d\ne # f",Version="1.0",Hostname="h",} 8.0
"""


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        (watch.SECONDS, {"ModelName": "resnet50", "Version": "1.0"}, 9.258570003112254e-4),
        (watch.BATCHES, {"ModelName": "resnet50", "Version": "2.0"}, 7.0),
        (watch.BATCHES, {"ModelName": "resnet50"}, 10.0),
        (watch.BATCHES, {"ModelName": "densenet161"}, 0.0),
        (watch.ERRORS, {}, 3.0),
        ("ts_inference_requests_total", {"model_version": "default"}, 8.0),
        ("WorkerLoadTime", {"WorkerName": "W-9000-resnet50_1.0"}, 3901.0),
        ("CPUUtilization", {}, 0.0),
    ],
)
def test_totals_of_torchserves_page(name: str, labels: dict[str, str], expected: float) -> None:
    assert watch.total(watch.samples(PAGE), name, labels) == expected


def test_each_line_is_a_sample() -> None:
    for page in (PAGE, AWKWARD):
        lines = [line for line in page.splitlines() if line and not line.startswith("#")]
        assert len(watch.samples(page)) == len(lines)


@pytest.mark.parametrize(
    ("network", "expected"),
    [('a,Version="1.0"', 1.0), ("b} 99", 2.0), ("c\\", 4.0), ("d\ne # f", 8.0), ("a", 0.0)],
)
def test_labels_may_hold_any_character(network: str, expected: float) -> None:
    page = watch.samples(AWKWARD)
    assert watch.total(page, watch.SECONDS, {"ModelName": network}) == expected
    assert watch.total(page, watch.SECONDS, {"Version": "1.0"}) == 14.0


@pytest.mark.parametrize("page", ['a{b="c} 1.0', "<html>not found</html>", "a 1.0.0"])
def test_a_malformed_page_is_refused(page: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the parser has several messages
        watch.samples(page)


def trouble(pages: list[str], monkeypatch: pytest.MonkeyPatch, seconds: float = 0.05) -> list[str]:
    """The problems that a watch of version 2.0 after 1.0 reads from these pages.

    The server sends them one after the other, then the last one again; an empty one is a 503.
    """
    monkeypatch.setattr(watch, "INTERVAL", 0.01)
    remaining = list(pages)

    def respond(_request: str) -> tuple[int, bytes]:
        page = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        return 200 if page else 503, page.encode()

    with local_server(respond) as address:
        readings = list(watch.trouble(address, "resnet50", ("1.0", "2.0"), LIMITS, seconds))
    return [reading for reading in readings if reading]


def changed(old: str, new: str) -> str:
    assert old in PAGE
    return PAGE.replace(old, new)


LAST_COUNT = '_count{ModelName="resnet50",Version="2.0",Hostname="h",} 7.0'
LAST_SUM = '_sum{ModelName="resnet50",Version="2.0",Hostname="h",} 0.002905059999648074'


def test_a_quiet_page_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trouble([PAGE], monkeypatch) == []


def test_new_errors_are_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = changed("} 3.0\n# HELP ts", f"}} {4 + LIMITS.errors}.0\n# HELP ts")
    messages = trouble([PAGE, PAGE, failing], monkeypatch)
    assert messages[0] == f"{1 + LIMITS.errors} errors since the switch"


def test_slow_batches_are_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = changed(LAST_COUNT, LAST_COUNT.replace("7.0", "17.0"))
    slow = slow.replace(LAST_SUM, LAST_SUM.replace("0.0029", "5.0029"))
    assert trouble([PAGE, PAGE, slow], monkeypatch)[0] == "a batch takes 500 ms, before 20"


@pytest.mark.parametrize("page", ["", "<html>not found</html>"])
def test_a_page_that_cannot_be_read_is_trouble(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for pages in ([page], [PAGE, PAGE, page]):
        (message,) = trouble(pages, monkeypatch)
        assert message.startswith("its metrics can't be read: ")


def test_a_watch_of_zero_seconds_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trouble([""], monkeypatch, seconds=0.0) == []
