"""How many images adapt a network: `python -m benchmarks.experiments.adaptation --data …`.

A network is trained without the last quarter of the ids of every series, which stands for another
hospital. It is then adapted on 50, 100, 200 and 400 images of that quarter, drawn by patient, and
evaluated on the quarter's remaining patients: three draws and four methods, with the same number of
steps. The images are split as by `make train INIT=…`. The test images are not used. Every finished
cell is a line in `docs/results/adaptation-….jsonl`; an interrupted base training resumes.
"""

import argparse
import json
import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from train.data import dataset as datasets
from train.data import splits
from train.data.dataset import Dataset
from train.fitting import allocator
from train.fitting.loop import fit
from train.fitting.options import device
from train.fitting.recipes import PRESETS, Phase, Recipe, legs
from train.model import checkpoint
from train.model.networks import NETWORKS, build, predict
from train.report import report_sections

QUARTER = 0.25  # share of every series' patients: the last by id
IMAGES = (50, 100, 200, 400)
DRAWS = 3
STEPS = 60
UNCHANGED = "as it is"
METHODS = ("head only", "progressive unfreezing", "all at once", "from scratch")
FOLDER, RESULTS = Path("runs/adaptation"), Path("docs/results")

Rows = npt.NDArray[np.int64]

log = logging.getLogger("train")


def last_quarter(dataset: Dataset) -> Rows:
    """Rows (N,), ascending, of the folder train whose patients are the last quarter by id."""
    series = defaultdict(list)
    for row, image in enumerate(dataset.images):
        if image.folder == "train":
            series[image.subject.series].append((image.subject.order, image.subject.patient, row))
    rows: list[int] = []
    for members in series.values():
        patients = list(dict.fromkeys(patient for _, patient, _ in sorted(members)))
        last = set(patients[round((1 - QUARTER) * len(patients)) :])
        rows += [row for _, patient, row in members if patient in last]
    return np.array(sorted(rows))


def subset(dataset: Dataset, rows: Rows, tested: Rows | None = None) -> Dataset:
    """A data set of some rows with new splits; the rows `tested` become its test images."""
    tested = np.array([], np.int64) if tested is None else tested
    images = [dataset.images[row] for row in rows]
    images += [replace(dataset.images[row], folder="test") for row in tested]
    kept = np.concatenate([rows, tested])
    return replace(
        dataset, images=images, pixels=dataset.pixels[kept], parts=splits.part(images, 0)
    )


def draw(dataset: Dataset, rows: Rows, count: int, number: int) -> tuple[Rows, Rows]:
    """About `count` of the rows to adapt on, and the rows to evaluate on, by patient.

    The rows of a smaller count are among those of a larger one in the same draw. The rows to
    evaluate on are the same for every count.
    """
    patients = dataset.patients[rows]
    order = np.random.default_rng(number).permutation(np.unique(patients))
    sizes = np.array([(patients == patient).sum() for patient in order])
    ends = np.cumsum(sizes)
    adapting = order[: int(np.searchsorted(ends, count)) + 1]
    pool = order[: int(np.searchsorted(ends, max(IMAGES))) + 1]
    return rows[np.isin(patients, adapting)], rows[~np.isin(patients, pool)]


@dataclass(frozen=True)
class Cell:
    """Figures of one adaptation, on the quarter's remaining patients."""

    way: str  # the method
    images: int
    draw: int
    auc: float
    accuracy: float  # at a probability of 0.5, uncalibrated


