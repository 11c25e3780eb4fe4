"""Trials of settings, and cost as work grows, on a real server: what they give, not how fast."""

import argparse
import json
from pathlib import Path

import pytest

from benchmarks import growth, tune_server, tuning
from benchmarks.trials import Bench
from benchmarks.tuning import ITSELF, Change
from client import archives, settings
from tests.serving.conftest import ROOT, Place, new_place, picture, write_archive


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = new_place(tmp_path)
    write_archive(found, "resnet50", "1.0")
    (found.data / "grey.jpeg").write_bytes(picture(200, format="JPEG"))
    return found


@pytest.fixture
def options(place: Place) -> argparse.Namespace:
    words = ["--config", ROOT / "config.properties", "--state", place.state, "--pairs", 2]
    words += ["--images", place.data, "--seconds", 0.1, "--model-store", place.store]
    return tune_server.parse([str(word) for word in words])


def test_a_trial_is_measured_once_and_kept(options: argparse.Namespace, place: Place) -> None:
    packed = tune_server.to_measure(place.store, None)
    change = Change("batch", "alone", {settings.BATCH_SIZE: "1"})
    found = Bench(options, packed).trial(change)
    assert found
    assert not found.failed
    assert {name: len(gains) for name, gains in found.gains.items()} == {
        "resnet50 requests/s": 2,
        "resnet50 p50": 2,
    }
    assert min(found.megabytes) > 100
    options.most = 0
    again = Bench(options, packed)
    assert again.trial(change) == found
    assert again.trial(ITSELF) is None


def test_settings_that_do_not_start_are_told(options: argparse.Namespace, place: Place) -> None:
    change = Change("java", "nonsense", {"vmargs": "-XX:+NoSuchOption"})
    found = Bench(options, tune_server.to_measure(place.store, None)).trial(change)
    assert found
    assert found.failed == "does not start"
    assert not tuning.wins(found, tuning.Trial("", {"resnet50 p50": [1.0]}))


def test_growth_asks_for_every_size_and_of_every_worker(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "MEGAPIXELS", (0.01, 0.02))
    monkeypatch.setattr(growth, "CLIENTS", (1, 4))
    monkeypatch.setattr(growth, "IMAGES", 1)
    (archive,) = archives.find(place.store, None)
    growth.main(
        ["--archive", str(archive.path), "--seconds", "0.1", "--results", str(tmp_path / "results")]
    )
    kept = json.loads((tmp_path / "results" / "speed" / "growth.json").read_text())
    sizes = [(one["megapixels"], one["clients"]) for one in kept["sizes"]["measurements"]]
    there = [(0.01, 1), (0.01, 16), (0.02, 1), (0.02, 16)]
    assert sizes == [*there, *there[2:], *there[:2]]
    clients = [(one["clients"], one["workers"]) for one in kept["clients"]["measurements"]]
    assert clients == [(1, 1), (1, 2), (4, 1), (4, 2), (4, 1), (4, 2), (1, 1), (1, 2)]
    assert "## More clients" in (tmp_path / "results" / "growth.md").read_text()
