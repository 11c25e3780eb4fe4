"""Finished networks, of a run or published, with the data they were trained on."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from train import checkpoint, data
from train.card import split_seed
from train.checkpoint import Card
from train.data import Dataset
from train.lung_masks import LungMasks
from train.networks import Classifier
from train.run import RUN, masks_of


@dataclass(frozen=True)
class Trained:
    """A finished network, with its card and the data at its size."""

    network: Classifier
    card: Card
    dataset: Dataset
    folder: Path
    masks: LungMasks | None

    @property
    def name(self) -> str:
        """The network's name."""
        return str(self.card["network"])


def networks_of(run: Path) -> list[Trained]:
    """The finished networks of a run, with the data they were trained on.

    Raises:
        CheckpointError: there are none, or the data is not what it was.
    """
    if not (run / RUN).is_file():
        raise checkpoint.CheckpointError(f"{run} is no run: train one with make train")
    facts = json.loads((run / RUN).read_text())
    found, datasets = [], {}
    for name in facts["networks"]:
        if not (run / name / checkpoint.CARD).is_file():
            continue
        size = checkpoint.read_card(run / name)["input"]["size"]
        if size not in datasets:
            datasets[size] = data.load(
                Path(facts["data"]),
                size,
                seed=facts.get("split_seed", facts["seed"]),  # older runs have one for both
                patient=facts["patient"],
                skip_broken=facts["skip_broken"],
            )
        found.append(_trained(run / name, facts.get("masks"), datasets[size]))
    if not found:
        raise checkpoint.CheckpointError(f"{run} holds no finished network: go on with make train")
    return found


def published_networks(root: Path, masks: Path | None, folder: Path) -> list[Trained]:
    """The networks published in a folder, with the data they were trained on, at `root`.

    Raises:
        CheckpointError: there are none, or the data is another.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise checkpoint.CheckpointError(f"{folder} holds no published network: run make publish")
    load = cache(lambda size, seed: data.load(root, size, seed=seed))
    found = []
    for file in files:
        card = checkpoint.read_card(file)
        dataset = load(card["input"]["size"], split_seed(card))
        found.append(_trained(file, masks, dataset))
    return found


def _trained(source: Path, mask_folder: Path | str | None, dataset: Dataset) -> Trained:
    network, card = checkpoint.load(source)
    if dataset.sha256 != card["training"]["data"]["sha256"]:
        raise checkpoint.CheckpointError(
            f"{dataset.root} is not, or no longer, what {card['network']} was trained on: "
            "name that, or train again"
        )
    masks = masks_of(Path(mask_folder) if mask_folder else None, dataset)
    return Trained(network, card, dataset, source, masks)
