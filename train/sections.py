"""Parts of the report that are there only for some runs: text, and numbers for metrics.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from train import split, stress
from train.compare import Difference
from train.doubt import MOST_DOUBTFUL, Doubt
from train.lung_evidence import LungEvidenceSummary
from train.metrics import Interval
from train.novelty_rule import NoveltyResult
from train.stress import RobustnessResult
from train.twins import Twins


@dataclass(frozen=True)
class Section:
    """Markdown, and what metrics.json holds of it under a key."""

    key: str
    text: str
    data: Any


def with_interval(value: float, interval: Interval | None) -> str:
    """A number and, where there is one, its interval."""
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def differences(pairs: Sequence[Difference], part: str) -> Section:
    """Paired differences between networks."""
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
        f"On {part}, the same draws for both: one network is better where the interval excludes 0. "
        "DeLong's interval, for reference, takes the images of one patient for independent.\n\n"
        + table(["", "AUC", "accuracy at balanced", "AUC, DeLong"], rows)
    )
    return Section("differences", text, [asdict(pair) for pair in pairs])


def _signed(value: float, interval: Interval) -> str:
    return f"{value:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}]"


def stressed(by_network: Mapping[str, Mapping[str, RobustnessResult]]) -> Section:
    """Robustness: figures under each change."""
    rows = []
    for network, by_change in by_network.items():
        for name, result in [*by_change.items(), ("**mean**", stress.mean(by_change))]:
            numbers = [f"{value:.3f}" for value in (result.auc, result.log_loss, result.accuracy)]
            rows.append([network, name, *numbers])
    text = (
        "## Changed images\n\n"
        f"On `{split.SELECT}`, as it is and changed, always the same way: what another hospital's "
        "images might look like. The mean is over the changes but inversion.\n\n"
        + table(["network", "change", "AUC", "log-loss", "accuracy at balanced"], rows)
    )
    document = {
        network: {
            **{name: asdict(result) for name, result in by_change.items()},
            "mean": asdict(stress.mean(by_change)),
        }
        for network, by_change in by_network.items()
    }
    return Section("stress", text, document)


def doubts(name: str, part: str, by_measure: Mapping[str, Doubt]) -> Section:
    """Selective prediction: what measures of doubt are worth."""
    rows = [
        [
            measure,
            str(doubt.errors),
            "–" if doubt.caught is None else f"{doubt.caught:.1%}",
            f"{doubt.area:.4f}",
        ]
        for measure, doubt in by_measure.items()
    ]
    head = ["doubt", "errors", f"in the {MOST_DOUBTFUL:.0%} most doubtful", "mean risk"]
    text = (
        "## Doubt\n\n"
        f"{name} on {part}, operating point `balanced`: which share of the errors is among the "
        "most doubtful images, and the error rate in the mean over all coverages.\n\n"
        + table(head, rows)
    )
    return Section("doubt", text, {measure: asdict(doubt) for measure, doubt in by_measure.items()})


def twins(by_network: Mapping[str, Twins]) -> Section:
    """Originals beside their small copies."""
    rows = [
        [
            network,
            str(copies.images),
            f"{copies.median:.4f}",
            f"{copies.largest:.4f}",
            str(copies.changed),
        ]
        for network, copies in by_network.items()
    ]
    text = (
        "## Originals and their small copies\n\n"
        "Difference of P(PNEUMONIA) between two copies of one image, in the median and at most, "
        "and how many labels change at `balanced`.\n\n"
        + table(["network", "images", "median", "largest", "labels changed"], rows)
    )
    return Section(
        "twins", text, {network: asdict(copies) for network, copies in by_network.items()}
    )


def evidence(by_network: Mapping[str, Mapping[str, LungEvidenceSummary]]) -> Section:
    """Where the evidence lies."""
    rows = [
        [
            name,
            group,
            str(finding.images),
            with_interval(finding.share, finding.share_interval),
            f"{finding.area:.3f}",
            with_interval(finding.peak, finding.peak_interval),
            f"{finding.outside_swapped:.2f}",
            f"{finding.lungs_swapped:.2f}",
        ]
        for name, groups in by_network.items()
        for group, finding in groups.items()
    ]
    head = ["network", "images", "", "inside", "lungs' area", "peak inside"]
    text = (
        "## Where the evidence lies\n\n"
        f"On images of `{split.SELECT}` whose lungs were drawn by hand. Share of the decision "
        "map's absolute value inside the lungs, beside the lungs' share of the image; how often "
        "the map's peak lies inside; how far the decision logit moves, in the mean, when all "
        "outside the lungs is swapped with another image's, and when the lungs are.\n\n"
        + table([*head, "outside swapped", "lungs swapped"], rows)
    )
    data = {
        n: {group: asdict(finding) for group, finding in groups.items()}
        for n, groups in by_network.items()
    }
    return Section("evidence", text, data)


def unlike(by_network: Mapping[str, NoveltyResult]) -> Section:
    """Novelty: what networks warn of as unlike their training images."""
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
        "Share of the images that are answered with a warning: of each part, and of "
        f"`{split.SELECT}` turned, inverted or changed.\n\n"
        + table(["network", "images", "warned of"], rows)
    )
    document = {
        network: {
            "parts": {part: float(flags.mean()) for part, flags in result.parts.items()},
            "changed": dict(result.changed),
        }
        for network, result in by_network.items()
    }
    return Section("novelty", text, document)
