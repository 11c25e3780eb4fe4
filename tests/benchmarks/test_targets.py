"""Targets of serving: which figures are compared, and when a target is reached."""

import pytest

from benchmarks.serving import targets
from benchmarks.serving.results import Run
from benchmarks.serving.targets import TargetResult
from tests.benchmarks.runs import CAPTUM, TUNED, make_run, table, write_report


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(tmp_path_factory.mktemp("results"), make_run())


def test_targets_have_median_range_and_verdict(report: str) -> None:
    header, *rows = table(report, "Targets")
    assert header == ["", "target", "median", "minimum to maximum", "reached"]
    by_name = {row[0]: row[1:] for row in rows}
    against_captum = f"ResNet50 {{}}: requests per second against {CAPTUM}"
    assert by_name[against_captum.format("f32")] == [
        *("at least 4.5 times", "5.20", "5.00 to 6.00", "yes")
    ]
    # 12, 7.8 and 10: the ratio of the median rates would be 9.6.
    assert by_name[against_captum.format("int8")] == [
        *("at least 9 times", "10.00", "7.80 to 12.00", "yes")
    ]
    best = by_name["ResNet50 f32: requests per second against the best of the peers"]
    assert best == [*("at least 1.7 times", f"1.680 (against {TUNED})", "1.600 to 1.760", "**no**")]
    # The rounds of both groups: 2, 1.5, 2 and 2, 2, 2.
    int8 = by_name["ResNet50 int8: requests per second against f32"]
    assert int8 == ["at least 1.6 times", "2.000", "1.500 to 2.000", "yes"]
    floor = {
        "CPU time per request, 16 clients": ["1.15 times", "1.200", "**no**"],
        "CPU time per request, one client": ["1.15 times", "1.100", "yes"],
        "p50, one client": ["1.25 times", "1.250", "yes"],
    }
    for figure, (limit, median, reached) in floor.items():
        assert by_name[f"ResNet50 f32: {figure}, against the floor"] == [
            *(f"at most {limit}", f"{median} (against openvino)"),
            *(f"{median} to {median}", reached),
        ]
    heatmap = "ResNet50 f32: time per request with `heatmap={}`, against `none`, 16 clients"
    assert by_name[heatmap.format("map")] == [
        *("at most 1.03 times", "1.000", "1.000 to 1.042", "yes")
    ]
    assert by_name[heatmap.format("overlay")][1:] == ["1.250", "1.000 to 1.250", "**no**"]
    assert by_name["ResNet50 f32: worker ready after"] == [
        *("at most 5 s", "4.50", "4.00 to 6.00", "yes")
    ]
    memory = by_name["ResNet50 f32: memory of a worker above an empty one"]
    assert memory == ["at most 250 MB", "280", "280 to 280", "**no**"]
    assert len(rows) == 12


def test_unrounded_values_decide_whether_a_target_is_reached() -> None:
    assert not TargetResult("", 1.03, [1.0304]).reached
    assert TargetResult("", 1.03, [1.0304], at_least=True).reached


def test_labels_take_turns_without_peers_too() -> None:
    run = make_run()
    for entry in [*run["measurements"], *run["ratios"]]:
        entry["group"] = entry["group"].replace("peers/resnet50/tuned", "peers/resnet50/none")
    kept = {
        key: [entry for entry in run[key] if not entry["group"].startswith("peers/resnet50/captum")]
        for key in ("measurements", "ratios")
    }
    by_name = {result.name: result for result in targets.evaluate(Run({**run, **kept}))}
    assert by_name["ResNet50 int8: requests per second against f32"].values == [2.0, 2.0, 2.0]
    assert not [name for name in by_name if "peers" in name]
