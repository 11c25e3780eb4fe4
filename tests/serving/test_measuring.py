"""Trials of settings, and cost as work grows, on a real server: what they give, not how fast."""

import argparse
import json
import re
from pathlib import Path

import pytest

from benchmarks.serving import images, scaling, tune_server
from client import archives, settings
from tests.serving.conftest import ROOT, Place, new_place, picture, write_archive


@pytest.fixture
def place(tmp_path: Path) -> Place:
    result = new_place(tmp_path)
    write_archive(result, "resnet50", "1.0")
    (result.data / "grey.jpeg").write_bytes(picture(200, format="JPEG"))
    return result


@pytest.fixture
def options(place: Place) -> argparse.Namespace:
    words = ["--config", ROOT / "config.properties", "--state", place.state, "--pairs", 2]
    words += ["--images", place.data, "--seconds", 0.1, "--model-store", place.store]
    return tune_server.parse([str(word) for word in words])


def test_a_change_is_measured_in_every_pair_and_figure(
    options: argparse.Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tune_server.newest(options.model_store, None)
    bodies = images.read(options.images)
    gains = tune_server.measure({settings.BATCH_SIZE: "1"}, packed, bodies, options)
    pairs = {figure: len(ratios) for figure, ratios in gains.items()}
    assert pairs == {"resnet50 requests/s": 2, "resnet50 p50": 2}
    assert min(ratio for ratios in gains.values() for ratio in ratios) > 0
    memory = re.search(r"workers' memory: (\d+) → (\d+) MB", capsys.readouterr().out)
    assert memory
    assert min(map(int, memory.groups())) > 100


def test_settings_that_do_not_start_are_reported(
    options: argparse.Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tune_server.newest(options.model_store, None)
    change = {"vmargs": "-XX:+NoSuchOption"}
    assert tune_server.measure(change, packed, images.read(options.images), options) == {}
    assert "failed: " in capsys.readouterr().out


def test_growth_asks_for_every_size_and_of_every_worker(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "MEGAPIXELS", (0.01, 0.02))
    monkeypatch.setattr(scaling, "CLIENTS", (1, 4))
    monkeypatch.setattr(scaling, "IMAGES", 1)
    (archive,) = archives.find(place.store, None)
    scaling.main(
        ["--archive", str(archive.path), "--seconds", "0.1", "--results", str(tmp_path / "results")]
    )
    kept = json.loads((tmp_path / "results" / "speed" / "growth.json").read_text())
    sizes = [(each["megapixels"], each["clients"]) for each in kept["sizes"]["measurements"]]
    present = [(0.01, 1), (0.01, 16), (0.02, 1), (0.02, 16)]
    assert sizes == [*present, *present[2:], *present[:2]]
    clients = [(each["clients"], each["workers"]) for each in kept["clients"]["measurements"]]
    assert clients == [(1, 1), (1, 2), (4, 1), (4, 2), (4, 1), (4, 2), (1, 1), (1, 2)]
    assert "## More clients" in (tmp_path / "results" / "growth.md").read_text()
