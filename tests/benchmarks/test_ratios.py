"""Ratios of measurements: which are compared, and of which rounds."""

from typing import Any

from benchmarks.serving import ratios
from benchmarks.serving.load import MAP, NONE, OVERLAY


def measurement(group: str, subject: str, number: int, **figures: float) -> dict[str, Any]:
    part, network, *_ = group.split("/")
    keys = {"part": part, "network": network, "group": group, "subject": subject, "round": number}
    return {**keys, **figures}


def select(computed: list[dict[str, Any]], over: str, under: str, figure: str) -> dict[str, Any]:
    names = (over, under, figure)
    (ratio,) = [r for r in computed if (r["over"], r["under"], r["figure"]) == names]
    return ratio


def test_ratios_are_of_the_same_round() -> None:
    group = "peers/resnet50/captum"
    rates = [(40.0, 80.0, 8.0), (50.0, 90.0, 20.0), (36.0, 60.0, 9.0)]
    measurements = [
        measurement(group, subject, number, rate=rate, cpu_ms=1000 / rate)
        for number, by_subject in enumerate(rates, 1)
        for subject, rate in zip(("f32", "int8", "captum"), by_subject, strict=True)
    ]
    computed = ratios.compute(measurements, ["f32", "int8"])
    captum = select(computed, "f32", "captum", "rate")
    assert captum["group"] == group
    assert captum["values"] == [5.0, 2.5, 4.0]  # the median rates would give 40 / 9
    assert (captum["median"], captum["least"], captum["most"]) == (4.0, 2.5, 5.0)
    assert select(computed, "int8", "f32", "rate")["values"] == [2.0, 1.8, 1.6667]
    assert select(computed, "int8", "captum", "cpu_ms")["values"] == [0.1, 0.2222, 0.15]
    assert not [ratio for ratio in computed if ratio["over"] == "captum"]


def test_heatmaps_are_compared_with_none_and_floors_with_equal_batches() -> None:
    matrix = "matrix/resnet50/f32/16"
    floor = "floor/resnet50/f32"
    measurements = [
        measurement(matrix, NONE, 1, rate=50.0, cpu_ms=20.0, p50=300.0),
        measurement(matrix, MAP, 1, rate=40.0, cpu_ms=22.0, p50=330.0),
        measurement(matrix, OVERLAY, 1, rate=25.0, cpu_ms=30.0, p50=600.0),
        measurement(floor, "ours 1", 1, rate=20.0, cpu_ms=66.0, p50=50.0),
        measurement(floor, "ours 16", 1, rate=30.0, cpu_ms=60.0, p50=500.0),
        measurement(floor, "openvino 1", 1, rate=25.0, cpu_ms=60.0, p50=40.0),
        measurement(floor, "openvino 4", 1, rate=33.0, cpu_ms=50.0, p50=30.0),
    ]
    computed = ratios.compute(measurements, ["f32"])
    assert select(computed, MAP, NONE, ratios.TIME)["values"] == [1.25]  # 25 ms, 20 ms
    assert select(computed, OVERLAY, NONE, ratios.TIME)["values"] == [2.0]
    assert select(computed, OVERLAY, NONE, "cpu_ms")["values"] == [1.5]
    assert select(computed, "ours 1", "openvino 1", "p50")["values"] == [1.25]
    assert select(computed, "ours 1", "openvino 1", "cpu_ms")["values"] == [1.1]
    assert select(computed, "ours 16", "openvino 4", "cpu_ms")["values"] == [1.2]
