"""Archives of a trained network, and the exported graphs in them."""

import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from handlers import engine, files
from tests.train.fitting.test_runs import QUICK, trained  # noqa: F401 -- a fixture
from train.evaluation import novelty
from train.fitting import recipes, runs
from train.fitting.options import Options
from train.model import checkpoint
from train.model.cam import explain
from train.model.networks import NETWORKS, build
from train.package import archive
from train.package.graph import ArchiveError
from train.package.onnx_export import GRAPH, ExportError, export, export_program, verify


def test_the_archive_is_complete_and_equals_the_network(trained: Path, tmp_path: Path) -> None:  # noqa: F811
    examples = torch.randint(0, 256, (4, 32, 32), dtype=torch.uint8)
    path = archive.archive(trained / "small", "1.0", tmp_path / "store", tmp_path)
    assert path.name == "small-1.0.mar"
    with zipfile.ZipFile(path) as packed:
        names = set(packed.namelist())
        assert {"card.json", "classifier.py", GRAPH, "handlers/pixels.py"} <= names
        assert not any("__pycache__" in name or name.startswith("train") for name in names)
        card = json.loads(packed.read("card.json"))
        graph = tmp_path / GRAPH
        graph.write_bytes(packed.read(GRAPH))
    assert card["version"] == "1.0"
    assert card["graph"]["sha256"] == files.sha256(graph)
    network, trained_card = checkpoint.load(trained / "small")
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for count in (1, 3):
        logits, maps, _ = session.run(None, {"pixels": examples[:count].numpy()})
        expected_logits, expected_maps = explain(network, examples[:count])
        np.testing.assert_allclose(logits, expected_logits, atol=1e-4)
        np.testing.assert_allclose(maps, expected_maps, atol=1e-4)
        np.testing.assert_allclose(maps.mean((2, 3)) + card["bias"], logits, atol=1e-4)
    with pytest.raises(ArchiveError, match="numbers and dots"):
        archive.archive(trained / "small", "new", tmp_path / "store", tmp_path)
    with torch.no_grad():
        network.head.bias += 0.01
    onnx_graph = engine.load(card["graph"]["engine"], graph)
    with pytest.raises(ExportError, match="differ"):
        verify(network, onnx_graph, examples, novelty.load(trained / "small", trained_card))


def test_a_network_without_evaluation_is_not_archived(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_networks: None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(recipes.PRESETS["quick"], "small", (QUICK,))
    folder = runs.train(Options(data=images, preset="quick", networks=("small",), init="scratch"))
    with pytest.raises(ArchiveError, match="was not evaluated"):
        archive.archive(folder / "small", "1.0", tmp_path / "store", tmp_path)


@pytest.mark.minutes
@pytest.mark.parametrize("name", NETWORKS)
def test_real_networks_can_be_exported(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build(name).eval()
    export(network, 64, tmp_path / GRAPH)
    examples = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    for runtime in engine.OF_ONNX:
        assert verify(network, engine.load(runtime, tmp_path / GRAPH), examples) < 1e-3
    export_program(network, 64, tmp_path / "graph.pt2")
    assert verify(network, engine.load("torch", tmp_path / "graph.pt2"), examples) < 1e-3


def test_two_packings_at_once_do_not_mix(trained: Path, tmp_path: Path) -> None:  # noqa: F811
    store, exported = tmp_path / "store", tmp_path / "exported"
    exported.mkdir()
    archive.archive(trained / "small", "1.0", store, exported)  # the graph is exported once

    def pack(version: str) -> str:
        path = archive.archive(trained / "small", version, store, exported)
        with zipfile.ZipFile(path) as packed:
            return str(json.loads(packed.read("card.json"))["version"])

    versions = [f"2.{number}" for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(pack, versions)) == versions
