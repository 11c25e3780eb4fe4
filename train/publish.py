"""A run's networks → weights in half precision that come with the project, checked and judged."""

import json
import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from train import (
    calibrate,
    checkpoint,
    evaluate,
    judge,
    memory,
    model_card,
    novelty,
    split,
    together,
)
from train.networks import NETWORKS, Classifier, build
from train.run import HISTORY, RUN
from train.trained import Trained, networks_of

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
    chosen = [one for one in networks_of(run) if not names or one.name in names]
    for one, rounded, difference in [
        (one, *_checked(one)) for one in chosen if checkpoint.HALF not in one.card
    ]:
        facts = {
            "max_probability_difference": difference,
            "from_sha256": one.card["weights_sha256"],
        }
        checkpoint.save(one.folder, rounded, {**one.card, checkpoint.HALF: facts})
    evaluate.evaluate(run, finished=finished)
    written = [
        _copy(one.folder / checkpoint.WEIGHTS, folder / f"{one.name}.safetensors") for one in chosen
    ]
    for one in chosen:
        _copy(one.folder / checkpoint.CARD, folder / f"{one.name}.json")
        _copy(novelty.beside(one.folder), novelty.beside(folder / f"{one.name}.safetensors"))
    joint = run / together.NAME / checkpoint.CARD
    if joint.is_file() and not names:
        _copy(joint, folder / f"{together.NAME}.json")
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
        there = run / weights.stem
        its_data = checkpoint.read_card(weights)["training"]["data"]
        if (there / HISTORY).is_file():  # trained here
            continue
        if its_data["sha256"] != data:
            log.warning("%s is of other data (%s), not judged here", weights, its_data["name"])
            continue
        log.info("%s is published already: it is judged beside the others", weights.stem)
        _copy(weights, there / checkpoint.WEIGHTS)
        _copy(weights.with_suffix(".json"), there / checkpoint.CARD)
        _copy(novelty.beside(weights), novelty.beside(there))
        added.append(weights.stem)
    facts = json.loads((run / RUN).read_text())
    facts["networks"] = [one for one in NETWORKS if one in {*facts["networks"], *added}]
    checkpoint.write_text(run / RUN, json.dumps(facts, indent=2) + "\n")
    return added


def looks(file: Path) -> int:
    """How often the test images were opened, by the lines of a table that begin with a date."""
    return len(re.findall(r"^\| \d{4}-\d\d-\d\d \|", file.read_text(), re.MULTILINE))


def _tell_looks(report: Path, file: Path) -> None:
    """Have the report say how often the test images were opened before."""
    if file.is_file():
        row = f"| test images opened before | {looks(file)} times ([each](../{file.name})) |\n"
        text = re.sub(r"(?m)^(\| map \|.*\n)", rf"\g<1>{row}", report.read_text(), count=1)
        report.write_text(text)


def _checked(one: Trained) -> tuple[Classifier, float]:
    """The network as half precision leaves it, and by how much that changes a probability."""
    rounded = build(one.name, dilated=one.card["map"]["dilated"]).eval()
    halves = checkpoint.in_half(one.network)
    rounded.load_state_dict(halves)
    size = sum(value.nbytes for value in halves.values())
    if size > LARGEST:
        raise PublishError(f"{one.name}: {size / 1e6:.0f} MB are more than {LARGEST / 1e6:.0f}")
    difference = _difference(one, rounded)
    if not difference <= TOLERANCE:  # nor nan
        raise PublishError(
            f"{one.name}: half precision changes a probability by {difference:.1e} "
            f"(at most {TOLERANCE:.0e})"
        )
    log.info("%s: half precision changes a probability by at most %.1e", one.name, difference)
    return rounded, difference


def _difference(one: Trained, rounded: Classifier) -> float:
    """The largest difference in the probability of PNEUMONIA on all of validation."""
    cpu = torch.device("cpu")
    parts = [part for part in PARTS if len(one.dataset.rows(part))]
    full, half = (judge.run_network(n, one.dataset, parts, cpu) for n in (one.network, rounded))
    labels = one.dataset.labels[one.dataset.rows(split.CALIBRATE)]
    fitted = calibrate.fit(full[split.CALIBRATE], labels)
    return max(
        float(np.abs(fitted.scores(full[part]) - fitted.scores(half[part])).max()) for part in parts
    )


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(target.name + ".part")
    shutil.copy(source, beside)
    beside.rename(target)
    log.info("%s: %.0f MB", target, target.stat().st_size / 1e6)
    return target
