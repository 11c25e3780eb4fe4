"""From what a run kept to the tables, by numbers that can be worked out by hand."""

import copy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import measured, ratios, speed_report, targets
from benchmarks.measured import Run, number, spread

MACHINE = {
    **{"cpu": "A processor", "flags": ["avx2"], "cores": 2, "cores_of_machine": 2},
    **{"memory_gb": 23.5, "system": "Linux x86_64", "python": "3.11.7", "java": "25.0.2"},
    **{"versions": {"torch": "2.14.1"}, "revision": "abc1234", "started": "2026-01-02T03:04:05"},
    "took_seconds": 900,
}
CAPTUM = "TorchServe, Captum, matplotlib"
TUNED = "TorchServe, eager, tuned by hand"
LOADED = {
    **{"clients": 16, "heatmap": "overlay", "requests": 100, "p50": 250.0, "p95": 300.0},
    **{"p99": 310.0, "others": 0.01},
    "memory_mb": {"frontend": {"rss": 200.0}, "workers": {"rss": 700.0}},
}


def rounds(group: str, subject: str, *figures: dict[str, Any]) -> list[dict[str, Any]]:
    part, network, *_ = group.split("/")
    where = {"part": part, "network": network, "group": group, "subject": subject}
    return [{**where, "round": k, **one} for k, one in enumerate(figures, 1)]


def loaded(*rates: float, **more: Any) -> list[dict[str, Any]]:
    """Rounds of so many requests a second; 2 cores are busy."""
    return [{**LOADED, "rate": rate, "cpu_ms": 2000 / rate, **more} for rate in rates]


def one_run(network: str = "resnet50") -> dict[str, Any]:
    """Three rounds of everything, of one network."""
    beside_captum, beside_tuned = f"peers/{network}/captum", f"peers/{network}/tuned"
    floor, matrix = f"floor/{network}/f32", f"matrix/{network}/f32/16"
    profile, start = f"profile/{network}/f32", f"start/{network}/f32"
    alone = {"clients": 1}
    measurements = [
        *rounds(beside_captum, "f32", *loaded(24.0, 26.0, 25.0)),
        *rounds(beside_captum, "int8", *loaded(48.0, 39.0, 50.0)),
        *rounds(beside_captum, "captum", *loaded(4.0, 5.0, 5.0)),  # f32: 6.0, 5.2, 5.0
        *rounds(beside_tuned, "f32", *loaded(20.0, 21.0, 22.0)),
        *rounds(beside_tuned, "int8", *loaded(40.0, 42.0, 44.0)),
        *rounds(beside_tuned, "tuned", *loaded(12.5, 12.5, 12.5)),  # f32: 1.6, 1.68, 1.76
        *rounds(matrix, "none", *loaded(25.0, 25.0, 25.0, heatmap="none")),
        *rounds(matrix, "map", *loaded(24.0, 25.0, 25.0, heatmap="map")),
        *rounds(matrix, "overlay", *loaded(20.0, 20.0, 25.0)),
        *rounds(floor, "ours 1", *loaded(20.0, 20.0, 20.0, p50=50.0, cpu_ms=66.0, **alone)),
        *rounds(floor, "ours 16", *loaded(20.0, 20.0, 20.0, cpu_ms=60.0)),
        *rounds(floor, "onnxruntime 1", *[{"rate": 21.0, "p50": 48.0, "cpu_ms": 64.0}] * 3),
        *rounds(floor, "onnxruntime 4", *[{"rate": 22.0, "p50": 45.0, "cpu_ms": 58.0}] * 3),
        *rounds(floor, "openvino 1", *[{"rate": 25.0, "p50": 40.0, "cpu_ms": 60.0}] * 3),
        *rounds(floor, "openvino 4", *[{"rate": 26.0, "p50": 38.0, "cpu_ms": 50.0}] * 3),
        *rounds(profile, "server", *loaded(20.0, 25.0, 25.0, **alone)),
        *rounds(
            profile,
            "handler",
            *[{"decode": 8.0, "network": 20.0, "overlay": 3.0, "answer": 1.5, "rest": 0.5}] * 3,
        ),
        *rounds(
            start,
            "f32",
            *[
                {"ready_seconds": s, "rss_mb": 800.0, "empty_rss_mb": 520.0, "above_mb": 280.0}
                for s in (4.0, 4.5, 6.0)
            ],
        ),
    ]
    for one in measurements:
        if one["subject"] == "handler":
            one |= {"worker": 33.0, "requests": 50}
        if one["part"] == "start":
            one |= {"uss_mb": 600.0, "above_uss_mb": 250.0}
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
        "ratios": ratios.all_of(measurements, ["f32", "int8"]),
    }


