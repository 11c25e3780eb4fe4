"""Finished networks, of a run or published, with the data set they were trained on."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from handlers.card import CARD, TrainedNetwork
from train.data import dataset
from train.data.dataset import Dataset
from train.data.lung_masks import LungMasks
from train.fitting import run_facts
from train.fitting.runs import load_masks
from train.model import checkpoint
from train.model.networks import Classifier


@dataclass(frozen=True)
class LoadedNetwork:
    """A finished network, with its card and the data set at its size.

    `path` is its origin: the network's folder in a run, or a published file.
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
    """The finished networks of a run, with the data set they were trained on.

    Raises:
        CheckpointError: the run has no finished network, or the data set has changed.
    """
    facts = run_facts.read(run)
    masks = Path(facts.masks) if facts.masks else None
    networks, datasets = [], {}
    for name in facts.networks:
        if not (run / name / CARD).is_file():
            continue
        size = checkpoint.read_card(run / name).input.size
        if size not in datasets:
            datasets[size] = dataset.load(
                Path(facts.data),
                size,
                seed=facts.split_by,
                patient=facts.patient,
                skip_broken=facts.skip_broken,
            )
        networks.append(_load(run / name, masks, datasets[size]))
    if not networks:
        raise checkpoint.CheckpointError(
            f"{run} has no finished network: continue it with make train"
        )
    return networks


def published_networks(root: Path, masks: Path | None, folder: Path) -> list[LoadedNetwork]:
    """The networks published in a folder, with the data set they were trained on, at `root`.

    Raises:
        CheckpointError: the folder has no network, or `root` holds different images.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise checkpoint.CheckpointError(f"{folder} has no published network: run make publish")
    load = cache(lambda size, seed: dataset.load(root, size, seed=seed))
    networks = []
    for file in files:
        card = checkpoint.read_card(file)
        networks.append(_load(file, masks, load(card.input.size, card.training.split_by)))
    return networks


def _load(path: Path, masks: Path | None, dataset: Dataset) -> LoadedNetwork:
    network, card = checkpoint.load(path)
    if dataset.sha256 != card.training.data.sha256:
        raise checkpoint.CheckpointError(
            f"{dataset.root} does not hold the images that {card.network} was trained on: "
            "name their folder, or train again"
        )
    return LoadedNetwork(network, card, dataset, path, load_masks(masks, dataset))
