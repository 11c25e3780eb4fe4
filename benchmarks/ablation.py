"""What each part of a recipe is worth: `python -m benchmarks.ablation --data … --masks …`.

The recipe as it is with three seeds first, whose spread says what is noise; then one change at a
time, with one seed or with those of `--seeds`; all on the same parts of the data. Judged on
`block-select`, as it is and under the stress set, and on `random`; never on test. Every finished
cell is a line in `docs/results/ablation-….jsonl`, an unfinished one goes on where it was. The same
command may run several times at once, with OMP_NUM_THREADS=1 on a CPU: each takes what the others
have not, which on two cores is faster than one cell after another (docs/log.md).
"""

import argparse
import fcntl
import json
import logging
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor

from train import (
    checkpoint,
    correlation,
    data,
    faithful,
    lung_evidence,
    memory,
    sections,
    split,
    stress,
)
from train.data import Dataset
from train.judge import calibrate_fitted
from train.lung_masks import LungMasks
from train.networks import NETWORKS, Classifier, build
from train.options import Options, device
from train.recipes import PRESETS, Legs, Phase, Recipe, legs
from train.run import Training, masks_of

SEEDS = (0, 1, 2)
SPLIT_SEED = 0  # the same images for all
AS_IT_IS = "as it is"
STRETCHED = "grey stretched to its 1st and 99th percentile"
# The best of twelve trials (docs/log.md).
TUNED = {
    "learning_rate": 0.001243,
    "weight_decay": 0.09347,
    "dropout": 0.3014,
    "label_smoothing": 0.06539,
    "strength": 0.9084,
}
FOLDER, RESULTS = Path("runs/ablation"), Path("docs/results")

log = logging.getLogger("train")


def changes(legs: Legs) -> dict[str, Legs]:
    """Variants of the recipe, by name: each changes one setting in every leg.

    A recipe of one leg also gets the settings that `make tune` found.
    """

    def each(change: Callable[[Recipe], Recipe]) -> Legs:
        return tuple(change(leg) for leg in legs)

    def with_(**values: Any) -> Legs:
        return each(lambda leg: replace(leg, **values))

    def no_cutouts(leg: Recipe) -> Recipe:
        return replace(leg, strength=replace(leg.strength, cutout_share=0.0))

    def stretched(leg: Recipe) -> Recipe:
        return replace(leg, strength=replace(leg.strength, stretch=0.29))

    def larger(leg: Recipe) -> Recipe:
        phases = tuple(Phase(round(phase.size * 4 / 3), phase.epochs) for phase in leg.phases)
        return replace(leg, phases=phases)

    variants = {
        "no average of the weights": with_(average=0.0),
        "no label smoothing": with_(label_smoothing=0.0),
        "no dropout": with_(dropout=0.0),
        "mixup, 0.2": with_(mixup=0.2),
        STRETCHED: legs,  # the network is another
        "no cut-outs": each(no_cutouts),
        "stretch 0.75 to 1.33": each(stretched),
        "not dilated": with_(dilated=False),
        "no lung training": with_(outside=0.0, lung_penalty=0.0),
        "outside changed, no penalty": with_(lung_penalty=0.0),
        "penalty, outside left": with_(outside=0.0),
        "a third larger": each(larger),
    }
    if len(legs) > 1:
        return variants
    from train.tune import changed  # optuna is not everywhere where a full recipe is run

    return {**variants, "as tuned": each(lambda leg: changed(leg, TUNED))}


def stretch_grey(_network: Classifier, inputs: tuple[Tensor]) -> Tensor:
    """Before the network, in training and later: each image's percentiles become black and white.

    Pixels (N, S, S), 0..255, to the same range, in float.
    """
    pixels = inputs[0].float()
    ends = pixels.flatten(1).quantile(torch.tensor([0.01, 0.99], device=pixels.device), dim=1)
    low, high = ends[:, :, None, None]
    return (255 * (pixels - low) / (high - low).clamp(min=1)).clamp(0, 255)


class Stretched(Training):
    """A training whose network stretches the grey of its images first."""

    def start(self, rank: int) -> tuple[Classifier, str]:
        """The network to fit, stretching, and where its weights come from."""
        network, came_from = super().start(rank)
        network.register_forward_pre_hook(stretch_grey)
        return network, came_from