def table(text: str, title: str) -> list[list[str]]:
    """The rows of a section's table, its header first."""
    section = text.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [
        [cell.strip() for cell in row.strip("|").split("|")] for row in rows if " --- " not in row
    ]


def written(folder: Path, *runs: dict[str, Any]) -> str:
    for number_, run in enumerate(runs, 1):
        measured.keep(folder, number_, run)
    return speed_report.write(folder).read_text()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(tmp_path_factory.mktemp("results"), one_run())


def test_targets_have_median_spread_and_a_verdict(report: str) -> None:
    header, *rows = table(report, "What it must reach")
    assert header == ["", "target", "median", "least to most", "reached"]
    found = {row[0]: row[1:] for row in rows}
    beside = f"ResNet50 {{}}: requests a second beside {CAPTUM}"
    assert found[beside.format("f32")] == ["at least 4.5 times", "5.20", "5.00 to 6.00", "yes"]
    # 12, 7.8 and 10: the rates' own medians would say 9.6.
    assert found[beside.format("int8")] == ["at least 9 times", "10.00", "7.80 to 12.00", "yes"]
    best = found["ResNet50 f32: requests a second beside the best of the peers"]
    assert best == ["at least 1.7 times", f"1.680, beside {TUNED}", "1.600 to 1.760", "**no**"]
    # Of both groups' rounds: 2, 1.5, 2 and 2, 2, 2.
    in_8_bits = found["ResNet50 int8: requests a second beside f32"]
    assert in_8_bits == ["at least 1.6 times", "2.000", "1.500 to 2.000", "yes"]
    floor = {
        "CPU time a request, 16 clients": ["1.15 times", "1.200", "**no**"],
        "CPU time a request, one client": ["1.15 times", "1.100", "yes"],
        "p50, one client": ["1.25 times", "1.250", "yes"],
    }
    for what, (limit, median, reached) in floor.items():
        row = found[f"ResNet50 f32: {what}, beside the floor"]
        spread_ = f"{median} to {median}"
        assert row == [f"at most {limit}", f"{median}, beside openvino", spread_, reached]
    heatmap = "ResNet50 f32: time a request with `heatmap={}`, beside `none`, 16 clients"
    assert found[heatmap.format("map")] == ["at most 1.03 times", "1.000", "1.000 to 1.042", "yes"]
    assert found[heatmap.format("overlay")][1:] == ["1.250", "1.000 to 1.250", "**no**"]
    assert found["ResNet50 f32: worker ready after"] == [
        "at most 5 s",
        "4.50",
        "4.00 to 6.00",
        "yes",
    ]
    memory = found["ResNet50 f32: memory of a worker above an empty one"]
    assert memory == ["at most 250 MB", "280", "280 to 280", "**no**"]
    assert len(rows) == 12


def test_a_target_is_judged_by_what_was_measured_not_by_what_is_printed() -> None:
    row = targets.Row("", 1.03, [1.0304])
    assert not row.reached
    assert targets.Row("", 1.03, [1.0304], at_least=True).reached


def test_peers_beside_ours(report: str) -> None:
    header, *rows = table(report, "Beside what people build")
    assert header[2:5] == ["requests a second", "core-ms a request", "p50, ms"]
    found = {row[1]: row[2:] for row in rows}
    # 20, 21, 22, 24, 25, 26 a second
    assert found["ours, f32"] == ["23.0", "87.1", "250", ""]
    assert found[TUNED][:2] == ["12.5", "160"]
    assert found[TUNED][3] == "f32: 1.680 (1.600 to 1.760)<br>int8: 3.36 (3.20 to 3.52)"


def test_labels_that_differ_are_counted(report: str) -> None:
    assert "Images to which all gave the same label: ResNet50 2 of 3.\n" in report


def test_the_profile_adds_up(report: str) -> None:
    header, *rows = table(report, "Where each millisecond goes")
    assert header == ["", "ResNet50 f32"]
    *steps, (_, whole) = rows
    assert [cell for _, cell in steps] == ["8.00", "20.0", "3.00", "1.500", "0.500", "7.00"]
    assert whole == "**40.0**"  # 1000 / 25
    assert steps[0][0] == "decoding the JPEG"
    assert steps[-1][0].startswith("TorchServe")


def test_floor_ours_and_start(report: str) -> None:
    floor = {row[1]: row[2:] for row in table(report, "Beside the floor")[1:]}
    assert floor["the server, one client"] == ["20.0", "50.0", "66.0"]
    assert floor["openvino, batches of 4"] == ["26.0", "38.0", "50.0"]
    assert len(floor) == 6
    ours = table(report, "Ours")
    assert ours[2] == [
        *("ResNet50 f32", "16", "`map`", "25.0", "250", "300", "310", "80.0", "700"),
    ]
    (start,) = table(report, "Start and memory")[1:]
    assert start == ["ResNet50 f32", "4.50", "800", "520", "280", "600", "250"]


