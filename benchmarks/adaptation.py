"""How few images adapt a network? `python -m benchmarks.adaptation --data …`.

A network is trained without the last quarter of the ids of every series, which stands for another
hospital. It is then adapted on 50, 100, 200 and 400 images of that quarter, by patient, and scored
on its other patients: three draws, four ways, as many steps for all. Images are parted as
`make train INIT=…` would part them. Never looks at test. Every finished cell is a line in
`docs/results/adaptation-….jsonl`, and the base goes on where it was.
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

from train import checkpoint, data, memory, sections, split
from train.data import Dataset
from train.fit import fit
from train.networks import NETWORKS, build, predict
from train.options import device
from train.recipes import PRESETS, Phase, Recipe, legs

QUARTER = 0.25  # of every series' patients, the last by id
IMAGES = (50, 100, 200, 400)
DRAWS = 3
STEPS = 60
AS_IT_IS = "as it is"
WAYS = ("head only", "progressive unfreezing", "all at once", "from scratch")
FOLDER, RESULTS = Path("runs/adaptation"), Path("docs/results")

Rows = npt.NDArray[np.int64]

log = logging.getLogger("train")


def elsewhere(dataset: Dataset) -> Rows:
    """Rows of the folder train whose patients are the last quarter of their series."""
    series = defaultdict(list)
    for row, image in enumerate(dataset.images):
        if image.folder == "train":
            series[image.subject.series].append((image.subject.order, image.subject.patient, row))
    found = []
    for members in series.values():
        patients = list(dict.fromkeys(patient for _, patient, _ in sorted(members)))
        last = set(patients[round((1 - QUARTER) * len(patients)) :])
        found += [row for _, patient, row in members if patient in last]
    return np.array(sorted(found))


def part_of(dataset: Dataset, rows: Rows, tested: Rows | None = None) -> Dataset:
    """A data set of some rows, parted anew; `tested` are its test images, and not trained on."""
    tested = np.array([], np.int64) if tested is None else tested
    images = [dataset.images[row] for row in rows]
    images += [replace(dataset.images[row], folder="test") for row in tested]
    kept = np.concatenate([rows, tested])
    return replace(dataset, images=images, pixels=dataset.pixels[kept], parts=split.part(images, 0))


def draw(dataset: Dataset, rows: Rows, count: int, number: int) -> tuple[Rows, Rows]:
    """About so many rows to adapt on, and those of all other patients.

    Smaller counts of the same draw are part of larger ones; what is scored on is the same for all.
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
    """One adaptation, on the quarter's other patients."""

    way: str
    images: int
    draw: int
    auc: float
    accuracy: float  # at a probability of .5, uncalibrated


def recipe_of(way: str, size: int, images: int) -> Recipe:
    """The same number of steps for every way and number of images."""
    batch = 16
    fitted = max(batch, round(images * (1 - sum(split.SHARES.values()))))
    epochs = max(1, round(STEPS / max(1, fitted // batch)))
    base = Recipe(phases=(Phase(size, epochs),), batch=batch, patience=epochs, warm_up=0.2)
    until = {"head only": math.inf, "progressive unfreezing": 0.5}.get(way, 0.0)
    rate = base.learning_rate if way == "from scratch" else base.pretrained_learning_rate
    return replace(base, unfreeze_until=until, learning_rate=rate)


def adapt(name: str, base: Path, way: str, dataset: Dataset, images: int, number: int) -> Cell:
    recipe = recipe_of(way, dataset.pixels.shape[-1], images)
    torch.manual_seed(number)
    network = build(name, dilated=recipe.dilated, dropout=recipe.dropout)
    if way != "from scratch":
        network.load_state_dict(checkpoint.read_weights(base))
    if way != AS_IT_IS:
        # All at once is what training does that is not told of pretrained weights.
        staged = way in ("head only", "progressive unfreezing")
        for epoch in fit(
            network, name, dataset, recipe, pretrained=staged, seed=number, device=device()
        ):
            log.debug("%s", epoch.line())
    rows = dataset.rows(split.TEST)
    labels = dataset.labels[rows]
    logits = predict(network, torch.from_numpy(dataset.pixels[rows]), recipe.size).double().numpy()
    decision = logits[:, 1] - logits[:, 0]
    return Cell(
        way=way,
        images=images,
        draw=number,
        auc=float(roc_auc_score(labels, decision)),
        accuracy=float(((expit(decision) >= 0.5) == (labels == 1)).mean()),
    )


def train_base(name: str, preset: str, dataset: Dataset) -> Path:
    """Weights of a network that never saw the quarter."""
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
    for way in (AS_IT_IS, *WAYS):
        for images in sorted({cell.images for cell in cells if cell.way == way}):
            some = [cell for cell in cells if (cell.way, cell.images) == (way, images)]
            rows.append(
                [way, str(images) if way != AS_IT_IS else "0", str(len(some))]
                + [_spread([getattr(cell, key) for cell in some]) for key in ("auc", "accuracy")]
            )
    return (
        f"# Adaptation\n\n{name}, preset {preset}, trained without the last quarter of the ids of "
        f"every series, then adapted on images of that quarter in {STEPS} steps and scored on its "
        "other patients. Mean, least and largest of the draws; accuracy at a probability of .5.\n\n"
        + sections.table(["way", "images", "draws", "AUC", "accuracy"], rows)
    )


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _done(path: Path) -> list[Cell]:
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
    memory.keep()
    recipe = legs(options.preset, options.network)[-1]
    dataset = data.load(options.data, recipe.size)
    away = elsewhere(dataset)
    home = np.setdiff1d([k for k, i in enumerate(dataset.images) if i.folder == "train"], away)
    base = train_base(options.network, options.preset, part_of(dataset, home))
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"adaptation-{options.network}-{options.preset}.jsonl"
    cells = [(AS_IT_IS, 0, number) for number in range(DRAWS)]
    cells += [(w, n, number) for number in range(DRAWS) for n in options.images for w in WAYS]
    for way, images, number in cells:
        if (way, images, number) in {(cell.way, cell.images, cell.draw) for cell in _done(path)}:
            continue
        some, others = draw(dataset, away, images or min(options.images), number)
        cell = adapt(options.network, base, way, part_of(dataset, some, others), images, number)
        log.info("%s, %d images, draw %d: AUC %.4f", way, images, number, cell.auc)
        with path.open("a") as file:
            file.write(json.dumps(asdict(cell)) + "\n")
    text = report(options.network, options.preset, _done(path))
    checkpoint.write_text(RESULTS / "adaptation.md", text)
    log.info("table: %s", RESULTS / "adaptation.md")


if __name__ == "__main__":
    main()
