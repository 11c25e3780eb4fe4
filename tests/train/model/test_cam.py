import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from tests.small import small_network
from train.evaluation.captum_check import crosscheck
from train.model.cam import capture, explain
from train.model.networks import NETWORKS, Classifier, build


def pixels(count: int = 3, size: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, size, size), dtype=torch.uint8, generator=generator)


def test_map_by_hand() -> None:
    network = Classifier(nn.Conv2d(1, 2, 1, bias=False), channels=2)
    with torch.no_grad():
        network.trunk.weight.copy_(torch.tensor([1.0, -1.0])[:, None, None, None])
        network.head.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 5.0]]))
        network.head.bias.copy_(torch.tensor([0.5, -0.5]))
    grey = torch.tensor([[[0.449 + 0.226, 0.449], [0.449, 0.449 - 0.226]]]) * 255
    logits, maps = explain(network, grey)
    # Normalised: 1, 0, 0, −1. Channel 0 passes the 1, channel 1 turns the −1 into 1.
    assert_close(maps[0, 0], torch.tensor([[2.0, 0.0], [0.0, 0.0]]), atol=1e-5, rtol=0)
    assert_close(maps[0, 1], torch.tensor([[0.0, 0.0], [0.0, 5.0]]), atol=1e-5, rtol=0)
    assert_close(logits[0], torch.tensor([2.0 / 4 + 0.5, 5.0 / 4 - 0.5]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("dilated", "cells"), [(True, 4), (False, 2)])
def test_mean_of_the_map_plus_bias_is_the_logit(name: str, dilated: bool, cells: int) -> None:
    torch.manual_seed(0)
    network = build(name, dilated=dilated)
    logits, maps = explain(network, pixels())
    assert maps.shape == (3, 2, cells, cells)
    assert_close(maps.mean((2, 3)) + network.head.bias, logits, atol=1e-4, rtol=0)


def test_no_hook_is_left_behind_even_after_an_error() -> None:
    network = small_network()

    def capture_and_fail() -> None:
        with capture(network.activation) as features:
            network(pixels())
            assert features.value.shape == (3, 6, 16, 16)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        capture_and_fail()
    assert not network.activation._forward_hooks
    explain(network, pixels())
    assert not network.activation._forward_hooks


@pytest.mark.parametrize("name", NETWORKS)
def test_hook_and_captum_agree(name: str) -> None:
    torch.manual_seed(0)
    check = crosscheck(build(name), pixels())
    assert check.passed
    assert check.map_difference < 1e-5
    assert check.hook.abs().max() > 0
    assert check.line().startswith("agrees")


class InPlace(Classifier):
    """Like torchvision's DenseNet: the captured tensor is changed in place after the hook."""

    def forward(self, pixels: Tensor) -> Tensor:
        grey = pixels.unsqueeze(1).float() / 255
        features = F.relu(self.activation(self.trunk(grey)), inplace=True)
        return self.head(features.mean((2, 3)))


def test_crosscheck_detects_densenets_in_place_activation() -> None:
    torch.manual_seed(0)
    network = build("densenet161")
    network.__class__ = InPlace
    network.activation = nn.Identity()  # type: ignore[assignment]
    check = crosscheck(network.eval(), pixels())
    assert not check.passed
    assert check.map_difference > 0.01
    assert check.line().startswith("DISAGREES")


def test_crosscheck_detects_scaled_logits() -> None:
    class ScaledLogits(Classifier):
        def forward(self, pixels: Tensor) -> Tensor:
            return super().forward(pixels) * 1.01

    network = small_network()
    network.__class__ = ScaledLogits
    assert not crosscheck(network.eval(), pixels()).passed
