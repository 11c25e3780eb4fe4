import functools
import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torchvision import models

from train.model import checkpoint
from train.model.initial_weights import WeightsUnavailableError, initialise
from train.model.networks import NETWORKS, build, predict, resize


@pytest.fixture
def file_server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A loopback URL and the folder it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


def compact_weights(name: str) -> dict[str, Tensor]:
    """Weights of the real shapes in a few kilobytes: each tensor is an expanded scalar."""
    network = getattr(models, name)()
    return {
        key: torch.tensor(0.01 * (index % 7 + 1)).expand(weight.shape)
        for index, (key, weight) in enumerate(network.state_dict().items())
        if weight.is_floating_point()
    }


def serve_weights(
    name: str, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, right_hash: bool = True
) -> dict[str, Tensor]:
    address, folder = server
    weights = compact_weights(name)
    torch.save(weights, folder / "weights")
    digest = hashlib.sha256((folder / "weights").read_bytes()).hexdigest()[:8]
    file = f"{name}-{digest if right_hash else '00000000'}.pth"
    (folder / "weights").rename(folder / file)
    monkeypatch.setattr(NETWORKS[name].imagenet.value, "url", f"{address}/{file}")
    monkeypatch.setenv("TORCH_HOME", str(folder.parent / "torch"))
    return weights


@pytest.mark.parametrize(
    ("name", "first", "later"),
    [("resnet50", "conv1.weight", "layer3.2.conv2.weight"),
     ("densenet161", "features.conv0.weight", "features.denseblock3.denselayer7.conv2.weight")],
)  # fmt: skip
def test_imagenet_weights_are_loaded_and_hash_checked(
    name: str,
    first: str,
    later: str,
    file_server: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = serve_weights(name, file_server, monkeypatch)
    network, origin = initialise(name, None)
    assert origin == "imagenet"
    state = network.state_dict()
    renamed = {key: f"trunk.{key.removeprefix('features.')}" for key in (first, later)}
    assert_close(state[renamed[later]], weights[later].contiguous())
    assert_close(state[renamed[first]], weights[first].sum(1, keepdim=True))


def test_wrong_hash_raises_with_init_imagenet(
    file_server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_weights("resnet50", file_server, monkeypatch, right_hash=False)
    with pytest.raises(WeightsUnavailableError, match="invalid hash value"):
        initialise("resnet50", "imagenet")


def test_missing_imagenet_weights_mean_scratch_with_a_warning(
    file_server: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    address, folder = file_server
    monkeypatch.setattr(NETWORKS["resnet50"].imagenet.value, "url", f"{address}/none-12345678.pth")
    monkeypatch.setenv("TORCH_HOME", str(folder.parent / "torch"))
    _, origin = initialise("resnet50", None)
    assert origin == "scratch"
    assert "NO IMAGENET WEIGHTS" in caplog.text
    with pytest.raises(WeightsUnavailableError, match=r"TORCH_HOME.*INIT=scratch"):
        initialise("resnet50", "imagenet")


@pytest.mark.usefixtures("small_networks")
def test_init_from_a_path(tmp_path: Path) -> None:
    torch.manual_seed(1)
    trained = build("small")
    checkpoint.write_weights(tmp_path / "small" / checkpoint.WEIGHTS, trained.state_dict())
    network, origin = initialise("small", str(tmp_path))
    assert origin.startswith("sha256:")
    assert_close(network.head.weight, trained.head.weight)
    with pytest.raises(FileNotFoundError, match="no file of weights"):
        initialise("small", str(tmp_path / "nowhere"))


def test_a_grey_channel_equals_three_equal_channels() -> None:
    torch.manual_seed(0)
    original = models.resnet50()
    network = build("resnet50")
    grey = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        network.trunk.conv1.weight.copy_(original.conv1.weight.sum(1, keepdim=True))
        assert_close(
            network.trunk.conv1(grey),
            original.conv1(grey.expand(-1, 3, -1, -1)),
            atol=1e-5,
            rtol=1e-5,
        )


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_belongs_to_a_stage(name: str) -> None:
    architecture = NETWORKS[name]
    depths = [architecture.stage_of(key) for key, _ in build(name).named_parameters()]
    assert set(depths) == set(range(len(architecture.stages)))
    assert depths == sorted(depths, reverse=True)  # from the stem to the head


def test_unknown_network_lists_the_networks() -> None:
    with pytest.raises(ValueError, match="known are resnet50, densenet161"):
        build("alexnet")


@pytest.mark.usefixtures("small_networks")
def test_predict_is_the_same_in_any_batch_size() -> None:
    torch.manual_seed(0)
    network = build("small")
    pixels = torch.randint(0, 256, (9, 32, 32), dtype=torch.uint8)
    assert_close(predict(network, pixels, 32, batch=4), predict(network, pixels, 32))
    assert resize(pixels, 32) is pixels
    assert resize(pixels, 16).shape == (9, 16, 16)
