"""`python -m train explain-report`: are the maps of a run's or the published networks right?"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from handlers import decision
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
from train.trained import LoadedNetwork, networks_of, published_networks

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
    title: str,
    folder: Path,
    networks: list[LoadedNetwork],
    others: Sequence[LoadedNetwork] = (),
) -> Path:
    memory.keep()
    folder.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, Any] = {}
    texts = [f"# Are the maps right?\n\n{title}. {_WHAT}\n"]
    for loaded in networks:
        log.info("testing the maps of %s", loaded.name)
        text, numbers[loaded.name] = _test(loaded, folder)
        texts.append(text)
    pairs = _pairs(networks, others)
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


def _test(loaded: LoadedNetwork, folder: Path) -> tuple[str, dict[str, Any]]:
    pointing, pointing_numbers = _pointing(loaded)
    curves, curve_numbers = _curves(loaded, folder)
    cascade, cascade_numbers = _cascade(loaded, folder)
    texts = [f"## {loaded.name}\n", pointing, curves, cascade]
    numbers = {
        "pointing": pointing_numbers,
        "deletion and insertion": curve_numbers,
        "cascade": cascade_numbers,
    }
    evidence = _evidence(loaded)
    if evidence is not None:
        section = sections.evidence({loaded.name: evidence})
        texts.append(section.text.replace("## ", "### ", 1))
        numbers["evidence"] = section.data[loaded.name]
    return "\n".join(texts), numbers


def _pointing(loaded: LoadedNetwork) -> tuple[str, dict[str, Any]]:
    result = faithful.pointing_game(
        lambda pixels: faithful.decisions(loaded.network, pixels)[1],
        loaded.card.input.size,
        PHANTOMS,
    )
    alone = np.arange(PHANTOMS).astype(str)
    sick = np.ones(PHANTOMS, np.int64)
    numbers: dict[str, Any] = {
        "hit": _mean(result.hit, sick, alone),
        "share": _mean(result.share, sick, alone),
        "area": float(result.area.mean()),
    }
    on_phantoms = loaded.card.training.data.name == "phantoms"
    unlike = "" if on_phantoms else ": drawings, and so out of this network’s world"
    text = (
        f"### Phantoms\n\nOn {PHANTOMS} phantoms with opacities, never trained on{unlike}. The "
        f"map's peak lies in an opacity's box in {_with_interval(numbers['hit'])} of them; of its "
        f"evidence for PNEUMONIA {_with_interval(numbers['share'])} lies inside the boxes, which "
        f"are {result.area.mean():.3f} of the image.\n"
    )
    return text, numbers


def _curves(loaded: LoadedNetwork, folder: Path) -> tuple[str, dict[str, Any]]:
    rows = _sample(loaded, DELETED)
    pixels = loaded.dataset.pixels[rows]
    drawn = {
        name: faithful.curves(loaded.network, pixels, order)
        for name, order in tqdm(
            faithful.orders(loaded.network, pixels).items(),
            desc=f"{loaded.name}: deletion",
            unit=" orders",
            disable=None,
        )
    }
    labels, patients = loaded.dataset.labels[rows], loaded.dataset.patients[rows]
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
    figure = folder / f"deletion-{loaded.name}.png"
    explain_figures.deletion(drawn, loaded.name, figure)
    rows_of_text = "".join(
        f"| {name} | {_with_interval(kinds['deletion'])} | {_with_interval(kinds['insertion'])} |\n"
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


def _cascade(loaded: LoadedNetwork, folder: Path) -> tuple[str, dict[str, Any]]:
    rows = _sample(loaded, CASCADED)
    pixels = loaded.dataset.pixels[rows]
    labels, patients = loaded.dataset.labels[rows], loaded.dataset.patients[rows]
    shown = [("trained", faithful.decisions(loaded.network, pixels[:SHOWN])[1])]
    numbers = {}
    for stage, values, maps in faithful.cascade(loaded.network, loaded.name, pixels):
        numbers[stage] = _mean(values, labels, patients)
        shown.append((stage, maps[:SHOWN]))
    figure = folder / f"cascade-{loaded.name}.png"
    explain_figures.cascade(pixels[:SHOWN], shown, numbers, loaded.name, figure)
    stages = "".join(f"| {stage} | {_with_interval(value)} |\n" for stage, value in numbers.items())
    text = (
        "### Weights drawn anew\n\nStage by stage from the head down; rank correlation of the map "
        f"with the trained network's, mean of {len(rows)} images. It must fall, or the map does "
        f"not show what was learned.\n\n| down to | correlation |\n| --- | --- |\n{stages}\n"
        f"![weights drawn anew]({figure.name})\n"
    )
    return text, numbers


def _evidence(loaded: LoadedNetwork) -> dict[str, lung_evidence.LungEvidenceSummary] | None:
    """Where the evidence lies, on those images of `block-select` that have a mask."""
    if loaded.masks is None:
        return None
    card, dataset = checkpoint.evaluated(loaded.card, loaded.path), loaded.dataset
    rows = dataset.rows(split.SELECT)
    rows = rows[loaded.masks.present[rows]]
    margins, _ = faithful.decisions(loaded.network, dataset.pixels[rows])
    logits = np.stack([np.zeros_like(margins), margins], axis=1)
    scores = decision.printed_probability(logits, card.temperature)
    labels = dataset.labels[rows]
    right = decision.is_positive(scores, card.threshold) == (labels == decision.POSITIVE)
    measured = lung_evidence.measure(loaded.network, dataset, loaded.masks, rows)
    return lung_evidence.summarise(measured, labels, right, dataset.patients[rows])


def _pairs(
    networks: Sequence[LoadedNetwork], others: Sequence[LoadedNetwork]
) -> Mapping[str, tuple[LoadedNetwork, LoadedNetwork]]:
    between = {
        f"{first.name} and {second.name}": (first, second)
        for place, second in enumerate(networks)
        for first in networks[:place]
    }
    seeds = {
        f"{first.name}, seeds {first.card.training.seed} and {second.card.training.seed}": (
            first,
            second,
        )
        for first in networks
        for second in others
        if first.name == second.name
    }
    return {**between, **seeds}


def _agreement(first: LoadedNetwork, second: LoadedNetwork) -> dict[str, Any]:
    """Means of the correlation of two networks' maps, on images that neither was fitted to."""
    dataset, rows = first.dataset, _sample(first, COMPARED)
    paths = {image.path: row for row, image in enumerate(second.dataset.images)}
    second_rows = np.array([paths[dataset.images[row].path] for row in rows])
    maps = faithful.on_one_grid(
        faithful.decisions(first.network, dataset.pixels[rows])[1],
        faithful.decisions(second.network, second.dataset.pixels[second_rows])[1],
    )
    labels, patients = dataset.labels[rows], dataset.patients[rows]
    pearson = np.nan_to_num(decision.correlation(*maps))  # a constant map agrees with none
    return {
        "images": len(rows),
        "pearson": _mean(pearson, labels, patients),
        "spearman": _mean(correlation.spearman(*maps), labels, patients),
    }


def _agreement_table(by_pair: Mapping[str, Mapping[str, Any]]) -> str:
    rows = "".join(
        f"| {title} | {numbers['images']} | {_with_interval(numbers['pearson'])} "
        f"| {_with_interval(numbers['spearman'])} |\n"
        for title, numbers in by_pair.items()
    )
    return (
        "## Agreement\n\nCorrelation of two networks' maps of one image, in the mean.\n\n"
        f"| | images | Pearson | Spearman |\n| --- | --- | --- | --- |\n{rows}"
    )


def _sample(loaded: LoadedNetwork, count: int) -> Labels:
    """Rows of `block-select` at random, always the same."""
    rows = loaded.dataset.rows(split.SELECT)
    return np.sort(np.random.default_rng(0).permutation(rows)[:count])


def _mean(values: Values, labels: Labels, patients: npt.NDArray[np.str_]) -> dict[str, Any]:
    """The mean of values (N,), with its interval by patient."""
    times = bootstrap(labels, patients, DRAWS)
    interval = percentile_interval(bootstrap_means(times, values))
    return {"mean": float(values.mean()), "interval": interval}


def _with_interval(number: Mapping[str, Any]) -> str:
    return sections.with_interval(number["mean"], number["interval"])
