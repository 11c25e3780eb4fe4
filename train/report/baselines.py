"""Baselines that don't need the lungs, `python -m train shortcuts`.

They measure acquisition artefacts that reveal the class: file size, corners, everything except the
lungs. Every baseline is the same logistic regression, so they differ only in their input. They are
trained on `fit` and scored on `block-select`, and on test only if that is opened.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from handlers.arrays import Pixels
from train.data import splits
from train.data.dataset import Dataset
from train.data.lung_masks import LungMasks
from train.metrics.classification import DRAWS, Interval, aucs, bootstrap, percentile_interval
from train.model import checkpoint
from train.report import report_sections

log = logging.getLogger(__name__)

SIZE = 96  # pixels a side that images are decoded to
SIDE = 32  # pixels a side of a baseline's input
CORNER = 0.2  # share of the side
BORDER = 0.08  # share of the side
COMPONENTS = 60
REPORT, NUMBERS = "shortcuts.md", "shortcuts.json"

Features = npt.NDArray[np.float64]  # (N, F)
Extractor = Callable[[Dataset, LungMasks | None, npt.NDArray[np.int64]], Features]


@dataclass(frozen=True)
class Baseline:
    """The AUC of a baseline on a part, with its 95% interval."""

    part: str
    images: int
    auc: float
    interval: Interval


def write_report(dataset: Dataset, masks: LungMasks | None, folder: Path, open_test: bool) -> Path:
    """Fit and score every baseline, and write report and numbers to a folder; the report's path.

    Baselines of lungs need masks, and are fitted and scored on the images that have one.
    """
    parts = [splits.SELECT, *([splits.TEST] if open_test else [])]
    results: dict[str, list[Baseline]] = {}
    for name, extract in tqdm(_WHOLE.items(), desc="baselines", unit=" baselines", disable=None):
        results[name] = _evaluate(dataset, None, extract, parts)
    if masks is not None:
        for name, extract in tqdm(
            _WITH_MASKS.items(), desc="lung baselines", unit=" baselines", disable=None
        ):
            results[name] = _evaluate(dataset, masks, extract, [splits.SELECT])
    numbers = {
        name: [asdict(baseline) for baseline in baselines] for name, baselines in results.items()
    }
    checkpoint.write_text(folder / NUMBERS, json.dumps(numbers, indent=2) + "\n")
    checkpoint.write_text(folder / REPORT, _report(dataset, results))
    return folder / REPORT


def _evaluate(
    dataset: Dataset, masks: LungMasks | None, extract: Extractor, parts: list[str]
) -> list[Baseline]:
    def rows_of(part: str) -> npt.NDArray[np.int64]:
        rows = dataset.rows(part)
        return rows if masks is None else rows[masks.present[rows]]

    fit = rows_of(splits.FIT)
    features = extract(dataset, masks, fit)
    steps = [StandardScaler()]
    if features.shape[1] > COMPONENTS:
        steps.append(PCA(COMPONENTS, random_state=0))
    model = make_pipeline(*steps, LogisticRegression(class_weight="balanced", max_iter=2000))
    model.fit(features, dataset.labels[fit])
    baselines = []
    for part in parts:
        rows = rows_of(part)
        labels = dataset.labels[rows]
        scores = model.decision_function(extract(dataset, masks, rows))
        times = bootstrap(labels, dataset.patients[rows], DRAWS)
        interval = percentile_interval(aucs(labels, scores, times))
        auc = float(roc_auc_score(labels, scores))
        baselines.append(Baseline(part, len(rows), auc, interval))
    return baselines


# --- extractors: features (N, F) of rows of the data set


def _bytes(dataset: Dataset, _masks: LungMasks | None, rows: npt.NDArray[np.int64]) -> Features:
    """Size of the file, in log bytes: (N, 1)."""
    sizes = [(dataset.root / dataset.images[row].path).stat().st_size for row in rows]
    return np.log(np.array(sizes, dtype=np.float64))[:, None]


def _shrink(images: Pixels) -> Features:
    """Images or masks (N, S, S), resized to (N, 32, 32)."""
    small = [Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(image, dtype=np.float64) for image in small])


def _edges(dataset: Dataset, _masks: LungMasks | None, rows: npt.NDArray[np.int64]) -> Features:
    """Pixels of corners and borders, which no lung reaches."""
    centres = (np.arange(SIDE) + 0.5) / SIDE
    margin = np.minimum(centres, 1 - centres)
    across, down = np.meshgrid(margin, margin)
    edges = np.maximum(across, down) < CORNER
    edges |= np.minimum(across, down) < BORDER
    return _shrink(dataset.pixels[rows])[:, edges]


def _whole(dataset: Dataset, _masks: LungMasks | None, rows: npt.NDArray[np.int64]) -> Features:
    return _shrink(dataset.pixels[rows]).reshape(len(rows), -1)


def _masked(
    keep: Callable[[npt.NDArray[np.bool_]], npt.NDArray[np.bool_]],
) -> Extractor:
    """Pixels where `keep` of the masks (N, 32, 32) is true, 0 elsewhere."""

    def extract(dataset: Dataset, masks: LungMasks | None, rows: npt.NDArray[np.int64]) -> Features:
        assert masks is not None
        kept = keep(_shrink(masks.pixels[rows]) > 127)
        return (_shrink(dataset.pixels[rows]) * kept).reshape(len(rows), -1)

    return extract


def _shape(_dataset: Dataset, masks: LungMasks | None, rows: npt.NDArray[np.int64]) -> Features:
    assert masks is not None
    return _shrink(masks.pixels[rows]).reshape(len(rows), -1)


def outside_box(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Whether each pixel (N, S, S) is outside the bounding box of its lung mask (N, S, S)."""
    spans = [
        np.maximum.accumulate(line, axis=1) & np.maximum.accumulate(line[:, ::-1], axis=1)[:, ::-1]
        for line in (np.asarray(masks.any(2)), np.asarray(masks.any(1)))  # rows, columns
    ]
    outside: npt.NDArray[np.bool_] = ~(spans[0][:, :, None] & spans[1][:, None, :])
    return outside


_WHOLE: Mapping[str, Extractor] = {
    "byte size of the file": _bytes,
    "corners and borders": _edges,
    "the whole image": _whole,
}
_WITH_MASKS: Mapping[str, Extractor] = {
    "the whole image, where masks are": _whole,
    "lungs alone": _masked(lambda masks: masks),
    "all but the lungs": _masked(lambda masks: ~masks),
    "all but the lungs' bounding box": _masked(outside_box),
    "shape of the lungs alone": _shape,
}


def _report(dataset: Dataset, results: Mapping[str, list[Baseline]]) -> str:
    rows = [
        [
            name,
            baseline.part,
            str(baseline.images),
            report_sections.with_interval(baseline.auc, baseline.interval),
        ]
        for name, baselines in results.items()
        for baseline in baselines
    ]
    return (
        "# Shortcuts\n\n"
        f"AUC of logistic regressions on {dataset.name} that see images of {SIDE} × {SIDE} pixels "
        f"({COMPONENTS} principal components), or less. Trained on `fit`; 95% intervals by "
        "patient. The closer these come to a network, the less the network's figures say about "
        "lungs.\n\n" + report_sections.table(["input", "part", "images", "AUC"], rows)
    )
