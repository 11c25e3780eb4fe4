"""The two networks: grey pixels → trunk → activation → pooling → dropout → linear head."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from train.data.classes import CLASSES

# ImageNet's mean and standard deviation, averaged over its three channels: an X-ray has one.
MEAN, STD = 0.449, 0.226


class Classifier(nn.Module):
    """Grey pixels (N, S, S), uint8 or float in 0..255, to logits (N, 2).

    The activation before pooling is a separate module and not in place, so that a forward hook
    sees exactly what is pooled. (torchvision's DenseNet applies ``F.relu(inplace=True)`` to the
    tensor that a hook on its features holds.)
    """

    def __init__(self, trunk: nn.Module, channels: int, dropout: float = 0.0) -> None:
        """Put a head for the two classes on a trunk that ends in `channels` feature maps."""
        super().__init__()
        self.trunk = trunk
        self.activation = nn.ReLU(inplace=False)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, len(CLASSES))

    def normalise(self, pixels: Tensor) -> Tensor:
        """The trunk's input (N, 1, S, S), normalised, of grey pixels (N, S, S)."""
        return (pixels.unsqueeze(1).to(self.head.weight.dtype) / 255.0 - MEAN) / STD

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (N, 2) of grey pixels (N, S, S)."""
        features = self.activation(self.trunk(self.normalise(pixels)))  # (N, C, h, w)
        logits: Tensor = self.head(self.dropout(features.mean((2, 3))))
        return logits


@dataclass(frozen=True)
class Architecture:
    """How to build a trunk, and the stages that unfreeze one after another, from the head down."""

    build_trunk: Callable[[WeightsEnum | None, bool], nn.Module]
    channels: int
    # The first ImageNet weights, not torchvision's newer ones: those were trained with label
    # smoothing and mixup, which costs transfer (Kornblith et al. 2021, arXiv:2010.16402).
    imagenet: WeightsEnum
    stages: tuple[tuple[str, tuple[str, ...]], ...]  # (stage, prefixes of its parameters' names)
    early: str  # the trunk's child whose features the novelty distance uses

    def stage_of(self, parameter: str) -> int:
        """The stage of a parameter of `Classifier`, counted from the head, which is 0."""
        for depth, (_, prefixes) in enumerate(self.stages):
            if parameter.startswith(prefixes):
                return depth
        raise KeyError(f"{parameter} is in none of the stages {[name for name, _ in self.stages]}")


def _grey_first(convolution: nn.Conv2d) -> nn.Conv2d:
    """The first convolution for one channel: the sum of its three input filters.

    The three channels of a grey image are equal, so the outputs are unchanged.
    """
    with torch.no_grad():
        convolution.weight = nn.Parameter(convolution.weight.sum(1, keepdim=True))
    convolution.in_channels = 1
    return convolution


def _resnet50(weights: WeightsEnum | None, dilated: bool) -> nn.Module:
    network = models.resnet50(weights=weights, replace_stride_with_dilation=[False, False, dilated])
    network.conv1 = _grey_first(network.conv1)
    if weights is None:
        # Each residual block starts as the identity (Goyal et al. 2017, section 5.1).
        for block in network.modules():
            if isinstance(block, models.resnet.Bottleneck):
                nn.init.zeros_(block.bn3.weight)
    return nn.Sequential(
        OrderedDict((n, m) for n, m in network.named_children() if n not in {"avgpool", "fc"})
    )


def _densenet161(weights: WeightsEnum | None, dilated: bool) -> nn.Module:
    features: nn.Sequential = models.densenet161(weights=weights).features
    features.conv0 = _grey_first(features.conv0)  # type: ignore[arg-type]
    if dilated:  # no pooling before the last block; its 3×3 convolutions keep their reach
        features.get_submodule("transition3").pool = nn.Identity()
        for layer in features.get_submodule("denseblock4").children():
            layer.conv2.dilation = layer.conv2.padding = (2, 2)  # type: ignore[union-attr]
    return features


NETWORKS = {
    "resnet50": Architecture(
        _resnet50,
        channels=2048,
        imagenet=models.ResNet50_Weights.IMAGENET1K_V1,
        stages=(
            ("head", ("head.",)),
            ("layer4", ("trunk.layer4.",)),
            ("layer3", ("trunk.layer3.",)),
            ("layer2", ("trunk.layer2.",)),
            ("layer1", ("trunk.layer1.",)),
            ("stem", ("trunk.conv1.", "trunk.bn1.")),
        ),
        early="layer2",
    ),
    "densenet161": Architecture(
        _densenet161,
        channels=2208,
        imagenet=models.DenseNet161_Weights.IMAGENET1K_V1,
        stages=(
            ("head", ("head.",)),
            ("denseblock4", ("trunk.denseblock4.", "trunk.norm5.")),
            ("denseblock3", ("trunk.denseblock3.", "trunk.transition3.")),
            ("denseblock2", ("trunk.denseblock2.", "trunk.transition2.")),
            ("denseblock1", ("trunk.denseblock1.", "trunk.transition1.")),
            ("stem", ("trunk.conv0.", "trunk.norm0.")),
        ),
        early="transition2",
    ),
}


def architecture(name: str) -> Architecture:
    """The architecture of that name; an unknown name raises ValueError that lists the names."""
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}: known are {', '.join(NETWORKS)}")
    return NETWORKS[name]


def build(name: str, *, dilated: bool = True, dropout: float = 0.0) -> Classifier:
    """A network with random weights; its maps have S/16 rows and columns if dilated, else S/32."""
    arch = architecture(name)
    return Classifier(arch.build_trunk(None, dilated), arch.channels, dropout)


def with_bias(network: Classifier, bias: Sequence[float]) -> Classifier:
    """A copy of the network with another bias (2,) in its head."""
    changed = copy.deepcopy(network)
    with torch.no_grad():
        changed.head.bias.copy_(torch.tensor(bias))
    return changed


def resize(pixels: Tensor, size: int) -> Tensor:
    """Pixels (N, size, size), float: resized and antialiased like Pillow's bilinear filter.

    Pixels that have this size already are returned unchanged.
    """
    if pixels.shape[-1] == size:
        return pixels
    images = pixels.unsqueeze(1).float()
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)[:, 0]


@torch.inference_mode()
def predict(network: Classifier, pixels: Tensor, size: int, batch: int = 64) -> Tensor:
    """Logits (N, 2), on the CPU, of pixels (N, S, S) resized to `size`; sets evaluation mode."""
    network.eval()
    device = network.head.weight.device
    logits = [
        network(resize(chunk.to(device), size)).float().cpu()
        for chunk in torch.split(pixels, batch)
    ]
    return torch.cat(logits) if logits else torch.zeros(0, len(CLASSES))
