"""Graphs in reduced precision: exact identities, the gate, and the card in the archive."""

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
from tests.train.fitting.test_runs import trained  # noqa: F401 -- a fixture
from train.package import archive, engine_choice, graph, onnx_export, quantise
from train.package.graph import ArchiveError, GraphOptions


@pytest.mark.parametrize("runtime", engine.OF_ONNX)
def test_the_identity_of_map_and_logit_holds_in_8_bits(runtime: str, tmp_path: Path) -> None:
    network = small_network().eval()
    full, quantised = tmp_path / "full.onnx", tmp_path / "quantised.onnx"
    onnx_export.export(network, 32, full)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (20, 32, 32), dtype=np.uint8)
    quantise.quantise(full, images, quantised)
    nodes = onnx.load(quantised).graph.node
    producers = {output: node.op_type for node in nodes for output in node.output}
    weights = [producers.get(node.input[1]) for node in nodes if node.op_type == "Conv"]
    assert weights == [None, "DequantizeLinear"]  # the first stays in 32 bits
    bias = network.head.bias.detach().numpy()
    with torch.inference_mode():
        exact = network(torch.from_numpy(images)).numpy()
    outputs = engine.load(runtime, quantised)(images)
    for output, logits in zip(outputs, exact, strict=True):
        np.testing.assert_allclose(output.maps.mean((1, 2)) + bias, output.logits, atol=1e-5)
        np.testing.assert_allclose(output.logits, logits, atol=0.05)
    # The graph in 8 bits was run, not the one in f32.
    assert np.abs(np.stack([output.logits for output in outputs]) - exact).max() > 1e-6


def test_correlation_is_pearsons_per_image() -> None:
    maps = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    assert decision.correlation(maps, 3 * maps + 7) == pytest.approx([1, 1])
    assert decision.correlation(maps, -maps) == pytest.approx([-1, -1])
    half = np.stack([maps[0], -maps[1]])
    assert decision.correlation(maps, half) == pytest.approx([1, -1])


def test_the_gate_names_the_differences_beyond_their_limits() -> None:
    gate = dict.fromkeys(quantise.LIMITS, 0.0)
    assert quantise.failures(gate) == []
    assert "FAILED" not in quantise.table(gate)
    gate["AUC lost"] = 0.0021
    gate["pointing game apart"] = float("nan")
    assert quantise.failures(gate) == ["AUC lost", "pointing game apart"]
    lines = quantise.table(gate).splitlines()
    assert [line.split("  ")[1] for line in lines if "FAILED" in line] == quantise.failures(gate)


def test_the_card_of_an_archive_in_8_bits(
    trained: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The test's network was trained on noise for seconds: its answers change easily.
    monkeypatch.setattr(quantise, "LIMITS", dict.fromkeys(quantise.LIMITS, 1.0))
    options = GraphOptions(precision=graph.INT8)
    exported = tmp_path / "exported"
    exported.mkdir()
    path = archive.archive(trained / "small", "2.0", tmp_path / "store", exported, options)
    with zipfile.ZipFile(path) as packed:
        card = json.loads(packed.read("card.json"))
        (tmp_path / "graph.onnx").write_bytes(packed.read("graph.onnx"))
    assert card["graph"]["precision"] == "int8"
    assert set(card["graph"]["gate"]) == set(quantise.LIMITS)
    times = card["graph"]["milliseconds"]
    assert card["graph"]["engine"] == engine_choice.choose(times)
    trained_card = json.loads((trained / "small/card.json").read_text())
    assert card["novelty"]["threshold"] != trained_card["novelty"]["threshold"]
    assert {**card["novelty"], "threshold": 0, "margins": 0} == {
        **trained_card["novelty"],
        "threshold": 0,
        "margins": 0,
    }
    # The logits that a worker compares at start are those of this graph.
    golden = graph.decode(graph.golden_image(), card["input"]["size"])[None]
    (output,) = engine.load(card["graph"]["engine"], tmp_path / "graph.onnx")(golden)
    assert output.logits == pytest.approx(card["golden_logits"], abs=1e-5)


def test_8_bits_beyond_the_limits_are_not_built(
    trained: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantise, "LIMITS", dict.fromkeys(quantise.LIMITS, -1.0))
    options = GraphOptions(precision=graph.INT8)
    with pytest.raises(ArchiveError, match=r"int8 changes too much.*\n.*FAILED"):
        archive.archive(trained / "small", "2.0", tmp_path / "store", tmp_path, options)
    assert not list((tmp_path / "store").glob("*.mar"))


def test_8_bits_are_refused_without_the_training_data(
    trained: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    wrong_data = write_images(tmp_path / "wrong", train=12)
    options = GraphOptions(precision=graph.INT8, data=wrong_data)
    with pytest.raises(ArchiveError, match="is not what small was trained on"):
        archive.archive(trained / "small", "2.0", tmp_path / "store", tmp_path, options)
    (trained / "run.json").unlink()
    options = GraphOptions(precision=graph.INT8)
    with pytest.raises(ArchiveError, match="name it with DATA=folder"):
        archive.archive(trained / "small", "2.0", tmp_path / "store", tmp_path, options)


def test_an_archive_for_pytorch_in_half_precision(
    trained: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantise, "LIMITS", dict.fromkeys(quantise.LIMITS, 1.0))
    exported = tmp_path / "exported"
    exported.mkdir()
    outputs = {}
    for precision in (graph.F32, graph.F16):
        options = GraphOptions(engine.TORCH, precision)
        path = archive.archive(trained / "small", "2.0", tmp_path / "store", exported, options)
        folder = tmp_path / precision
        with zipfile.ZipFile(path) as packed:
            packed.extractall(folder)
        card = json.loads((folder / "card.json").read_text())
        fields = card["graph"]
        assert fields["file"] == "graph.pt2"
        assert (fields["engine"], fields["precision"]) == ("torch", precision)
        assert ("gate" in fields) == (precision == graph.F16)
        assert fields["max_logit_difference"] < (1e-4 if precision == graph.F32 else 0.1)
        with zipfile.ZipFile(folder / "graph.pt2") as program:  # no paths of the exporting machine
            assert not any(b"handlers/" in program.read(name) for name in program.namelist())
        handler = Classifier()
        handler.initialize(Context("small", str(folder), {}, 4, None, "0"))
        images = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
        outputs[precision] = [output for (output,) in handler._evaluate(list(images))]
        for output in outputs[precision]:
            mean = output.maps.mean((1, 2), dtype=np.float64)
            assert mean + card["bias"] == pytest.approx(output.logits, abs=1e-5)
    exact, half = (
        np.stack([output.logits for output in outputs[precision]])
        for precision in (graph.F32, graph.F16)
    )
    assert np.abs(half - exact).max() == pytest.approx(0, abs=0.1)
    assert np.abs(half - exact).max() > 0  # the trunk computed in half precision


@pytest.mark.parametrize(
    ("runtime", "precision"), [("torch", "int8"), ("onnxruntime", "f16"), ("openvino", "f16")]
)
def test_an_engine_without_the_precision_is_refused(
    trained: Path,  # noqa: F811
    tmp_path: Path,
    runtime: str,
    precision: str,
) -> None:
    with pytest.raises(ArchiveError, match=f"ENGINE={runtime} does not run PRECISION={precision}"):
        archive.archive(
            trained / "small", "2.0", tmp_path / "store", tmp_path, GraphOptions(runtime, precision)
        )
