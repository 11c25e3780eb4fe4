"""`python -m train explain-report`: are the maps of a run's or the published networks right?"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from tqdm import tqdm

from train import (
    checkpoint,
    correlation,
    explain_figures,
    faithful,
    lung_evidence,
    memory,
    publish,
    sections,
    split,
)
from train.faithful import Values
from train.metrics import DRAWS, bootstrap, bootstrap_means, percentile_interval
from train.trained import Trained, networks_of, published_networks

log = logging.getLogger(__name__)

PHANTOMS = 100
DELETED = 100  # images of deletion and insertion
CASCADED = 32
SHOWN = 3  # of them, in the figure
COMPARED = 200  # images on which two networks' maps are compared

REPORT, NUMBERS = "explain.md", "explain.json"

Labels = npt.NDArray[np.int64]


def explain_report(run: Path, other: Path | None = None) -> Path:
    """Test the maps of a run's networks, on phantoms and on `block-select`; the report's path.

    Never opens the test images. `other` is a run of another seed, whose networks of the same name
    are compared with these.

    Raises:
        CheckpointError: a run holds no finished network.
    """
    others = networks_of(other) if other else []
    return _write(f"Run {run.resolve().name}", run / "report", networks_of(run), others)


def explain_published(root: Path, masks: Path | None = None, project: Path = Path()) -> Path:
    """The same of the networks in weights/, with the data that they were trained on at `root`.

    It goes beside their report, to docs/results/published.

    Raises:
        CheckpointError: there are none, or the data is another.
    """
    trained = published_networks(root, masks, project / checkpoint.PUBLISHED)
    return _write("The published networks", project / publish.REPORT, trained)


def _write(
    title: str, folder: Path, trained: list[Trained], others: Sequence[Trained] = ()
) -> Path:
    memory.keep()
    folder.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, Any] = {}
    texts = [f"# Are the maps right?\n\n{title}. {_WHAT}\n"]
    for one in trained:
        log.info("testing the maps of %s", one.name)
        text, found = _test(one, folder)
        texts.append(text)
        numbers[one.name] = found
    pairs = _pairs(trained, others)
    if pairs:
        numbers["agreement"] = {
            title: _agreement(first, second) for title, (first, second) in pairs.items()
        }
        texts.append(_agreement_table(numbers["agreement"]))
    checkpoint.write_text(folder / NUMBERS, json.dumps(numbers, indent=2) + "\n")
    checkpoint.write_text(folder / REPORT, "\n".join(texts))
    return folder / REPORT


_WHAT = (
    "Of the decision map: PNEUMONIA's less NORMAL's. Images of `block-select`, never of test. "
    "In brackets 95% intervals, by patient where there are patients."
)


def _test(one: Trained, folder: Path) -> tuple[str, dict[str, Any]]:
    pointing, of_pointing = _pointing(one)
    curves, of_curves = _curves(one, folder)
    cascade, of_cascade = _cascade(one, folder)
    texts = [f"## {one.name}\n", pointing, curves, cascade]
    found = {"pointing": of_pointing, "deletion and insertion": of_curves, "cascade": of_cascade}
    if one.masks is not None:
        section = sections.evidence({one.name: _evidence(one)})
        texts.append(section.text.replace("## ", "### ", 1))
        found["evidence"] = section.data[one.name]
    return "\n".join(texts), found


def _pointing(one: Trained) -> tuple[str, dict[str, Any]]:
    found = faithful.pointing_game(
        lambda pixels: faithful.decisions(one.network, pixels)[1], _size(one), PHANTOMS
    )
    alone = np.arange(PHANTOMS).astype(str)
    sick = np.ones(PHANTOMS, np.int64)
    numbers: dict[str, Any] = {
        "hit": _mean(found.hit, sick, alone),
        "share": _mean(found.share, sick, alone),
        "area": float(found.area.mean()),
    }
    at_home = one.card["training"]["data"]["name"] == "phantoms"
    text = (
        f"### Phantoms\n\nOn {PHANTOMS} phantoms with opacities, never trained on"
        f"{'' if at_home else ': drawings, and so out of this network’s world'}. The map's peak "
        f"lies in an opacity's box in {_said(numbers['hit'])} of them; of its evidence for "
        f"PNEUMONIA {_said(numbers['share'])} lies inside the boxes, which are "
        f"{found.area.mean():.3f} of the image.\n"
    )
    return text, numbers


def _curves(one: Trained, folder: Path) -> tuple[str, dict[str, Any]]:
    rows = _sample(one, DELETED)
    pixels = one.dataset.pixels[rows]
    drawn = {
        name: faithful.curves(one.network, pixels, order)
        for name, order in tqdm(
            faithful.orders(one.network, pixels).items(),
            desc=f"{one.name}: deletion",
            unit=" orders",
            disable=None,
        )
    }
    labels, patients = one.dataset.labels[rows], one.dataset.patients[rows]
    areas = {
        name: {kind: faithful.area(getattr(curve, kind)) for kind in ("deletion", "insertion")}
        for name, curve in drawn.items()
    }
    numbers: dict[str, Any] = {
        name: {kind: _mean(values, labels, patients) for kind, values in kinds.items()}
        for name, kinds in areas.items()
    }
    numbers["map less random"] = {
        kind: _mean(areas["map"][kind] - areas["random"][kind], labels, patients)
        for kind in ("deletion", "insertion")
    }
    numbers["map less centre"] = {
        kind: _mean(areas["map"][kind] - areas["centre"][kind], labels, patients)
        for kind in ("deletion", "insertion")
    }
    figure = folder / f"deletion-{one.name}.png"
    explain_figures.deletion(drawn, one.name, figure)
    rows_of_text = "".join(
        f"| {name} | {_said(kinds['deletion'])} | {_said(kinds['insertion'])} |\n"
        for name, kinds in numbers.items()
    )
    text = (
        f"### Deletion and insertion\n\nProbability of the predicted class on {len(rows)} images, "
        "in the mean over all shares, while the pixels that the map puts first are blurred away "
        "(less is better), and while they come into the blurred image (more is better); beside a "
        "random map as coarse and a blob in the centre.\n\n"
        f"| order | deletion | insertion |\n| --- | --- | --- |\n{rows_of_text}\n"
        f"![deletion and insertion]({figure.name})\n"
    )
    return text, numbers


def _cascade(one: Trained, folder: Path) -> tuple[str, dict[str, Any]]:
    rows = _sample(one, CASCADED)
    pixels = one.dataset.pixels[rows]
    labels, patients = one.dataset.labels[rows], one.dataset.patients[rows]
    shown = [("trained", faithful.decisions(one.network, pixels[:SHOWN])[1])]
    numbers = {}
    for stage, values, maps in faithful.cascade(one.network, one.name, pixels):
        numbers[stage] = _mean(values, labels, patients)
        shown.append((stage, maps[:SHOWN]))
    figure = folder / f"cascade-{one.name}.png"
    explain_figures.cascade(pixels[:SHOWN], shown, numbers, one.name, figure)
    stages = "".join(f"| {stage} | {_said(value)} |\n" for stage, value in numbers.items())
    text = (
        "### Weights drawn anew\n\nStage by stage from the head down; rank correlation of the map "
        f"with the trained network's, mean of {len(rows)} images. It must fall, or the map does "
        f"not show what was learned.\n\n| down to | correlation |\n| --- | --- |\n{stages}\n"
        f"![weights drawn anew]({figure.name})\n"
    )
    return text, numbers


def _evidence(one: Trained) -> dict[str, lung_evidence.LungEvidenceSummary]:
    assert one.masks is not None
    rows = one.dataset.rows(split.SELECT)
    rows = rows[one.masks.present[rows]]
    logits, _ = faithful.decisions(one.network, one.dataset.pixels[rows])
    scores = expit(logits / one.card["temperature"])
    point = one.card["operating_points"][one.card["default_operating_point"]]
    labels = one.dataset.labels[rows]
    right = (scores >= point["threshold"]) == (labels == 1)
    measured = lung_evidence.measure(one.network, one.dataset, one.masks, rows)
    return lung_evidence.summarise(measured, labels, right, one.dataset.patients[rows])


def _pairs(
    trained: Sequence[Trained], others: Sequence[Trained]
) -> Mapping[str, tuple[Trained, Trained]]:
    between = {
        f"{first.name} and {second.name}": (first, second)
        for place, second in enumerate(trained)
        for first in trained[:place]
    }
    seeds = {
        f"{one.name}, seeds {_seed(one)} and {_seed(twin)}": (one, twin)
        for one in trained
        for twin in others
        if one.name == twin.name
    }
    return {**between, **seeds}


def _agreement(one: Trained, other: Trained) -> dict[str, Any]:
    """Means of the correlation of two networks' maps, on images that neither was fitted to."""
    rows = _sample(one, COMPARED)
    paths = {image.path: row for row, image in enumerate(other.dataset.images)}
    theirs = np.array([paths[one.dataset.images[row].path] for row in rows])
    first, second = faithful.on_one_grid(
        faithful.decisions(one.network, one.dataset.pixels[rows])[1],
        faithful.decisions(other.network, other.dataset.pixels[theirs])[1],
    )
    labels, patients = one.dataset.labels[rows], one.dataset.patients[rows]
    return {
        "images": len(rows),
        "pearson": _mean(correlation.pearson(first, second), labels, patients),
        "spearman": _mean(correlation.spearman(first, second), labels, patients),
    }


def _agreement_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    rows = "".join(
        f"| {title} | {one['images']} | {_said(one['pearson'])} | {_said(one['spearman'])} |\n"
        for title, one in found.items()
    )
    return (
        "## Agreement\n\nCorrelation of two networks' maps of one image, in the mean.\n\n"
        f"| | images | Pearson | Spearman |\n| --- | --- | --- | --- |\n{rows}"
    )


def _size(one: Trained) -> int:
    return int(one.card["input"]["size"])


def _seed(one: Trained) -> int:
    return int(one.card["training"]["seed"])


def _sample(one: Trained, count: int) -> Labels:
    """Rows of `block-select` at random, always the same."""
    return np.sort(one.dataset.sample(split.SELECT, count))


def _mean(values: Values, labels: Labels, patients: npt.NDArray[np.str_]) -> dict[str, Any]:
    """The mean of values (N,), with its interval by patient."""
    times = bootstrap(labels, patients, DRAWS)
    interval = percentile_interval(bootstrap_means(times, values))
    return {"mean": float(values.mean()), "interval": interval}


def _said(number: Mapping[str, Any]) -> str:
    return sections.with_interval(number["mean"], number["interval"])
