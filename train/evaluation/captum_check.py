"""Cross-check of the hook's class activation maps, against Captum's LayerGradCam and the logits."""

from dataclasses import dataclass

import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from train.data.classes import CLASSES
from train.model.cam import explain
from train.model.networks import Classifier

MAP_TOLERANCE = 1e-5  # of the map's range
LOGIT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class CrossCheck:
    """Maps (N, 2, h, w) by hook and by Captum, in logits, and their differences."""

    hook: Tensor
    captum: Tensor
    map_difference: float  # largest, as a share of the map's range
    logit_difference: float  # largest |mean(map) + bias − logit|

    @property
    def passed(self) -> bool:
        """Whether both differences are within tolerance."""
        return self.map_difference <= MAP_TOLERANCE and self.logit_difference <= LOGIT_TOLERANCE

    def line(self) -> str:
        """The result as a line of text."""
        return (
            f"{'agrees' if self.passed else 'DISAGREES'}: maps differ by "
            f"{self.map_difference:.1e} of their range (at most {MAP_TOLERANCE:.0e}), "
            f"mean(map) + bias − logit {self.logit_difference:.1e} (at most {LOGIT_TOLERANCE:.0e})"
        )


def crosscheck(network: Classifier, pixels: Tensor, layer: nn.Module | None = None) -> CrossCheck:
    """Compare the hook's maps with Captum's on pixels (N, S, S), for both classes.

    With global average pooling and a linear head, Grad-CAM before its ReLU is the class activation
    map divided by its number of cells (Selvaraju et al. 2017, section 3.1). `layer` is the layer
    that Captum uses, by default the one that the hook is on.
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
    return CrossCheck(
        hook,
        captum,
        float(((hook - captum).abs().amax((2, 3)) / span).max()),
        float((hook.mean((2, 3)) + bias - logits).abs().max()),
    )
