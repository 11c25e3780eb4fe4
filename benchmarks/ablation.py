"""What each part of the quick recipe is worth: `python -m benchmarks.ablation --data … --masks …`.

The recipe as it is with three seeds first, whose spread says what is noise; then one change at a
time. Judged on `block-select`, as it is and under the stress set, and on `random`; never on test.
Every finished cell is a line in `docs/results/ablation-….jsonl`, an unfinished one goes on where it
was. The same command may run twice at once, with OMP_NUM_THREADS=1: each takes what the other has
not, which on two cores is faster than one cell after another (docs/log.md).
"""

import argparse
import fcntl
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor

from train import checkpoint, data, faithful, lungs, memory, sections, split, stress
from train.data import Dataset
from train.fit import fit
from train.judge import judge_fitted
from train.lungs import Lungs
from train.networks import NETWORKS, Classifier, build
from train.options import device
from train.recipes import PRESETS, Phase, Recipe, legs

SEEDS = (0, 1, 2)
AS_IT_IS = "as it is"
STRETCHED = "grey stretched to its 1st and 99th percentile"
FOLDER, RESULTS = Path("runs/ablation"), Path("docs/results")

log = logging.getLogger("train")


def changes(recipe: Recipe) -> dict[str, Recipe]:
    """The recipe with one thing changed, by what it is."""
    strength = recipe.strength
    larger = tuple(Phase(round(phase.size * 4 / 3), phase.epochs) for phase in recipe.phases)
    return {
        "no average of the weights": replace(recipe, average=0.0),
        "no label smoothing": replace(recipe, label_smoothing=0.0),
        "no dropout": replace(recipe, dropout=0.0),
        "mixup, 0.2": replace(recipe, mixup=0.2),
        STRETCHED: recipe,  # the network is another
        "no cut-outs": replace(recipe, strength=replace(strength, cutout_share=0.0)),
        "stretch 0.75 to 1.33": replace(recipe, strength=replace(strength, stretch=0.29)),
        "not dilated": replace(recipe, dilated=False),
        "no lung training": replace(recipe, outside=0.0, lung_penalty=0.0),
        "outside changed, no penalty": replace(recipe, lung_penalty=0.0),
        "penalty, outside left": replace(recipe, outside=0.0),
        "a third larger": replace(recipe, phases=larger),
    }


def stretch_grey(_network: Classifier, inputs: tuple[Tensor]) -> Tensor:
    """Before the network, in training and later: each image's percentiles become black and white.

    Pixels (N, S, S), 0..255, to the same range, in float.
    """
    pixels = inputs[0].float()
    ends = pixels.flatten(1).quantile(torch.tensor([0.01, 0.99], device=pixels.device), dim=1)
    low, high = ends[:, :, None, None]
    return (255 * (pixels - low) / (high - low).clamp(min=1)).clamp(0, 255)


@dataclass(frozen=True)
class Cell:
    """One training, judged as `train.judge.judge_fitted` does."""

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
    masks: Lungs | None,
    first: Classifier | None,
) -> Cell:
    parts = [split.SELECT, split.RANDOM]
    of = {part: dataset.labels[dataset.rows(part)] for part in parts}
    judged = judge_fitted(network, change, dataset, parts, device())
    scores = {part: judged.scores(part) for part in parts}
    borne = stress.mean(stress.measure(network, judged, dataset, device()))
    inside = moves = None
    if masks is not None:
        measured = lungs.measure(network, dataset, masks, dataset.rows(split.SELECT))
        inside = float(measured.share.mean())
        moves = float(measured.lungs_swapped.mean() / measured.outside_swapped.mean())
    agreement = None
    if first is not None:
        pixels = dataset.pixels[dataset.rows(split.SELECT)]
        maps = [faithful.decisions(one, pixels)[1] for one in (network, first)]
        alike = faithful.rank_correlation(*faithful.on_one_grid(*maps))
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


def train(
    name: str, change: str, recipe: Recipe, seed: int, root: Path, masks: Path | None
) -> Cell:
    dataset = data.load(root, recipe.size)
    its = lungs.read(masks, dataset.images, recipe.size) if masks else None
    torch.manual_seed(seed)
    network = build(name, dilated=recipe.dilated, dropout=recipe.dropout)
    if change == STRETCHED:
        network.register_forward_pre_hook(stretch_grey)
    state = FOLDER / f"{name}-{change}-{seed}.state".replace(" ", "-")
    epochs = fit(
        network, name, dataset, recipe,
        pretrained=False, seed=seed, state=state, device=device(), lungs=its,
    )  # fmt: skip
    for epoch in epochs:
        log.info("%s, seed %d: %s", change, seed, epoch.line())
    kept = FOLDER / f"{name}-first.safetensors"
    first = None
    if (change, seed) == (AS_IT_IS, SEEDS[0]):
        checkpoint.write_weights(kept, network.state_dict())
    elif kept.is_file():
        first = build(name, dilated=True, dropout=0.0)
        first.load_state_dict(checkpoint.read_weights(kept))
        first.eval()
    cell = judge(network, change, seed, dataset, its, first)
    state.unlink(missing_ok=True)
    return cell