@dataclass(frozen=True)
class Cell:
    """One training, calibrated as `train.judge.calibrate_fitted` does."""

    change: str
    seed: int
    select_auc: float
    select_loss: float
    stress_auc: float
    stress_loss: float
    random_auc: float
    random_loss: float
    inside: float | None  # share of the evidence in the lungs
    agreement: float | None  # rank correlation of the maps with the first seed's, in the mean
    moves: float | None = None  # of the logit: lungs swapped, as a multiple of all else swapped


def judge(
    network: Classifier,
    change: str,
    seed: int,
    dataset: Dataset,
    masks: LungMasks | None,
    first: Classifier | None,
) -> Cell:
    parts = [split.SELECT, split.RANDOM]
    of = {part: dataset.labels[dataset.rows(part)] for part in parts}
    network, model = calibrate_fitted(network, change, dataset, parts, device())
    scores = {part: model.scores(part) for part in parts}
    borne = stress.mean(stress.measure(network, model, dataset))
    inside = moves = None
    if masks is not None:
        measured = lung_evidence.measure(network, dataset, masks, dataset.rows(split.SELECT))
        inside = float(measured.share.mean())
        moves = float(measured.lungs_swapped.mean() / measured.outside_swapped.mean())
    agreement = None
    if first is not None:
        pixels = dataset.pixels[dataset.rows(split.SELECT)]
        maps = [faithful.decisions(one, pixels)[1] for one in (network, first)]
        alike = correlation.spearman(*faithful.on_one_grid(*maps))
        agreement = float(alike.mean())
    return Cell(
        change=change,
        seed=seed,
        select_auc=float(roc_auc_score(of[split.SELECT], scores[split.SELECT])),
        select_loss=float(log_loss(of[split.SELECT], scores[split.SELECT], labels=[0, 1])),
        stress_auc=borne.auc,
        stress_loss=borne.log_loss,
        random_auc=float(roc_auc_score(of[split.RANDOM], scores[split.RANDOM])),
        random_loss=float(log_loss(of[split.RANDOM], scores[split.RANDOM], labels=[0, 1])),
        inside=inside,
        agreement=agreement,
        moves=moves,
    )


@dataclass(frozen=True)
class Trial:
    """What is to be trained: a network by a recipe, as it is or changed, with one seed."""

    network: str
    preset: str
    change: str
    legs: Legs
    seed: int

    @property
    def folder(self) -> Path:
        """Where it is trained."""
        return (
            FOLDER
            / f"{self.network}-{self.preset}"
            / f"{self.change}-{self.seed}".replace(" ", "-")
        )

    @property
    def first(self) -> Path:
        """The weights whose maps those of all others are compared with."""
        return self.folder.with_name("first.safetensors")


def train(trial: Trial, root: Path, mask_folder: Path | None) -> Cell:
    dataset = data.load(root, trial.legs[-1].size, seed=SPLIT_SEED)
    masks = masks_of(mask_folder, dataset)
    kind = Stretched if trial.change == STRETCHED else Training
    options = Options(init="scratch", seed=trial.seed, split_seed=SPLIT_SEED)
    training = kind(trial.folder, trial.network, dataset, trial.legs, trial.preset, options, masks)
    training.set_aside_another()
    log.info("%s, seed %d, in %s", trial.change, trial.seed, trial.folder)
    training.run(0)
    network, _ = checkpoint.load(trial.folder)
    if trial.change == STRETCHED:
        network.register_forward_pre_hook(stretch_grey)
    first = None
    if (trial.change, trial.seed) == (AS_IT_IS, SEEDS[0]):
        shutil.copyfile(trial.folder / checkpoint.WEIGHTS, trial.first)
    elif trial.first.is_file():
        first = build(trial.network, dilated=True)
        first.load_state_dict(checkpoint.read_weights(trial.first))
        first.eval()
    return judge(network, trial.change, trial.seed, dataset, masks, first)


