"""Convolutions in half precision on a CPU, for training: as matrix products where faster.

oneDNN computes the gradient of a weight as a convolution over images. With many weights and small
maps, as in the last stages of either trunk, a matrix product gives the same numbers in a quarter
to a tenth of the time (docs/log.md). `benchmarks/micro/training_speed.py` measures a whole step.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class MatmulConvolutions(TorchFunctionMode):
    """A context in which `torch.nn.functional.conv2d` uses matrix products where faster.

    It requires features in channels-last layout, and autocast.
    """

    def __torch_function__(  # noqa: D105
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.conv2d and len(args) == 7:  # the call of nn.Conv2d
            return convolve(*args)
        return func(*args, **(kwargs or {}))


def convolve(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """`conv2d` (N, O, H', W'), up to rounding, of features (N, C, H, W) and a weight (O, C, h, w).

    Windows become rows of a matrix: Chellapilla, Puri and Simard 2006, "High Performance
    Convolutional Neural Networks for Document Processing".
    """
    sides = weight.shape[2:]
    if groups != 1 or bias is not None:
        return F.conv2d(features, weight, bias, stride, padding, dilation, groups)
    if sides == (1, 1) and padding == (0, 0):
        visited = features[:, :, :: stride[0], :: stride[1]].permute(0, 2, 3, 1)
        return F.linear(visited, weight.flatten(1)).permute(0, 3, 1, 2)
    positions = features.shape[0] * features.shape[2] * features.shape[3] // stride[0] // stride[1]
    if positions <= weight[0].numel():
        output: Tensor = _UnfoldedConvolution.apply(features, weight, stride, padding, dilation)
        return output
    return F.conv2d(features, weight, bias, stride, padding, dilation, groups)


class _UnfoldedConvolution(torch.autograd.Function):
    """A convolution whose weight gradient is one matrix product with the unfolded windows.

    Faster if the matrix of windows has no more rows (positions) than columns (numbers a window).
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.geometry = stride, padding, dilation
        return F.conv2d(features, weight, None, stride, padding, dilation)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(
        ctx: Any, output_gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        features, weight = ctx.saved_tensors
        feature_gradient = weight_gradient = None
        if ctx.needs_input_grad[0]:
            feature_gradient, _, _ = torch.ops.aten.convolution_backward(
                output_gradient, features, weight, None, *map(list, ctx.geometry), False, [0, 0], 1,
                [True, False, False],
            )  # fmt: skip
        if ctx.needs_input_grad[1]:
            weight_gradient = _weight_gradient(
                output_gradient, features, weight.shape, *ctx.geometry
            )
        return feature_gradient, weight_gradient, None, None, None


def _weight_gradient(
    output_gradient: Tensor,
    features: Tensor,
    shape: torch.Size,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    """The weight's gradient (O, C, h, w) from the output's gradient (N, O, H', W')."""
    outputs, channels, height, width = shape
    rows, columns = output_gradient.shape[2:]
    padded = F.pad(
        features.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0])
    )
    windows = torch.cat(
        [
            padded[
                :,
                y * dilation[0] :: stride[0],
                x * dilation[1] :: stride[1],
            ][:, :rows, :columns]
            for y in range(height)
            for x in range(width)
        ],
        dim=-1,
    )
    product = output_gradient.permute(0, 2, 3, 1).reshape(-1, outputs).t() @ windows.flatten(0, 2)
    return product.view(outputs, height, width, channels).permute(0, 3, 1, 2)
