"""Evaluate a run: figures, cross-check and report for the networks in its folder."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from train import further, judge, measure, memory, predictions, split
from train.crosscheck import Check
from train.trained import networks_of

log = logging.getLogger(__name__)


class CrosscheckError(RuntimeError):
    """The hook's maps are not Captum's: the explanations can't be trusted."""


def evaluate(
    run: Path,
    open_test: bool = True,
    twins_in: Path | None = None,
    finished: Collection[str] = (),
) -> Path:
    """Evaluate and report every network of a run, and all as an ensemble; the report's path.

    Temperature and operating points go onto the cards. `twins_in` is a folder of originals, by
    class, of images that the data set has smaller copies of. The `finished` networks keep their
    weights to the byte, and with them temperature, offset and novelty's reference.

    Raises:
        CrosscheckError: after the report is written, where the maps disagree.
    """
    memory.keep()
    predicted = predictions.predict(run, open_test, twins_in, finished)
    calibrated = predictions.calibrate(predicted)
    evaluation = measure.measure(predicted, calibrated)
    report = further.write_report(run, evaluation)
    for model in evaluation.models:
        figures = model.parts[evaluation.part]
        log.info(
            "%s on %s: AUC %.3f, accuracy %.3f",
            *(model.name, evaluation.part, figures.auc, figures.accuracy),
        )
    fail_loudly({network.loaded.name: network.crosscheck for network in evaluation.networks})
    return report


def crosscheck_run(run: Path, open_test: bool = True) -> dict[str, Check]:
    """Cross-check every network of a run on test images, else on `block-select`.

    Raises:
        CrosscheckError: the maps disagree.
    """
    loaded = networks_of(run)
    parts = judge.parts_of(loaded[0].dataset, open_test)
    part = split.TEST if split.TEST in parts else split.SELECT
    checks = {}
    for each in loaded:
        checks[each.name] = measure.check_maps(each.network, each.dataset, part)
        further.draw_crosscheck(
            each.name, each.dataset, part, checks[each.name], run / further.REPORT
        )
    fail_loudly(checks)
    return checks


def fail_loudly(checks: Mapping[str, Check]) -> None:
    """Raise CrosscheckError where a check has not passed."""
    for name, check in checks.items():
        log.info("cross-check %s %s", name, check.line())
    failed = [name for name, check in checks.items() if not check.passed]
    if failed:
        raise CrosscheckError(
            f"the maps of {', '.join(failed)} are not Captum's: see report.md. Do not serve them."
        )
