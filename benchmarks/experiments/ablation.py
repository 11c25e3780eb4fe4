"""What each part of a recipe adds: `python -m benchmarks.experiments.ablation --data … --masks …`.

The unchanged recipe is trained with three seeds, whose standard deviation is the noise. Then one
change at a time is trained, with one seed or those of `--seeds`, on the same parts of the data set.
Networks are judged on `block-select`, unchanged and under corruptions, and on `random`; never on
test. Every finished cell is a line in `docs/results/ablation-….jsonl`; an unfinished one resumes.
The same command may run several times in parallel, with OMP_NUM_THREADS=1 on a CPU: each process
takes cells that no other has, which on two cores is faster than one cell after another
(docs/log.md).
"""

import argparse
import fcntl
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.experiments.ablation_changes import (
    STRETCHED,
    UNCHANGED,
    StretchedTraining,
    changes,
    stretch_grey,
)
from benchmarks.experiments.ablation_report import Cell, read_cells, report
from train.data import dataset as datasets
from train.data import splits
from train.data.dataset import Dataset
from train.data.lung_masks import LungMasks
from train.evaluation import cam_faithfulness, lung_evidence, robustness
from train.evaluation.calibrated_model import calibrate_fitted
from train.fitting import allocator
from train.fitting.network_training import NetworkTraining
from train.fitting.options import Options, device
from train.fitting.recipes import PRESETS, Legs, legs
from train.fitting.runs import load_masks
from train.metrics import correlation
from train.model import checkpoint
from train.model.networks import NETWORKS, Classifier, build

SEEDS = (0, 1, 2)
SPLIT_SEED = 0  # the same parts for all cells
FOLDER, RESULTS = Path("runs/ablation"), Path("docs/results")

log = logging.getLogger("train")


@dataclass(frozen=True)
class Trial:
    """A training of the ablation: a network by a recipe, unchanged or changed, with a seed."""

    network: str
    preset: str
    change: str
    legs: Legs
    seed: int

    @property
    def folder(self) -> Path:
        """Folder of the training's run."""
        name = f"{self.change}-{self.seed}".replace(" ", "-")
        return FOLDER / f"{self.network}-{self.preset}" / name

    @property
    def first(self) -> Path:
        """Path of the first seed's weights, whose maps the others' are compared with."""
        return self.folder.with_name("first.safetensors")


def judge(
    network: Classifier,
    change: str,
    seed: int,
    dataset: Dataset,
    masks: LungMasks | None,
    first: Classifier | None,
) -> Cell:
    """Calibrate a fitted network and measure its cell.

    Without `masks` the cell has no figures of the lungs, without `first` no agreement of maps.
    """
    parts = [splits.SELECT, splits.RANDOM]
    labels = {part: dataset.labels[dataset.rows(part)] for part in parts}
    network, model = calibrate_fitted(network, change, dataset, parts, device())
    scores = {part: model.scores(part) for part in parts}
    robust = robustness.mean(robustness.measure(network, model, dataset))
    inside = moves = None
    if masks is not None:
        evidence = lung_evidence.measure(network, dataset, masks, dataset.rows(splits.SELECT))
        inside = float(evidence.share.mean())
        moves = float(evidence.lungs_swapped.mean() / evidence.outside_swapped.mean())
    agreement = None
    if first is not None:
        pixels = dataset.pixels[dataset.rows(splits.SELECT)]
        maps = [cam_faithfulness.decisions(fitted, pixels)[1] for fitted in (network, first)]
        correlations = correlation.spearman(*cam_faithfulness.to_common_grid(*maps))
        agreement = float(correlations.mean())
    select, random = splits.SELECT, splits.RANDOM
    return Cell(
        change=change,
        seed=seed,
        select_auc=float(roc_auc_score(labels[select], scores[select])),
        select_loss=float(log_loss(labels[select], scores[select], labels=[0, 1])),
        stress_auc=robust.auc,
        stress_loss=robust.log_loss,
        random_auc=float(roc_auc_score(labels[random], scores[random])),
        random_loss=float(log_loss(labels[random], scores[random], labels=[0, 1])),
        inside=inside,
        agreement=agreement,
        moves=moves,
    )


def train(trial: Trial, root: Path, mask_folder: Path | None) -> Cell:
    """Train a trial on the data set at `root` and measure its cell."""
    dataset = datasets.load(root, trial.legs[-1].size, seed=SPLIT_SEED)
    masks = load_masks(mask_folder, dataset)
    kind = StretchedTraining if trial.change == STRETCHED else NetworkTraining
    options = Options(init="scratch", seed=trial.seed, split_seed=SPLIT_SEED)
    training = kind(trial.folder, trial.network, dataset, trial.legs, trial.preset, options, masks)
    training.set_aside_stale()
    log.info("%s, seed %d, in %s", trial.change, trial.seed, trial.folder)
    training.run(0)
    network, _ = checkpoint.load(trial.folder)
    if trial.change == STRETCHED:
        network.register_forward_pre_hook(stretch_grey)
    first = None
    if (trial.change, trial.seed) == (UNCHANGED, SEEDS[0]):
        shutil.copyfile(trial.folder / checkpoint.WEIGHTS, trial.first)
    elif trial.first.is_file():
        first = build(trial.network, dilated=True)
        first.load_state_dict(checkpoint.read_weights(trial.first))
        first.eval()
    return judge(network, trial.change, trial.seed, dataset, masks, first)


@contextmanager
def claim(trial: Trial) -> Iterator[bool]:
    """Whether this process has the trial for itself; the claim ends with the block."""
    trial.folder.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{trial.folder}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--network", choices=list(NETWORKS), default="resnet50")
    parser.add_argument("--preset", choices=list(PRESETS), default="quick")
    parser.add_argument("--only", nargs="+", help="some of the changes")
    parser.add_argument("--seeds", nargs="+", type=int, default=[SEEDS[0]], help="of each change")
    parser.add_argument("--keep", action="store_true", help=f"weights and cards, below {FOLDER}")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    allocator.keep_freed_memory()
    recipe = legs(options.preset, options.network)
    selected = [(UNCHANGED, recipe, seed) for seed in SEEDS]
    variants = changes(recipe)
    for change in options.only or variants:
        if change not in variants:
            parser.error(f"unknown change {change!r}: choose from {', '.join(variants)}")
        selected += [(change, variants[change], seed) for seed in options.seeds]
    stem = f"ablation-{options.network}-{options.preset}"
    path, table = RESULTS / f"{stem}.jsonl", RESULTS / f"{stem}.md"
    RESULTS.mkdir(parents=True, exist_ok=True)
    for change, variant, seed in selected:
        trial = Trial(options.network, options.preset, change, variant, seed)
        with claim(trial) as claimed:
            finished = {(cell.change, cell.seed) for cell in read_cells(path)}
            if not claimed or (change, seed) in finished:
                continue
            cell = train(trial, options.data, options.masks)
            with path.open("a") as file:
                file.write(json.dumps(asdict(cell)) + "\n")
            if not options.keep:
                shutil.rmtree(trial.folder)
        cells = read_cells(path)
        if {(UNCHANGED, seed) for seed in SEEDS} <= {(cell.change, cell.seed) for cell in cells}:
            checkpoint.write_text(table, report(options.network, options.preset, cells))
    log.info("table: %s", table)


if __name__ == "__main__":
    main()
