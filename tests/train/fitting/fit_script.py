"""Fit the small network: `python -m tests.train.fitting.fit_script IMAGES FOLDER [NETWORK]`."""

import sys
import time
from pathlib import Path

import torch

from tests.small import RECIPE, SMALL, SMALL_FROZEN
from train.data import dataset as datasets
from train.fitting.loop import fit
from train.fitting.process_group import processes
from train.model import checkpoint
from train.model.networks import NETWORKS, build


def main(images: Path, folder: Path, name: str = "small") -> None:
    NETWORKS["small"], NETWORKS["small-frozen"] = SMALL, SMALL_FROZEN
    with processes() as rank:
        folder.mkdir(exist_ok=True, parents=True)
        dataset = datasets.load(images, 32, cache=folder / f"cache{rank}")
        torch.manual_seed(0)
        network = build(name)
        for _ in fit(
            network, name, dataset, RECIPE,
            pretrained=False, seed=0, state=folder / "state.pt",
        ):  # fmt: skip
            time.sleep(0.3)  # long enough to be killed during an epoch
        if rank == 0:
            checkpoint.write_weights(folder / checkpoint.WEIGHTS, network.state_dict())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
