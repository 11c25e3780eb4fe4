"""A network and a data set small enough for tests: a step takes a millisecond."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, WeightsEnum
from torchvision.ops import FrozenBatchNorm2d

from train.fitting.recipes import Phase, Recipe
from train.model.networks import Architecture, Classifier

RECIPE = Recipe(phases=(Phase(16, 2), Phase(32, 2)), batch=8, warm_up=0.2, learning_rate=3e-3)


def small_trunk(norm: type[nn.Module] = nn.BatchNorm2d) -> nn.Module:
    """A trunk with 6 feature maps of S/4 rows and columns, before the activation."""
    return nn.Sequential(
        OrderedDict(
            conv0=nn.Conv2d(1, 4, 3, stride=2, padding=1),
            norm0=norm(4),
            relu0=nn.ReLU(),
            conv1=nn.Conv2d(4, 6, 3, stride=2, padding=1),
            norm1=norm(6),
        )
    )


def _build(_weights: WeightsEnum | None, _dilated: bool) -> nn.Module:
    return small_trunk()


def _build_frozen(_weights: WeightsEnum | None, _dilated: bool) -> nn.Module:
    return small_trunk(FrozenBatchNorm2d)


_STAGES = (
    ("head", ("head.",)),
    ("stage1", ("trunk.conv1.", "trunk.norm1.")),
    ("stem", ("trunk.conv0.", "trunk.norm0.")),
)
SMALL = Architecture(_build, 6, ResNet50_Weights.IMAGENET1K_V1, _STAGES, "relu0")
SMALL_FROZEN = Architecture(_build_frozen, 6, ResNet50_Weights.IMAGENET1K_V1, _STAGES, "relu0")


def small_network(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(small_trunk(), 6)


def write_images(root: Path, train: int = 40, test: int = 10, size: int = 40) -> Path:
    """Write noise images, bright in the centre for PNEUMONIA, in Kaggle's layout; gives `root`."""
    random = np.random.default_rng(0)
    for folder, count in (("train", train), ("test", test)):
        for name in ("NORMAL", "PNEUMONIA"):
            (root / folder / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 120, (size, size))
                if name == "PNEUMONIA":
                    pixels[10:30, 10:30] += 100
                image = Pillow.fromarray(pixels.astype(np.uint8))
                image.save(root / folder / name / f"{folder}-{name}-{number:03d}.png")
    return root


def write_masks(images: Path, root: Path) -> Path:
    """Write lung masks of half the NORMAL and three quarters of the PNEUMONIA training images.

    The bright centre is lung. Returns `root`.
    """
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30] = 255
    for name, without in (("NORMAL", (0, 2)), ("PNEUMONIA", (0,))):
        (root / name).mkdir(parents=True)
        for number, path in enumerate(sorted((images / "train" / name).iterdir())):
            if number % 4 not in without:
                Pillow.fromarray(mask).convert("1").save(root / name / f"{path.stem}.png")
    return root


def square_mask(size: int = 32, low: int = 8, high: int = 24) -> Tensor:
    """A mask (1, S, S), 0 or 1: lung in rows and columns `low` to `high`."""
    mask = torch.zeros(1, size, size)
    mask[:, low:high, low:high] = 1
    return mask