def test_where_it_was_measured(report: str) -> None:
    facts = dict(table(report, "Where it was measured"))
    assert facts["processor"] == "A processor, 2 cores (avx2)"
    assert facts["source"] == "abc1234"
    assert facts["took"] == "15 minutes"
    assert "kB 100, 165.4, 300; megapixels 1.56, 1.56, 1.56" in facts["images"]
    assert "took 0.010 cores in the median window, and 0.010 in the worst" in report


def test_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    run = one_run("densenet161")
    kept = [one for one in run["measurements"] if one["part"] == "start"]
    text = written(tmp_path, {**run, "measurements": kept, "ratios": [], "labels": {}})
    assert "Start and memory" in text
    for title in (
        "what people build",
        "each millisecond",
        "the floor",
        "Ours",
        "same label",
        "png",
    ):
        assert title not in text
    assert not (tmp_path / "speed" / "requests.png").exists()
    rows = table(text, "What it must reach")[1:]
    assert [row[0] for row in rows] == [
        "DenseNet161 f32: worker ready after",
        "DenseNet161 f32: memory of a worker above an empty one",
    ]


def test_labels_take_turns_without_peers_too() -> None:
    run = one_run()
    for one in [*run["measurements"], *run["ratios"]]:
        one["group"] = one["group"].replace("peers/resnet50/tuned", "peers/resnet50/none")
    kept = {
        key: [one for one in run[key] if not one["group"].startswith("peers/resnet50/captum")]
        for key in ("measurements", "ratios")
    }
    found = {row.what: row for row in targets.rows(Run({**run, **kept}))}
    assert found["ResNet50 int8: requests a second beside f32"].values == [2.0, 2.0, 2.0]
    assert not [what for what in found if "peers" in what]


def test_a_second_run_stands_beside_the_first(tmp_path: Path) -> None:
    again = one_run()
    for one in again["measurements"]:
        if one["subject"] == "f32" and "rate" in one:
            one["rate"] *= 0.5
    again["ratios"] = ratios.all_of(again["measurements"], ["f32", "int8"])
    again["machine"] = {**MACHINE, "revision": "def5678"}
    text = written(tmp_path, one_run(), again)
    header, *rows = table(text, "What it must reach")
    assert header[2:] == [
        *("run 1: median", "least to most", "run 2: median", "least to most", "reached"),
    ]
    found = {row[0]: row[2:] for row in rows}
    beside = found[f"ResNet50 f32: requests a second beside {CAPTUM}"]
    assert beside == ["5.20", "5.00 to 6.00", "2.60", "2.50 to 3.00", "in 1 of 2 runs"]
    assert found[f"ResNet50 int8: requests a second beside {CAPTUM}"][-1] == "yes"
    peers = {row[1]: row[2:] for row in table(text, "Beside what people build")[1:]}
    assert peers["ours, f32"][0] == "23.0 / 11.5"
    facts = dict(table(text, "Where it was measured"))
    assert facts["source"] == "abc1234 / def5678"
    assert facts["took"] == "15 minutes"


def test_a_first_run_takes_the_place_of_all(tmp_path: Path) -> None:
    for number_ in (1, 2, 3):
        measured.keep(tmp_path, number_, one_run())
    assert len(measured.read(tmp_path)) == 3
    measured.keep(tmp_path, 1, one_run())
    assert len(measured.read(tmp_path)) == 1
    with pytest.raises(FileNotFoundError, match="make bench"):
        measured.read(tmp_path / "nothing")


def test_what_failed_is_said(tmp_path: Path) -> None:
    run = one_run()
    assert "Failed" not in written(tmp_path, run)
    text = written(tmp_path, {**run, "failed": ["peers/resnet50/litserve"]})
    assert "**Failed, and left out: peers/resnet50/litserve.**" in text


def test_random_peers_are_said_loudly(tmp_path: Path) -> None:
    run = copy.deepcopy(one_run())
    assert "smoke run" not in written(tmp_path, run)
    run["settings"]["random_peers"] = True
    assert "**Peers without published weights had random ones: a smoke run.**" in written(
        tmp_path, run
    )


def test_the_chart_is_drawn(tmp_path: Path) -> None:
    assert "](speed/requests.png)" in written(tmp_path, one_run())
    with Image.open(tmp_path / "speed" / "requests.png") as picture:
        assert min(picture.size) > 100


def test_numbers_have_as_many_digits_as_mean_something() -> None:
    values = {1.0304: "1.030", 1.6: "1.600", 4.567: "4.57", 45.67: "45.7", 456.7: "457"}
    assert {value: number(value) for value in values} == values
    assert spread([1.8, 4.0, 3.0]) == "3.00 (1.80 to 4.00)"
    assert spread([]) == "–"
