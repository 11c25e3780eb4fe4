"""Writes report.md and metrics.json from evaluated models."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from handlers import decision
from handlers.card_fields import PartFigures, SeriesFigures
from train.data import splits
from train.evaluation.calibrated_model import CalibratedModel, MeasuredModel
from train.evaluation.captum_check import CrossCheck
from train.metrics.classification import SENSITIVITY_READ_OFF, Labels, per_thousand
from train.model import checkpoint
from train.report.report_sections import Section, with_interval

PUBLISHED = Path("docs/results/published")  # the report of the networks in weights/
PREVALENCES = (0.05, 0.20, 0.625)  # the last is that of Kaggle's test images


def write(
    folder: Path,
    models: Sequence[MeasuredModel],
    checks: Mapping[str, CrossCheck],
    about: Mapping[str, Any],
    split_table: str,
    labels: Labels,
    figures: Sequence[tuple[str, Path]],
    extra_sections: Sequence[Section],
) -> Path:
    """Write `metrics.json` and `report.md` to a folder; the report's path.

    `about` describes the run: data, seed, init, preset, warnings. `labels` (N,) are those of the
    part that is reported first. `extra_sections` follow the figures of all parts.

    Raises:
        CheckpointError: the disk is full or the folder is read-only.
    """
    metrics = {
        "about": dict(about),
        "networks": {model.name: model.document() for model in models},
        "crosscheck": {
            name: {
                "map_difference": check.map_difference,
                "logit_difference": check.logit_difference,
                "passed": check.passed,
            }
            for name, check in checks.items()
        },
        **{section.key: section.document for section in extra_sections},
    }
    checkpoint.write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    sections = [
        "# Report\n",
        *[f"> **{warning}**\n" for warning in about["warnings"]],
        _about(about),
        "## The split\n",
        f"```\n{split_table}\n```\n",
        *[_part(part, models) for part in _ordered_parts(models)],
        _operating_points(models, labels),
        _per_thousand(models, labels),
        *[section.text for section in extra_sections],
        "## Cross-check of the maps\n",
        "The hook's maps against Captum's LayerGradCam, both classes.\n",
        *[f"- {name}: {check.line()}" for name, check in checks.items()],
        "",
        *[f"## {title}\n\n![{title}]({path.name})\n" for title, path in figures],
    ]
    report = folder / "report.md"
    checkpoint.write_text(report, "\n".join(sections))
    return report


def _about(about: Mapping[str, Any]) -> str:
    rows = "\n".join(f"| {key} | {value} |" for key, value in about.items() if key != "warnings")
    return f"| | |\n| --- | --- |\n{rows}\n"


def _ordered_parts(models: Sequence[MeasuredModel]) -> list[str]:
    """The evaluated parts in the report's order: test, validation, the rest."""
    order = [splits.TEST, splits.SELECT, splits.RANDOM, splits.CALIBRATE, splits.OFFICIAL]
    return [part for part in order if part in models[0].parts]


PART_NOTES = {
    splits.TEST: "The test images: quote these figures.",
    splits.SELECT: "Blocks of ids that were not trained on. They were used for early stopping, so "
    "these figures are slightly optimistic.",
    splits.RANDOM: "Random patients from the training ids: optimistic, and kept to show by how "
    "much.",
    splits.CALIBRATE: "Temperature, offset and operating points were set on this part, so these "
    "figures are optimistic.",
    splits.OFFICIAL: "The official folder `val`: too few images for reliable figures.",
}


def _part(part: str, models: Sequence[MeasuredModel]) -> str:
    first = models[0].parts[part]
    lines = [
        f"## {part}: {first.images} images, {first.patients} patients\n",
        f"{PART_NOTES[part]} 95% intervals by patient; operating point `balanced`.\n",
        "| network | AUC | accuracy | sensitivity | specificity |",
        "| --- | --- | --- | --- | --- |",
        *[_main_row(model.name, model.parts[part]) for model in models],
        "",
        "| network | class | images | precision | recall | F1 |",
        "| --- | --- | --- | --- | --- | --- |",
        *[
            f"| {model.name} | {name} | {figures.images} | {figures.precision:.3f} "
            f"| {figures.recall:.3f} | {figures.f1:.3f} |"
            for model in models
            for name, figures in model.parts[part].by_class.items()
        ],
        "",
        *_calibration(part, models),
    ]
    return "\n".join(lines)


