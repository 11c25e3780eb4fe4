"""Faithfulness tests of maps, on maps and networks with analytically known results."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from tests.small import small_network
from train.evaluation import cam_faithfulness
from train.model.networks import MEAN, STD, Classifier

SIZE = 32


def brightness_network() -> Classifier:
    """A network whose evidence for PNEUMONIA, per cell (8 × 8), is brightness above 0.7."""
    trunk = nn.Sequential(OrderedDict(pool=nn.AvgPool2d(4), conv=nn.Conv2d(1, 1, 1)))
    network = Classifier(trunk, 1).eval()
    with torch.no_grad():
        trunk.conv.weight.fill_(2000 * STD)  # type: ignore[union-attr, operator]
        trunk.conv.bias.fill_(2000 * (MEAN - 0.7))  # type: ignore[union-attr, operator]
        network.head.weight.copy_(torch.tensor([[-0.5], [0.5]]))
        network.head.bias.copy_(torch.tensor([2.0, -2.0]))
    return network


def bright_spot(count: int = 1) -> np.ndarray:
    """Dark images (N, 32, 32) with a bright cell, the only evidence for PNEUMONIA."""
    pixels = np.full((count, SIZE, SIZE), 5, np.uint8)
    pixels[:, 4:8, 20:24] = 255
    return pixels


def test_decision_logits_and_maps() -> None:
    """2000 × (1 − 0.7) in one cell of 64, minus 4."""
    logits, maps = cam_faithfulness.decisions(brightness_network(), bright_spot(2))
    np.testing.assert_allclose(logits, 600 / 64 - 4, rtol=1e-4)
    assert maps.shape == (2, 8, 8)
    assert maps[0, 1, 5] == pytest.approx(600, rel=1e-4)
    assert maps.sum() == pytest.approx(1200, rel=1e-4)


def test_the_pointing_game() -> None:
    maps = np.zeros((3, SIZE, SIZE), np.float32)
    maps[:, 8, 20] = 2.0
    maps[:, 30, 30] = 1.0
    maps[:, 0, 0] = -5.0  # negative evidence is ignored
    boxes = [((16, 4, 24, 12),), ((0, 0, 4, 4), (28, 28, 32, 32)), ()]
    result = cam_faithfulness.score_pointing(maps, boxes)
    np.testing.assert_array_equal(result.hit, [1, 0, 0])
    np.testing.assert_allclose(result.share, [2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(result.area, [64 / 1024, 32 / 1024, 0])
    # A box ends before its right and lower edge.
    outside = cam_faithfulness.score_pointing(maps[:1], [((20, 9, 30, 20), (10, 0, 20, 20))])
    assert outside.hit[0] == 0


def test_deletion_by_the_true_map_falls_fastest_and_insertion_rises() -> None:
    network, pixels = brightness_network(), bright_spot(4)
    curves = {
        name: cam_faithfulness.curves(network, pixels, order)
        for name, order in cam_faithfulness.pixel_scores(network, pixels).items()
    }
    deletion, insertion = (
        {
            name: cam_faithfulness.area_under(getattr(pair, curve)).mean()
            for name, pair in curves.items()
        }
        for curve in ("deletion", "insertion")
    )
    assert deletion["map"] < min(deletion["random"], deletion["centre"]) - 0.02
    assert insertion["map"] > max(insertion["random"], insertion["centre"]) + 0.02
    for pair in curves.values():  # no pixel deleted equals all pixels inserted
        np.testing.assert_allclose(pair.deletion[:, 0], pair.insertion[:, -1])
        np.testing.assert_allclose(pair.deletion[:, -1], pair.insertion[:, 0])


def test_pixels_are_ranked_by_evidence_for_the_predicted_class() -> None:
    network, sick = brightness_network(), bright_spot()[0]
    healthy = sick // 3 * 2 + 20  # 0.74 of white: some evidence, but too little
    pixels = np.stack([sick, healthy])
    logits, maps = cam_faithfulness.decisions(network, pixels)
    assert list(np.sign(logits)) == [1, -1]
    scores = cam_faithfulness.pixel_scores(network, pixels)["map"]
    np.testing.assert_allclose(scores[0], cam_faithfulness.upsample(maps, SIZE)[0])
    np.testing.assert_allclose(scores[1], -cam_faithfulness.upsample(maps, SIZE)[1])
    assert scores[1].min() < 0


def test_area_under_a_curve() -> None:
    ramp = np.linspace(0, 1, 15)
    np.testing.assert_allclose(
        cam_faithfulness.area_under(np.stack([ramp, 1 - ramp, 0 * ramp + 0.3])), [0.5, 0.5, 0.3]
    )


def test_maps_of_two_sizes_on_a_common_grid() -> None:
    fine = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    coarse = np.array([[[2.5, 4.5], [10.5, 12.5]]], np.float32)
    first, second = cam_faithfulness.to_common_grid(fine, coarse)
    np.testing.assert_allclose(first, second)


@pytest.mark.usefixtures("small_networks")
def test_the_cascade_changes_the_map_and_keeps_the_network() -> None:
    network = small_network(1).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (16, SIZE, SIZE), dtype=np.uint8)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    stages, correlations, _ = zip(*cam_faithfulness.cascade(network, "small", pixels), strict=True)
    assert stages == ("head", "stage1", "stem")
    assert abs(correlations[-1].mean()) < 0.5
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[key]), key
