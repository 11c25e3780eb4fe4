"""Scaling of cost: the report on figures made by hand, and the images."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.serving import scaling, scaling_report
from client import archives
from handlers import limits
from tests import cards
from tests.client.test_archives import write_archive


def make_measurement(**figures: Any) -> dict[str, Any]:
    return {"others": 0.01, "kilobytes": 100.0, "p99": 0.0, "rate": 1.0, **figures}


def make_part(measurements: list[dict[str, Any]]) -> dict[str, Any]:
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
    """40 ms and 10 ms per megapixel, in two rounds that differ by 2 ms, with 1 and 16 clients."""
    return [
        make_measurement(
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
    """20 requests per second with one worker, 19.5 with 64 clients; 30 with two workers."""
    rates = {(1, n): 20.0 for n in (1, 4, 16)} | {(1, 64): 19.5}
    rates |= {(2, n): 30.0 for n in (1, 4, 16, 64)}
    return [
        make_measurement(
            workers=workers, clients=n, rate=rate, p50=1000 * n / rate, p99=1500 * n / rate
        )
        for (workers, n), rate in rates.items()
    ]


def write_report(folder: Path, **parts: list[dict[str, Any]]) -> str:
    path = folder / scaling_report.FILE
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({name: make_part(part) for name, part in parts.items()}))
    return scaling_report.write(folder).read_text()


def test_the_report_has_fits_tables_and_conditions(tmp_path: Path) -> None:
    text = write_report(tmp_path, sizes=sizes(), clients=clients())
    assert "40 ms for the network and everything else that does\nnot grow, and 10.0 ms per" in text
    assert "| 2 | 100 | 70 | 60 | 14.3 | 0 |" in text
    assert "| 64 | 19.5 | 3282 | 4923 | 30.0 | 2133 | 3200 |" in text
    assert "One worker: 20.0 requests per second at most, 19.5 with 64 clients" in text
    assert "p99 is 1.50 to 1.50 times clients / (requests per second)" in text
    assert "about 100 requests take, 5 s with one worker" in text
    assert "resnet50 1.0, f32 by openvino; a processor, 2 cores" in text


def test_results_name_the_archive(tmp_path: Path) -> None:
    graph = {"file": "g.onnx", "sha256": cards.SHA256, "engine": "openvino", "precision": "int8"}
    members = [cards.archived(graph=graph), cards.archived(network="densenet161", graph=graph)]
    for network, card in (
        ("resnet50", cards.archived(graph=graph)),
        ("pneumonia", cards.ensemble(members)),
    ):
        archive = archives.read(write_archive(tmp_path, network, card=card))
        assert scaling.archive_facts(archive) == {
            **{"network": network, "version": "1.0"},
            **{"precision": "int8", "engine": "openvino"},
        }


def test_every_chart_is_drawn_and_shown(tmp_path: Path) -> None:
    text = write_report(tmp_path, sizes=sizes(), clients=clients())
    for chart in (scaling_report.SIZES, scaling_report.CLIENTS):
        assert f"]({chart.as_posix()})" in text
        with Image.open(tmp_path / chart) as picture:
            assert picture.width > 2 * picture.height


def test_parts_without_measurements_are_left_out(tmp_path: Path) -> None:
    text = write_report(tmp_path, clients=clients())
    assert "Larger images" not in text
    assert "More clients" in text


def test_images_have_the_stated_size_and_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "IMAGES", 1)
    for megapixels in (scaling.MEGAPIXELS[0], scaling.MEGAPIXELS[-1]):
        (content,) = scaling.phantom_jpegs(megapixels)
        with Image.open(io.BytesIO(content)) as picture:
            width, height = picture.size
        assert width * height == pytest.approx(1e6 * megapixels, rel=0.01)
        limits.check_pixels(width, height, len(content))
