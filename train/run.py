"""A run: networks trained on one data set, each in a folder of its own below the run's."""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from handlers import card_fields
from handlers.card import CARD
from train import card, checkpoint, data, lung_masks, memory, run_facts, split
from train.data import Dataset
from train.fit import Epoch, fit
from train.lung_masks import LungMasks
from train.networks import Classifier, build, initialise
from train.options import Options, data_folder, device, preset
from train.recipes import Legs, legs, work
from train.run_facts import RunFacts

log = logging.getLogger(__name__)

STATE = "state-{}.pt"  # of a leg that is under way, counted from 1
LEG = "leg-{}.safetensors"  # the weights of one that is done
IDENTITY = "fit.json"  # what a state belongs to
HISTORY = "history.json"
LATEST = "latest"


@contextmanager
def processes() -> Iterator[int]:
    """Join the processes that torchrun started; the rank of this one, 0 where it is alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield distributed.get_rank()
    finally:
        distributed.destroy_process_group()


def _first_rank(rank: int) -> bool:
    """True in the first process; the others wait until it has been through."""
    if rank and distributed.is_initialized():
        distributed.barrier()
    return rank == 0


def _let_others_go() -> None:
    if distributed.is_initialized():
        distributed.barrier()


def train(options: Options, rank: int = 0) -> Path:
    """Train every network that is not finished yet; the run's folder.

    An interrupted network goes on where its state was last written. A finished one with the same
    data, recipe, seed and start is left as it is.
    """
    memory.keep()
    chosen = preset(options.preset)
    recipes = {name: legs(chosen, name) for name in options.networks}
    sizes = {how[-1].size for how in recipes.values()}
    if _first_rank(rank):
        root = data_folder(options.data)  # may have to draw the phantoms
        datasets = {size: load(options, root, size) for size in sizes}
        _let_others_go()
    else:
        root = data_folder(options.data)
        datasets = {size: load(options, root, size) for size in sizes}
    dataset = next(iter(datasets.values()))
    folder = options.runs / f"{dataset.name}-{chosen}-{_seeds(options)}"
    if rank == 0:
        _write_facts(folder, dataset, options, root, chosen)
    for name, how in recipes.items():
        dataset = datasets[how[-1].size]
        masks = masks_of(options.masks, dataset)
        training = Training(folder / name, name, dataset, how, chosen, options, masks)
        if _first_rank(rank):
            training.set_aside_another()
            _let_others_go()
        training.run(rank)
        if rank == 0:
            _point_latest(folder)
    return folder


def _seeds(options: Options) -> str:
    """For a folder's name; that of the split where it is another."""
    if options.split_by == options.seed:
        return f"seed{options.seed}"
    return f"seed{options.seed}-split{options.split_by}"


def load(options: Options, root: Path, size: int) -> Dataset:
    """The data set as the options ask for it."""
    return data.load(
        root, size, seed=options.split_by, patient=options.patient, skip_broken=options.skip_broken
    )


def masks_of(root: Path | None, dataset: Dataset) -> LungMasks | None:
    """The lung masks of a data set, at its size, where there are any."""
    if root is None:
        return None
    if not root.is_dir():
        raise FileNotFoundError(f"MASKS={root}: there is no such folder")
    return lung_masks.read(root, dataset.images, dataset.pixels.shape[-1])


