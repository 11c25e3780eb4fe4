"""The changes of a recipe that the ablation tries, each in every leg."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from train.fitting.network_training import NetworkTraining
from train.fitting.recipes import Legs, Phase, Recipe
from train.model.networks import Classifier

UNCHANGED = "as it is"
STRETCHED = "grey stretched to its 1st and 99th percentile"
# The best of twelve trials of `make tune` (docs/log.md).
TUNED = {
    "learning_rate": 0.001243,
    "weight_decay": 0.09347,
    "dropout": 0.3014,
    "label_smoothing": 0.06539,
    "strength": 0.9084,
}


def changes(legs: Legs) -> dict[str, Legs]:
    """Variants of the recipe by name; each changes one setting in every leg.

    A recipe of one leg also gets the settings that `make tune` found.
    """

    def in_every_leg(change: Callable[[Recipe], Recipe]) -> Legs:
        return tuple(change(leg) for leg in legs)

    def with_settings(**settings: Any) -> Legs:
        return in_every_leg(lambda leg: replace(leg, **settings))

    def no_cutouts(leg: Recipe) -> Recipe:
        return replace(leg, strength=replace(leg.strength, cutout_share=0.0))

    def stretched(leg: Recipe) -> Recipe:
        return replace(leg, strength=replace(leg.strength, stretch=0.29))

    def larger(leg: Recipe) -> Recipe:
        phases = tuple(Phase(round(phase.size * 4 / 3), phase.epochs) for phase in leg.phases)
        return replace(leg, phases=phases)

    variants = {
        "no average of the weights": with_settings(average=0.0),
        "no label smoothing": with_settings(label_smoothing=0.0),
        "no dropout": with_settings(dropout=0.0),
        "mixup, 0.2": with_settings(mixup=0.2),
        STRETCHED: legs,  # the recipe is unchanged, the network is a `StretchedTraining`
        "no cut-outs": in_every_leg(no_cutouts),
        "stretch 0.75 to 1.33": in_every_leg(stretched),
        "not dilated": with_settings(dilated=False),
        "no lung training": with_settings(outside=0.0, lung_penalty=0.0),
        "outside changed, no penalty": with_settings(lung_penalty=0.0),
        "penalty, outside left": with_settings(outside=0.0),
        "a third larger": in_every_leg(larger),
    }
    if len(legs) > 1:
        return variants
    from train.tune import changed  # machines that run a full recipe may not have optuna

    return {**variants, "as tuned": in_every_leg(lambda leg: changed(leg, TUNED))}


def stretch_grey(_network: Classifier, inputs: tuple[Tensor]) -> Tensor:
    """Pixels (N, S, S), float 0..255, whose 1st and 99th percentiles are black and white.

    A forward hook of the network, in training and afterwards.
    """
    pixels = inputs[0].float()
    ends = pixels.flatten(1).quantile(torch.tensor([0.01, 0.99], device=pixels.device), dim=1)
    low, high = ends[:, :, None, None]
    stretched: Tensor = (255 * (pixels - low) / (high - low).clamp(min=1)).clamp(0, 255)
    return stretched


class StretchedTraining(NetworkTraining):
    """A training whose network first stretches the grey values of its images."""

    def start(self, rank: int) -> tuple[Classifier, str]:
        """The network to fit, with the stretching hook, and the origin of its weights."""
        network, origin = super().start(rank)
        network.register_forward_pre_hook(stretch_grey)
        return network, origin
