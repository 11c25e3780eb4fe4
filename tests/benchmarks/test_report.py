"""The report on stored runs: tables whose figures can be worked out by hand."""

import copy
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.serving import ratios, results
from benchmarks.serving.results import number, spread
from tests.benchmarks.runs import CAPTUM, MACHINE, TUNED, make_run, table, write_report


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(tmp_path_factory.mktemp("results"), make_run())


def test_peers_have_rates_and_ratios(report: str) -> None:
    header, *rows = table(report, "Comparison with peers")
    assert header[2:5] == ["requests per second", "core-ms per request", "p50, ms"]
    by_system = {row[1]: row[2:] for row in rows}
    # 20, 21, 22, 24, 25, 26 requests per second
    assert by_system["pneumocam, f32"] == ["23.0", "87.1", "250", ""]
    assert by_system[TUNED][:2] == ["12.5", "160"]
    assert by_system[TUNED][3] == "f32: 1.680 (1.600 to 1.760)<br>int8: 3.36 (3.20 to 3.52)"


def test_images_with_equal_labels_are_counted(report: str) -> None:
    assert "Images that got the same label from all systems: ResNet50 2 of 3.\n" in report


def test_the_profile_adds_up(report: str) -> None:
    header, *rows = table(report, "Where each millisecond goes")
    assert header == ["", "ResNet50 f32"]
    *steps, (_, total) = rows
    assert [cell for _, cell in steps] == ["8.00", "20.0", "3.00", "1.500", "0.500", "7.00"]
    assert total == "**40.0**"  # 1000 / 25
    assert steps[0][0] == "decoding the JPEG"
    assert steps[-1][0].startswith("TorchServe")


def test_floor_matrix_and_start(report: str) -> None:
    floor = {row[1]: row[2:] for row in table(report, "Comparison with the floor")[1:]}
    assert floor["the server, one client"] == ["20.0", "50.0", "66.0"]
    assert floor["openvino, batches of 4"] == ["26.0", "38.0", "50.0"]
    assert len(floor) == 6
    matrix = table(report, "All heatmap options and client counts")
    assert matrix[2] == [
        *("ResNet50 f32", "16", "`map`", "25.0", "250", "300", "310", "80.0", "700"),
    ]
    (start,) = table(report, "Start and memory")[1:]
    assert start == ["ResNet50 f32", "4.50", "800", "520", "280", "600", "250"]


def test_machine_and_images_are_reported(report: str) -> None:
    facts = dict(table(report, "Where it was measured"))
    assert facts["processor"] == "A processor, 2 cores (avx2)"
    assert facts["source"] == "abc1234"
    assert facts["took"] == "15 minutes"
    assert "kB 100, 165.4, 300; megapixels 1.56, 1.56, 1.56" in facts["images"]
    assert "took 0.010 cores in the median window\nand 0.010 in the worst" in report


def test_parts_without_measurements_are_left_out(tmp_path: Path) -> None:
    run = make_run("densenet161")
    kept = [measured for measured in run["measurements"] if measured["part"] == "start"]
    text = write_report(tmp_path, {**run, "measurements": kept, "ratios": [], "labels": {}})
    assert "Start and memory" in text
    for title in (
        *("with peers", "each millisecond", "the floor", "All heatmap options"),
        *("same label", "png"),
    ):
        assert title not in text
    assert not (tmp_path / "speed" / "requests.png").exists()
    rows = table(text, "Targets")[1:]
    assert [row[0] for row in rows] == [
        "DenseNet161 f32: worker ready after",
        "DenseNet161 f32: memory of a worker above an empty one",
    ]


def test_cells_have_the_figures_of_both_runs(tmp_path: Path) -> None:
    second = make_run()
    for measured in second["measurements"]:
        if measured["subject"] == "f32" and "rate" in measured:
            measured["rate"] *= 0.5
    second["ratios"] = ratios.compute(second["measurements"], ["f32", "int8"])
    second["machine"] = {**MACHINE, "revision": "def5678"}
    text = write_report(tmp_path, make_run(), second)
    assert "The benchmark ran 2 times" in text
    header, *rows = table(text, "Targets")
    assert header[2:] == [
        *("run 1: median", "minimum to maximum", "run 2: median", "minimum to maximum"),
        "reached",
    ]
    by_name = {row[0]: row[2:] for row in rows}
    captum = by_name[f"ResNet50 f32: requests per second against {CAPTUM}"]
    assert captum == ["5.20", "5.00 to 6.00", "2.60", "2.50 to 3.00", "in 1 of 2 runs"]
    assert by_name[f"ResNet50 int8: requests per second against {CAPTUM}"][-1] == "yes"
    peers = {row[1]: row[2:] for row in table(text, "Comparison with peers")[1:]}
    assert peers["pneumocam, f32"][0] == "23.0 / 11.5"
    facts = dict(table(text, "Where it was measured"))
    assert facts["source"] == "abc1234 / def5678"
    assert facts["took"] == "15 minutes"


def test_run_1_replaces_all_stored_runs(tmp_path: Path) -> None:
    for run_number in (1, 2, 3):
        results.keep(tmp_path, run_number, make_run())
    assert len(results.read(tmp_path)) == 3
    results.keep(tmp_path, 1, make_run())
    assert len(results.read(tmp_path)) == 1
    with pytest.raises(FileNotFoundError, match="make bench"):
        results.read(tmp_path / "nothing")


def test_failed_groups_are_listed(tmp_path: Path) -> None:
    run = make_run()
    assert "Failed" not in write_report(tmp_path, run)
    text = write_report(tmp_path, {**run, "failed": ["peers/resnet50/litserve"]})
    assert "**Failed and left out: peers/resnet50/litserve.**" in text


def test_random_weights_of_peers_are_reported(tmp_path: Path) -> None:
    run = copy.deepcopy(make_run())
    assert "smoke run" not in write_report(tmp_path, run)
    run["settings"]["random_peers"] = True
    text = write_report(tmp_path, run)
    assert "**Peers without published weights had random weights: a smoke run.**" in text


def test_the_chart_is_drawn(tmp_path: Path) -> None:
    assert "](speed/requests.png)" in write_report(tmp_path, make_run())
    with Image.open(tmp_path / "speed" / "requests.png") as picture:
        assert min(picture.size) > 100


def test_numbers_have_three_or_four_significant_digits() -> None:
    values = {1.0304: "1.030", 1.6: "1.600", 4.567: "4.57", 45.67: "45.7", 456.7: "457"}
    assert {value: number(value) for value in values} == values
    assert spread([1.8, 4.0, 3.0]) == "3.00 (1.80 to 4.00)"
    assert spread([]) == "–"
