"""What is judged beyond the figures of each part, and the pictures of it."""

import logging
from collections.abc import Sequence
from pathlib import Path

from train import compare, doubt, figures, lung_evidence, sections, split, stress, twins
from train.judge import Judged
from train.lung_evidence import LungEvidenceSummary
from train.options import device
from train.sections import Section
from train.trained import Trained

log = logging.getLogger(__name__)

Pictures = list[tuple[str, Path]]


def examine(
    trained: Sequence[Trained],
    judged: Sequence[Judged],
    part: str,
    folder: Path,
    twins_in: Path | None,
) -> tuple[list[Section], Pictures]:
    """Sections for the report on a part, and pictures, title and file, written into a folder.

    `judged` are the networks and, of several, last all together.
    """
    dataset, last = trained[0].dataset, judged[-1]
    rows = dataset.rows(part)
    labels = dataset.labels[rows]
    pairs = list(zip(trained, judged, strict=False))
    found, drawn = [], []
    if len(judged) > 1:
        differences = compare.differences(judged, part, labels, dataset.patients[rows])
        found.append(sections.differences(differences, part))
    wrong, doubts = doubt.wrong(last, part, labels), doubt.measures(judged, part)
    worth = {name: doubt.judge(values, wrong) for name, values in doubts.items()}
    found.append(sections.doubts(last.name, part, worth))
    risk = figures.risk_coverage(last.name, doubts, wrong, part, folder / "risk-coverage.png")
    drawn.append(("Risk and coverage", risk))
    log.info("judging changed images")
    borne = {
        one.name: stress.measure(one.network, its, one.dataset, device()) for one, its in pairs
    }
    found.append(sections.stressed(borne))
    drawn.append(("Changed images", figures.stressed(borne, folder / "stress.png")))
    if twins_in is not None:
        apart = {
            one.name: twins.measure(
                one.network, its, one.dataset, *twins.read(twins_in, one.dataset)
            )
            for one, its in pairs
        }
        found.append(sections.twins(apart))
    evidence = {one.name: _evidence(one, its) for one, its in pairs if one.masks is not None}
    if evidence:
        found.append(sections.evidence(evidence))
    return found, drawn


def _evidence(one: Trained, found: Judged) -> dict[str, LungEvidenceSummary]:
    """Where the evidence lies, on those images of `block-select` that have a mask."""
    assert one.masks is not None
    rows = one.dataset.rows(split.SELECT)
    masked = one.masks.present[rows]
    if not masked.any():
        return {}
    measured = lung_evidence.measure(one.network, one.dataset, one.masks, rows)
    labels = one.dataset.labels[rows]
    right = (found.scores(split.SELECT) >= found.threshold) == (labels == 1)
    patients = one.dataset.patients[rows]
    return lung_evidence.summarise(measured, labels[masked], right[masked], patients[masked])
