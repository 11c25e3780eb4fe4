"""Weights and their card, saved and loaded together; the state of an interrupted run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from handlers import card as cards
from handlers import files
from handlers.card import CARD, Card, CardError, EvaluatedNetwork, TrainedNetwork
from train.model.networks import Classifier, build

WEIGHTS = "weights.safetensors"
PUBLISHED = Path("weights")  # <network>.safetensors and its card, <network>.json
FULL_PRECISION = 1 / 30  # of a network's weights, counted from the input: never rounded

C = TypeVar("C", bound=TrainedNetwork)


class CheckpointError(RuntimeError):
    """Weights or a state can't be written or read; the message names the file and the remedy."""


# --- weights and card


def save(folder: Path, network: Classifier, card: C) -> C:
    """Write weights and card into a folder; returns the card with the sha256 of the weights.

    Weights are written in half precision if the card has `half_precision`.

    Raises:
        CheckpointError: a full disk, a read-only folder.
    """
    path = folder / WEIGHTS
    full = card.half_precision is None
    write_weights(path, network.state_dict() if full else half_precision_weights(network))
    card = replace(card, weights_sha256=files.sha256(path))
    write_card(folder, card)
    return card


def load(path: Path) -> tuple[Classifier, TrainedNetwork]:
    """The network in evaluation mode and its card, from a folder or a published file.

    Raises:
        CheckpointError: a file is missing, or the weights' sha256 is not the card's.
    """
    card = read_network_card(path)
    weights = path if _is_published(path) else path / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(f"{weights} does not exist: train it with make train")
    actual = files.sha256(weights)
    if actual != card.weights_sha256:
        raise CheckpointError(
            f"{weights} has sha256 {actual}, but its card names {card.weights_sha256}: "
            "take both from one run"
        )
    network = build(card.network, dilated=card.map.dilated)
    network.load_state_dict(read_weights(weights))
    return network.eval(), card


def write_card(folder: Path, card: Card) -> None:
    """Write the card of the weights in a folder.

    Raises:
        CheckpointError: a full disk, a read-only folder.
    """
    path = folder / CARD
    with _named_error(path):
        cards.write(path, card)


def read_card(path: Path) -> Card:
    """The card in a folder, or of a published file.

    Raises:
        CheckpointError: the file is missing or is not a card.
    """
    file = path.with_suffix(".json") if _is_published(path) else path / CARD
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist: train it with make train")
    try:
        return cards.read(file)
    except CardError as error:
        raise CheckpointError(str(error)) from error


def read_network_card(path: Path) -> TrainedNetwork:
    """The card of one network, in a folder or of a published file.

    Raises:
        CheckpointError: the file is missing, is not a card, or is the card of an ensemble.
    """
    card = read_card(path)
    if not isinstance(card, TrainedNetwork):
        raise CheckpointError(f"{path} is an ensemble, without weights: name one of its networks")
    return card


def require_evaluated(card: TrainedNetwork, path: Path) -> EvaluatedNetwork:
    """The card read from `path`, typed as that of an evaluated network.

    Raises:
        CheckpointError: the network was never evaluated.
    """
    if not isinstance(card, EvaluatedNetwork):
        raise CheckpointError(f"{path} was never evaluated: run make evaluate")
    return card


def _is_published(path: Path) -> bool:
    return path.suffix == ".safetensors"


def published_weights(network: str) -> Path:
    """The weights file of a network that is published with the project.

    Raises:
        FileNotFoundError: the working folder has no such file.
    """
    path = PUBLISHED / f"{network}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"INIT=published: there is no {path} here. Start in the project's folder, or choose "
            "INIT=imagenet, INIT=scratch or a folder of weights."
        )
    return path


def weights_file(path: Path, network: str) -> Path:
    """The weights file at a path, in that folder, or in that run's folder of the network.

    Raises:
        FileNotFoundError: none of these files exists.
    """
    for candidate in (path, path / WEIGHTS, path / network / WEIGHTS):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{path} is no file of weights and no folder that contains {WEIGHTS}")


# --- files


def half_precision_weights(network: Classifier) -> dict[str, Tensor]:
    """A network's weights by name, in half precision with exceptions.

    Vectors, which are few, stay in full precision, and so do the first weights after the input:
    their rounding error propagates through every later layer (docs/log.md).
    """
    weights = network.state_dict()
    matrices = {k: v for k, v in weights.items() if v.is_floating_point() and v.ndim > 1}
    full_precision = FULL_PRECISION * sum(weight.numel() for weight in matrices.values())
    preceding = 0
    for name, weight in matrices.items():
        if preceding >= full_precision:
            weights[name] = weight.half()
        preceding += weight.numel()
    return weights


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a network's weights as a safetensors file, atomically.

    Raises:
        CheckpointError: a full disk, a read-only folder.
    """
    with _named_error(path), files.replacing(path) as partial:
        save_file({name: weight.contiguous().cpu() for name, weight in weights.items()}, partial)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, in full precision."""
    return {
        name: weight.float() if weight.is_floating_point() else weight
        for name, weight in load_file(path).items()
    }


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write the state of an interrupted run, atomically.

    Raises:
        CheckpointError: a full disk, a read-only folder.
    """
    with _named_error(path), files.replacing(path) as partial:
        torch.save(state, partial)


def read_state(path: Path) -> dict[str, Any]:
    """The state in a file, its tensors on the CPU."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def write_text(path: Path, text: str) -> None:
    """Write a text file of a run, atomically.

    Raises:
        CheckpointError: a full disk, a read-only folder.
    """
    with _named_error(path):
        files.write_text(path, text)


@contextmanager
def _named_error(path: Path) -> Iterator[None]:
    """Turn errors of writing a file into a CheckpointError that names the file and the remedy."""
    try:
        yield
    # A full disk is an OSError, a SafetensorError, or a RuntimeError of torch's own writer.
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} can't be written ({error}): free some space or choose another folder with "
            "RUNS="
        ) from error
