"""Training of one network of a run, leg by leg, in its folder."""

import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from handlers import card_fields
from handlers.card import CARD
from train.data import splits
from train.data.dataset import Dataset
from train.data.lung_masks import LungMasks
from train.fitting.epoch import Epoch
from train.fitting.loop import fit
from train.fitting.options import Options, device
from train.fitting.recipes import Legs, relative_cost
from train.fitting.trained_card import trained_card
from train.model import checkpoint
from train.model.initial_weights import initialise
from train.model.networks import Classifier, build

log = logging.getLogger(__name__)

STATE = "state-{}.pt"  # of an unfinished leg, counted from 1
LEG = "leg-{}.safetensors"  # the weights of a finished leg
IDENTITY = "fit.json"  # the data, recipes and seeds that the files of a folder belong to
HISTORY = "history.json"


@dataclass(frozen=True)
class NetworkTraining:
    """The training of one network in its folder of a run."""

    folder: Path
    name: str
    dataset: Dataset
    legs: Legs
    preset: str
    options: Options
    masks: LungMasks | None

    def set_aside_stale(self) -> None:
        """Rename the folder if its files are of other data, recipes, seeds or initial weights."""
        identity: dict[str, Any] = {
            "data": self.dataset.sha256,
            "recipes": [leg.as_dict() for leg in self.legs],
            "seed": self.options.seed,
            "init": self.options.init,
        }
        if self.options.split_by != self.options.seed:
            identity["split_seed"] = self.options.split_by
        if self.masks is not None:
            identity["lungs"] = self.masks.sha256
        text = json.dumps(identity, indent=2) + "\n"
        path = self.folder / IDENTITY
        if path.is_file() and path.read_text() != text:
            backup = self.folder.with_name(f"{self.name}.{time.strftime('%Y%m%d-%H%M%S')}")
            self.folder.rename(backup)
            log.warning(
                "%s holds a network of other data, recipe or initial weights: moved to %s",
                self.folder,
                backup,
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint.write_text(path, text)

    def run(self, rank: int) -> None:
        """Train the network unless it is finished, then save weights and card."""
        if (self.folder / CARD).is_file():
            log.info("%s is trained already (%s); SEED= trains a new one", self.name, self.folder)
            return
        network, origin = self.start(rank)
        started = time.monotonic()
        history: list[Epoch] = []
        for number in range(len(self.legs)):
            history += self.train_leg(network, number, origin, len(history), rank)
        if rank == 0:
            self.finish(network, origin, history)
            log.info("%s trained in %.1f min", self.name, (time.monotonic() - started) / 60)

    def train_leg(
        self, network: Classifier, number: int, origin: str, previous_epochs: int, rank: int
    ) -> list[Epoch]:
        """Train leg `number`, from 0, or load its file; returns its epochs, numbered in the run."""
        leg, later_legs = self.legs[number], self.legs[number + 1 :]
        weights_file = self.folder / LEG.format(number + 1)
        history_file = weights_file.with_suffix(".json")
        if weights_file.is_file():
            network.load_state_dict(checkpoint.read_weights(weights_file))
            return [Epoch(**epoch) for epoch in json.loads(history_file.read_text())]
        if len(self.legs) > 1:
            sizes = ", ".join(f"{phase.epochs} epochs at {phase.size} px" for phase in leg.phases)
            log.info("%s: leg %d of %d, %s", self.name, number + 1, len(self.legs), sizes)
        history: list[Epoch] = []
        for epoch in fit(
            network,
            self.name,
            self.dataset,
            leg,
            pretrained=number == 0 and origin != "scratch",
            seed=self.options.seed + 1000 * number,
            state=self.state_file(number),
            device=device(),
            masks=self.masks,
        ):
            seconds_a_pixel = epoch.seconds / epoch.size**2
            history.append(
                replace(
                    epoch,
                    number=previous_epochs + epoch.number,
                    epochs=previous_epochs + epoch.epochs + sum(leg.epochs for leg in later_legs),
                    left=epoch.left + seconds_a_pixel * relative_cost(later_legs),
                )
            )
            log.info("%s %s", self.name, history[-1].line())
        if rank == 0:
            records: list[dict[str, Any]] = [asdict(epoch) for epoch in history]
            checkpoint.write_text(history_file, json.dumps(records, indent=1) + "\n")
            checkpoint.write_weights(weights_file, network.state_dict())
            self.state_file(number).unlink(missing_ok=True)
        return history

    def state_file(self, number: int) -> Path:
        """The state of leg `number`, from 0, while it is unfinished."""
        return self.folder / STATE.format(number + 1)

    def start(self, rank: int) -> tuple[Classifier, str]:
        """The network to train and the origin of its weights, which a state file replaces."""
        origin_file = self.folder / "init.txt"
        dilated, dropout = self.legs[-1].dilated, self.legs[-1].dropout
        torch.manual_seed(self.options.seed)
        started = any(f.is_file() for f in (self.folder / LEG.format(1), self.state_file(0)))
        if started and origin_file.is_file():
            network = build(self.name, dilated=dilated, dropout=dropout)
            origin = origin_file.read_text()
        else:
            network, origin = initialise(
                self.name, self.options.init, dilated=dilated, dropout=dropout
            )
            if rank == 0:
                checkpoint.write_text(origin_file, origin)
        log.info(
            "%s: up to %d epochs, %s",
            self.name,
            sum(leg.epochs for leg in self.legs),
            "from scratch: there is nothing to preserve, so every stage trains from the start"
            if origin == "scratch"
            else f"from {origin} weights, unfreezing from the head down",
        )
        return network, origin

    def finish(self, network: Classifier, origin: str, history: list[Epoch]) -> None:
        """Save weights, card and history."""
        records: list[dict[str, Any]] = [asdict(epoch) for epoch in history]
        checkpoint.write_text(self.folder / HISTORY, json.dumps(records, indent=1) + "\n")
        training = card_fields.Training(
            data=card_fields.Dataset(
                name=self.dataset.name, sha256=self.dataset.sha256, counts=self.dataset.counts()
            ),
            seed=self.options.seed,
            split_seed=self.options.split_by,
            init=origin,
            preset=self.preset,
            lungs=self.mask_facts(),
            recipes=tuple(leg.as_dict() for leg in self.legs),
        )
        checkpoint.save(
            self.folder,
            network,
            trained_card(network, self.name, self.legs[-1], training),
        )

    def mask_facts(self) -> card_fields.LungMasks | None:
        """The card's entry on the lung masks of training, None without masks."""
        if self.masks is None:
            return None
        present = self.masks.present[self.dataset.rows(splits.FIT)]
        return card_fields.LungMasks(images=int(present.sum()), sha256=self.masks.sha256)
