"""A network's passes on a GPU as graphs: replayed whole, not launched kernel by kernel."""

import torch
from torch import Tensor, nn

from train.cam import capture
from train.networks import Classifier


class WithFeatures(nn.Module):
    """A network that answers pixels (N, S, S) with logits (N, 2) and features (N, C, h, w)."""

    def __init__(self, network: Classifier, model: nn.Module | None = None) -> None:
        """Of this network, called through `model` where that wraps it."""
        super().__init__()
        self.model, self.activation = model or network, network.activation

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the activation before pooling, the very tensor that is pooled."""
        with capture(self.activation) as features:
            logits = self.model(pixels)
        return logits, features.value


def graphed(network: Classifier, pixels: Tensor, half: torch.dtype | None) -> WithFeatures:
    """The network with its forward and backward pass recorded as CUDA graphs.

    For pixels of this very shape and type, autocast to `half`, and the parameters that learn now.
    What it answers is overwritten by its next answer. Of hundreds of small kernels a step, each
    costs a launch from Python otherwise (Nguyen et al. 2021, pytorch.org, "Accelerating PyTorch
    with CUDA Graphs").

    Raises:
        RuntimeError: the pixels are not on a CUDA GPU, or its memory does not hold the graphs.
    """
    seen = WithFeatures(network)
    before = [buffer.clone() for buffer in network.buffers()]  # BatchNorm's, moved by recording
    # Casts that autocast keeps from a step to the next would not be in the graph.
    with torch.autocast(pixels.device.type, half, enabled=half is not None, cache_enabled=False):
        torch.cuda.make_graphed_callables(seen, (pixels.clone(),))
    with torch.no_grad():
        for buffer, value in zip(network.buffers(), before, strict=True):
            buffer.copy_(value)
    return seen
