"""Class activation maps, taken with a forward hook (Zhou et al. 2016, arXiv:1512.04150)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from train.model.networks import Classifier


class Features:
    """The latest output of a captured module, float (N, C, h, w)."""

    value: Tensor


@contextmanager
def capture(module: nn.Module) -> Iterator[Features]:
    """The module's latest output within the `with` block; the hook is removed even after an error.

    The tensor is not copied, so capture a module whose output is not changed in place.
    """
    features = Features()

    def store(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        features.value = output

    handle = module.register_forward_hook(store)
    try:
        yield features
    finally:
        handle.remove()


class ExplainedClassifier(nn.Module):
    """Pixels (N, S, S) to logits (N, 2) and class activation maps (N, 2, h, w), in logits.

    ``cam_k = Σ_c w_kc · A_c`` (Zhou et al. 2016, eq. 2), so that
    ``maps.mean((2, 3)) + head.bias == logits``. This module is exported: the hook is traced into
    the graph.
    """

    def __init__(self, network: Classifier) -> None:
        """Wrap a network, without copying it."""
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, 2) and class activation maps (N, 2, h, w), in logits, of pixels (N, S, S)."""
        with capture(self.network.activation) as features:
            logits = self.network(pixels)
        return logits, torch.einsum("kc,nchw->nkhw", self.network.head.weight, features.value)


@torch.inference_mode()
def explain(network: Classifier, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, 2) and class activation maps (N, 2, h, w), in logits; sets evaluation mode."""
    logits, maps = ExplainedClassifier(network.eval())(pixels)
    return logits, maps


def explain_decision(network: Classifier, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Decision logit (N,) and decision map (N, h, w), in logits: PNEUMONIA minus NORMAL."""
    logits, maps = explain(network, pixels)
    return logits[:, 1] - logits[:, 0], maps[:, 1] - maps[:, 0]
