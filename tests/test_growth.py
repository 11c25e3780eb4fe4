"""Cost as work grows: the report on numbers made by hand, the images."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import growth, growth_report
from client import archives
from handlers import limits
from tests import cards
from tests.test_archives import write_archive


def a_measurement(**figures: Any) -> dict[str, Any]:
    return {"others": 0.01, "kilobytes": 100.0, "p99": 0.0, "rate": 1.0, **figures}


def kept(measurements: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "machine": {"cpu": "a processor", "cores": 2},
        "archive": {
            **{"network": "resnet50", "version": "1.0"},
            **{"precision": "f32", "engine": "openvino"},
        },
        "seconds": 4,
        "measurements": measurements,
    }


def sizes() -> list[dict[str, Any]]:
    """40 ms and 10 ms a megapixel, in two rounds that differ by 2 ms; half of it with 16."""
    return [
        a_measurement(
            megapixels=size,
            clients=clients,
            cpu_ms=40 + 10 * size + error,
            p50=50 + 10 * size,
            rate=1000 / (50 + 10 * size),
        )
        for error in (-1, 1)
        for size in (1.0, 2.0, 5.0)
        for clients in (1, 16)
    ]


def clients() -> list[dict[str, Any]]:
    """20 requests a second whatever comes, and 19.5 of 64 clients; two workers do 30."""
    rates = {(1, n): 20.0 for n in (1, 4, 16)} | {(1, 64): 19.5}
    rates |= {(2, n): 30.0 for n in (1, 4, 16, 64)}
    return [
        a_measurement(
            workers=workers, clients=n, rate=rate, p50=1000 * n / rate, p99=1500 * n / rate
        )
        for (workers, n), rate in rates.items()
    ]


def written(folder: Path, **parts: list[dict[str, Any]]) -> str:
    path = folder / growth_report.FILE
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({name: kept(found) for name, found in parts.items()}))
    return growth_report.write(folder).read_text()


def test_the_report_says_what_was_measured(tmp_path: Path) -> None:
    text = written(tmp_path, sizes=sizes(), clients=clients())
    assert "40 ms for the network and all else that does not\ngrow, and 10.0 ms a megapixel" in text
    assert "| 2 | 100 | 70 | 60 | 14.3 | 0 |" in text
    assert "| 64 | 19.5 | 3282 | 4923 | 30.0 | 2133 | 3200 |" in text
    assert "One worker: 20.0 requests a second at most, 19.5 with 64 clients" in text
    assert "p99 is 1.50 to 1.50 times clients / requests a second" in text.replace("\n", " ")
    assert "about 100 requests take, 5 s with one worker" in text
    assert "resnet50 1.0, f32 by openvino; a processor, 2 cores" in text


def test_the_archive_of_a_result_is_told(tmp_path: Path) -> None:
    graph = {"file": "g.onnx", "sha256": cards.SHA256, "engine": "openvino", "precision": "int8"}
    members = [cards.archived(graph=graph), cards.archived(network="densenet161", graph=graph)]
    for network, card in (
        ("resnet50", cards.archived(graph=graph)),
        ("pneumonia", cards.ensemble(members)),
    ):
        archive = archives.read(write_archive(tmp_path, network, card=card))
        assert growth.facts_of(archive) == {
            **{"network": network, "version": "1.0"},
            **{"precision": "int8", "engine": "openvino"},
        }


def test_every_chart_is_drawn_and_shown(tmp_path: Path) -> None:
    text = written(tmp_path, sizes=sizes(), clients=clients())
    for chart in (growth_report.SIZES, growth_report.CLIENTS):
        assert f"]({chart.as_posix()})" in text
        with Image.open(tmp_path / chart) as picture:
            assert picture.width > 2 * picture.height


def test_a_part_alone_is_reported_alone(tmp_path: Path) -> None:
    text = written(tmp_path, clients=clients())
    assert "Larger images" not in text
    assert "More clients" in text


def test_images_are_as_large_as_they_say_and_no_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "IMAGES", 1)
    for megapixels in (growth.MEGAPIXELS[0], growth.MEGAPIXELS[-1]):
        (content,) = growth.phantoms_of(megapixels)
        with Image.open(io.BytesIO(content)) as picture:
            width, height = picture.size
        assert width * height == pytest.approx(1e6 * megapixels, rel=0.01)
        limits.check_pixels(width, height, len(content))
