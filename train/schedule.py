"""What learns in an epoch, and how fast: parameter groups, unfreezing, the learning rate."""

import math
from collections.abc import Iterator
from typing import Any

from torch import nn

from train.networks import Architecture, Classifier
from train.recipes import Recipe


def peak_learning_rate(recipe: Recipe, pretrained: bool) -> float:
    """The head's largest learning rate."""
    return recipe.pretrained_learning_rate if pretrained else recipe.learning_rate


def learning_rate_share(step: int, steps: int, warm_up: float) -> float:
    """Share of the peak learning rate at a step: a linear warm-up, then half a cosine to 0.

    `warm_up` is a share of all steps.
    """
    rising = max(1, round(warm_up * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def parameter_groups(
    network: Classifier, architecture: Architecture, recipe: Recipe, pretrained: bool
) -> Iterator[dict[str, Any]]:
    """The optimizer's groups, by stage, with their peak learning rate as `peak`.

    Pretrained stages learn slower the nearer they are to the input. Biases and BatchNorm's weights
    are not decayed.
    """
    for stage in range(len(architecture.stages)):
        factor = recipe.stage_factor**stage if pretrained else 1.0
        peak = peak_learning_rate(recipe, pretrained) * factor
        for decayed in (True, False):
            parameters = [
                parameter
                for name, parameter in network.named_parameters()
                if architecture.stage_of(name) == stage and (parameter.ndim > 1) == decayed
            ]
            decay = recipe.weight_decay if decayed else 0.0
            yield {"params": parameters, "lr": peak, "peak": peak, "weight_decay": decay}


def unfrozen_stages(
    epoch: int, architecture: Architecture, recipe: Recipe, pretrained: bool
) -> int:
    """How many stages learn, from the head, in an epoch counted from 0.

    From scratch there is nothing to preserve: every stage learns from the first epoch.
    """
    stages = len(architecture.stages)
    if not pretrained:
        return stages
    span = max(1.0, recipe.unfreeze_until * recipe.epochs)
    return min(stages, 1 + math.floor(epoch * (stages - 1) / span))


def unfreeze(network: Classifier, architecture: Architecture, unfrozen: int) -> None:
    """Put a network into training mode, with so many stages that learn, from the head."""
    network.train()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(architecture.stage_of(name) < unfrozen)
    for module in network.modules():
        # The statistics of a frozen stage stay as still as its weights.
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()