@contextmanager
def claim(trial: Trial) -> Iterator[bool]:
    """Whether a cell is ours, and not another process's; for as long as this one runs."""
    trial.folder.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{trial.folder}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def worth(cells: Sequence[Cell]) -> list[list[str]]:
    """A row for the three seeds as they are, and for each change its difference from their mean.

    A change is the mean of its seeds. It counts when log-loss or AUC on `block-select` is better by
    more than twice the spread (standard deviation) of the seeds as they are, under the stress set
    too, and `random` does not fall by more.
    """
    of: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        of[cell.change].append(cell)
    base = of.pop(AS_IT_IS)
    keys = ("select_auc", "select_loss", "stress_auc", "stress_loss", "random_auc")
    maps = ("inside", "moves", "agreement")
    rows = [[AS_IT_IS, str(len(base)), *[_spread(base, key) for key in (*keys, *maps)], ""]]
    for change, its in of.items():
        better = {key: _better(base, its, key) for key in keys}
        counts = (
            max(better["select_auc"], better["select_loss"]) > 2
            and max(better["stress_auc"], better["stress_loss"]) > 2
            and better["random_auc"] >= -2
        )
        differences = [_difference(base, its, key) for key in (*keys, *maps)]
        rows.append([change, str(len(its)), *differences, "yes" if counts else "no"])
    return rows


def _values(cells: Sequence[Cell], key: str) -> list[float]:
    return [value for cell in cells if (value := getattr(cell, key)) is not None]


def _spread(base: Sequence[Cell], key: str) -> str:
    values = _values(base, key)
    if len(values) < 2:
        return f"{values[0]:.4f}" if values else "–"
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def _better(base: Sequence[Cell], its: Sequence[Cell], key: str) -> float:
    """By how many spreads a change is better."""
    values = _values(base, key)
    gain = float(np.mean(_values(its, key)) - np.mean(values))
    sign = -1 if key.endswith("loss") else 1
    return sign * gain / max(float(np.std(values, ddof=1)), 1e-9)


def _difference(base: Sequence[Cell], its: Sequence[Cell], key: str) -> str:
    values, found = _values(base, key), _values(its, key)
    return f"{np.mean(found) - np.mean(values):+.4f}" if values and found else "–"


def report(name: str, preset: str, cells: Sequence[Cell]) -> str:
    head = ["change", "seeds", "AUC", "log-loss", "AUC, stress", "log-loss, stress", "AUC, random"]
    return (
        f"# Ablation\n\n{name}, preset {preset}, from scratch. `block-select` as it is and under "
        "the stress set, and `random`, all calibrated on `block-select`; the share of the decision "
        "map's evidence in the lungs; how far the logit moves when the lungs are swapped, as a "
        "multiple of how far when all else is; the maps' rank correlation with the first seed's. "
        "First the recipe as it is, mean and standard deviation of its seeds, then what one change "
        "adds in the mean of its own. It counts where log-loss or AUC gains more than twice that "
        "deviation on both, and `random` does not lose as much.\n\n"
        + sections.table(
            [*head, "in the lungs", "logit moves", "maps alike", "counts"], worth(cells)
        )
    )


def _done(path: Path) -> list[Cell]:
    return (
        [Cell(**json.loads(line)) for line in path.read_text().splitlines()]
        if path.is_file()
        else []
    )


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
    memory.keep()
    recipe = legs(options.preset, options.network)
    wanted = [(AS_IT_IS, recipe, seed) for seed in SEEDS]
    known: Mapping[str, Legs] = changes(recipe)
    for change in options.only or known:
        if change not in known:
            parser.error(f"unknown change {change!r}: known are {', '.join(known)}")
        wanted += [(change, known[change], seed) for seed in options.seeds]
    stem = f"ablation-{options.network}-{options.preset}"
    path, table = RESULTS / f"{stem}.jsonl", RESULTS / f"{stem}.md"
    RESULTS.mkdir(parents=True, exist_ok=True)
    for change, its, seed in wanted:
        trial = Trial(options.network, options.preset, change, its, seed)
        with claim(trial) as ours:
            if not ours or (change, seed) in {(cell.change, cell.seed) for cell in _done(path)}:
                continue
            cell = train(trial, options.data, options.masks)
            with path.open("a") as file:
                file.write(json.dumps(asdict(cell)) + "\n")
            if not options.keep:
                shutil.rmtree(trial.folder)
        cells = _done(path)
        if {(AS_IT_IS, seed) for seed in SEEDS} <= {(cell.change, cell.seed) for cell in cells}:
            checkpoint.write_text(table, report(options.network, options.preset, cells))
    log.info("table: %s", table)


if __name__ == "__main__":
    main()
