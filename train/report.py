"""Numbers → report.md and metrics.json."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train import checkpoint, split
from train.crosscheck import Check
from train.judge import Judged
from train.metrics import SENSITIVITY_READ_OFF, Judgement, Labels, per_thousand
from train.sections import Section, with_interval

PREVALENCES = (0.05, 0.20, 0.625)  # the last is that of Kaggle's test images


def write(
    folder: Path,
    judged: Sequence[Judged],
    checks: Mapping[str, Check],
    about: Mapping[str, Any],
    split_table: str,
    labels: Labels,
    figures: Sequence[tuple[str, Path]],
    further: Sequence[Section],
) -> Path:
    """Write `metrics.json` and `report.md` into a folder; the report's path.

    `about` says what the run was: data, seed, init, preset, warnings. `labels` are those of the
    part that was judged first. `further` sections follow the figures of all parts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {
        "about": dict(about),
        "networks": {one.name: one.as_dict() for one in judged},
        "crosscheck": {
            name: {
                "map_difference": check.map_difference,
                "logit_difference": check.logit_difference,
                "passed": check.passed,
            }
            for name, check in checks.items()
        },
        **{section.key: section.data for section in further},
    }
    checkpoint.write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    sections = [
        "# Report\n",
        *[f"> **{warning}**\n" for warning in about["warnings"]],
        _about(about),
        "## The split\n",
        f"```\n{split_table}\n```\n",
        *[_part(part, judged) for part in _order(judged)],
        _operating_points(judged, labels),
        _thousand(judged, labels),
        *[section.text for section in further],
        "## Cross-check of the maps\n",
        "Hook against Captum's LayerGradCam, both classes.\n",
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


def _order(judged: Sequence[Judged]) -> list[str]:
    """Test first, then validation, then the rest."""
    first = [split.TEST, split.SELECT, split.RANDOM, split.CALIBRATE, split.OFFICIAL]
    return [part for part in first if part in judged[0].parts]


_MEANING = {
    split.TEST: "The test images: the figures to quote.",
    split.SELECT: "Blocks of ids that training never saw. They stopped training early, "
    "so they flatter a little.",
    split.RANDOM: "Patients at random from the training ids: this flatters, and shows how much.",
    split.CALIBRATE: "Temperature, offset and operating points were set here: this flatters them.",
    split.OFFICIAL: "The folder `val` as it came: too few images to say much.",
}


def _part(part: str, judged: Sequence[Judged]) -> str:
    lines = [
        f"## {part}: {judged[0].parts[part].images} images, "
        f"{judged[0].parts[part].patients} patients\n",
        f"{_MEANING[part]} 95% intervals by patient; operating point `balanced`.\n",
        "| network | AUC | accuracy | sensitivity | specificity |",
        "| --- | --- | --- | --- | --- |",
        *[_figures(one.name, one.parts[part]) for one in judged],
        "",
        "| network | class | images | precision | recall | F1 |",
        "| --- | --- | --- | --- | --- | --- |",
        *[
            f"| {one.name} | {name} | {of.images} | {of.precision:.3f} | {of.recall:.3f} "
            f"| {of.f1:.3f} |"
            for one in judged
            for name, of in one.parts[part].by_class.items()
        ],
        "",
        *_probabilities(part, judged),
    ]
    return "\n".join(lines)


def _probabilities(part: str, judged: Sequence[Judged]) -> list[str]:
    """Calibration, and recall by series."""
    series = list(judged[0].parts[part].recall_by_series)
    recalls = "".join(f" recall of {name} |" for name in series)
    read_off = f"specificity at sensitivity {SENSITIVITY_READ_OFF}, read off: not a choice"
    return [
        f"| network | log-loss | Brier score | calibration error | {read_off} |{recalls}",
        "| --- | --- | --- | --- | --- |" + " --- |" * len(series),
        *[_calibrated(one.name, one.parts[part], series) for one in judged],
        "",
    ]


def _calibrated(name: str, found: Judgement, series: Sequence[str]) -> str:
    recalls = [found.recall_by_series[one] for one in series]
    cells = [
        name,
        f"{found.log_loss:.3f}",
        f"{found.brier:.3f}",
        f"{found.calibration_error:.3f}",
        f"{found.specificity_read_off:.3f}",
        *[f"{with_interval(of.recall, of.interval)} of {of.images}" for of in recalls],
    ]
    return f"| {' | '.join(cells)} |"


def _figures(name: str, found: Judgement) -> str:
    intervals = found.intervals
    sensitivity, specificity = (found.by_class[k].recall for k in ("PNEUMONIA", "NORMAL"))
    cells = [
        with_interval(found.auc, intervals.get("auc")),
        with_interval(found.accuracy, intervals["accuracy"]),
        with_interval(sensitivity, intervals["sensitivity"]),
        with_interval(specificity, intervals["specificity"]),
    ]
    return f"| {name} | {' | '.join(cells)} |"


def _operating_points(judged: Sequence[Judged], labels: Labels) -> str:
    part = _order(judged)[0]
    columns = f"sensitivity | specificity | on {part}: sensitivity | specificity"
    lines = [
        "## Operating points\n",
        f"Set on `block-calibrate`: what they do there, and on {part}.\n",
        f"| network | temperature | offset | point | threshold | {columns} |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in judged:
        for name, point in one.operating_points.items():
            found, cleared = _does(one, part, point.threshold, labels)
            lines.append(
                f"| {one.name} | {one.calibration.temperature:.3f} "
                f"| {one.calibration.offset:.3f} | {name} | {point.threshold:.4f} "
                f"| {point.sensitivity:.3f} | {point.specificity:.3f} "
                f"| {found:.3f} | {cleared:.3f} |"
            )
    return "\n".join(lines) + "\n"


def _does(one: Judged, part: str, threshold: float, labels: Labels) -> tuple[float, float]:
    """Sensitivity and specificity of a threshold on a part."""
    positive = one.scores(part) >= threshold
    return float(positive[labels == 1].mean()), float(1 - positive[labels == 0].mean())


def _thousand(judged: Sequence[Judged], labels: Labels) -> str:
    """What each operating point means for 1,000 children, by how many of them are sick."""
    part = _order(judged)[0]
    lines = [
        "## Of 1,000 children\n",
        f"By the sensitivity and specificity on {part}: missed of the sick, false alarms among the "
        "healthy, and how far an answer of either kind can be believed (predictive values).\n",
        "| network | point | sick | missed | false alarms | PNEUMONIA is right | NORMAL is right |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in judged:
        for name, point in one.operating_points.items():
            found, cleared = _does(one, part, point.threshold, labels)
            for prevalence in PREVALENCES:
                of = per_thousand(found, cleared, prevalence)
                lines.append(
                    f"| {one.name} | {name} | {prevalence:.1%} | {of['missed']:.0f} "
                    f"| {of['false_alarms']:.0f} | {of['positive_predictive_value']:.1%} "
                    f"| {of['negative_predictive_value']:.1%} |"
                )
    return "\n".join(lines) + "\n"
