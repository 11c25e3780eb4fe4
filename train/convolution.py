"""Convolutions in half precision on a CPU, for training: by matrices where that is faster.

oneDNN finds the gradient of a weight as a convolution over images. Where the weights are many and
the maps small, as in the last stages of either trunk, a product of matrices gives the same numbers
in a quarter to a tenth of the time (docs/log.md). `benchmarks/training.py` measures a whole step.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Matrices(TorchFunctionMode):
    """Within it `torch.nn.functional.conv2d` goes by matrices where that is faster.

    The features have to lie channels last, and autocast has to be on.
    """

    def __torch_function__(  # noqa: D105
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.conv2d and len(args) == 7:  # as nn.Conv2d calls it
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
    """`conv2d` of features (N, C, H, W) with a weight (O, C, h, w): (N, O, H', W'), up to rounding.

    The windows as rows of a matrix: Chellapilla, Puri and Simard 2006, "High Performance
    Convolutional Neural Networks for Document Processing".
    """
    sides = weight.shape[2:]
    if groups != 1 or bias is not None:
        return F.conv2d(features, weight, bias, stride, padding, dilation, groups)
    if sides == (1, 1) and padding == (0, 0):
        seen = features[:, :, :: stride[0], :: stride[1]].permute(0, 2, 3, 1)
        return F.linear(seen, weight.flatten(1)).permute(0, 3, 1, 2)
    positions = features.shape[0] * features.shape[2] * features.shape[3] // stride[0] // stride[1]
    if positions <= weight[0].numel():
        found: Tensor = _Unfolded.apply(features, weight, stride, padding, dilation)
        return found
    return F.conv2d(features, weight, bias, stride, padding, dilation, groups)


class _Unfolded(torch.autograd.Function):
    """A convolution whose weight's gradient is one product, with the windows side by side.

    Worth it where the matrix of windows is no higher (positions) than wide (a window's numbers).
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
        ctx.how = stride, padding, dilation
        return F.conv2d(features, weight, None, stride, padding, dilation)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        features, weight = ctx.saved_tensors
        of_features = of_weight = None
        if ctx.needs_input_grad[0]:
            of_features, _, _ = torch.ops.aten.convolution_backward(
                slope, features, weight, None, *map(list, ctx.how), False, [0, 0], 1,
                [True, False, False],
            )  # fmt: skip
        if ctx.needs_input_grad[1]:
            of_weight = _of_weight(slope, features, weight.shape, *ctx.how)
        return of_features, of_weight, None, None, None


def _of_weight(
    slope: Tensor,
    features: Tensor,
    shape: torch.Size,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    """The gradient (O, C, h, w) of a weight from the output's (N, O, H', W')."""
    out, channels, high, wide = shape
    rows, columns = slope.shape[2:]
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
            for y in range(high)
            for x in range(wide)
        ],
        dim=-1,
    )
    product = slope.permute(0, 2, 3, 1).reshape(-1, out).t() @ windows.flatten(0, 2)
    return product.view(out, high, wide, channels).permute(0, 3, 1, 2)
