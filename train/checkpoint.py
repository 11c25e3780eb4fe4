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
from train.networks import Classifier, build

WEIGHTS = "weights.safetensors"
PUBLISHED = Path("weights")  # a file of weights a network, and its card beside it
FULL_PRECISION = 1 / 30  # share of a network's weights, from the input, that is never rounded

C = TypeVar("C", bound=TrainedNetwork)


class CheckpointError(RuntimeError):
    """Weights or a state can't be written or read; the message names the file and the remedy."""


# --- weights and card


def save(folder: Path, network: Classifier, card: C) -> C:
    """Write weights and card into a folder; the card, now with the weights' sha256.

    In half precision where the card says that they are rounded to it.

    Raises:
        CheckpointError: a full disk, a read-only folder.
    """
    path = folder / WEIGHTS
    write_weights(path, network.state_dict() if card.half_precision is None else in_half(network))
    card = replace(card, weights_sha256=files.sha256(path))
    write_card(folder, card)
    return card


def load(path: Path) -> tuple[Classifier, TrainedNetwork]:
    """The network in evaluation mode and its card, of a folder or of a published file.

    Raises:
        CheckpointError: something is missing, or the weights are not those of the card.
    """
    card = read_network_card(path)
    weights = path if _is_published(path) else path / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(f"there is no {weights}: build it with make train")
    actual = files.sha256(weights)
    if actual != card.weights_sha256:
        raise CheckpointError(
            f"{weights} has sha256 {actual}, its card says {card.weights_sha256}: "
            "take both from one run"
        )
    network = build(card.network, dilated=card.map.dilated)
    network.load_state_dict(read_weights(weights))
    return network.eval(), card


def write_card(folder: Path, card: Card) -> None:
    """Write the card of the weights that lie in a folder.

    Raises:
        CheckpointError: a full disk, a read-only folder.
    """
    path = folder / CARD
    with _named_error(path):
        cards.write(path, card)


def read_card(path: Path) -> Card:
    """The card in a folder, or beside a published file.

    Raises:
        CheckpointError: there is none, or it is no card.
    """
    file = path.with_suffix(".json") if _is_published(path) else path / CARD
    if not file.is_file():
        raise CheckpointError(f"there is no {file}: build it with make train")
    try:
        return cards.read(file)
    except CardError as error:
        raise CheckpointError(str(error)) from error


def read_network_card(path: Path) -> TrainedNetwork:
    """The card in a folder, or beside a published file, of one network.

    Raises:
        CheckpointError: there is none, it is no card, or that of an ensemble.
    """
    card = read_card(path)
    if not isinstance(card, TrainedNetwork):
        raise CheckpointError(f"{path} is an ensemble, without weights: name one of its networks")
    return card


def evaluated(card: TrainedNetwork, path: Path) -> EvaluatedNetwork:
    """The card at `path`, as that of a network that was evaluated.

    Raises:
        CheckpointError: it never was.
    """
    if not isinstance(card, EvaluatedNetwork):
        raise CheckpointError(f"{path} was never judged: run make evaluate")
    return card


def _is_published(path: Path) -> bool:
    return path.suffix == ".safetensors"


def published(network: str) -> Path:
    """The file of a network that comes with the project.

    Raises:
        FileNotFoundError: it does not, or not to the folder where this was started.
    """
    path = PUBLISHED / f"{network}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"INIT=published: there is no {path} here. Start in the project's folder, or choose "
            "INIT=imagenet, INIT=scratch or a folder of weights."
        )
    return path


def weights_file(path: Path, network: str) -> Path:
    """The file of weights that a path means: itself, or in a run's folder of that network.

    Raises:
        FileNotFoundError: there is none.
    """
    for candidate in (path, path / WEIGHTS, path / network / WEIGHTS):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{path} is no file of weights and no folder with {WEIGHTS}")


# --- files


def in_half(network: Classifier) -> dict[str, Tensor]:
    """A network's weights in half precision.

    Vectors, which are few, stay in full, and so does what comes first from the input: its rounding
    goes through all that follows (docs/log.md).
    """
    weights = network.state_dict()
    matrices = {k: v for k, v in weights.items() if v.is_floating_point() and v.ndim > 1}
    first = FULL_PRECISION * sum(value.numel() for value in matrices.values())
    passed = 0
    for key, value in matrices.items():
        if passed >= first:
            weights[key] = value.half()
        passed += value.numel()
    return weights


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a network's weights as a safetensors file, whole or not at all.

    Raises:
        CheckpointError: a full disk, a read-only folder.
    """
    with _named_error(path), files.replacing(path) as partial:
        save_file({key: value.contiguous().cpu() for key, value in weights.items()}, partial)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, in full precision."""
    return {
        key: value.float() if value.is_floating_point() else value
        for key, value in load_file(path).items()
    }


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state, whole or not at all.

    Raises:
        CheckpointError: a full disk, a read-only folder.
    """
    with _named_error(path), files.replacing(path) as partial:
        torch.save(state, partial)


def read_state(path: Path) -> dict[str, Any]:
    """The state, tensors on the CPU."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def write_text(path: Path, text: str) -> None:
    """Write a text file of a run, whole or not at all.

    Raises:
        CheckpointError: a full disk, a read-only folder.
    """
    with _named_error(path):
        files.write_text(path, text)


@contextmanager
def _named_error(path: Path) -> Iterator[None]:
    """Errors of writing as a CheckpointError that names the file and the remedy."""
    try:
        yield
    # A full disk is an OSError, a SafetensorError, or a RuntimeError of torch's own writer.
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} can't be written ({error}): free some space or choose another folder with "
            "RUNS="
        ) from error
