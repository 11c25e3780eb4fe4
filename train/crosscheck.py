"""The hook's class activation maps against Captum's LayerGradCam, and against the logits."""

from dataclasses import dataclass

import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from train.cam import explain
from train.networks import CLASSES, Classifier

MAP_TOLERANCE = 1e-5  # of the map's range
LOGIT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Check:
    """Maps (N, 2, h, w) by hook and by Captum, in logits, and how far they lie apart."""

    hook: Tensor
    captum: Tensor
    map_difference: float  # largest, as a share of the map's range
    logit_difference: float  # largest |mean(map) + bias − logit|

    @property
    def passed(self) -> bool:
        """Whether both differences are within tolerance."""
        return self.map_difference <= MAP_TOLERANCE and self.logit_difference <= LOGIT_TOLERANCE

    def line(self) -> str:
        """The finding in one line."""
        return (
            f"{'agrees' if self.passed else 'DISAGREES'}: "
            f"maps {self.map_difference:.1e} of their range apart (at most {MAP_TOLERANCE:.0e}), "
            f"mean(map) + bias − logit {self.logit_difference:.1e} (at most {LOGIT_TOLERANCE:.0e})"
        )


def crosscheck(network: Classifier, pixels: Tensor, layer: nn.Module | None = None) -> Check:
    """Compare both ways of making maps on pixels (N, S, S), for both classes.

    For global average pooling and a linear head Grad-CAM before its ReLU is the class activation
    map divided by its number of cells (Selvaraju et al. 2017, section 3.1). `layer` is what Captum
    looks at, by default the activation that the hook looks at.
    """
    logits, hook = explain(network, pixels)
    grad_cam = LayerGradCam(network, layer or network.activation)
    cells = hook.shape[-2] * hook.shape[-1]
    captum = torch.cat(
        [
            grad_cam.attribute(pixels.float(), target=target, relu_attributions=False).detach()
            for target in range(len(CLASSES))
        ],
        dim=1,
    )
    captum = captum * cells
    span = (hook.amax((2, 3)) - hook.amin((2, 3))).clamp(min=torch.finfo(hook.dtype).tiny)
    bias = network.head.bias.detach()
    return Check(
        hook,
        captum,
        float(((hook - captum).abs().amax((2, 3)) / span).max()),
        float((hook.mean((2, 3)) + bias - logits).abs().max()),
    )
