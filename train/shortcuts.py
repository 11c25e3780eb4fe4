"""What can be told without looking at the lungs? Baselines, `python -m train shortcuts`.

A network's figures mean little beside a baseline that sees the file's size, or the corners, alone.
Each is a logistic regression: simple, and the same for all, so that what differs is what it sees.
Trained on `fit`, scored on `block-select`; on test only where that is opened.
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
from train import checkpoint, sections, split
from train.data import Dataset
from train.lung_masks import LungMasks
from train.metrics import DRAWS, Interval, aucs, bootstrap, percentile_interval

log = logging.getLogger(__name__)

SIZE = 96  # pixels that images are decoded to, as for a network
SIDE = 32  # of which a baseline sees so many
CORNER = 0.2  # of the image's side
BORDER = 0.08
COMPONENTS = 60
REPORT, NUMBERS = "shortcuts.md", "shortcuts.json"

Seen = npt.NDArray[np.float64]  # (N, F)
See = Callable[[Dataset, LungMasks | None, npt.NDArray[np.int64]], Seen]


@dataclass(frozen=True)
class Baseline:
    """How well one baseline tells the classes apart, on one part."""

    part: str
    images: int
    auc: float
    interval: Interval


def shortcuts(dataset: Dataset, masks: LungMasks | None, folder: Path, open_test: bool) -> Path:
    """Fit and score every baseline, write report and numbers into a folder; the report's path.

    Those of lungs need masks, and are fitted and scored on the images that have one.
    """
    parts = [split.SELECT, *([split.TEST] if open_test else [])]
    found: dict[str, list[Baseline]] = {}
    for name, see in tqdm(_WHOLE.items(), desc="baselines", unit=" baselines", disable=None):
        found[name] = _judge(dataset, None, see, parts)
    if masks is not None:
        for name, see in tqdm(
            _WITH_MASKS.items(), desc="of lungs", unit=" baselines", disable=None
        ):
            found[name] = _judge(dataset, masks, see, [split.SELECT])
    checkpoint.write_text(
        folder / NUMBERS,
        json.dumps({name: [asdict(one) for one in each] for name, each in found.items()}, indent=2)
        + "\n",
    )
    checkpoint.write_text(folder / REPORT, _report(dataset, found))
    return folder / REPORT


def _judge(dataset: Dataset, masks: LungMasks | None, see: See, parts: list[str]) -> list[Baseline]:
    def rows_of(part: str) -> npt.NDArray[np.int64]:
        rows = dataset.rows(part)
        return rows if masks is None else rows[masks.present[rows]]

    fit = rows_of(split.FIT)
    seen = see(dataset, masks, fit)
    steps = [StandardScaler()]
    if seen.shape[1] > COMPONENTS:
        steps.append(PCA(COMPONENTS, random_state=0))
    model = make_pipeline(*steps, LogisticRegression(class_weight="balanced", max_iter=2000))
    model.fit(seen, dataset.labels[fit])
    found = []
    for part in parts:
        rows = rows_of(part)
        labels = dataset.labels[rows]
        scores = model.decision_function(see(dataset, masks, rows))
        times = bootstrap(labels, dataset.patients[rows], DRAWS)
        interval = percentile_interval(aucs(labels, scores, times))
        auc = float(roc_auc_score(labels, scores))
        found.append(Baseline(part, len(rows), auc, interval))
    return found


# --- what is seen: each gives (N, F) of rows of the data set


def _bytes(dataset: Dataset, _masks: LungMasks | None, rows: npt.NDArray[np.int64]) -> Seen:
    """Size of the file, in log bytes."""
    sizes = [(dataset.root / dataset.images[row].path).stat().st_size for row in rows]
    return np.log(np.array(sizes, dtype=np.float64))[:, None]


def _small(images: Pixels) -> Seen:
    """Images (N, S, S) or masks as (N, 32, 32)."""
    shrunk = [Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BOX) for one in images]
    return np.stack([np.asarray(one, dtype=np.float64) for one in shrunk])


def _edges(dataset: Dataset, _masks: LungMasks | None, rows: npt.NDArray[np.int64]) -> Seen:
    """Corners and borders: no lung reaches there."""
    place = (np.arange(SIDE) + 0.5) / SIDE
    near = np.minimum(place, 1 - place)
    across, down = np.meshgrid(near, near)
    seen = np.maximum(across, down) < CORNER
    seen |= np.minimum(across, down) < BORDER
    return _small(dataset.pixels[rows])[:, seen]


def _everything(dataset: Dataset, _masks: LungMasks | None, rows: npt.NDArray[np.int64]) -> Seen:
    return _small(dataset.pixels[rows]).reshape(len(rows), -1)


def _masked(
    keep: Callable[[npt.NDArray[np.bool_]], npt.NDArray[np.bool_]],
) -> See:
    """Pixels where `keep` of the masks (N, 32, 32) is true, 0 elsewhere."""

    def see(dataset: Dataset, masks: LungMasks | None, rows: npt.NDArray[np.int64]) -> Seen:
        assert masks is not None
        kept = keep(_small(masks.pixels[rows]) > 127)
        return (_small(dataset.pixels[rows]) * kept).reshape(len(rows), -1)

    return see


def _shape(_dataset: Dataset, masks: LungMasks | None, rows: npt.NDArray[np.int64]) -> Seen:
    assert masks is not None
    return _small(masks.pixels[rows]).reshape(len(rows), -1)


def outside_box(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Of masks (N, S, S): all that lies outside the lungs' bounding box."""
    rows, columns = np.asarray(masks.any(2)), np.asarray(masks.any(1))
    spans = [
        np.maximum.accumulate(one, axis=1) & np.maximum.accumulate(one[:, ::-1], axis=1)[:, ::-1]
        for one in (rows, columns)
    ]
    outside: npt.NDArray[np.bool_] = ~(spans[0][:, :, None] & spans[1][:, None, :])
    return outside


_WHOLE: Mapping[str, See] = {
    "byte size of the file": _bytes,
    "corners and borders": _edges,
    "the whole image": _everything,
}
_WITH_MASKS: Mapping[str, See] = {
    "the whole image, where masks are": _everything,
    "lungs alone": _masked(lambda masks: masks),
    "all but the lungs": _masked(lambda masks: ~masks),
    "all but the lungs' bounding box": _masked(outside_box),
    "shape of the lungs alone": _shape,
}


def _report(dataset: Dataset, found: Mapping[str, list[Baseline]]) -> str:
    rows = [
        [name, one.part, str(one.images), sections.with_interval(one.auc, one.interval)]
        for name, each in found.items()
        for one in each
    ]
    return (
        "# Shortcuts\n\n"
        f"What a logistic regression can tell on {dataset.name} from images of {SIDE} × {SIDE} "
        f"pixels ({COMPONENTS} principal components), or from less. Trained on `fit`; intervals of "
        "95% by patient. The nearer these come to a network, the less the network's figures say of "
        "lungs.\n\n" + sections.table(["what is seen", "part", "images", "AUC"], rows)
    )
