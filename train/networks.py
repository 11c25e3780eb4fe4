"""The two networks: grey pixels → trunk → activation → pooling → dropout → linear head."""

import copy
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from handlers import files

log = logging.getLogger(__name__)

CLASSES = ("NORMAL", "PNEUMONIA")

# ImageNet's mean and standard deviation, averaged over its three channels: an X-ray has one.
MEAN, STD = 0.449, 0.226


class Classifier(nn.Module):
    """Grey pixels (N, S, S), uint8 or float in 0..255, to logits (N, 2).

    The activation before pooling is a module of its own and not in place, so that a forward hook
    on it sees exactly what pooling sees. (torchvision's DenseNet applies ``F.relu(inplace=True)``
    to the very tensor that a hook on its features has kept.)
    """

    def __init__(self, trunk: nn.Module, channels: int, dropout: float = 0.0) -> None:
        """Put a head for the two classes on a trunk that ends in `channels` feature maps."""
        super().__init__()
        self.trunk = trunk
        self.activation = nn.ReLU(inplace=False)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, len(CLASSES))

    def normalise(self, pixels: Tensor) -> Tensor:
        """What the trunk sees (N, 1, S, S) of grey pixels (N, S, S)."""
        return (pixels.unsqueeze(1).to(self.head.weight.dtype) / 255.0 - MEAN) / STD

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (N, 2) of grey pixels (N, S, S)."""
        features = self.activation(self.trunk(self.normalise(pixels)))  # (N, C, h, w)
        logits: Tensor = self.head(self.dropout(features.mean((2, 3))))
        return logits


@dataclass(frozen=True)
class Architecture:
    """How to build one trunk, and the stages it unfreezes by, from the head down."""

    build_trunk: Callable[[WeightsEnum | None, bool], nn.Module]
    channels: int
    # The first ImageNet weights, not torchvision's newer ones: those were trained with label
    # smoothing and mixup, which costs transfer (Kornblith et al. 2021, arXiv:2010.16402).
    imagenet: WeightsEnum
    stages: tuple[tuple[str, tuple[str, ...]], ...]  # (stage, prefixes of its parameters' names)
    early: str  # the child of the trunk whose features tell what is unlike the training images

    def stage_of(self, parameter: str) -> int:
        """How far a parameter of `Classifier` lies from the head: 0 is the head itself."""
        for depth, (_, prefixes) in enumerate(self.stages):
            if parameter.startswith(prefixes):
                return depth
        raise KeyError(f"{parameter} belongs to none of {[name for name, _ in self.stages]}")


def _grey_first(convolution: nn.Conv2d) -> nn.Conv2d:
    """The first convolution for one channel: its three input filters summed.

    The three channels of a grey image are equal, so the outputs are too.
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
    if dilated:  # no pooling before the last block, whose 3×3 convolutions see as far as before
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
    """The network of that name; an unknown name raises ValueError with the known ones."""
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}: known are {', '.join(NETWORKS)}")
    return NETWORKS[name]


class WeightsUnavailableError(RuntimeError):
    """ImageNet weights were asked for and can't be had."""


def build(name: str, *, dilated: bool = True, dropout: float = 0.0) -> Classifier:
    """A network with random weights. Dilated: maps of S/16 rows and columns, else S/32."""
    chosen = architecture(name)
    return Classifier(chosen.build_trunk(None, dilated), chosen.channels, dropout)


def initialise(
    name: str, init: str | None, *, dilated: bool = True, dropout: float = 0.0
) -> tuple[Classifier, str]:
    """A network to fine-tune, and where its weights come from: "imagenet", "scratch" or a hash.

    `init` is "imagenet", "scratch", "published", a folder or file of weights of this network, or
    None: ImageNet where torchvision can fetch or find them, else scratch with a loud warning.

    Raises:
        WeightsUnavailableError: `init` is "imagenet" and its weights can't be fetched.
        FileNotFoundError: `init` names a file that is not there.
        CheckpointError: published weights are not those of their card.
    """
    chosen = architecture(name)
    if init in (None, "imagenet"):
        try:
            trunk = chosen.build_trunk(chosen.imagenet, dilated)
        except (OSError, RuntimeError) as error:  # no network; the hash does not match
            why = f"{chosen.imagenet.url} can't be had ({error})"
            if init == "imagenet":
                raise WeightsUnavailableError(
                    f"INIT=imagenet: {why}. Put the file into $TORCH_HOME/hub/checkpoints, "
                    "or start with INIT=scratch."
                ) from error
            log.warning(
                "NO IMAGENET WEIGHTS: %s. %s starts FROM SCRATCH, and its card says so.", why, name
            )
            return build(name, dilated=dilated, dropout=dropout), "scratch"
        return Classifier(trunk, chosen.channels, dropout), "imagenet"
    network = build(name, dilated=dilated, dropout=dropout)
    if init == "scratch":
        return network, "scratch"
    from train import checkpoint  # a checkpoint is built from a network, so not at the top

    assert init is not None
    if init == "published":
        path = checkpoint.published(name)
        checkpoint.load(path)  # the hash is that of the card
    else:
        path = checkpoint.weights_file(Path(init), name)
    network.load_state_dict(checkpoint.read_weights(path))
    return network, f"sha256:{files.sha256(path)}"


def with_bias(network: Classifier, bias: Sequence[float]) -> Classifier:
    """A copy of the network with another bias (2,) in its head."""
    changed = copy.deepcopy(network)
    with torch.no_grad():
        changed.head.bias.copy_(torch.tensor(bias))
    return changed


def resize(pixels: Tensor, size: int) -> Tensor:
    """Pixels (N, S, S) at another size, antialiased like Pillow's bilinear filter; float."""
    if pixels.shape[-1] == size:
        return pixels
    images = pixels.unsqueeze(1).float()
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)[:, 0]


@torch.inference_mode()
def predict(network: Classifier, pixels: Tensor, size: int, batch: int = 64) -> Tensor:
    """Logits (N, 2), on the CPU, of pixels (N, S, S) seen at `size`; leaves evaluation mode on."""
    network.eval()
    device = network.head.weight.device
    parts = [
        network(resize(part.to(device), size)).float().cpu() for part in torch.split(pixels, batch)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, len(CLASSES))
