"""A run's networks → weights in half precision that come with the project, checked and judged."""

import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from handlers import files
from handlers.card import CARD
from handlers.card_fields import HalfPrecision
from train import (
    calibrate,
    checkpoint,
    evaluate,
    judge,
    memory,
    model_card,
    novelty,
    run_facts,
    split,
    together,
)
from train.networks import NETWORKS, Classifier, build
from train.run import HISTORY
from train.trained import LoadedNetwork, networks_of

log = logging.getLogger(__name__)

REPORT = Path("docs/results/published")
LOOKS = Path("docs/results/test-looks.md")  # a line for each opening of the test images
TOLERANCE = 2e-3  # of probability, half precision against full
LARGEST = 60e6  # bytes a network
PARTS = (split.RANDOM, split.SELECT, split.CALIBRATE)


class PublishError(RuntimeError):
    """A network is not fit to be published; the message says why."""


def publish(run: Path, names: Sequence[str] | None = None, project: Path = Path()) -> list[Path]:
    """Copy a run's networks to weights/<network>.safetensors, each with its card; their paths.

    Their weights are rounded to half precision in the run itself, and the run is judged again,
    test images included: the figures on a card are those of the very weights beside it. What is
    published already and was not trained in this run is judged beside them and stays as it is. The
    report goes to docs/results/published, and docs/model-card.md is written from it.

    Raises:
        PublishError: half precision changes a probability on validation by more than 2e-3, or a
            file would be larger than 60 MB; nothing is written then.
    """
    memory.keep()
    folder = project / checkpoint.PUBLISHED
    finished = _add_published(run, folder)
    chosen = [loaded for loaded in networks_of(run) if not names or loaded.name in names]
    # All are checked before the first is written.
    for loaded, rounded, difference in [
        (loaded, *_checked(loaded)) for loaded in chosen if loaded.card.half_precision is None
    ]:
        half_precision = HalfPrecision(
            max_probability_difference=difference,
            from_sha256=files.sha256(loaded.path / checkpoint.WEIGHTS),
        )
        card = replace(loaded.card, half_precision=half_precision)
        checkpoint.save(loaded.path, rounded, card)
    evaluate.evaluate(run, finished=finished)
    written = [
        _copy(loaded.path / checkpoint.WEIGHTS, folder / f"{loaded.name}.safetensors")
        for loaded in chosen
    ]
    for loaded in chosen:
        _copy(loaded.path / CARD, folder / f"{loaded.name}.json")
        _copy(novelty.beside(loaded.path), novelty.beside(folder / f"{loaded.name}.safetensors"))
    ensemble = run / together.NAME / CARD
    if ensemble.is_file() and not names:
        _copy(ensemble, folder / f"{together.NAME}.json")
    report = project / REPORT
    shutil.rmtree(report, ignore_errors=True)
    shutil.copytree(run / "report", report)
    _tell_looks(report / "report.md", project / LOOKS)
    log.info("report: %s", report)
    log.info(
        "model card: %s",
        model_card.write(folder, report / "metrics.json", project / model_card.PATH),
    )
    return written


def _add_published(run: Path, folder: Path) -> list[str]:
    """Copy into a run what is published and was trained on the same data, but not in it; the names
    of these networks."""
    data = networks_of(run)[0].dataset.sha256
    added = []
    for weights in sorted(folder.glob("*.safetensors")):
        target = run / weights.stem
        training_data = checkpoint.read_card(weights).training.data
        if (target / HISTORY).is_file():  # trained in this run
            continue
        if training_data.sha256 != data:
            log.warning("%s is of other data (%s), not judged here", weights, training_data.name)
            continue
        log.info("%s is published already: it is judged beside the others", weights.stem)
        _copy(weights, target / checkpoint.WEIGHTS)
        _copy(weights.with_suffix(".json"), target / CARD)
        _copy(novelty.beside(weights), novelty.beside(target))
        added.append(weights.stem)
    facts = run_facts.read(run)
    names = {*facts.networks, *added}
    run_facts.write(run, replace(facts, networks=tuple(name for name in NETWORKS if name in names)))
    return added


def looks(file: Path) -> int:
    """How often the test images were opened, by the lines of a table that begin with a date."""
    return len(re.findall(r"^\| \d{4}-\d\d-\d\d \|", file.read_text(), re.MULTILINE))


def _tell_looks(report: Path, file: Path) -> None:
    """Have the report say how often the test images were opened before."""
    if file.is_file():
        row = f"| test images opened before | {looks(file)} times ([each](../{file.name})) |\n"
        text = re.sub(r"(?m)^(\| map \|.*\n)", rf"\g<1>{row}", report.read_text(), count=1)
        files.write_text(report, text)


def _checked(loaded: LoadedNetwork) -> tuple[Classifier, float]:
    """The network as half precision leaves it, and by how much that changes a probability."""
    rounded = build(loaded.name, dilated=loaded.card.map.dilated).eval()
    halves = checkpoint.in_half(loaded.network)
    rounded.load_state_dict(halves)
    size = sum(value.nbytes for value in halves.values())
    if size > LARGEST:
        raise PublishError(f"{loaded.name}: {size / 1e6:.0f} MB are more than {LARGEST / 1e6:.0f}")
    difference = _difference(loaded, rounded)
    if not difference <= TOLERANCE:  # nor nan
        raise PublishError(
            f"{loaded.name}: half precision changes a probability by {difference:.1e} "
            f"(at most {TOLERANCE:.0e})"
        )
    log.info("%s: half precision changes a probability by at most %.1e", loaded.name, difference)
    return rounded, difference


def _difference(loaded: LoadedNetwork, rounded: Classifier) -> float:
    """The largest difference in the probability of PNEUMONIA on all of validation."""
    dataset, cpu = loaded.dataset, torch.device("cpu")
    parts = [part for part in PARTS if len(dataset.rows(part))]
    full, half = (
        judge.predict_parts(judge.placed(network, cpu), dataset, parts)
        for network in (loaded.network, rounded)
    )
    labels = dataset.labels[dataset.rows(split.CALIBRATE)]
    fitted = calibrate.fit(full[split.CALIBRATE], labels)
    return max(
        float(np.abs(fitted.scores(full[part]) - fitted.scores(half[part])).max()) for part in parts
    )


def _copy(source: Path, target: Path) -> Path:
    with files.replacing(target) as partial:
        shutil.copy(source, partial)
    log.info("%s: %.0f MB", target, target.stat().st_size / 1e6)
    return target