@contextmanager
def claim(name: str, change: str, seed: int) -> Iterator[bool]:
    """Whether a cell is ours, and not another process's; for as long as this one runs."""
    with (FOLDER / f"{name}-{change}-{seed}.lock".replace(" ", "-")).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def worth(cells: Sequence[Cell]) -> list[list[str]]:
    """A row for the three seeds as they are, and for each change its difference from their mean.

    A change counts when log-loss or AUC on `block-select` is better by more than twice the seeds'
    spread (their standard deviation), under the stress set too, and `random` does not fall by more.
    """
    base = [cell for cell in cells if cell.change == AS_IT_IS]
    keys = ("select_auc", "select_loss", "stress_auc", "stress_loss", "random_auc")
    maps = ("inside", "moves", "agreement")
    rows = [[AS_IT_IS, *[_spread(base, key) for key in (*keys, *maps)], ""]]
    for cell in cells:
        if cell.change == AS_IT_IS:
            continue
        better = {key: _better(base, cell, key) for key in keys}
        counts = (
            max(better["select_auc"], better["select_loss"]) > 2
            and max(better["stress_auc"], better["stress_loss"]) > 2
            and better["random_auc"] >= -2
        )
        differences = [_difference(base, cell, key) for key in (*keys, *maps)]
        rows.append([cell.change, *differences, "yes" if counts else "no"])
    return rows


def _values(base: Sequence[Cell], key: str) -> list[float]:
    return [value for cell in base if (value := getattr(cell, key)) is not None]


def _spread(base: Sequence[Cell], key: str) -> str:
    values = _values(base, key)
    if len(values) < 2:
        return f"{values[0]:.4f}" if values else "–"
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def _better(base: Sequence[Cell], cell: Cell, key: str) -> float:
    """By how many spreads a change is better."""
    values = _values(base, key)
    gain = getattr(cell, key) - float(np.mean(values))
    sign = -1 if key.endswith("loss") else 1
    return sign * gain / max(float(np.std(values, ddof=1)), 1e-9)


def _difference(base: Sequence[Cell], cell: Cell, key: str) -> str:
    values, found = _values(base, key), getattr(cell, key)
    return "–" if found is None or not values else f"{found - np.mean(values):+.4f}"


def report(name: str, preset: str, cells: Sequence[Cell]) -> str:
    head = ["change", "AUC", "log-loss", "AUC, stress", "log-loss, stress", "AUC, random"]
    return (
        f"# Ablation\n\n{name}, preset {preset}, from scratch. `block-select` as it is and under "
        "the stress set, and `random`, all calibrated on `block-select`; the share of the decision "
        "map's evidence in the lungs; how far the logit moves when the lungs are swapped, as a "
        "multiple of how far when all else is; the maps' rank correlation with the first seed's. "
        "First the recipe as it is, mean and standard deviation of three seeds, then what one "
        "change with one seed adds. It counts where log-loss or AUC gains more than twice that "
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
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    memory.keep()
    recipe = legs(options.preset, options.network)[0]
    wanted: list[tuple[str, Recipe, int]] = [(AS_IT_IS, recipe, seed) for seed in SEEDS]
    known: Mapping[str, Recipe] = changes(recipe)
    for change in options.only or known:
        if change not in known:
            parser.error(f"unknown change {change!r}: known are {', '.join(known)}")
        wanted.append((change, known[change], SEEDS[0]))
    path = RESULTS / f"ablation-{options.network}-{options.preset}.jsonl"
    for folder in (FOLDER, RESULTS):
        folder.mkdir(parents=True, exist_ok=True)
    for change, its, seed in wanted:
        with claim(options.network, change, seed) as ours:
            if not ours or (change, seed) in {(cell.change, cell.seed) for cell in _done(path)}:
                continue
            cell = train(options.network, change, its, seed, options.data, options.masks)
            with path.open("a") as file:
                file.write(json.dumps(asdict(cell)) + "\n")
        cells = _done(path)
        if {(AS_IT_IS, seed) for seed in SEEDS} <= {(cell.change, cell.seed) for cell in cells}:
            text = report(options.network, options.preset, cells)
            checkpoint.write_text(RESULTS / "ablation.md", text)
    log.info("table: %s", RESULTS / "ablation.md")


if __name__ == "__main__":
    main()
