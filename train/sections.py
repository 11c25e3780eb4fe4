"""Parts of the report that are there only for some runs: text, and numbers for metrics.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from train import split, stress
from train.compare import Difference
from train.doubt import MOST_DOUBTFUL, Doubt
from train.lung_evidence import LungEvidenceSummary
from train.metrics import Interval
from train.novelty import Fitted
from train.stress import Borne
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


def differences(found: Sequence[Difference], part: str) -> Section:
    """Paired differences between networks."""
    rows = [
        [
            f"{one.first} − {one.second}",
            _signed(one.auc, one.auc_interval),
            _signed(one.accuracy, one.accuracy_interval),
            f"{_signed(one.auc, one.delong_interval)}, p = {one.delong_p:.3f}",
        ]
        for one in found
    ]
    text = (
        "## Differences\n\n"
        f"On {part}, the same draws for both: one network is better where the interval excludes 0. "
        "DeLong's interval, for reference, takes the images of one patient for independent.\n\n"
        + table(["", "AUC", "accuracy at balanced", "AUC, DeLong"], rows)
    )
    return Section("differences", text, [asdict(one) for one in found])


def _signed(value: float, interval: Interval) -> str:
    return f"{value:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}]"


def stressed(found: Mapping[str, Mapping[str, Borne]]) -> Section:
    """What networks bear."""
    rows = []
    for network, by_change in found.items():
        for name, one in [*by_change.items(), ("**mean**", stress.mean(by_change))]:
            numbers = [f"{value:.3f}" for value in (one.auc, one.log_loss, one.accuracy)]
            rows.append([network, name, *numbers])
    text = (
        "## Changed images\n\n"
        f"On `{split.SELECT}`, as it is and changed, always the same way: what another hospital's "
        "images might look like. The mean is over the changes but inversion.\n\n"
        + table(["network", "change", "AUC", "log-loss", "accuracy at balanced"], rows)
    )
    data = {
        network: {
            **{name: asdict(one) for name, one in by_change.items()},
            "mean": asdict(stress.mean(by_change)),
        }
        for network, by_change in found.items()
    }
    return Section("stress", text, data)


def doubts(name: str, part: str, found: Mapping[str, Doubt]) -> Section:
    """What measures of doubt are worth."""
    rows = [
        [
            measure,
            str(one.errors),
            "–" if one.caught is None else f"{one.caught:.1%}",
            f"{one.area:.4f}",
        ]
        for measure, one in found.items()
    ]
    head = ["doubt", "errors", f"in the {MOST_DOUBTFUL:.0%} most doubtful", "mean risk"]
    text = (
        "## Doubt\n\n"
        f"{name} on {part}, operating point `balanced`: which share of the errors is among the "
        "most doubtful images, and the error rate in the mean over all coverages.\n\n"
        + table(head, rows)
    )
    return Section("doubt", text, {measure: asdict(one) for measure, one in found.items()})


def twins(found: Mapping[str, Twins]) -> Section:
    """Originals beside their small copies."""
    rows = [
        [network, str(one.images), f"{one.median:.4f}", f"{one.largest:.4f}", str(one.changed)]
        for network, one in found.items()
    ]
    text = (
        "## Originals and their small copies\n\n"
        "Difference of P(PNEUMONIA) between two copies of one image, in the median and at most, "
        "and how many labels change at `balanced`.\n\n"
        + table(["network", "images", "median", "largest", "labels changed"], rows)
    )
    return Section("twins", text, {network: asdict(one) for network, one in found.items()})


def evidence(found: Mapping[str, Mapping[str, LungEvidenceSummary]]) -> Section:
    """Where the evidence lies."""
    rows = [
        [
            name,
            group,
            str(one.images),
            with_interval(one.share, one.share_interval),
            f"{one.area:.3f}",
            with_interval(one.peak, one.peak_interval),
            f"{one.outside_swapped:.2f}",
            f"{one.lungs_swapped:.2f}",
        ]
        for name, groups in found.items()
        for group, one in groups.items()
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
    data = {n: {group: asdict(one) for group, one in groups.items()} for n, groups in found.items()}
    return Section("evidence", text, data)


def unlike(found: Mapping[str, Fitted]) -> Section:
    """What networks warn of as unlike their training images."""
    rows = [
        [network, *each]
        for network, one in found.items()
        for each in [
            *[(f"`{part}`", f"{of.mean():.1%}") for part, of in one.unlike.items()],
            *[(name, f"{share:.1%}") for name, share in one.warned.items()],
        ]
    ]
    text = (
        "## Unlike the training images\n\n"
        "Share of the images that are answered with a warning: of each part, and of "
        f"`{split.SELECT}` turned, inverted or changed.\n\n"
        + table(["network", "images", "warned of"], rows)
    )
    data = {
        network: {
            "parts": {part: float(of.mean()) for part, of in one.unlike.items()},
            "changed": dict(one.warned),
        }
        for network, one in found.items()
    }
    return Section("novelty", text, data)