def _main_row(name: str, figures: PartFigures) -> str:
    intervals = figures.intervals
    sensitivity, specificity = (figures.by_class[k].recall for k in ("PNEUMONIA", "NORMAL"))
    cells = [
        with_interval(figures.auc, intervals.get("auc")),
        with_interval(figures.accuracy, intervals["accuracy"]),
        with_interval(sensitivity, intervals["sensitivity"]),
        with_interval(specificity, intervals["specificity"]),
    ]
    return f"| {name} | {' | '.join(cells)} |"


def _calibration(part: str, models: Sequence[MeasuredModel]) -> list[str]:
    """Calibration, and recall by series."""
    series = list(_recalls(models[0].parts[part]))
    recalls = "".join(f" recall of {name} |" for name in series)
    read_off = f"specificity at sensitivity {SENSITIVITY_READ_OFF}, read off the curve, not chosen"
    return [
        f"| network | log-loss | Brier score | calibration error | {read_off} |{recalls}",
        "| --- | --- | --- | --- | --- |" + " --- |" * len(series),
        *[_calibration_row(model.name, model.parts[part], series) for model in models],
        "",
    ]


def _calibration_row(name: str, figures: PartFigures, series: Sequence[str]) -> str:
    recalls = [_recalls(figures)[series_name] for series_name in series]
    cells = [
        name,
        f"{figures.log_loss:.3f}",
        f"{figures.brier:.3f}",
        f"{figures.calibration_error:.3f}",
        f"{figures.specificity_read_off:.3f}",
        *[
            f"{with_interval(recall.recall, recall.interval)} of {recall.images}"
            for recall in recalls
        ],
    ]
    return f"| {' | '.join(cells)} |"


def _recalls(figures: PartFigures) -> Mapping[str, SeriesFigures]:
    return figures.recall_by_series or {}


def _operating_points(models: Sequence[MeasuredModel], labels: Labels) -> str:
    part = _ordered_parts(models)[0]
    columns = f"sensitivity | specificity | on {part}: sensitivity | specificity"
    lines = [
        "## Operating points\n",
        f"Set on `block-calibrate`. Sensitivity and specificity there, and on {part}.\n",
        f"| network | temperature | offset | point | threshold | {columns} |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for model in models:
        for name, point in model.operating_points.items():
            sensitivity, specificity = _rates(model, part, point.threshold, labels)
            lines.append(
                f"| {model.name} | {model.calibration.temperature:.3f} "
                f"| {model.calibration.offset:.3f} | {name} | {point.threshold:.4f} "
                f"| {point.sensitivity:.3f} | {point.specificity:.3f} "
                f"| {sensitivity:.3f} | {specificity:.3f} |"
            )
    return "\n".join(lines) + "\n"


def _rates(
    model: CalibratedModel, part: str, threshold: float, labels: Labels
) -> tuple[float, float]:
    """Sensitivity and specificity of a threshold on a part with these labels (N,)."""
    positive = decision.is_positive(model.scores(part), threshold)
    return float(positive[labels == 1].mean()), float(1 - positive[labels == 0].mean())


def _per_thousand(models: Sequence[MeasuredModel], labels: Labels) -> str:
    """Errors among 1,000 children and predictive values, by operating point and prevalence."""
    part = _ordered_parts(models)[0]
    lines = [
        "## Of 1,000 children\n",
        f"From sensitivity and specificity on {part}, at several prevalences: missed sick "
        "children, false alarms among healthy ones, and predictive values.\n",
        "| network | point | prevalence | missed | false alarms | positive predictive value "
        "| negative predictive value |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for model in models:
        for name, point in model.operating_points.items():
            sensitivity, specificity = _rates(model, part, point.threshold, labels)
            for prevalence in PREVALENCES:
                counts = per_thousand(sensitivity, specificity, prevalence)
                lines.append(
                    f"| {model.name} | {name} | {prevalence:.1%} | {counts['missed']:.0f} "
                    f"| {counts['false_alarms']:.0f} "
                    f"| {counts['positive_predictive_value']:.1%} "
                    f"| {counts['negative_predictive_value']:.1%} |"
                )
    return "\n".join(lines) + "\n"
