"""The card of a trained network before its evaluation."""

import torch

from handlers.card import SCHEMA, TrainedNetwork
from handlers.card_fields import Input, MapGrid, Project, Training
from train import __version__
from train.data.classes import CLASSES
from train.fitting.recipes import Recipe
from train.model.cam import explain
from train.model.networks import Classifier


def trained_card(
    network: Classifier, name: str, recipe: Recipe, training: Training
) -> TrainedNetwork:
    """The card of a network after training, before evaluation; `recipe` is that of the last leg."""
    blank = torch.zeros(1, recipe.size, recipe.size, dtype=torch.uint8)
    rows, columns = explain(network, blank.to(network.head.weight.device))[1].shape[2:]
    return TrainedNetwork(
        project=Project(name="pneumocam", version=__version__),
        network=name,
        input=Input(size=recipe.size, mode="L", resize="squashed to the square, Pillow bilinear"),
        map=MapGrid(rows=rows, columns=columns, dilated=recipe.dilated),
        classes=CLASSES,
        bias=tuple(network.head.bias.tolist()),
        training=training,
        warnings=warnings(training.data.name, training.preset),
        schema=SCHEMA,
    )


def warnings(dataset: str, preset: str) -> tuple[str, ...]:
    """The warnings that every response of the network carries."""
    texts = []
    if dataset == "phantoms":
        texts.append("trained on phantoms: not for patients")
    if preset == "tiny":
        texts.append("trained for seconds (PRESET=tiny): of no use")
    return tuple(texts)