def _write_facts(folder: Path, dataset: Dataset, options: Options, root: Path, chosen: str) -> None:
    """The split and the options into the run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    data.write_split(dataset, folder / "split.csv")
    log.info("%s\nthe split, file by file: %s", data.table(dataset), folder / "split.csv")
    facts = RunFacts(
        data=str(root.resolve()),
        preset=chosen,
        seed=options.seed,
        split_seed=options.split_by,
        patient=options.patient,
        masks=str(options.masks.resolve()) if options.masks else None,
        skip_broken=options.skip_broken,
        networks=options.networks,
    )
    run_facts.write(folder, facts)


def _point_latest(folder: Path) -> None:
    """`latest` is the run that finished a network last."""
    side = folder.with_name(f".{LATEST}.{os.getpid()}")
    side.symlink_to(folder.name)
    side.replace(folder.with_name(LATEST))


@dataclass(frozen=True)
class Training:
    """One network of a run, in its folder."""

    folder: Path
    name: str
    dataset: Dataset
    legs: Legs
    preset: str
    options: Options
    masks: LungMasks | None

    def set_aside_another(self) -> None:
        """Keep what lies in the folder where it is of this very training; else move it aside."""
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
            aside = self.folder.with_name(f"{self.name}.{time.strftime('%Y%m%d-%H%M%S')}")
            self.folder.rename(aside)
            log.warning("%s was of other data, recipe or start: now %s", self.folder, aside)
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint.write_text(path, text)

    def run(self, rank: int) -> None:
        """Train unless it is done, then save weights and card."""
        if (self.folder / CARD).is_file():
            log.info("%s is trained (%s); another SEED= trains another", self.name, self.folder)
            return
        network, came_from = self.start(rank)
        started = time.monotonic()
        history: list[Epoch] = []
        for number in range(len(self.legs)):
            history += self.leg(network, number, came_from, len(history), rank)
        if rank == 0:
            self.finish(network, came_from, history)
            log.info("%s trained in %.1f min", self.name, (time.monotonic() - started) / 60)

    def leg(
        self, network: Classifier, number: int, came_from: str, before: int, rank: int
    ) -> list[Epoch]:
        """One leg, trained or read from its file; its epochs, counted on from those `before`."""
        leg, later = self.legs[number], self.legs[number + 1 :]
        done = self.folder / LEG.format(number + 1)
        written = done.with_suffix(".json")
        if done.is_file():
            network.load_state_dict(checkpoint.read_weights(done))
            return [Epoch(**epoch) for epoch in json.loads(written.read_text())]
        if len(self.legs) > 1:
            sizes = ", ".join(f"{phase.epochs} epochs at {phase.size} px" for phase in leg.phases)
            log.info("%s: leg %d of %d, %s", self.name, number + 1, len(self.legs), sizes)
        history: list[Epoch] = []
        for epoch in fit(
            network,
            self.name,
            self.dataset,
            leg,
            pretrained=number == 0 and came_from != "scratch",
            seed=self.options.seed + 1000 * number,
            state=self.state(number),
            device=device(),
            masks=self.masks,
        ):
            pace = epoch.seconds / epoch.size**2  # of an epoch
            history.append(
                replace(
                    epoch,
                    number=before + epoch.number,
                    epochs=before + epoch.epochs + sum(each.epochs for each in later),
                    left=epoch.left + pace * work(later),
                )
            )
            log.info("%s %s", self.name, history[-1].line())
        if rank == 0:
            records: list[dict[str, Any]] = [asdict(epoch) for epoch in history]
            checkpoint.write_text(written, json.dumps(records, indent=1) + "\n")
            checkpoint.write_weights(done, network.state_dict())
            self.state(number).unlink(missing_ok=True)
        return history

    def state(self, number: int) -> Path:
        """Where a leg's state lies while it is under way."""
        return self.folder / STATE.format(number + 1)

    def start(self, rank: int) -> tuple[Classifier, str]:
        """The network to fit and where its weights come from; a state will replace them."""
        note = self.folder / "init.txt"
        dilated, dropout = self.legs[-1].dilated, self.legs[-1].dropout
        torch.manual_seed(self.options.seed)
        begun = [self.folder / LEG.format(1), self.state(0)]
        if any(path.is_file() for path in begun) and note.is_file():
            network, came_from = (
                build(self.name, dilated=dilated, dropout=dropout),
                note.read_text(),
            )
        else:
            network, came_from = initialise(
                self.name, self.options.init, dilated=dilated, dropout=dropout
            )
            if rank == 0:
                checkpoint.write_text(note, came_from)
        log.info(
            "%s: up to %d epochs, %s",
            self.name,
            sum(leg.epochs for leg in self.legs),
            "from scratch: there is nothing to preserve, so every stage learns from the start"
            if came_from == "scratch"
            else f"from {came_from} weights, unfreezing from the head down",
        )
        return network, came_from

    def finish(self, network: Classifier, came_from: str, history: list[Epoch]) -> None:
        """Save weights, card and history."""
        records: list[dict[str, Any]] = [asdict(epoch) for epoch in history]
        checkpoint.write_text(self.folder / HISTORY, json.dumps(records, indent=1) + "\n")
        training = card_fields.Training(
            data=card_fields.Dataset(
                name=self.dataset.name, sha256=self.dataset.sha256, counts=self.dataset.counts()
            ),
            seed=self.options.seed,
            split_seed=self.options.split_by,
            init=came_from,
            preset=self.preset,
            lungs=self.lung_masks(),
            recipes=tuple(leg.as_dict() for leg in self.legs),
        )
        checkpoint.save(
            self.folder,
            network,
            card.trained_card(network, self.name, self.legs[-1], training),
        )

    def lung_masks(self) -> card_fields.LungMasks | None:
        """What the card says of the lung masks that the network was trained with."""
        if self.masks is None:
            return None
        fitted = self.masks.present[self.dataset.rows(split.FIT)]
        return card_fields.LungMasks(images=int(fitted.sum()), sha256=self.masks.sha256)
