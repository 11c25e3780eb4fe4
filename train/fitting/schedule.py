"""Learning rate, parameter groups and unfreezing."""

import math
from collections.abc import Iterator
from typing import Any

from torch import nn

from train.fitting.recipes import Recipe
from train.model.networks import Architecture, Classifier


def peak_learning_rate(recipe: Recipe, pretrained: bool) -> float:
    """The peak learning rate of the head."""
    return recipe.pretrained_learning_rate if pretrained else recipe.learning_rate


def learning_rate_share(step: int, steps: int, warm_up: float) -> float:
    """The learning rate at a step, as a share of its peak: linear warm-up, then a half cosine to 0.

    `step` counts from 0; `warm_up` is a share of all steps.
    """
    rising = max(1, round(warm_up * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def parameter_groups(
    network: Classifier, architecture: Architecture, recipe: Recipe, pretrained: bool
) -> Iterator[dict[str, Any]]:
    """The optimizer's parameter groups, two per stage, with their peak learning rate as `peak`.

    Pretrained stages have a lower learning rate the nearer they are to the input. Biases and
    BatchNorm weights have no weight decay.
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
    """The number of trainable stages, from the head, in an epoch counted from 0.

    From scratch there is nothing to preserve: every stage is trainable from the first epoch.
    """
    stages = len(architecture.stages)
    if not pretrained:
        return stages
    span = max(1.0, recipe.unfreeze_until * recipe.epochs)
    return min(stages, 1 + math.floor(epoch * (stages - 1) / span))


def unfreeze(network: Classifier, architecture: Architecture, unfrozen: int) -> None:
    """Set training mode, with `unfrozen` trainable stages counted from the head."""
    network.train()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(architecture.stage_of(name) < unfrozen)
    for module in network.modules():
        # The statistics of a frozen stage must not change either.
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()
