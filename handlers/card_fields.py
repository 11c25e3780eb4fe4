"""The parts of a card, as types; `handlers.card` has the cards themselves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handlers.records import Record


@dataclass(frozen=True, kw_only=True)
class Project(Record):
    """What wrote the card."""

    name: str
    version: str


@dataclass(frozen=True, kw_only=True)
class Input(Record):
    """What the network takes: one grey channel of `size` × `size` pixels."""

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
    """The same of an evaluated network: `scale`, in logits, is where an overlay saturates."""

    scale: float


@dataclass(frozen=True, kw_only=True)
class Dataset(Record):
    """What a network was trained on; `counts` are images by part and class."""

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
    """A training run: data, seeds, start, preset, and the settings of each leg."""

    data: Dataset
    seed: int
    init: str
    preset: str
    split_seed: int | None = None  # None: the split was made by `seed`
    lungs: LungMasks | None = None
    recipes: tuple[Mapping[str, Any], ...] | None = None

    @property
    def split_by(self) -> int:
        """The seed that split the images."""
        return self.seed if self.split_seed is None else self.split_seed


@dataclass(frozen=True, kw_only=True)
class HalfPrecision(Record):
    """The weights were rounded to half precision, and what that changed of probabilities."""

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
    """What drift is measured from: probability and brightness of the calibration images."""

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
    """Figures on `block-select`, and on the test images where they were opened."""

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
    """The share of a part's images, and of its errors (None without any), that `review` takes."""

    images: int
    review: float
    errors: int
    errors_caught: float | None


@dataclass(frozen=True, kw_only=True)
class TriageRules(Record):
    """Bounds of `review`: of doubt in logits, of disagreement in probability."""

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
    """The file of a network's graph, what runs it, and what was measured as it was built."""

    engine: str = "onnxruntime"  # the first archives had no other
    precision: str = "f32"
    milliseconds: Mapping[str, float] | None = None  # an image, by engine
    gate: Mapping[str, float] | None = None  # what less than f32 changes
    max_logit_difference: float | None = None
