"""The tests of maps, on maps and networks whose answers are known."""

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.small import small_network
from tests.test_run import trained  # noqa: F401 -- a fixture
from train import explain_report, faithful
from train.networks import MEAN, STD, Classifier

SIZE = 32


def brightness() -> Classifier:
    """Evidence for PNEUMONIA is what is brighter than 0.7 of white, cell by cell (8 × 8)."""
    trunk = nn.Sequential(OrderedDict(pool=nn.AvgPool2d(4), conv=nn.Conv2d(1, 1, 1)))
    network = Classifier(trunk, 1).eval()
    with torch.no_grad():
        trunk.conv.weight.fill_(2000 * STD)  # type: ignore[union-attr, operator]
        trunk.conv.bias.fill_(2000 * (MEAN - 0.7))  # type: ignore[union-attr, operator]
        network.head.weight.copy_(torch.tensor([[-0.5], [0.5]]))
        network.head.bias.copy_(torch.tensor([2.0, -2.0]))
    return network


def spot(count: int = 1) -> np.ndarray:
    """Dark images with one bright cell, which alone makes them sick."""
    pixels = np.full((count, SIZE, SIZE), 5, np.uint8)
    pixels[:, 4:8, 20:24] = 255
    return pixels


def test_a_known_decision() -> None:
    """2000 × (1 − 0.7) in one cell of 64, less 4."""
    logits, maps = faithful.decisions(brightness(), spot(2))
    np.testing.assert_allclose(logits, 600 / 64 - 4, rtol=1e-4)
    assert maps.shape == (2, 8, 8)
    assert maps[0, 1, 5] == pytest.approx(600, rel=1e-4)
    assert maps.sum() == pytest.approx(1200, rel=1e-4)


def test_the_pointing_game() -> None:
    maps = np.zeros((3, SIZE, SIZE), np.float32)
    maps[:, 8, 20] = 2.0
    maps[:, 30, 30] = 1.0
    maps[:, 0, 0] = -5.0  # evidence against counts for nothing
    boxes = [((16, 4, 24, 12),), ((0, 0, 4, 4), (28, 28, 32, 32)), ()]
    found = faithful.pointing(maps, boxes)
    np.testing.assert_array_equal(found.hit, [1, 0, 0])
    np.testing.assert_allclose(found.share, [2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(found.area, [64 / 1024, 32 / 1024, 0])
    # A box ends before its right and lower edge.
    outside = faithful.pointing(maps[:1], [((20, 9, 30, 20), (10, 0, 20, 20))])
    assert outside.hit[0] == 0


def test_deletion_by_the_true_map_falls_fastest_and_insertion_rises() -> None:
    network, pixels = brightness(), spot(4)
    orders = faithful.orders(network, pixels)
    found = {name: faithful.curves(network, pixels, order) for name, order in orders.items()}
    deletion = {name: faithful.area(one.deletion).mean() for name, one in found.items()}
    insertion = {name: faithful.area(one.insertion).mean() for name, one in found.items()}
    assert deletion["map"] < min(deletion["random"], deletion["centre"]) - 0.02
    assert insertion["map"] > max(insertion["random"], insertion["centre"]) + 0.02
    for one in found.values():  # nothing deleted is all inserted
        np.testing.assert_allclose(one.deletion[:, 0], one.insertion[:, -1])
        np.testing.assert_allclose(one.deletion[:, -1], one.insertion[:, 0])


def test_the_order_is_that_of_the_predicted_class() -> None:
    network = brightness()
    sick, healthy = spot()[0], spot()[0] // 3 * 2 + 20  # 0.74 of white: evidence, but too little
    both = np.stack([sick, healthy])
    logits, maps = faithful.decisions(network, both)
    assert list(np.sign(logits)) == [1, -1]
    order = faithful.orders(network, both)["map"]
    np.testing.assert_allclose(order[0], faithful.enlarged(maps, SIZE)[0])
    np.testing.assert_allclose(order[1], -faithful.enlarged(maps, SIZE)[1])
    assert order[1].min() < 0


def test_area_under_a_curve() -> None:
    ramp = np.linspace(0, 1, 15)
    np.testing.assert_allclose(
        faithful.area(np.stack([ramp, 1 - ramp, 0 * ramp + 0.3])), [0.5, 0.5, 0.3]
    )


def test_maps_of_two_sizes() -> None:
    fine = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    coarse = np.array([[[2.5, 4.5], [10.5, 12.5]]], np.float32)
    first, second = faithful.on_one_grid(fine, coarse)
    np.testing.assert_allclose(first, second)


@pytest.mark.usefixtures("small_networks")
def test_the_cascade_forgets_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_network(1).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (16, SIZE, SIZE), dtype=np.uint8)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = list(faithful.cascade(network, "small", pixels))
    assert [stage for stage, _, _ in found] == ["head", "stage1", "stem"]
    assert abs(found[-1][1].mean()) < 0.5
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_the_whole_report(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(explain_report, "PHANTOMS", 6)
    path = explain_report.explain_report(trained, trained)
    text = path.read_text()
    assert "| map less random |" in text
    numbers = json.loads((path.parent / "explain.json").read_text())
    assert numbers["small"]["cascade"].keys() == {"head", "stage1", "stem"}
    (title,) = numbers["agreement"]
    assert title == "small, seeds 0 and 0"
    assert numbers["agreement"][title]["pearson"]["mean"] == pytest.approx(1.0)
    for name in ("deletion-small.png", "cascade-small.png"):
        assert (path.parent / name).is_file()
        assert name in text
