"""A real TorchServe on loopback that serves tiny archives, started once for all its tests."""

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from client import api, settings
from tests import cards

ROOT = Path(__file__).parents[2]
SIZE = 64  # pixels a side, maps of 4 x 4
GAIN = 8.0  # logits from black to white

OPERATING_POINTS = {"screening": 0.2, "balanced": 0.5, "rule_in": 0.9999}


@dataclass(frozen=True)
class Place:
    """Where a server of the tests lives."""

    store: Path
    state: Path
    data: Path
    ports: dict[str, int]

    @property
    def inference(self) -> str:
        return f"http://127.0.0.1:{self.ports['inference']}"

    @property
    def management(self) -> str:
        return f"http://127.0.0.1:{self.ports['management']}"

    @property
    def metrics(self) -> str:
        return f"http://127.0.0.1:{self.ports['metrics']}/metrics"

    @property
    def management_at(self) -> api.Address:
        return api.Address(self.management)


def new_place(folder: Path) -> Place:
    with ExitStack() as stack:  # all held at once, so that no two are the same
        probes = [stack.enter_context(closing(socket.socket())) for _ in settings.PORTS]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        ports = dict(zip(settings.PORTS, [probe.getsockname()[1] for probe in probes], strict=True))
    place = Place(folder / "store", folder / "state", folder / "data", ports)
    place.store.mkdir()
    (place.data / "test").mkdir(parents=True)
    (place.data / "test" / "grey.png").write_bytes(picture(128))
    return place


def client(verb: str, place: Place, *options: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m client VERB` as a user does; the checkout on PYTHONPATH tempts the server."""
    command = [sys.executable, "-m", "client", verb, "--state", str(place.state)]
    if verb == "serve":
        command += ["--model-store", str(place.store), "--data", str(place.data)]
        for name, port in place.ports.items():
            command += [f"--{name}-port", str(port)]
    return subprocess.run(
        [*command, *map(str, options)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def picture(grey: int, side: int = 80, format: str = "PNG") -> bytes:
    """An even picture of one grey."""
    file = io.BytesIO()
    Image.fromarray(np.full((side, side), grey, np.uint8)).save(file, format)
    return file.getvalue()


def logit(grey: int, bias: float = -GAIN / 2) -> float:
    """What the tiny graph gives PNEUMONIA for an even picture; NORMAL gets the opposite."""
    return GAIN * grey / 255 + bias


def write_graph(path: Path, bias: float) -> None:
    """uint8 (N, S, S) → logits (N, 2), maps (N, 2, 4, 4): the brighter, the more PNEUMONIA."""
    constants = [
        helper.make_tensor("channel", TensorProto.INT64, [1], [1]),
        helper.make_tensor("gain", TensorProto.FLOAT, [2, 1, 1, 1], [-GAIN / 255, GAIN / 255]),
        helper.make_tensor("bias", TensorProto.FLOAT, [2], [-bias, bias]),
    ]
    step = SIZE // 4
    nodes = [
        helper.make_node("Cast", ["pixels"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["grey", "channel"], ["image"]),
        helper.make_node(
            "AveragePool", ["image"], ["cells"], kernel_shape=[step, step], strides=[step, step]
        ),
        helper.make_node("Conv", ["cells", "gain"], ["maps"]),
        helper.make_node("ReduceMean", ["maps"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Add", ["means", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", SIZE, SIZE])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", 2, 4, 4]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def card(network: str, version: str, bias: float, graph: Path) -> dict[str, Any]:
    return cards.archived(
        network=network,
        version=version,
        input={"size": SIZE},
        map={"rows": 4, "columns": 4, "scale": GAIN},
        bias=[-bias, bias],
        operating_points={name: cards.operating_point(t) for name, t in OPERATING_POINTS.items()},
        reference={
            "brightness": {"edges": [100.0, 150.0], "shares": [0.25, 0.5, 0.25]},
            "probability": {"edges": [0.5], "shares": [0.5, 0.5]},
        },
        golden={"file": "golden.png", "sha256": hashlib.sha256(picture(100)).hexdigest()},
        golden_logits=[-logit(100, bias), logit(100, bias)],
        graph={
            "file": "graph.onnx",
            "sha256": hashlib.sha256(graph.read_bytes()).hexdigest(),
            "engine": "onnxruntime",
            "precision": "f32",
        },
    )


def write_archive(
    place: Place, network: str, version: str, bias: float = -GAIN / 2, line: str = ""
) -> Path:
    """Pack a tiny archive into the store, `line` added to its handlers' `__init__`."""
    staging = place.store.parent / f"{network}-{version}"
    (staging / "extra").mkdir(parents=True)
    (staging / "packed").mkdir()
    graph = staging / "graph.onnx"
    write_graph(graph, bias)
    content = json.dumps(card(network, version, bias, graph))
    (staging / "extra" / "card.json").write_text(content)
    (staging / "extra" / "golden.png").write_bytes(picture(100))
    package = staging / "extra" / "handlers"
    shutil.copytree(ROOT / "handlers", package, ignore=shutil.ignore_patterns("__pycache__"))
    with (package / "__init__.py").open("a") as file:
        file.write(f"\n{line}\n")
    options: dict[str, object] = {
        "--model-name": network,
        "--version": version,
        "--serialized-file": graph,
        "--handler": package / "classifier.py",
        "--extra-files": staging / "extra",
        "--export-path": staging / "packed",
    }
    archiver = Path(sys.executable).with_name("torch-model-archiver")
    words = [str(word) for pair in options.items() for word in pair]
    (staging / "temporary").mkdir()  # not shared with another packing of this name
    environment = {**os.environ, "TMPDIR": str(staging / "temporary")}
    subprocess.run([str(archiver), *words], env=environment, check=True, capture_output=True)
    path = place.store / f"{network}-{version}.mar"
    (staging / "packed" / f"{network}.mar").replace(path)
    shutil.rmtree(staging)
    return path


@dataclass(frozen=True)
class Served:
    """A running server, and what starting it printed."""

    place: Place
    printed: str


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """resnet50 1.0 and densenet161 1.0."""
    place = new_place(tmp_path_factory.mktemp("served"))
    write_archive(place, "resnet50", "1.0")
    write_archive(place, "densenet161", "1.0")
    started = client("serve", place)
    assert started.returncode == 0, started.stdout + started.stderr
    yield Served(place, started.stdout)
    stopped = client("stop", place)
    assert stopped.returncode == 0, stopped.stderr
