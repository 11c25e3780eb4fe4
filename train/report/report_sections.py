"""Sections of the report beyond each part's figures: text, and numbers for metrics.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from train.data import splits
from train.evaluation import robustness
from train.evaluation.lung_evidence import LungEvidenceSummary
from train.evaluation.novelty_rule import NoveltyResult
from train.evaluation.resolution import ResolutionResult
from train.evaluation.robustness import RobustnessResult
from train.evaluation.selective_prediction import MOST_DOUBTFUL, DoubtResult
from train.evaluation.significance import Difference
from train.metrics.classification import Interval


@dataclass(frozen=True)
class Section:
    """A section of report.md, and its JSON document in metrics.json."""

    key: str  # in metrics.json
    text: str  # Markdown
    document: Any


def with_interval(value: float, interval: Interval | None) -> str:
    """A number with 3 decimals, and its interval in brackets unless that is None."""
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with a heading row."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def differences(pairs: Sequence[Difference], part: str) -> Section:
    """The section on paired differences between networks."""
    rows = [
        [
            f"{pair.first} − {pair.second}",
            _signed(pair.auc, pair.auc_interval),
            _signed(pair.accuracy, pair.accuracy_interval),
            f"{_signed(pair.auc, pair.delong_interval)}, p = {pair.delong_p:.3f}",
        ]
        for pair in pairs
    ]
    text = (
        "## Differences\n\n"
        f"On {part}, paired: both networks are evaluated on the same bootstrap draws. A difference "
        "is statistically significant where its interval excludes 0. DeLong's interval is given "
        "for reference; it treats the images of one patient as independent.\n\n"
        + table(["", "AUC", "accuracy at balanced", "AUC, DeLong"], rows)
    )
    return Section("differences", text, [asdict(pair) for pair in pairs])


def _signed(value: float, interval: Interval) -> str:
    return f"{value:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}]"


def corruptions(by_network: Mapping[str, Mapping[str, RobustnessResult]]) -> Section:
    """The section on robustness: each network's figures under each corruption."""
    rows = []
    for network, results in by_network.items():
        for name, result in [*results.items(), ("**mean**", robustness.mean(results))]:
            numbers = [f"{value:.3f}" for value in (result.auc, result.log_loss, result.accuracy)]
            rows.append([network, name, *numbers])
    text = (
        "## Robustness\n\n"
        f"Robustness: AUC, log-loss and accuracy on `{splits.SELECT}`, unchanged "
        f"(`{robustness.UNCHANGED}`) and under fixed corruptions that imitate another hospital's "
        "images. The mean is over all corruptions except inversion.\n\n"
        + table(["network", "change", "AUC", "log-loss", "accuracy at balanced"], rows)
    )
    document = {
        network: {
            **{name: asdict(result) for name, result in results.items()},
            "mean": asdict(robustness.mean(results)),
        }
        for network, results in by_network.items()
    }
    return Section("stress", text, document)


def selective_prediction(name: str, part: str, by_measure: Mapping[str, DoubtResult]) -> Section:
    """The section on selective prediction by a model on a part, with several measures of doubt."""
    rows = [
        [
            measure,
            str(result.errors),
            "–" if result.caught is None else f"{result.caught:.1%}",
            f"{result.area:.4f}",
        ]
        for measure, result in by_measure.items()
    ]
    share = f"share of errors in the {MOST_DOUBTFUL:.0%} most doubtful"
    text = (
        "## Selective prediction\n\n"
        f"Selective prediction with {name} on {part}, operating point `balanced`: the share of "
        "errors among the most doubtful images, and the error rate averaged over all coverages.\n\n"
        + table(["measure of doubt", "errors", share, "mean risk"], rows)
    )
    document = {measure: asdict(result) for measure, result in by_measure.items()}
    return Section("doubt", text, document)


def resolution(by_network: Mapping[str, ResolutionResult]) -> Section:
    """The section on originals and their small copies."""
    rows = [
        [
            network,
            str(result.images),
            f"{result.median:.4f}",
            f"{result.largest:.4f}",
            str(result.changed),
        ]
        for network, result in by_network.items()
    ]
    text = (
        "## Resolution: originals and their small copies\n\n"
        "Difference of P(PNEUMONIA) between an original and its small copy, median and maximum, "
        "and the number of labels that change at `balanced`.\n\n"
        + table(["network", "images", "median", "largest", "labels changed"], rows)
    )
    document = {network: asdict(result) for network, result in by_network.items()}
    return Section("twins", text, document)


def evidence(by_network: Mapping[str, Mapping[str, LungEvidenceSummary]]) -> Section:
    """The section on the location of the maps' evidence, by network and group of images."""
    rows = [
        [
            network,
            group,
            str(summary.images),
            with_interval(summary.share, summary.share_interval),
            f"{summary.area:.3f}",
            with_interval(summary.peak, summary.peak_interval),
            f"{summary.outside_swapped:.2f}",
            f"{summary.lungs_swapped:.2f}",
        ]
        for network, groups in by_network.items()
        for group, summary in groups.items()
    ]
    head = ["network", "images", "", "inside", "lungs' area", "peak inside"]
    text = (
        "## Where the evidence lies\n\n"
        f"On images of `{splits.SELECT}` whose lungs were drawn by hand: the share of the decision "
        "map's absolute value inside the lungs, the lungs' share of the image, how often the map's "
        "peak lies inside, and the mean absolute change of the decision logit when either "
        "everything outside the lungs or the lungs are swapped with another image's.\n\n"
        + table([*head, "outside swapped", "lungs swapped"], rows)
    )
    document = {
        network: {group: asdict(summary) for group, summary in groups.items()}
        for network, groups in by_network.items()
    }
    return Section("evidence", text, document)


def novelty(by_network: Mapping[str, NoveltyResult]) -> Section:
    """The section on images with a novelty warning."""
    rows = [
        [network, *row]
        for network, result in by_network.items()
        for row in [
            *[(f"`{part}`", f"{flags.mean():.1%}") for part, flags in result.parts.items()],
            *[(name, f"{share:.1%}") for name, share in result.changed.items()],
        ]
    ]
    text = (
        "## Unlike the training images\n\n"
        "Share of images whose answer has a novelty warning: of each part, and of "
        f"`{splits.SELECT}` turned, inverted or corrupted.\n\n"
        + table(["network", "images", "with a warning"], rows)
    )
    document = {
        network: {
            "parts": {part: float(flags.mean()) for part, flags in result.parts.items()},
            "changed": dict(result.changed),
        }
        for network, result in by_network.items()
    }
    return Section("novelty", text, document)
