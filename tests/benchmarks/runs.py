"""A run of the serving benchmark whose figures can be worked out by hand."""

from pathlib import Path
from typing import Any

from benchmarks.serving import ratios, report, results

MACHINE = {
    **{"cpu": "A processor", "flags": ["avx2"], "cores": 2, "cores_of_machine": 2},
    **{"memory_gb": 23.5, "system": "Linux x86_64", "python": "3.11.7", "java": "25.0.2"},
    **{"versions": {"torch": "2.14.1"}, "revision": "abc1234", "started": "2026-01-02T03:04:05"},
    "took_seconds": 900,
}
CAPTUM = "TorchServe, Captum, matplotlib"
TUNED = "TorchServe, eager, tuned by hand"
WINDOW = {
    **{"clients": 16, "heatmap": "overlay", "requests": 100, "p50": 250.0, "p95": 300.0},
    **{"p99": 310.0, "others": 0.01},
    "memory_mb": {"frontend": {"rss": 200.0}, "workers": {"rss": 700.0}},
}


def rounds(group: str, subject: str, *figures: dict[str, Any]) -> list[dict[str, Any]]:
    part, network, *_ = group.split("/")
    keys = {"part": part, "network": network, "group": group, "subject": subject}
    return [{**keys, "round": number, **window} for number, window in enumerate(figures, 1)]


def windows(*rates: float, **figures: Any) -> list[dict[str, Any]]:
    """A window per rate in requests per second; 2 cores are busy."""
    return [{**WINDOW, "rate": rate, "cpu_ms": 2000 / rate, **figures} for rate in rates]


def make_run(network: str = "resnet50") -> dict[str, Any]:
    """Three rounds of every part, of one network."""
    captum, tuned = f"peers/{network}/captum", f"peers/{network}/tuned"
    floor, matrix = f"floor/{network}/f32", f"matrix/{network}/f32/16"
    profile, start = f"profile/{network}/f32", f"start/{network}/f32"
    single = {"clients": 1}
    steps = {"decode": 8.0, "network": 20.0, "overlay": 3.0, "answer": 1.5, "rest": 0.5}
    handler = {**steps, "worker": 33.0, "requests": 50}
    memory = {
        **{"rss_mb": 800.0, "empty_rss_mb": 520.0, "above_mb": 280.0},
        **{"uss_mb": 600.0, "above_uss_mb": 250.0},
    }
    measurements = [
        *rounds(captum, "f32", *windows(24.0, 26.0, 25.0)),
        *rounds(captum, "int8", *windows(48.0, 39.0, 50.0)),
        *rounds(captum, "captum", *windows(4.0, 5.0, 5.0)),  # f32: 6.0, 5.2, 5.0
        *rounds(tuned, "f32", *windows(20.0, 21.0, 22.0)),
        *rounds(tuned, "int8", *windows(40.0, 42.0, 44.0)),
        *rounds(tuned, "tuned", *windows(12.5, 12.5, 12.5)),  # f32: 1.6, 1.68, 1.76
        *rounds(matrix, "none", *windows(25.0, 25.0, 25.0, heatmap="none")),
        *rounds(matrix, "map", *windows(24.0, 25.0, 25.0, heatmap="map")),
        *rounds(matrix, "overlay", *windows(20.0, 20.0, 25.0)),
        *rounds(floor, "ours 1", *windows(20.0, 20.0, 20.0, p50=50.0, cpu_ms=66.0, **single)),
        *rounds(floor, "ours 16", *windows(20.0, 20.0, 20.0, cpu_ms=60.0)),
        *rounds(floor, "onnxruntime 1", *[{"rate": 21.0, "p50": 48.0, "cpu_ms": 64.0}] * 3),
        *rounds(floor, "onnxruntime 4", *[{"rate": 22.0, "p50": 45.0, "cpu_ms": 58.0}] * 3),
        *rounds(floor, "openvino 1", *[{"rate": 25.0, "p50": 40.0, "cpu_ms": 60.0}] * 3),
        *rounds(floor, "openvino 4", *[{"rate": 26.0, "p50": 38.0, "cpu_ms": 50.0}] * 3),
        *rounds(profile, "server", *windows(20.0, 25.0, 25.0, **single)),
        *rounds(profile, "handler", *[handler] * 3),
        *rounds(start, "f32", *[{"ready_seconds": s, **memory} for s in (4.0, 4.5, 6.0)]),
    ]
    archives = [
        {"network": network, "label": label, "precision": label, "engine": "openvino"}
        for label in ("f32", "int8")
    ]
    return {
        "machine": MACHINE,
        "settings": {"seconds": 6, "pairs": 3, "random_peers": False},
        "images": {
            **{"source": "phantoms", "count": 16},
            **{"bytes": [100_000, 165_432, 300_000], "megapixels": [1.56, 1.56, 1.56]},
        },
        "peers": {"captum": CAPTUM, "tuned": TUNED},
        "archives": archives,
        "labels": {
            network: {
                "f32": ["NORMAL", "PNEUMONIA", "PNEUMONIA"],
                "captum": ["NORMAL", "PNEUMONIA", "NORMAL"],
            }
        },
        "failed": [],
        "measurements": measurements,
        "ratios": ratios.compute(measurements, ["f32", "int8"]),
    }


def write_report(folder: Path, *runs: dict[str, Any]) -> str:
    """The text of the report on the runs."""
    for number, run in enumerate(runs, 1):
        results.keep(folder, number, run)
    return report.write(folder).read_text()


def table(text: str, title: str) -> list[list[str]]:
    """The rows of a section's table, its header first."""
    section = text.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [
        [cell.strip() for cell in row.strip("|").split("|")] for row in rows if " --- " not in row
    ]
