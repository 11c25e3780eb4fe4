"""Class activation maps, taken with a forward hook (Zhou et al. 2016, arXiv:1512.04150)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from train.networks import Classifier


class Features:
    """What a captured module gave last: `.value`, float (N, C, h, w)."""

    value: Tensor


@contextmanager
def capture(module: nn.Module) -> Iterator[Features]:
    """Within the block, the module's latest output; no hook is left behind, even after an error.

    What is kept is the very tensor the network goes on with, not a copy: hook a module whose
    output nothing changes in place.
    """
    features = Features()

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        features.value = output

    handle = module.register_forward_hook(keep)
    try:
        yield features
    finally:
        handle.remove()


class Explained(nn.Module):
    """A network that answers pixels (N, S, S) with logits (N, 2) and maps (N, 2, h, w) in logits.

    ``cam_k = Σ_c w_kc · A_c`` (Zhou et al. 2016, eq. 2), so that
    ``maps.mean((2, 3)) + head.bias == logits``. This is the module that is exported: the hook is
    traced into the graph.
    """

    def __init__(self, network: Classifier) -> None:
        """Explain this network; it is used, not copied."""
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, 2) and class activation maps (N, 2, h, w) of pixels (N, S, S)."""
        with capture(self.network.activation) as features:
            logits = self.network(pixels)
        return logits, torch.einsum("kc,nchw->nkhw", self.network.head.weight, features.value)


@torch.inference_mode()
def explain(network: Classifier, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, 2) and class activation maps (N, 2, h, w), in logits, in evaluation mode."""
    logits, maps = Explained(network.eval())(pixels)
    return logits, maps


def explain_decision(network: Classifier, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Decision logit (N,) and decision map (N, h, w), in logits: PNEUMONIA's less NORMAL's."""
    logits, maps = explain(network, pixels)
    return logits[:, 1] - logits[:, 0], maps[:, 1] - maps[:, 0]
