"""The options of a run, and the defaults that depend on the machine."""

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from arguments import option
from train.data import phantoms
from train.fitting.recipes import PRESETS
from train.model.networks import NETWORKS, architecture

log = logging.getLogger(__name__)

KAGGLE = Path("data/chest_xray")  # where `make data` puts Kaggle's set
PHANTOMS = Path("data/phantoms")


def network_names(text: str) -> tuple[str, ...]:
    """Network names from one command line argument, separated by spaces or commas.

    Raises:
        ArgumentTypeError: an unknown name; the message lists the names.
    """
    names = tuple(text.replace(",", " ").split())
    for name in names:
        if name not in NETWORKS:
            names_listed = ", ".join(NETWORKS)
            raise argparse.ArgumentTypeError(f"unknown network {name!r}: known are {names_listed}")
    return names


@dataclass(frozen=True)
class Options:
    """The options of a run; None means a default that is chosen and logged."""

    data: Path | None = option(None, "folder with train/{NORMAL,PNEUMONIA} …")
    init: str | None = option(None, "imagenet, scratch, published, or weights to go on from")
    preset: str | None = option(None, "how long to train", choices=list(PRESETS))
    networks: tuple[str, ...] = option(tuple(NETWORKS), "which, in quotes", type=network_names)
    seed: int = option(0, "of split, start and training")
    split_seed: int | None = option(None, "of the split, where it is another")
    patient: str | None = option(None, "regex on the file's name, or table.csv:column")
    masks: Path | None = option(None, "lungs of training images: folder/<class>/<image's name>.png")
    skip_broken: bool = option(False, "leave broken files out")
    runs: Path = option(Path("runs"), "where runs go")

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown network or preset; the message lists the names."""
        for network in self.networks:
            architecture(network)
        if self.preset is not None and self.preset not in PRESETS:
            raise ValueError(f"unknown preset {self.preset!r}: known are {', '.join(PRESETS)}")

    @property
    def split_by(self) -> int:
        """The seed of the split."""
        return self.seed if self.split_seed is None else self.split_seed


def data_folder(data: Path | None) -> Path:
    """The data set's folder: `data`, else Kaggle's set if present, else phantoms, with a warning.

    Raises:
        FileNotFoundError: `data` does not exist.
    """
    if data is not None:
        if not data.is_dir():
            raise FileNotFoundError(f"DATA={data}: there is no such folder")
        return data
    if KAGGLE.is_dir():
        log.info("data: %s", KAGGLE)
        return KAGGLE
    log.warning(
        "NO X-RAYS GIVEN: training on built-in PHANTOMS, which are drawings. The networks will be "
        "of no use on patients. Name your images with DATA=folder, or fetch Kaggle's: make data"
    )
    phantoms.write(PHANTOMS, phantoms.COUNTS)
    return PHANTOMS


def preset(name: str | None) -> str:
    """The preset `name`; None means full on a machine with a GPU, else quick."""
    if name is not None:
        return name
    chosen = "full" if torch.cuda.is_available() else "quick"
    log.info("preset: %s (PRESET=%s to choose)", chosen, "|".join(PRESETS))
    return chosen


def device() -> torch.device:
    """The GPU of this process if the machine has one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
