"""Convolutions as matrix products equal torch's."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.fitting import matmul_convolution
from train.fitting.matmul_convolution import MatmulConvolutions, convolve

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
def test_outputs_and_gradients_equal_conv2d(case: str) -> None:
    channels, out, side, stride, padding, dilation, size = CASES[case]
    features, weight = tensors(channels, out, side, size)
    geometry = ((stride,) * 2, (padding,) * 2, (dilation,) * 2)
    actual = convolve(features, weight, None, *geometry, 1)
    expected = F.conv2d(features, weight, None, *geometry)
    torch.testing.assert_close(actual, expected)
    output_gradient = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(actual, (features, weight), output_gradient),
        torch.autograd.grad(expected, (features, weight), output_gradient),
    )


def test_only_wide_window_matrices_are_unfolded(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    apply = matmul_convolution._UnfoldedConvolution.apply
    monkeypatch.setattr(
        matmul_convolution._UnfoldedConvolution,
        "apply",
        lambda *inputs: calls.append(inputs) or apply(*inputs),
    )
    for case, (channels, out, side, stride, padding, dilation, size) in CASES.items():
        calls.clear()
        features, weight = tensors(channels, out, side, size)
        convolve(features, weight, None, (stride,) * 2, (padding,) * 2, (dilation,) * 2, 1)
        assert bool(calls) == case.startswith("windows"), case


def test_groups_and_biases_use_conv2d() -> None:
    features, weight = tensors(4, 4, 1, 5)
    bias = torch.randn(4, dtype=torch.float64)
    geometry = ((1, 1), (0, 0), (1, 1))
    torch.testing.assert_close(
        convolve(features, weight, bias, *geometry, 1), F.conv2d(features, weight, bias)
    )
    torch.testing.assert_close(
        convolve(features, weight[:, :2], None, *geometry, 2),
        F.conv2d(features, weight[:, :2], None, groups=2),
    )


def test_half_precision_gradients_agree() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1, bias=False), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=2, dilation=2, bias=False), nn.ReLU(),
        nn.Conv2d(64, 32, 1, bias=False),
    ).to(memory_format=torch.channels_last)  # fmt: skip
    images = torch.randn(4, 1, 8, 8)

    def gradients(
        mode: MatmulConvolutions | torch.autograd.grad_mode.set_grad_enabled,
    ) -> list[Tensor]:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16), mode:
            loss = network(images).float().square().mean()
        loss.backward()
        return [weight.grad.clone() for weight in network.parameters()]

    actual, expected = gradients(MatmulConvolutions()), gradients(torch.enable_grad())
    for gradient, reference in zip(actual, expected, strict=True):
        assert gradient.dtype == torch.float32
        assert (gradient - reference).norm() <= 0.02 * reference.norm()
