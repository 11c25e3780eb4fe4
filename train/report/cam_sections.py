"""Sections of the report on decision maps: each returns Markdown and numbers for explain.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from handlers import decision
from train.data import splits
from train.evaluation import cam_faithfulness, lung_evidence
from train.evaluation.cam_faithfulness import Values
from train.evaluation.lung_evidence import LungEvidenceSummary
from train.fitting.loaded_networks import LoadedNetwork
from train.metrics.classification import DRAWS, bootstrap, bootstrap_means, percentile_interval
from train.model import checkpoint
from train.report import cam_figures, report_sections

PHANTOMS = 100
DELETION_IMAGES = 100
CASCADE_IMAGES = 32
SHOWN = 3  # images in the figure of the cascade

_CURVES = ("deletion", "insertion")
_ORDER_TITLES = {"map less random": "map minus random", "map less centre": "map minus centre"}

Labels = npt.NDArray[np.int64]
Numbers = dict[str, Any]


def sections(loaded: LoadedNetwork, folder: Path) -> tuple[str, Numbers]:
    """All sections on a network's maps: Markdown and numbers; figures are drawn into a folder."""
    pointing, pointing_numbers = _pointing(loaded)
    curves, curve_numbers = _deletion_and_insertion(loaded, folder)
    cascade, cascade_numbers = _cascade(loaded, folder)
    texts = [f"## {loaded.name}\n", pointing, curves, cascade]
    numbers = {
        "pointing": pointing_numbers,
        "deletion and insertion": curve_numbers,
        "cascade": cascade_numbers,
    }
    evidence = _evidence(loaded)
    if evidence is not None:
        section = report_sections.evidence({loaded.name: evidence})
        texts.append(section.text.replace("## ", "### ", 1))
        numbers["evidence"] = section.document[loaded.name]
    return "\n".join(texts), numbers


def _pointing(loaded: LoadedNetwork) -> tuple[str, Numbers]:
    result = cam_faithfulness.pointing_game(
        lambda pixels: cam_faithfulness.decisions(loaded.network, pixels)[1],
        loaded.card.input.size,
        PHANTOMS,
    )
    patients = np.arange(PHANTOMS).astype(str)  # every phantom is a patient
    labels = np.ones(PHANTOMS, np.int64)
    numbers: Numbers = {
        "hit": mean_with_interval(result.hit, labels, patients),
        "share": mean_with_interval(result.share, labels, patients),
        "area": float(result.area.mean()),
    }
    trained_on_phantoms = loaded.card.training.data.name == "phantoms"
    note = (
        ""
        if trained_on_phantoms
        else " They are drawings, so they are out of distribution for this network."
    )
    text = (
        f"### Phantoms\n\nMeasured on {PHANTOMS} phantoms with opacities, which were not trained "
        f"on.{note} The map's peak lies in an opacity's box in {cell(numbers['hit'])} of them. Of "
        f"its evidence for PNEUMONIA, {cell(numbers['share'])} lies inside the boxes, which cover "
        f"{result.area.mean():.3f} of the image.\n"
    )
    return text, numbers


def _deletion_and_insertion(loaded: LoadedNetwork, folder: Path) -> tuple[str, Numbers]:
    rows = sample_rows(loaded, DELETION_IMAGES)
    pixels = loaded.dataset.pixels[rows]
    curves = {
        name: cam_faithfulness.curves(loaded.network, pixels, order)
        for name, order in tqdm(
            cam_faithfulness.pixel_scores(loaded.network, pixels).items(),
            desc=f"{loaded.name}: deletion",
            unit=" orders",
            disable=None,
        )
    }
    areas = {
        name: {curve: cam_faithfulness.area_under(getattr(pair, curve)) for curve in _CURVES}
        for name, pair in curves.items()
    }
    for baseline in ("random", "centre"):
        areas[f"map less {baseline}"] = {
            curve: areas["map"][curve] - areas[baseline][curve] for curve in _CURVES
        }
    labels, patients = loaded.dataset.labels[rows], loaded.dataset.patients[rows]
    numbers: Numbers = {
        name: {
            curve: mean_with_interval(area, labels, patients) for curve, area in by_curve.items()
        }
        for name, by_curve in areas.items()
    }
    figure = folder / f"deletion-{loaded.name}.png"
    cam_figures.deletion(curves, loaded.name, figure)
    table_rows = [
        [_ORDER_TITLES.get(name, name), *[cell(by_curve[curve]) for curve in _CURVES]]
        for name, by_curve in numbers.items()
    ]
    text = (
        f"### Deletion and insertion\n\nMean probability of the predicted class on {len(rows)} "
        "images, averaged over all shares of pixels. Deletion blurs the pixels that the map ranks "
        "first (lower is better). Insertion adds them to the blurred image (higher is better). "
        "Baselines are a random map of the same resolution and a blob in the centre.\n\n"
        f"{report_sections.table(['order', *_CURVES], table_rows)}\n"
        f"![deletion and insertion]({figure.name})\n"
    )
    return text, numbers