def recipe_of(method: str, size: int, images: int) -> Recipe:
    """The recipe of a method, with the same number of steps for any number of images."""
    batch = 16
    fitted = max(batch, round(images * (1 - sum(splits.SHARES.values()))))
    epochs = max(1, round(STEPS / max(1, fitted // batch)))
    base = Recipe(phases=(Phase(size, epochs),), batch=batch, patience=epochs, warm_up=0.2)
    until = {"head only": math.inf, "progressive unfreezing": 0.5}.get(method, 0.0)
    rate = base.learning_rate if method == "from scratch" else base.pretrained_learning_rate
    return replace(base, unfreeze_until=until, learning_rate=rate)


def adapt(name: str, base: Path, method: str, dataset: Dataset, images: int, number: int) -> Cell:
    """Adapt the weights at `base` by a method and measure its cell, for the draw `number`."""
    recipe = recipe_of(method, dataset.pixels.shape[-1], images)
    torch.manual_seed(number)
    network = build(name, dilated=recipe.dilated, dropout=recipe.dropout)
    if method != "from scratch":
        network.load_state_dict(checkpoint.read_weights(base))
    if method != UNCHANGED:
        # `all at once` fits pretrained weights as if they were random: nothing is frozen.
        staged = method in ("head only", "progressive unfreezing")
        for epoch in fit(
            network, name, dataset, recipe, pretrained=staged, seed=number, device=device()
        ):
            log.debug("%s", epoch.line())
    rows = dataset.rows(splits.TEST)
    labels = dataset.labels[rows]
    logits = predict(network, torch.from_numpy(dataset.pixels[rows]), recipe.size).double().numpy()
    decision = logits[:, 1] - logits[:, 0]
    return Cell(
        way=method,
        images=images,
        draw=number,
        auc=float(roc_auc_score(labels, decision)),
        accuracy=float(((expit(decision) >= 0.5) == (labels == 1)).mean()),
    )


def train_base(name: str, preset: str, dataset: Dataset) -> Path:
    """Path of the weights of a network trained on the rest; trained once."""
    path = FOLDER / f"{name}-{preset}.safetensors"
    if path.is_file():
        return path
    recipe = legs(preset, name)[-1]
    torch.manual_seed(0)
    network = build(name, dilated=recipe.dilated, dropout=recipe.dropout)
    state = path.with_suffix(".state")
    for epoch in fit(
        network, name, dataset, recipe, pretrained=False, seed=0, state=state, device=device()
    ):
        log.info("base: %s", epoch.line())
    checkpoint.write_weights(path, network.state_dict())
    state.unlink(missing_ok=True)
    return path


def report(name: str, preset: str, cells: Sequence[Cell]) -> str:
    rows = []
    for method in (UNCHANGED, *METHODS):
        for images in sorted({cell.images for cell in cells if cell.way == method}):
            draws = [cell for cell in cells if (cell.way, cell.images) == (method, images)]
            rows.append(
                [method, str(images) if method != UNCHANGED else "0", str(len(draws))]
                + [_spread([getattr(cell, key) for cell in draws]) for key in ("auc", "accuracy")]
            )
    return (
        f"# Adaptation\n\n{name}, preset {preset}, trained without the last quarter of the ids of "
        f"every series, then adapted on images of that quarter in {STEPS} steps and evaluated on "
        "the quarter's other patients. Mean, minimum and maximum of the draws; accuracy at a "
        "probability of 0.5. `as it is` is the network without adaptation.\n\n"
        + report_sections.table(["method", "images", "draws", "AUC", "accuracy"], rows)
    )


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _read_cells(path: Path) -> list[Cell]:
    lines = path.read_text().splitlines() if path.is_file() else []
    return [Cell(**json.loads(line)) for line in lines]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--network", choices=list(NETWORKS), default="resnet50")
    parser.add_argument("--preset", choices=list(PRESETS), default="quick")
    parser.add_argument("--images", type=int, nargs="+", default=IMAGES)
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    allocator.keep_freed_memory()
    recipe = legs(options.preset, options.network)[-1]
    dataset = datasets.load(options.data, recipe.size)
    quarter = last_quarter(dataset)
    train_rows = [row for row, image in enumerate(dataset.images) if image.folder == "train"]
    rest = np.setdiff1d(train_rows, quarter)
    base = train_base(options.network, options.preset, subset(dataset, rest))
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"adaptation-{options.network}-{options.preset}.jsonl"
    cells = [(UNCHANGED, 0, number) for number in range(DRAWS)]
    cells += [(m, n, number) for number in range(DRAWS) for n in options.images for m in METHODS]
    for method, images, number in cells:
        if (method, images, number) in {
            (cell.way, cell.images, cell.draw) for cell in _read_cells(path)
        }:
            continue
        adapting, remaining = draw(dataset, quarter, images or min(options.images), number)
        cell = adapt(
            options.network, base, method, subset(dataset, adapting, remaining), images, number
        )
        log.info("%s, %d images, draw %d: AUC %.4f", method, images, number, cell.auc)
        with path.open("a") as file:
            file.write(json.dumps(asdict(cell)) + "\n")
    text = report(options.network, options.preset, _read_cells(path))
    checkpoint.write_text(RESULTS / "adaptation.md", text)
    log.info("table: %s", RESULTS / "adaptation.md")


if __name__ == "__main__":
    main()
