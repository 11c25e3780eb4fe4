"""Published weights: rounding to half precision, archives of them, and training from them."""

import shutil
from pathlib import Path

import pytest
import torch
from sklearn.metrics import roc_auc_score

from handlers import files
from handlers.card import EvaluatedNetwork
from tests.train.fitting.test_runs import train_small, trained  # noqa: F401 -- a fixture
from train.__main__ import main
from train.fitting.loaded_networks import networks_of
from train.model import checkpoint
from train.model.checkpoint import CheckpointError
from train.model.initial_weights import initialise
from train.model.networks import predict
from train.package import publish
from train.package.publish import PublishError


def test_published_weights_are_archived_without_a_run(
    trained: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert main(["publish"]) == 0
    path = tmp_path / "weights/small.safetensors"
    published, card = checkpoint.load(path)
    (leg,) = trained.glob("small/leg-*.safetensors")
    full = checkpoint.read_weights(leg)
    del full["head.bias"]  # now includes the offset
    for name, weight in full.items():
        rounded = weight.ndim > 1 and name != "trunk.conv0.weight"  # the first after the input
        expected = weight.half().float() if rounded else weight
        assert torch.equal(published.state_dict()[name], expected), name
    assert isinstance(card, EvaluatedNetwork)
    assert card.half_precision is not None
    assert 0 < card.half_precision.max_probability_difference < 2e-3
    assert path.stat().st_size < 0.85 * leg.stat().st_size

    # The card's figures belong to these weights.
    (loaded,) = networks_of(trained)
    rows = loaded.dataset.rows("test")
    logits = predict(published, torch.from_numpy(loaded.dataset.pixels[rows]), 32)
    scores = torch.softmax(logits / card.temperature, 1)[:, 1]
    auc = roc_auc_score(loaded.dataset.labels[rows], scores)
    assert card.figures is not None
    assert card.figures.test is not None
    assert card.figures.test.auc == pytest.approx(auc, abs=1e-9)

    before = path.read_bytes()
    assert main(["publish"]) == 0  # repeated: the same file
    assert path.read_bytes() == before
    assert checkpoint.load(path)[1].half_precision == card.half_precision

    assert main(["archive"]) == 0  # the run takes precedence
    assert "from runs" in caplog.text.splitlines()[-2]
    shutil.rmtree(tmp_path / "runs")
    assert main(["archive", "--version", "2.0"]) == 0
    assert "from weights/small.safetensors" in caplog.text.splitlines()[-2]
    assert (tmp_path / "model_store/small-2.0.mar").is_file()
    with path.open("ab") as file:
        file.write(b"x")
    assert main(["archive"]) == 1
    assert "sha256" in caplog.text.splitlines()[-1]
    assert main(["archive", "--run", "runs/missing"]) == 1
    assert "train one with make train" in caplog.text.splitlines()[-1]


def test_training_starts_from_published_weights(
    trained: Path,  # noqa: F811
    images: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(FileNotFoundError, match=r"INIT=published: there is no weights/small"):
        train_small(images, seed=1, init="published")
    assert main(["publish"]) == 0
    folder = train_small(images, seed=1, init="published")
    path = tmp_path / "weights/small.safetensors"
    card = checkpoint.read_card(folder / "small")
    assert card.training.init == f"sha256:{files.sha256(path)}"
    assert "unfreezing from the head down" in caplog.text
    network, _ = initialise("small", "published")
    assert torch.equal(network.head.bias, checkpoint.read_weights(path)["head.bias"])
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(CheckpointError, match="take both from one run"):
        initialise("small", "published")


def test_weights_that_half_precision_changes_too_much_are_not_published(
    trained: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = (trained / "small/weights.safetensors").read_bytes()
    monkeypatch.setattr(publish, "TOLERANCE", 0.0)
    with pytest.raises(PublishError, match="half precision changes a probability"):
        publish.publish(trained)
    monkeypatch.setattr(publish, "MAX_BYTES", 100)
    with pytest.raises(PublishError, match="MB"):
        publish.publish(trained)
    assert not (tmp_path / "weights").exists()
    assert (trained / "small/weights.safetensors").read_bytes() == before
