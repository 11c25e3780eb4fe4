"""The ablation's cells, and the table of what each change adds."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.experiments.ablation_changes import UNCHANGED
from train.report import report_sections

FIGURES = ("select_auc", "select_loss", "stress_auc", "stress_loss", "random_auc")
MAP_FIGURES = ("inside", "moves", "agreement")


@dataclass(frozen=True)
class Cell:
    """Figures of one training, calibrated by `train.evaluation.calibrated_model`."""

    change: str
    seed: int
    select_auc: float
    select_loss: float
    stress_auc: float  # on the robustness set
    stress_loss: float
    random_auc: float
    random_loss: float
    inside: float | None  # share of the evidence in the lungs
    agreement: float | None  # mean rank correlation of the maps with the first seed's
    moves: float | None = None  # logit change, lungs swapped / everything else swapped


def read_cells(path: Path) -> list[Cell]:
    """The finished cells, one per line of the file; none if the file is missing."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return [Cell(**json.loads(line)) for line in lines]


def table_rows(cells: Sequence[Cell]) -> list[list[str]]:
    """A row for the unchanged recipe, and for each change its difference from that row's means.

    A change's figures are means over its seeds. It counts if log-loss or AUC is better by more than
    twice the standard deviation of the unchanged seeds, on `block-select` and on the robustness
    set, and AUC on `random` is not worse by more than that.
    """
    by_change: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        by_change[cell.change].append(cell)
    base = by_change.pop(UNCHANGED)
    figures = (*FIGURES, *MAP_FIGURES)
    rows = [[UNCHANGED, str(len(base)), *[_mean_and_deviation(base, key) for key in figures], ""]]
    for change, changed in by_change.items():
        gains = {key: _gain(base, changed, key) for key in FIGURES}
        counts = (
            max(gains["select_auc"], gains["select_loss"]) > 2
            and max(gains["stress_auc"], gains["stress_loss"]) > 2
            and gains["random_auc"] >= -2
        )
        differences = [_difference(base, changed, key) for key in figures]
        rows.append([change, str(len(changed)), *differences, "yes" if counts else "no"])
    return rows


def _values(cells: Sequence[Cell], key: str) -> list[float]:
    return [value for cell in cells if (value := getattr(cell, key)) is not None]


def _mean_and_deviation(base: Sequence[Cell], key: str) -> str:
    values = _values(base, key)
    if len(values) < 2:
        return f"{values[0]:.4f}" if values else "–"
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def _gain(base: Sequence[Cell], changed: Sequence[Cell], key: str) -> float:
    """The improvement by a change, in standard deviations of the unchanged seeds."""
    values = _values(base, key)
    difference = float(np.mean(_values(changed, key)) - np.mean(values))
    sign = -1 if key.endswith("loss") else 1
    return sign * difference / max(float(np.std(values, ddof=1)), 1e-9)


def _difference(base: Sequence[Cell], changed: Sequence[Cell], key: str) -> str:
    before, after = _values(base, key), _values(changed, key)
    return f"{np.mean(after) - np.mean(before):+.4f}" if before and after else "–"


def report(network: str, preset: str, cells: Sequence[Cell]) -> str:
    """The report in Markdown: how to read it, and the table."""
    head = ["change", "seeds", "AUC", "log-loss", "AUC, robustness set"]
    head += ["log-loss, robustness set", "AUC, random", "evidence in the lungs", "swap ratio"]
    return (
        f"# Ablation\n\n{network}, preset {preset}, from scratch. Figures on `block-select`, on "
        "the robustness set (`block-select` under corruptions) and on `random`, all calibrated on "
        "`block-select`. Evidence in the lungs: the decision map's share inside them. Swap ratio: "
        "how far the logit moves when the lungs are swapped with another image's, divided by how "
        "far it moves when everything else is. Agreement: the maps' rank correlation with those "
        "of the first seed. The first row is the unchanged recipe (`as it is`), mean and standard "
        "deviation over its seeds. The others are the difference that one change makes, averaged "
        "over its seeds. A change counts where log-loss or AUC improves by more than twice that "
        "standard deviation, on `block-select` and on the robustness set, and `random` does not "
        "lose as much.\n\n"
        + report_sections.table([*head, "agreement", "counts"], table_rows(cells))
    )
