"""The types of a card's fields; `handlers.card` has the cards themselves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handlers.records import Record


@dataclass(frozen=True, kw_only=True)
class Project(Record):
    """The project that wrote the card, and its version."""

    name: str
    version: str


@dataclass(frozen=True, kw_only=True)
class Input(Record):
    """The input of a network: one grey channel of `size` × `size` pixels."""

    size: int
    mode: str = "L"
    resize: str | None = None


@dataclass(frozen=True, kw_only=True)
class MapGrid(Record):
    """The cells of a class activation map, and whether the last stage is dilated."""

    rows: int
    columns: int
    dilated: bool = False


@dataclass(frozen=True, kw_only=True)
class Map(MapGrid):
    """The map of an evaluated network; `scale` is the evidence at full opacity, in logits."""

    scale: float


@dataclass(frozen=True, kw_only=True)
class Dataset(Record):
    """The data set of a training run; `counts` are numbers of images by part and class."""

    name: str
    sha256: str
    counts: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, kw_only=True)
class LungMasks(Record):
    """The lung masks a network was trained with."""

    images: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Training(Record):
    """A training run: data, seeds, initial weights, preset, and the recipe of each leg."""

    data: Dataset
    seed: int
    init: str
    preset: str
    split_seed: int | None = None  # None: the split was made by `seed`
    lungs: LungMasks | None = None
    recipes: tuple[Mapping[str, Any], ...] | None = None

    @property
    def split_by(self) -> int:
        """The seed of the split."""
        return self.seed if self.split_seed is None else self.split_seed


@dataclass(frozen=True, kw_only=True)
class HalfPrecision(Record):
    """The weights were rounded to half precision: the largest change, and the hash before."""

    max_probability_difference: float
    from_sha256: str


@dataclass(frozen=True, kw_only=True)
class Calibration(Record):
    """The offset in the bias, and the prevalence (0..1) that the probabilities assume."""

    offset: float
    prevalence: float | None = None
    raw_bias: tuple[float, ...] | None = None  # as trained, without the offset


@dataclass(frozen=True, kw_only=True)
class OperatingPoint(Record):
    """A threshold on the probability of PNEUMONIA, and its figures on the calibration images."""

    threshold: float
    sensitivity: float
    specificity: float


@dataclass(frozen=True, kw_only=True)
class Histogram(Record):
    """Edges (k,), and the share (k + 1,) of the values in each bin between them."""

    edges: tuple[float, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Reference(Record):
    """The reference for drift: probability and brightness of the calibration images."""

    probability: Histogram | None = None
    brightness: Histogram | None = None


@dataclass(frozen=True, kw_only=True)
class ClassFigures(Record):
    """Figures of one class at a threshold."""

    precision: float
    recall: float
    f1: float
    images: int


@dataclass(frozen=True, kw_only=True)
class SeriesFigures(Record):
    """Recall of the images of PNEUMONIA of one series, such as bacteria, with a 95% interval."""

    recall: float
    interval: tuple[float, float]
    images: int


@dataclass(frozen=True, kw_only=True)
class PartFigures(Record):
    """Figures of a network on one part of the data, with 95% intervals."""

    images: int
    patients: int
    threshold: float
    auc: float
    accuracy: float
    confusion: tuple[tuple[int, ...], ...]  # rows: actual, columns: predicted
    by_class: Mapping[str, ClassFigures]
    intervals: Mapping[str, tuple[float, float]]
    log_loss: float | None = None
    brier: float | None = None
    calibration_error: float | None = None
    specificity_read_off: float | None = None  # at a sensitivity of 0.985 on these images
    recall_by_series: Mapping[str, SeriesFigures] | None = None


@dataclass(frozen=True, kw_only=True)
class Figures(Record):
    """Figures on `block-select` and, if they were evaluated, on the test images."""

    validation: PartFigures
    test: PartFigures | None


@dataclass(frozen=True, kw_only=True)
class NoveltyRule(Record):
    """When an image counts as unlike the training images; see `handlers.novelty`."""

    threshold: float
    alterations: tuple[str, ...]
    margins: tuple[float, ...]
    stage: str | None = None
    reference_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class TriageStats(Record):
    """Triage on one part: the shares (0..1) of its images and of its errors sent to review."""

    images: int
    review: float
    errors: int
    errors_caught: float | None  # None: no errors


@dataclass(frozen=True, kw_only=True)
class TriageRules(Record):
    """Limits for a review: distance from the threshold in logits, difference of probabilities."""

    doubt: float
    disagreement: float
    caught: Mapping[str, TriageStats] | None = None


@dataclass(frozen=True, kw_only=True)
class StoredFile(Record):
    """A file of the archive."""

    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Graph(StoredFile):
    """The file of a network's graph, its engine, and the measurements of its packing."""

    engine: str = "onnxruntime"  # the first archives had no other
    precision: str = "f32"
    milliseconds: Mapping[str, float] | None = None  # per image, by engine
    gate: Mapping[str, float] | None = None  # changes by a precision below f32
    max_logit_difference: float | None = None
