"""Publishes a run's networks: weights in half precision, cards, report and model card."""

import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from handlers import files
from handlers.card import CARD, TrainedNetwork
from handlers.card_fields import HalfPrecision
from train.data import splits
from train.evaluation import calibrated_model, novelty
from train.evaluation import ensemble as ensembles
from train.fitting import allocator, run_facts
from train.fitting.loaded_networks import LoadedNetwork, networks_of
from train.fitting.network_training import HISTORY
from train.metrics import calibration
from train.model import checkpoint
from train.model.networks import NETWORKS, Classifier, build
from train.report import attribution, markdown, model_card, output, pipeline

log = logging.getLogger(__name__)

REPORT = markdown.PUBLISHED
LOOKS = Path("docs/results/test-looks.md")  # a table row for each opening of the test images
TOLERANCE = 2e-3  # of probability, half precision against full
MAX_BYTES = 60e6  # per network
PARTS = (splits.RANDOM, splits.SELECT, splits.CALIBRATE)


class PublishError(RuntimeError):
    """A network can't be published; the message gives the reason."""


def publish(run: Path, names: Sequence[str] | None = None, project: Path = Path()) -> list[Path]:
    """Copy a run's networks to weights/<network>.safetensors, with cards; returns their paths.

    The weights are rounded to half precision in the run itself, and the run is evaluated again,
    test images included, so that the figures on a card are those of the published weights. Networks
    that are published already and were not trained in this run are evaluated with them and stay
    unchanged. The report goes to docs/results/published; docs/model-card.md is written from it.

    Raises:
        PublishError: half precision changes a probability on validation by more than 2e-3, or a
            file would be larger than 60 MB. Nothing is written then.
    """
    allocator.keep_freed_memory()
    folder = project / checkpoint.PUBLISHED
    finished = _add_published(run, folder)
    networks = networks_of(run)
    chosen = [loaded for loaded in networks if not names or loaded.name in names]
    # All are checked before the first is written.
    for loaded, rounded, difference in [
        (loaded, *_rounded(loaded)) for loaded in chosen if loaded.card.half_precision is None
    ]:
        half_precision = HalfPrecision(
            max_probability_difference=difference,
            from_sha256=files.sha256(loaded.path / checkpoint.WEIGHTS),
        )
        card = replace(loaded.card, half_precision=half_precision)
        checkpoint.save(loaded.path, rounded, card)
    pipeline.evaluate(run, finished=finished)
    written = [
        _copy(loaded.path / checkpoint.WEIGHTS, folder / f"{loaded.name}.safetensors")
        for loaded in chosen
    ]
    for loaded in chosen:
        _copy(loaded.path / CARD, folder / f"{loaded.name}.json")
        _copy(
            novelty.reference_path(loaded.path),
            novelty.reference_path(folder / f"{loaded.name}.safetensors"),
        )
    ensemble = run / ensembles.NAME / CARD
    if ensemble.is_file() and not names:
        _copy(ensemble, folder / f"{ensembles.NAME}.json")
    report = project / REPORT
    _publish_report(run / output.REPORT, report, project / LOOKS, [n.card for n in networks])
    log.info("report: %s", report)
    log.info(
        "model card: %s",
        model_card.write(folder, report / "metrics.json", project / model_card.PATH),
    )
    return written


def _add_published(run: Path, folder: Path) -> list[str]:
    """Copy published networks into a run that did not train them; returns their names.

    Only those that were trained on the run's data.
    """
    data_sha256 = networks_of(run)[0].dataset.sha256
    added = []
    for weights in sorted(folder.glob("*.safetensors")):
        target = run / weights.stem
        training_data = checkpoint.read_card(weights).training.data
        if (target / HISTORY).is_file():  # trained in this run
            continue
        if training_data.sha256 != data_sha256:
            log.warning(
                "%s was trained on different data (%s): not evaluated here",
                *(weights, training_data.name),
            )
            continue
        log.info("%s is published already: evaluated with the others", weights.stem)
        _copy(weights, target / checkpoint.WEIGHTS)
        _copy(weights.with_suffix(".json"), target / CARD)
        _copy(novelty.reference_path(weights), novelty.reference_path(target))
        added.append(weights.stem)
    facts = run_facts.read(run)
    names = {*facts.networks, *added}
    run_facts.write(run, replace(facts, networks=tuple(name for name in NETWORKS if name in names)))
    return added


def count_looks(file: Path) -> int:
    """How many times the test images were opened: the table rows that begin with a date."""
    return len(re.findall(r"^\| \d{4}-\d\d-\d\d \|", file.read_text(), re.MULTILINE))


def _publish_report(
    source: Path, target: Path, looks: Path, cards: Sequence[TrainedNetwork]
) -> None:
    """Replace the published report by a run's, with the count of looks at test and the credits.

    The copy is completed beside its target first, so that no half report is published.
    """
    partial = target.with_name(target.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    report = partial / "report.md"
    text = report.read_text()
    if looks.is_file():
        count = f"{count_looks(looks)} times ([each](../{looks.name}))"
        row = f"| test images opened before | {count} |\n"
        text = re.sub(r"(?m)^(\| map \|.*\n)", rf"\g<1>{row}", text, count=1)
    files.write_text(report, text + attribution.report_section(cards))
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def _rounded(loaded: LoadedNetwork) -> tuple[Classifier, float]:
    """The network rounded to half precision, and the largest change of a probability.

    Raises:
        PublishError: the change or the file's size exceeds its limit.
    """
    rounded = build(loaded.name, dilated=loaded.card.map.dilated).eval()
    weights = checkpoint.half_precision_weights(loaded.network)
    rounded.load_state_dict(weights)
    size = sum(tensor.nbytes for tensor in weights.values())
    if size > MAX_BYTES:
        raise PublishError(
            f"{loaded.name}: {size / 1e6:.0f} MB are more than {MAX_BYTES / 1e6:.0f}"
        )
    difference = _difference(loaded, rounded)
    if not difference <= TOLERANCE:  # also true of NaN
        raise PublishError(
            f"{loaded.name}: half precision changes a probability by {difference:.1e} "
            f"(at most {TOLERANCE:.0e})"
        )
    log.info("%s: half precision changes a probability by at most %.1e", loaded.name, difference)
    return rounded, difference


def _difference(loaded: LoadedNetwork, rounded: Classifier) -> float:
    """The largest difference of the probability of PNEUMONIA on validation."""
    dataset, cpu = loaded.dataset, torch.device("cpu")
    parts = [part for part in PARTS if len(dataset.rows(part))]
    full, half = (
        calibrated_model.predict_parts(calibrated_model.to_device(network, cpu), dataset, parts)
        for network in (loaded.network, rounded)
    )
    labels = dataset.labels[dataset.rows(splits.CALIBRATE)]
    fitted = calibration.fit(full[splits.CALIBRATE], labels)
    return max(
        float(np.abs(fitted.scores(full[part]) - fitted.scores(half[part])).max()) for part in parts
    )


def _copy(source: Path, target: Path) -> Path:
    with files.replacing(target) as partial:
        shutil.copy(source, partial)
    log.info("%s: %.0f MB", target, target.stat().st_size / 1e6)
    return target
