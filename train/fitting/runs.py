"""A run: networks trained on one data set, each in its own folder below the run's."""

import logging
import os
from pathlib import Path

from train.data import dataset as datasets
from train.data import lung_masks
from train.data.dataset import Dataset
from train.data.lung_masks import LungMasks
from train.fitting import allocator, run_facts
from train.fitting.network_training import NetworkTraining
from train.fitting.options import Options, data_folder, preset
from train.fitting.process_group import first_rank_first
from train.fitting.recipes import legs
from train.fitting.run_facts import RunFacts

log = logging.getLogger(__name__)

LATEST = "latest"


def train(options: Options, rank: int = 0) -> Path:
    """Train every network that is not finished; returns the run's folder.

    An interrupted network resumes from its last state. A finished network with the same data,
    recipe, seed and initial weights is not trained again.
    """
    allocator.keep_freed_memory()
    preset_name = preset(options.preset)
    recipes = {name: legs(preset_name, name) for name in options.networks}
    sizes = {network_legs[-1].size for network_legs in recipes.values()}
    with first_rank_first(rank):
        root = data_folder(options.data)  # may draw the phantoms
        datasets_by_size = {size: load_dataset(options, root, size) for size in sizes}
    dataset = next(iter(datasets_by_size.values()))
    folder = options.runs / f"{dataset.name}-{preset_name}-{_seed_suffix(options)}"
    if rank == 0:
        _write_facts(folder, dataset, options, root, preset_name)
    for name, network_legs in recipes.items():
        dataset = datasets_by_size[network_legs[-1].size]
        masks = load_masks(options.masks, dataset)
        training = NetworkTraining(
            folder / name, name, dataset, network_legs, preset_name, options, masks
        )
        with first_rank_first(rank):
            if rank == 0:
                training.set_aside_stale()
        training.run(rank)
        if rank == 0:
            _point_latest(folder)
    return folder


def _seed_suffix(options: Options) -> str:
    """The seeds in a run's name: that of the split only if it differs."""
    if options.split_by == options.seed:
        return f"seed{options.seed}"
    return f"seed{options.seed}-split{options.split_by}"


def load_dataset(options: Options, root: Path, size: int) -> Dataset:
    """The data set at `root` and `size` pixels a side, split as the options say."""
    return datasets.load(
        root, size, seed=options.split_by, patient=options.patient, skip_broken=options.skip_broken
    )


def load_masks(root: Path | None, dataset: Dataset) -> LungMasks | None:
    """The lung masks of a data set, at its size; None without a folder of masks.

    Raises:
        FileNotFoundError: the folder does not exist.
        DataError: no training image has a mask, or a file can't be decoded.
    """
    if root is None:
        return None
    if not root.is_dir():
        raise FileNotFoundError(f"MASKS={root}: there is no such folder")
    return lung_masks.read(root, dataset.images, dataset.pixels.shape[-1])


def _write_facts(
    folder: Path, dataset: Dataset, options: Options, root: Path, preset_name: str
) -> None:
    """Write split.csv (file, patient, part) and run.json (data, preset, options) into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    datasets.write_split(dataset, folder / "split.csv")
    log.info("%s\nthe split, file by file: %s", datasets.table(dataset), folder / "split.csv")
    facts = RunFacts(
        data=str(root.resolve()),
        preset=preset_name,
        seed=options.seed,
        split_seed=options.split_by,
        patient=options.patient,
        masks=str(options.masks.resolve()) if options.masks else None,
        skip_broken=options.skip_broken,
        networks=options.networks,
    )
    run_facts.write(folder, facts)


def _point_latest(folder: Path) -> None:
    """Make `latest` a link to this run, which finished a network last."""
    link = folder.with_name(f".{LATEST}.{os.getpid()}")
    link.symlink_to(folder.name)
    link.replace(folder.with_name(LATEST))
