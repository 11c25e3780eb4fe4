"""Finished networks, of a run or published, with the data they were trained on."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from handlers.card import CARD, TrainedNetwork
from train import checkpoint, data, run_facts
from train.data import Dataset
from train.lung_masks import LungMasks
from train.networks import Classifier
from train.run import masks_of


@dataclass(frozen=True)
class LoadedNetwork:
    """A finished network, with its card and the data at its size.

    `path` is what it was loaded from: a run's folder of the network, or a published file.
    """

    network: Classifier
    card: TrainedNetwork
    dataset: Dataset
    path: Path
    masks: LungMasks | None

    @property
    def name(self) -> str:
        """The network's name."""
        return self.card.network


def networks_of(run: Path) -> list[LoadedNetwork]:
    """The finished networks of a run, with the data they were trained on.

    Raises:
        CheckpointError: there are none, or the data is not what it was.
    """
    facts = run_facts.read(run)
    masks = Path(facts.masks) if facts.masks else None
    networks, datasets = [], {}
    for name in facts.networks:
        if not (run / name / CARD).is_file():
            continue
        size = checkpoint.read_card(run / name).input.size
        if size not in datasets:
            datasets[size] = data.load(
                Path(facts.data),
                size,
                seed=facts.split_by,
                patient=facts.patient,
                skip_broken=facts.skip_broken,
            )
        networks.append(_load(run / name, masks, datasets[size]))
    if not networks:
        raise checkpoint.CheckpointError(f"{run} holds no finished network: go on with make train")
    return networks


def published_networks(root: Path, masks: Path | None, folder: Path) -> list[LoadedNetwork]:
    """The networks published in a folder, with the data they were trained on, at `root`.

    Raises:
        CheckpointError: there are none, or the data is another.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise checkpoint.CheckpointError(f"{folder} holds no published network: run make publish")
    load = cache(lambda size, seed: data.load(root, size, seed=seed))
    networks = []
    for file in files:
        card = checkpoint.read_card(file)
        networks.append(_load(file, masks, load(card.input.size, card.training.split_by)))
    return networks


def _load(path: Path, masks: Path | None, dataset: Dataset) -> LoadedNetwork:
    network, card = checkpoint.load(path)
    if dataset.sha256 != card.training.data.sha256:
        raise checkpoint.CheckpointError(
            f"{dataset.root} is not, or no longer, what {card.network} was trained on: "
            "name that, or train again"
        )
    return LoadedNetwork(network, card, dataset, path, masks_of(masks, dataset))
