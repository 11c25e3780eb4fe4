"""Graphs in 8 bits: what stays exact, what the gate measures, what an archive of them says."""

import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from ts.context import Context

from handlers import decision, engine
from handlers.classifier import Classifier
from tests.small import small_network, write_images
from tests.test_run import trained  # noqa: F401 -- a fixture
from train import archive, export, graphs, quantise
from train.graphs import ArchiveError, Running


@pytest.mark.parametrize("runtime", engine.OF_ONNX)
def test_the_identity_of_map_and_logit_holds_in_8_bits(runtime: str, tmp_path: Path) -> None:
    network = small_network().eval()
    whole, quantised = tmp_path / "whole.onnx", tmp_path / "quantised.onnx"
    export.export(network, 32, whole)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (20, 32, 32), dtype=np.uint8)
    quantise.quantise(whole, images, quantised)
    nodes = onnx.load(quantised).graph.node
    made_by = {output: node.op_type for node in nodes for output in node.output}
    weights = [made_by.get(node.input[1]) for node in nodes if node.op_type == "Conv"]
    assert weights == [None, "DequantizeLinear"]  # the first stays in 32 bits
    bias = network.head.bias.detach().numpy()
    with torch.inference_mode():
        exact = network(torch.from_numpy(images)).numpy()
    found = engine.load(runtime, quantised)(images)
    for one, logits in zip(found, exact, strict=True):
        np.testing.assert_allclose(one.maps.mean((1, 2)) + bias, one.logits, atol=1e-5)
        np.testing.assert_allclose(one.logits, logits, atol=0.05)
    assert np.abs(np.stack([one.logits for one in found]) - exact).max() > 1e-6  # it is another


def test_correlation_is_pearson_by_image() -> None:
    maps = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    assert decision.correlation(maps, 3 * maps + 7) == pytest.approx([1, 1])
    assert decision.correlation(maps, -maps) == pytest.approx([-1, -1])
    half = np.stack([maps[0], -maps[1]])
    assert decision.correlation(maps, half) == pytest.approx([1, -1])


def test_the_gate_names_what_exceeds_its_limit() -> None:
    gate = dict.fromkeys(quantise.LIMITS, 0.0)
    assert quantise.failed(gate) == []
    assert "FAILED" not in quantise.table(gate)
    gate["AUC lost"] = 0.0021
    gate["pointing game apart"] = float("nan")
    assert quantise.failed(gate) == ["AUC lost", "pointing game apart"]
    lines = quantise.table(gate).splitlines()
    assert [line.split("  ")[1] for line in lines if "FAILED" in line] == quantise.failed(gate)


def test_an_archive_in_8_bits_tells_its_gate_and_needs_the_training_data(
    trained: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The network of the tests was trained for seconds on noise: nothing of it is stable.
    monkeypatch.setattr(quantise, "LIMITS", dict.fromkeys(quantise.LIMITS, 1.0))
    running = Running(precision=graphs.INT8)
    exported = tmp_path / "exported"
    exported.mkdir()
    path = archive.archive(trained / "small", "2.0", tmp_path / "store", exported, running)
    with zipfile.ZipFile(path) as packed:
        card = json.loads(packed.read("card.json"))
        (tmp_path / "graph.onnx").write_bytes(packed.read("graph.onnx"))
    assert card["graph"]["precision"] == "int8"
    assert set(card["graph"]["gate"]) == set(quantise.LIMITS)
    times = card["graph"]["milliseconds"]
    assert card["graph"]["engine"] == graphs.choose(times)
    whole = json.loads((trained / "small/card.json").read_text())
    assert card["novelty"]["threshold"] != whole["novelty"]["threshold"]
    assert {**card["novelty"], "threshold": 0, "margins": 0} == {
        **whole["novelty"],
        "threshold": 0,
        "margins": 0,
    }
    # What the worker will compare at start is what this graph answers.
    golden = graphs.decode(graphs.golden_image(), card["input"]["size"])[None]
    (found,) = engine.load(card["graph"]["engine"], tmp_path / "graph.onnx")(golden)
    assert found.logits == pytest.approx(card["golden_logits"], abs=1e-5)


def test_8_bits_that_change_too_much_are_not_built(
    trained: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantise, "LIMITS", dict.fromkeys(quantise.LIMITS, -1.0))
    running = Running(precision=graphs.INT8)
    with pytest.raises(ArchiveError, match=r"int8 changes too much.*\n.*FAILED"):
        archive.archive(trained / "small", "2.0", tmp_path / "store", tmp_path, running)
    assert not list((tmp_path / "store").glob("*.mar"))


def test_8_bits_are_refused_without_the_data_of_training(
    trained: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    other = write_images(tmp_path / "other", train=12)
    running = Running(precision=graphs.INT8, data=other)
    with pytest.raises(ArchiveError, match="is not what small was trained on"):
        archive.archive(trained / "small", "2.0", tmp_path / "store", tmp_path, running)
    (trained / "run.json").unlink()
    running = Running(precision=graphs.INT8)
    with pytest.raises(ArchiveError, match="name it with DATA=folder"):
        archive.archive(trained / "small", "2.0", tmp_path / "store", tmp_path, running)


def test_an_archive_for_pytorch_in_half_precision(
    trained: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantise, "LIMITS", dict.fromkeys(quantise.LIMITS, 1.0))
    exported = tmp_path / "exported"
    exported.mkdir()
    answers = {}
    for precision in (graphs.F32, graphs.F16):
        running = Running(engine.TORCH, precision)
        path = archive.archive(trained / "small", "2.0", tmp_path / "store", exported, running)
        folder = tmp_path / precision
        with zipfile.ZipFile(path) as packed:
            packed.extractall(folder)
        card = json.loads((folder / "card.json").read_text())
        its = card["graph"]
        assert (its["file"], its["engine"], its["precision"]) == ("graph.pt2", "torch", precision)
        assert ("gate" in its) == (precision == graphs.F16)
        assert its["max_logit_difference"] < (1e-4 if precision == graphs.F32 else 0.1)
        with zipfile.ZipFile(folder / "graph.pt2") as program:  # nothing of whose machine it was
            assert not any(b"handlers/" in program.read(name) for name in program.namelist())
        handler = Classifier()
        handler.initialize(Context("small", str(folder), {}, 4, None, "0"))
        images = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
        answers[precision] = handler._evaluate(list(images))
        for (found,) in answers[precision]:
            mean = found.maps.mean((1, 2), dtype=np.float64)
            assert mean + card["bias"] == pytest.approx(found.logits, abs=1e-5)
    exact, half = ([found.logits for (found,) in one] for one in answers.values())
    assert np.abs(np.stack(half) - exact).max() == pytest.approx(0, abs=0.1)
    assert np.abs(np.stack(half) - exact).max() > 0  # it is another


@pytest.mark.parametrize(
    ("runtime", "precision"), [("torch", "int8"), ("onnxruntime", "f16"), ("openvino", "f16")]
)
def test_an_engine_that_does_not_compute_so_is_named(
    trained: Path,  # noqa: F811
    tmp_path: Path,
    runtime: str,
    precision: str,
) -> None:
    with pytest.raises(ArchiveError, match=f"ENGINE={runtime} does not run PRECISION={precision}"):
        archive.archive(
            trained / "small", "2.0", tmp_path / "store", tmp_path, Running(runtime, precision)
        )
