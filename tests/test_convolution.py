"""Convolutions by matrices are convolutions."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train import convolution
from train.convolution import Matrices, convolve

CASES = {  # channels in, out, side, stride, padding, dilation, side of the map
    "pointwise": (5, 7, 1, 1, 0, 1, 6),
    "pointwise with a stride": (5, 7, 1, 2, 0, 1, 7),
    "windows": (16, 3, 3, 1, 1, 1, 6),
    "windows, dilated": (16, 3, 3, 1, 2, 2, 6),
    "windows with a stride": (16, 3, 3, 2, 1, 1, 7),
    "windows with a stride, even": (16, 3, 3, 2, 1, 1, 8),
    "many positions": (2, 3, 3, 1, 1, 1, 9),
}


def tensors(channels: int, out: int, side: int, size: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    features = torch.randn(2, channels, size, size, dtype=torch.float64)
    weight = torch.randn(out, channels, side, side, dtype=torch.float64)
    layout = torch.channels_last
    return (
        features.to(memory_format=layout).requires_grad_(),
        weight.to(memory_format=layout).requires_grad_(),
    )


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_the_convolutions(case: str) -> None:
    channels, out, side, stride, padding, dilation, size = CASES[case]
    features, weight = tensors(channels, out, side, size)
    how = ((stride,) * 2, (padding,) * 2, (dilation,) * 2)
    ours = convolve(features, weight, None, *how, 1)
    theirs = F.conv2d(features, weight, None, *how)
    torch.testing.assert_close(ours, theirs)
    slope = torch.randn_like(theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, (features, weight), slope),
        torch.autograd.grad(theirs, (features, weight), slope),
    )


def test_what_is_unfolded_and_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    apply = convolution._Unfolded.apply
    monkeypatch.setattr(
        convolution._Unfolded, "apply", lambda *inputs: asked.append(1) or apply(*inputs)
    )
    for case, (channels, out, side, stride, padding, dilation, size) in CASES.items():
        asked.clear()
        features, weight = tensors(channels, out, side, size)
        convolve(features, weight, None, (stride,) * 2, (padding,) * 2, (dilation,) * 2, 1)
        assert bool(asked) == case.startswith("windows"), case


def test_groups_and_biases_go_the_usual_way() -> None:
    features, weight = tensors(4, 4, 1, 5)
    bias = torch.randn(4, dtype=torch.float64)
    how = ((1, 1), (0, 0), (1, 1))
    torch.testing.assert_close(
        convolve(features, weight, bias, *how, 1), F.conv2d(features, weight, bias)
    )
    torch.testing.assert_close(
        convolve(features, weight[:, :2], None, *how, 2),
        F.conv2d(features, weight[:, :2], None, groups=2),
    )


def test_a_network_learns_the_same_in_half_precision() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1, bias=False), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=2, dilation=2, bias=False), nn.ReLU(),
        nn.Conv2d(64, 32, 1, bias=False),
    ).to(memory_format=torch.channels_last)  # fmt: skip
    images = torch.randn(4, 1, 8, 8)

    def gradients(mode: Matrices | torch.autograd.grad_mode.set_grad_enabled) -> list[Tensor]:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16), mode:
            loss = network(images).float().square().mean()
        loss.backward()
        return [weight.grad.clone() for weight in network.parameters()]

    ours, theirs = gradients(Matrices()), gradients(torch.enable_grad())
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() <= 0.02 * other.norm()
