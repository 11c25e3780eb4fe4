"""Forward and backward pass as CUDA graphs: replayed whole, not launched kernel by kernel."""

import torch
from torch import Tensor, nn

from train.model.cam import capture
from train.model.networks import Classifier


class WithFeatures(nn.Module):
    """Pixels (N, S, S) to logits (N, 2) and features (N, C, h, w), the pooled activation."""

    def __init__(self, network: Classifier, model: nn.Module | None = None) -> None:
        """Wrap a network; `model`, if given, is a wrapper to call in its place."""
        super().__init__()
        self.model, self.activation = model or network, network.activation

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, 2) and features (N, C, h, w) of pixels (N, S, S)."""
        with capture(self.activation) as features:
            logits = self.model(pixels)
        return logits, features.value


def graphed(network: Classifier, pixels: Tensor, half: torch.dtype | None) -> WithFeatures:
    """The network with its forward and backward pass recorded as CUDA graphs.

    Valid for pixels of this shape and type, autocast to `half`, and the parameters that currently
    require gradients. Each call overwrites the output of the previous one. Without graphs each of
    the hundreds of small kernels a step is launched from Python (Nguyen et al. 2021, pytorch.org,
    "Accelerating PyTorch with CUDA Graphs").

    Raises:
        RuntimeError: the pixels are not on a CUDA GPU, or its memory does not hold the graphs.
    """
    model = WithFeatures(network)
    before = [
        buffer.clone() for buffer in network.buffers()
    ]  # BatchNorm's, which recording updates
    # Weight casts that autocast caches between steps would be missing from the graph.
    with torch.autocast(pixels.device.type, half, enabled=half is not None, cache_enabled=False):
        torch.cuda.make_graphed_callables(model, (pixels.clone(),))
    with torch.no_grad():
        for buffer, original in zip(network.buffers(), before, strict=True):
            buffer.copy_(original)
    return model
