"""Weights and their card, saved and loaded together; the state of an interrupted run."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from train.networks import Classifier, build

WEIGHTS = "weights.safetensors"
CARD = "card.json"
PUBLISHED = Path("weights")  # a file of weights a network, and its card beside it
HALF = "half_precision"  # on the card: the weights were rounded
FULL = 1 / 30  # of a network's weights, from the input, are not

Card = dict[str, Any]


class CheckpointError(RuntimeError):
    """Weights or a state can't be written or read; the message names the file and the remedy."""


def save(folder: Path, network: Classifier, card: Card) -> Card:
    """Write weights and card into a folder; the card, now with the weights' sha256.

    In half precision where the card says that they are rounded to it.
    """
    path = folder / WEIGHTS
    write_weights(path, in_half(network) if HALF in card else network.state_dict())
    card = {**card, "weights_sha256": sha256(path)}
    write_card(folder, card)
    return card


def in_half(network: Classifier) -> dict[str, Tensor]:
    """A network's weights in half precision.

    Vectors, which are few, stay in full, and so does what comes first from the input: its rounding
    goes through all that follows (docs/log.md).
    """
    weights = network.state_dict()
    matrices = {k: v for k, v in weights.items() if v.is_floating_point() and v.ndim > 1}
    first = FULL * sum(value.numel() for value in matrices.values())
    passed = 0
    for key, value in matrices.items():
        if passed >= first:
            weights[key] = value.half()
        passed += value.numel()
    return weights


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a network's weights to the side, then rename."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        side = path.with_suffix(".part")
        save_file({key: value.contiguous().cpu() for key, value in weights.items()}, side)
        side.rename(path)
    except OSError as error:
        raise _unwritable(path, error) from error


def write_card(folder: Path, card: Card) -> None:
    """Write the card of the weights that lie in a folder."""
    write_text(folder / CARD, json.dumps(card, indent=2) + "\n")


def load(path: Path) -> tuple[Classifier, Card]:
    """The network in evaluation mode and its card, of a folder or of a published file.

    Raises:
        CheckpointError: something is missing, or the weights are not those of the card.
    """
    card = read_card(path)
    weights = path if _is_published(path) else path / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(f"there is no {weights}: build it with make train")
    found = sha256(weights)
    if found != card["weights_sha256"]:
        raise CheckpointError(
            f"{weights} has sha256 {found}, its card says {card['weights_sha256']}: "
            "take both from one run"
        )
    network = build(card["network"], dilated=card["map"]["dilated"])
    network.load_state_dict(read_weights(weights))
    return network.eval(), card


def read_card(path: Path) -> Card:
    """The card in a folder, or beside a published file.

    Raises:
        CheckpointError: there is none.
    """
    file = path.with_suffix(".json") if _is_published(path) else path / CARD
    if not file.is_file():
        raise CheckpointError(f"there is no {file}: build it with make train")
    card: Card = json.loads(file.read_text())
    return card


def _is_published(path: Path) -> bool:
    return path.suffix == ".safetensors"


def weights_file(path: Path, network: str) -> Path:
    """The file of weights that a path means: itself, or in a run's folder of that network.

    Raises:
        FileNotFoundError: there is none.
    """
    for candidate in (path, path / WEIGHTS, path / network / WEIGHTS):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{path} is no file of weights and no folder with {WEIGHTS}")


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


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, in full precision."""
    return {
        key: value.float() if value.is_floating_point() else value
        for key, value in load_file(path).items()
    }


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write to the side, then rename: what is there stays whole until the new one is.

    Raises:
        CheckpointError: a full disk, a read-only folder.
    """
    side = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, side)
        side.rename(path)
    # torch reports a full disk as a RuntimeError of its own writer.
    except (OSError, RuntimeError) as error:
        with suppress(OSError):  # what could not be made
            side.unlink()
        raise _unwritable(path, error) from error


def read_state(path: Path) -> dict[str, Any]:
    """The state, tensors on the CPU."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def write_text(path: Path, text: str) -> None:
    """Write a text to the side, then rename it."""
    side = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        side.write_text(text)
        side.rename(path)
    except OSError as error:
        raise _unwritable(path, error) from error


def sha256(path: Path) -> str:
    """The hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _unwritable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} can't be written ({error}): free some space or choose another folder with RUNS="
    )
