"""Parts of the serving benchmark: failed groups, the floor, and measuring processes."""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving import floor, load, results, worker
from benchmarks.serving.load import UnverifiedError
from benchmarks.serving.scenarios import Bench
from handlers.card import ArchivedEnsemble, ArchivedNetwork, parse
from tests import cards
from tests.benchmarks.archive_files import pack_archive
from tests.handlers.test_classifier import SIZE, logit, picture, write


def test_a_failed_group_is_left_out_and_the_next_is_measured() -> None:
    bench = Bench(argparse.Namespace(pairs=2), [])

    def fail(_: float) -> dict[str, Any]:
        raise UnverifiedError("status 503")

    for group, second in (("matrix/a/f32/1", fail), ("matrix/a/f32/4", lambda _: {"rate": 2})):
        with bench.attempt(group):
            bench.take_turns(group, {"none": lambda _: {"rate": 1}, "map": second}, 0.1)
    assert bench.failed == ["matrix/a/f32/1"]
    measurements = bench.measurements
    assert [
        (measured["subject"], measured["round"], measured["rate"]) for measured in measurements
    ] == [
        *(("none", 1, 1), ("map", 1, 2), ("none", 2, 1), ("map", 2, 2)),
    ]
    assert {measured["group"] for measured in measurements} == {"matrix/a/f32/4"}


def test_the_floor_answers_like_the_handler(tmp_path: Path) -> None:
    model = write(tmp_path / "model")
    card = parse(json.loads((model / "card.json").read_text()))
    assert isinstance(card, ArchivedNetwork)
    torch_card = replace(card, graph=replace(card.graph, file="graph.pt2"))
    ensemble = parse(cards.ensemble([cards.archived(), cards.archived()]))
    assert isinstance(ensemble, ArchivedEnsemble)
    assert floor.runtimes(torch_card) == floor.runtimes(ensemble) == []
    for runtime in floor.runtimes(card):
        network = floor.LOADERS[runtime](model / "graph.onnx", (2, SIZE, SIZE))
        answers = list(floor.answers([picture(30), picture(200)], card, network))
        assert [answer["label"] for answer in answers] == ["NORMAL", "PNEUMONIA"]
        for grey, answer in zip((30, 200), answers, strict=True):
            # The two logits have opposite signs.
            expected = 1 / (1 + math.exp(-2 * logit(grey)))
            assert answer["probability"][1] == pytest.approx(expected, abs=1e-6)
            load._check_picture(answer["heatmap"]["overlay"])


def test_a_process_measures_the_floor_on_command(tmp_path: Path) -> None:
    archive, images = pack_archive(tmp_path / "a"), [picture(30), picture(200)]
    with worker.process("benchmarks.serving.floor", archive, images) as command:
        for batch in floor.BATCHES:
            figures = command(runtime="onnxruntime", batch=batch, seconds=0.05)
            assert figures["requests"] % batch == 0
            rate = figures["requests"] / figures["seconds"]
            assert figures["rate"] == pytest.approx(rate, rel=0.1)


def test_a_process_profiles_the_handler_on_command(tmp_path: Path) -> None:
    archive, images = pack_archive(tmp_path / "a"), [picture(30), picture(200)]
    with worker.process("benchmarks.serving.profile", archive, images) as command:
        figures = command(seconds=0.05)
        steps = [figures[step] for step in results.STEPS]
        assert min(steps) > 0
        assert sum(steps) == pytest.approx(figures[results.WORKER], abs=0.01)
