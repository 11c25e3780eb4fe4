"""The report on the faithfulness of decision maps, `python -m train explain-report`."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from handlers import decision
from train.evaluation import cam_faithfulness
from train.fitting import allocator
from train.fitting.loaded_networks import LoadedNetwork, networks_of, published_networks
from train.metrics import correlation
from train.model import checkpoint
from train.report import cam_sections, markdown
from train.report.cam_sections import Numbers, cell, mean_with_interval, sample_rows

log = logging.getLogger(__name__)

COMPARED = 200  # images on which the maps of two networks are compared

REPORT, NUMBERS = "explain.md", "explain.json"

_INTRODUCTION = (
    "All figures are of the decision map, PNEUMONIA minus NORMAL, on images of `block-select`, "
    "never of test. Brackets are 95% intervals, by patient where there are patients."
)


def explain_report(run: Path, second_run: Path | None = None) -> Path:
    """Test the maps of a run's networks on phantoms and `block-select`; returns the report's path.

    Never opens the test images. Networks of the same name in `second_run`, a run with a different
    seed, are compared with these.

    Raises:
        CheckpointError: a run has no finished network.
    """
    second_networks = networks_of(second_run) if second_run else []
    title = f"Run {run.resolve().name}"
    return _write(title, run / "report", networks_of(run), second_networks)


def explain_published(root: Path, masks: Path | None = None, project: Path = Path()) -> Path:
    """Test the maps of the networks in weights/; returns the report's path.

    `root` is the data that they were trained on. The report is written to docs/results/published.

    Raises:
        CheckpointError: no network is published, or the data differs.
    """
    networks = published_networks(root, masks, project / checkpoint.PUBLISHED)
    return _write("The published networks", project / markdown.PUBLISHED, networks)


def _write(
    title: str,
    folder: Path,
    networks: list[LoadedNetwork],
    second_networks: Sequence[LoadedNetwork] = (),
) -> Path:
    allocator.keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    numbers: Numbers = {}
    texts = [f"# Are the maps right?\n\n{title}. {_INTRODUCTION}\n"]
    for loaded in networks:
        log.info("testing the maps of %s", loaded.name)
        text, numbers[loaded.name] = cam_sections.sections(loaded, folder)
        texts.append(text)
    pairs = _pairs(networks, second_networks)
    if pairs:
        numbers["agreement"] = {
            title: _agreement(first, second) for title, (first, second) in pairs.items()
        }
        texts.append(_agreement_section(numbers["agreement"]))
    checkpoint.write_text(folder / NUMBERS, json.dumps(numbers, indent=2) + "\n")
    checkpoint.write_text(folder / REPORT, "\n".join(texts))
    return folder / REPORT


def _pairs(
    networks: Sequence[LoadedNetwork], second_networks: Sequence[LoadedNetwork]
) -> Mapping[str, tuple[LoadedNetwork, LoadedNetwork]]:
    """The pairs of networks to compare, by title."""
    architectures = {
        f"{first.name} and {second.name}": (first, second)
        for number, second in enumerate(networks)
        for first in networks[:number]
    }
    seeds = {
        f"{first.name}, seeds {first.card.training.seed} and {second.card.training.seed}": (
            first,
            second,
        )
        for first in networks
        for second in second_networks
        if first.name == second.name
    }
    return {**architectures, **seeds}


def _agreement(first: LoadedNetwork, second: LoadedNetwork) -> Numbers:
    """Mean correlations of two networks' maps, on images that neither was fitted to."""
    dataset, rows = first.dataset, sample_rows(first, COMPARED)
    second_row_of = {image.path: row for row, image in enumerate(second.dataset.images)}
    second_rows = np.array([second_row_of[dataset.images[row].path] for row in rows])
    maps = cam_faithfulness.to_common_grid(
        cam_faithfulness.decisions(first.network, dataset.pixels[rows])[1],
        cam_faithfulness.decisions(second.network, second.dataset.pixels[second_rows])[1],
    )
    labels, patients = dataset.labels[rows], dataset.patients[rows]
    pearson = np.nan_to_num(decision.correlation(*maps))  # a constant map correlates with nothing
    return {
        "images": len(rows),
        "pearson": mean_with_interval(pearson, labels, patients),
        "spearman": mean_with_interval(correlation.spearman(*maps), labels, patients),
    }


def _agreement_section(by_pair: Mapping[str, Mapping[str, Any]]) -> str:
    rows = "".join(
        f"| {title} | {numbers['images']} | {cell(numbers['pearson'])} "
        f"| {cell(numbers['spearman'])} |\n"
        for title, numbers in by_pair.items()
    )
    return (
        "## Agreement\n\nMean correlation of two networks' maps of the same image.\n\n"
        f"| | images | Pearson | Spearman |\n| --- | --- | --- | --- |\n{rows}"
    )
