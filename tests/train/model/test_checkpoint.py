"""Weights and cards that do not belong together, and weights in half precision."""

import json
from pathlib import Path

import pytest
import torch

from tests.small import small_network
from tests.train.fitting.test_runs import trained  # noqa: F401 -- a fixture
from train.model import checkpoint
from train.model.checkpoint import CheckpointError
from train.model.networks import build


def test_a_malformed_card_raises_with_the_name_of_the_field(trained: Path) -> None:  # noqa: F811
    file = trained / "small/card.json"
    card = json.loads(file.read_text())
    file.write_text(json.dumps({**card, "bias": "none"}))
    with pytest.raises(CheckpointError, match=r"card\.json: bias: a list is needed"):
        checkpoint.load(trained / "small")
    ensemble = {**card, "members": [{"network": "small", "weights_sha256": "0"}]}
    file.write_text(json.dumps(ensemble))
    with pytest.raises(CheckpointError, match="is an ensemble, without weights"):
        checkpoint.load(trained / "small")


def test_weights_of_a_different_card_raise(trained: Path) -> None:  # noqa: F811
    card = trained / "small/card.json"
    card.write_text(card.read_text().replace('"weights_sha256": "', '"weights_sha256": "0'))
    with pytest.raises(CheckpointError, match="take both from one run"):
        checkpoint.load(trained / "small")


def test_first_weights_and_vectors_stay_in_full_precision() -> None:
    halves = checkpoint.half_precision_weights(small_network())
    assert [name for name, weight in halves.items() if weight.dtype is torch.float16] == [
        "trunk.conv1.weight",
        "head.weight",
    ]
    assert halves["trunk.conv0.weight"].dtype is torch.float32  # 36 of 264 weights
    resnet50 = checkpoint.half_precision_weights(build("resnet50"))
    full = sum(v.numel() for v in resnet50.values() if v.dtype is torch.float32 and v.ndim > 1)
    matrices = sum(v.numel() for v in resnet50.values() if v.is_floating_point() and v.ndim > 1)
    assert 1 / 30 <= full / matrices < 1 / 10
