"""The finished networks of a run, with the data they were trained on."""

import json
from dataclasses import dataclass
from pathlib import Path

from train import checkpoint, data
from train.checkpoint import Card
from train.data import Dataset
from train.lungs import Lungs
from train.networks import Classifier
from train.run import RUN, masks_of


@dataclass(frozen=True)
class Trained:
    """A finished network of a run, with its card and the data at its size."""

    network: Classifier
    card: Card
    dataset: Dataset
    folder: Path
    masks: Lungs | None

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
        network, its_card = checkpoint.load(run / name)
        size = its_card["input"]["size"]
        if size not in datasets:
            datasets[size] = data.load(
                Path(facts["data"]),
                size,
                seed=facts["seed"],
                patient=facts["patient"],
                skip_broken=facts["skip_broken"],
            )
        if datasets[size].sha256 != its_card["training"]["data"]["sha256"]:
            raise checkpoint.CheckpointError(
                f"{facts['data']} has changed since {name} was trained on it: train again"
            )
        masks = masks_of(Path(facts["masks"]) if facts.get("masks") else None, datasets[size])
        found.append(Trained(network, its_card, datasets[size], run / name, masks))
    if not found:
        raise checkpoint.CheckpointError(f"{run} holds no finished network: go on with make train")
    return found