def _cascade(loaded: LoadedNetwork, folder: Path) -> tuple[str, Numbers]:
    rows = sample_rows(loaded, CASCADE_IMAGES)
    pixels = loaded.dataset.pixels[rows]
    labels, patients = loaded.dataset.labels[rows], loaded.dataset.patients[rows]
    shown = [("trained", cam_faithfulness.decisions(loaded.network, pixels[:SHOWN])[1])]
    numbers = {}
    for stage, correlations, maps in cam_faithfulness.cascade(loaded.network, loaded.name, pixels):
        numbers[stage] = mean_with_interval(correlations, labels, patients)
        shown.append((stage, maps[:SHOWN]))
    figure = folder / f"cascade-{loaded.name}.png"
    cam_figures.cascade(pixels[:SHOWN], shown, numbers, loaded.name, figure)
    table_rows = [[stage, cell(number)] for stage, number in numbers.items()]
    text = (
        "### Re-initialised weights\n\nWeights are re-initialised stage by stage, from the head "
        "down. Mean rank correlation of the map with the trained network's, over "
        f"{len(rows)} images. It must fall, otherwise the map does not depend on what was "
        f"learned.\n\n{report_sections.table(['down to', 'correlation'], table_rows)}\n"
        f"![re-initialised weights]({figure.name})\n"
    )
    return text, numbers


def _evidence(loaded: LoadedNetwork) -> dict[str, LungEvidenceSummary] | None:
    """Lung evidence by group, on the images of `block-select` that have a mask."""
    if loaded.masks is None:
        return None
    card, dataset = checkpoint.require_evaluated(loaded.card, loaded.path), loaded.dataset
    rows = dataset.rows(splits.SELECT)
    rows = rows[loaded.masks.present[rows]]
    margins, _ = cam_faithfulness.decisions(loaded.network, dataset.pixels[rows])
    logits = np.stack([np.zeros_like(margins), margins], axis=1)
    scores = decision.printed_probability(logits, card.temperature)
    labels = dataset.labels[rows]
    correct = decision.is_positive(scores, card.threshold) == (labels == decision.POSITIVE)
    measured = lung_evidence.measure(loaded.network, dataset, loaded.masks, rows)
    return lung_evidence.summarise(measured, labels, correct, dataset.patients[rows])


def sample_rows(loaded: LoadedNetwork, count: int) -> Labels:
    """Rows of `count` random images of `block-select`; always the same."""
    rows = loaded.dataset.rows(splits.SELECT)
    return np.sort(np.random.default_rng(0).permutation(rows)[:count])


def mean_with_interval(values: Values, labels: Labels, patients: npt.NDArray[np.str_]) -> Numbers:
    """The mean of values (N,) and its 95% bootstrap interval by patient."""
    times = bootstrap(labels, patients, DRAWS)
    interval = percentile_interval(bootstrap_means(times, values))
    return {"mean": float(values.mean()), "interval": interval}


def cell(number: Mapping[str, Any]) -> str:
    """The result of `mean_with_interval` as text."""
    return report_sections.with_interval(number["mean"], number["interval"])
