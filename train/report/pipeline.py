"""The evaluation of a run: figures, cross-check and report of the networks in its folder."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from train.data import splits
from train.evaluation import calibrated_model, measurement, predictions
from train.evaluation.captum_check import CrossCheck
from train.fitting import allocator
from train.fitting.loaded_networks import networks_of
from train.report import output, report_figures

log = logging.getLogger(__name__)


class CrosscheckError(RuntimeError):
    """The hook's maps differ from Captum's: the explanations can't be trusted."""


def evaluate(
    run: Path,
    open_test: bool = True,
    originals_in: Path | None = None,
    finished: Collection[str] = (),
) -> Path:
    """Evaluate and report every network of a run and their ensemble; returns the report's path.

    Temperature and operating points are written to the cards. `originals_in` is a folder with class
    folders of original files, of which the data set has smaller copies. The networks named in
    `finished` keep their weights byte for byte, and temperature, offset and novelty reference.

    Raises:
        CrosscheckError: the maps differ from Captum's; the report is written nevertheless.
    """
    allocator.keep_freed_memory()
    predicted = predictions.predict(run, open_test, originals_in, finished)
    calibrated = predictions.calibrate(predicted)
    evaluation = measurement.measure(predicted, calibrated)
    report = output.write_report(run, evaluation)
    for model in evaluation.models:
        figures = model.parts[evaluation.part]
        log.info(
            "%s on %s: AUC %.3f, accuracy %.3f",
            *(model.name, evaluation.part, figures.auc, figures.accuracy),
        )
    raise_on_failure({network.loaded.name: network.crosscheck for network in evaluation.networks})
    return report


def crosscheck_run(run: Path, open_test: bool = True) -> dict[str, CrossCheck]:
    """Cross-check and draw the maps of every network of a run; the results by network.

    On test images, or on `block-select` if test is not opened.

    Raises:
        CrosscheckError: the maps differ from Captum's.
    """
    networks = networks_of(run)
    parts = calibrated_model.parts_of(networks[0].dataset, open_test)
    part = splits.TEST if splits.TEST in parts else splits.SELECT
    checks = {}
    for loaded in networks:
        check = measurement.check_maps(loaded.network, loaded.dataset, part)
        report_figures.draw_crosscheck(
            loaded.name, loaded.dataset, part, check, run / output.REPORT
        )
        checks[loaded.name] = check
    raise_on_failure(checks)
    return checks


def raise_on_failure(checks: Mapping[str, CrossCheck]) -> None:
    """Log every check; raise CrosscheckError if a check failed."""
    for name, check in checks.items():
        log.info("cross-check %s %s", name, check.line())
    failed = [name for name, check in checks.items() if not check.passed]
    if failed:
        raise CrosscheckError(
            f"the maps of {', '.join(failed)} differ from Captum's: see report.md. Do not serve "
            "these networks."
        )
