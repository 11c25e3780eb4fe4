"""What Prometheus is told by a real server."""

import requests

from client import watch
from tests.serving.conftest import Place, Served, picture

RAW = {"Content-Type": "application/octet-stream"}
NETWORK = "densenet161"


def samples(place: Place) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of the page but hostnames, by name (as TorchServe gives it) and labels."""
    return {
        (
            sample.name.removesuffix("_total"),
            frozenset(pair for pair in sample.labels.items() if pair[0].lower() != "hostname"),
        ): sample.value
        for sample in watch.samples(requests.get(place.metrics, timeout=10).text)
    }


def value(place: Place, name: str, **labels: str) -> float:
    labels = {"ModelName": NETWORK, "Version": "1.0", **labels}
    return samples(place).get((name, frozenset(labels.items())), 0.0)


def ask(served: Served, content: bytes) -> requests.Response:
    url = f"{served.place.inference}/predictions/{NETWORK}"
    return requests.post(url, data=content, headers=RAW, timeout=30)


def test_answers_refusals_and_times_are_counted(served: Served) -> None:
    place = served.place
    sick = {"Label": "PNEUMONIA", "Triage": "none", "Warned": "yes"}
    before = value(place, "pneumocam_answers", **sick)
    refused = value(place, "pneumocam_refusals", Type="NotAnImage")
    timed = {
        step: value(place, f"pneumocam_{step}_seconds_count")
        for step in ("decode", "network", "overlay")
    }
    for _ in range(3):
        assert ask(served, picture(255)).status_code == 200
    assert ask(served, b"no image").status_code == 415
    assert value(place, "pneumocam_answers", **sick) == before + 3
    assert value(place, "pneumocam_refusals", Type="NotAnImage") == refused + 1
    for step, count in timed.items():
        assert value(place, f"pneumocam_{step}_seconds_count") == count + 3
        assert 0 < value(place, f"pneumocam_{step}_seconds_sum") < 60
    assert value(place, "pneumocam_batch_size_count") >= 4


def test_brighter_images_are_drift(served: Served) -> None:
    for grey in [90, 120, 120, 160] * 15:  # as the reference on the card
        ask(served, picture(grey))
    usual = value(served.place, "pneumocam_brightness_drift")
    for _ in range(150):
        ask(served, picture(250))
    drift = value(served.place, "pneumocam_brightness_drift")
    assert usual < 0.25 < drift
    assert value(served.place, "pneumocam_probability_drift") > 0.1
