"""TorchServe's gRPC inference, with the messages that its own frontend brings along."""

import importlib
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import ts
from grpc_tools import protoc

from client import api
from tests.serving.conftest import Served, picture
from tests.serving.test_server import probability

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """The modules that protoc makes of the frontend's inference.proto."""
    folder = tmp_path_factory.mktemp("proto")
    with zipfile.ZipFile(Path(ts.__file__).parent / "frontend/model-server.jar") as jar:
        for name in ("inference.proto", "google/rpc/status.proto"):
            jar.extract(name, folder)
    bundled = str(Path(protoc.__file__).parent / "_proto")
    words = ["", f"-I{folder}", f"-I{bundled}", f"--python_out={folder}"]
    protos = [str(folder / name) for name in ("inference.proto", "google/rpc/status.proto")]
    assert protoc.main([*words, f"--grpc_python_out={folder}", *protos]) == 0
    sys.path.insert(0, str(folder))
    yield importlib.import_module("inference_pb2"), importlib.import_module("inference_pb2_grpc")
    sys.path.remove(str(folder))


@pytest.fixture
def ask(served: Served, messages: tuple[Any, Any]) -> Iterator[Ask]:
    """Ask resnet50 with inputs by name; the JSON that comes back."""
    kinds, stubs = messages
    address = f"127.0.0.1:{served.place.ports['grpc-inference']}"
    with grpc.insecure_channel(address) as channel:
        stub = stubs.InferenceAPIsServiceStub(channel)

        def each(network: str = "resnet50", **inputs: bytes) -> dict[str, Any]:
            question = kinds.PredictionsRequest(model_name=network, input=inputs)
            return dict(json.loads(stub.Predictions(question, timeout=30).prediction))

        yield each


def test_grpc_answers_the_same_json(served: Served, ask: Ask) -> None:
    reply = ask(image=picture(200), heatmap=b"map", operating_point=b"rule_in")
    assert reply["probability"]["PNEUMONIA"] == pytest.approx(probability(200), rel=1e-5)
    headers = {"Content-Type": "application/octet-stream"}
    query = {"heatmap": "map", "operating_point": "rule_in"}
    address = api.Address(served.place.inference)
    by_http = api.call(
        "POST", address, "/resnet50/predict", headers, params=query, data=picture(200)
    ).json()
    for answer in (reply, by_http):
        del answer["request_id"]
    assert reply == by_http


@pytest.mark.parametrize(
    ("inputs", "code", "kind"),
    [
        ({"image": b"no image"}, 415, "NotAnImage"),
        ({"heatmap": b"none"}, 400, "NoImage"),
        ({"image": picture(9), "heatmap": b"nonsense"}, 400, "UnknownValue"),
    ],
)
def test_an_error_is_an_ok_reply_with_the_code_in_json(
    ask: Ask, inputs: dict[str, bytes], code: int, kind: str
) -> None:
    reply = ask(**inputs)
    assert (reply["code"], reply["type"]) == (code, kind)


def test_a_missing_network(ask: Ask) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        ask("resnet51", image=picture(9))
    assert "Model not found: resnet51" in refused.value.details()
