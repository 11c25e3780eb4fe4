"""Stored values and the tags that say how to show them → grey, black 0 to white 255.

Modality table or rescale (PS3.3, C.11.1), then VOI table or window (C.11.2), then the photometric
interpretation and Presentation LUT Shape (C.11.6). What is empty, no number, impossible or would
leave the picture blank counts as absent, and the next that is given is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from handlers.dicom_elements import named

LINEAR, LINEAR_EXACT, SIGMOID = "LINEAR", "LINEAR_EXACT", "SIGMOID"

# Of the range that Bits Stored declares: values that cover less were never meant to fill it (12
# bits in words of 16), those that cover less than FILLED are shown over all of it with a warning.
SPARSE, FILLED = 0.5, 0.9
CEILING = 7 / 8  # of a VOI table's declared range; one that stays below holds fewer bits than that

BLANK = 1.0  # levels of grey; a picture that has no more shows nothing

BLOCK = 2**20  # pixels that are shown at once, since an index takes eight bytes

_NO_WINDOW = (
    f"DICOM {named('WindowCenter')} and {named('VOILUTSequence')} are missing or can't be used"
)

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Outputs (n,) of the inputs `first`, `first` + 1, …, and the bits they are said to have."""

    first: int
    outputs: npt.NDArray[np.unsignedinteger]
    bits: int

    def __call__(self, values: Values) -> Values:
        """Outputs (m,) of values (m,); those outside of the table have its first or last."""
        places = np.rint(values - self.first).clip(0, len(self.outputs) - 1)
        return self.outputs[places.astype(np.int64)].astype(np.float64)

    @property
    def range(self) -> tuple[float, float]:
        """Black and white: as declared, or what the table holds where it stays below that."""
        declared = 2.0**self.bits - 1
        low, high = float(self.outputs.min()), float(self.outputs.max())
        return (0.0, declared) if CEILING * declared <= high <= declared else (low, high)


@dataclass(frozen=True)
class Window:
    """A window as PS3.3, C.11.2.1.2 and C.11.2.1.3 have it."""

    center: float
    width: float
    function: str = LINEAR

    def __call__(self, values: Values) -> Values:
        """Share of white (m,), 0 to 1, of values (m,) after the modality step."""
        center, width = self.center, self.width
        if self.function == SIGMOID:
            with np.errstate(over="ignore"):
                steps = (-4 * (values - center) / width).clip(-700, 700)
            share: Values = 1 / (1 + np.exp(steps))
            return share
        if self.function == LINEAR:
            center, width = center - 0.5, width - 1
        if width == 0:
            return (values > center).astype(np.float64)
        linear: Values = ((values - center) / width + 0.5).clip(0, 1)
        return linear

    @property
    def possible(self) -> bool:
        """Whether its numbers are a window of its function."""
        least = 1 if self.function == LINEAR else np.finfo(np.float64).tiny
        return bool(np.isfinite(self.center) and np.isfinite(self.width) and self.width >= least)


@dataclass(frozen=True)
class Display:
    """What the tags say of how stored values are shown; alternatives in the order to try them."""

    bits: int
    signed: bool = False
    modality_tables: Sequence[Table] = ()
    slope: float = 1.0
    intercept: float = 0.0
    voi_tables: Sequence[Table] = ()
    windows: Sequence[Window] = ()
    inverted: bool = False
    padding: tuple[int, int] | None = None  # the least and the largest stored value of padding
    warnings: Sequence[str] = ()


def render(
    stored: npt.NDArray[np.unsignedinteger], display: Display
) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Grey (rows, columns) of stored values (rows, columns) without sign, and warnings.

    Each step works value by value, so it runs once on every value that there is.
    """
    flat = stored.reshape(-1)
    count = 1 << display.bits
    mask = flat.dtype.type(min(count - 1, np.iinfo(flat.dtype).max))
    present = np.zeros(count, bool)
    for start in range(0, flat.size, BLOCK):
        present[flat[start : start + BLOCK] & mask] = True
    codes = np.flatnonzero(present)
    values = np.where(display.signed & (codes >= count // 2), codes - count, codes)
    grey, warnings = shown(values, display)
    table = np.zeros(count, np.uint8)
    table[codes] = grey
    output = np.empty(flat.size, np.uint8)
    for start in range(0, flat.size, BLOCK):
        output[start : start + BLOCK] = table[flat[start : start + BLOCK] & mask]
    return output.reshape(stored.shape), warnings


def shown(
    values: npt.NDArray[np.integer], display: Display
) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Grey (n,) of the distinct stored values (n,) of an image, and warnings."""
    padding = np.zeros(len(values), bool)
    if display.padding is not None:
        low, high = display.padding
        padding = (low <= values) & (values <= high)
        if padding.all():  # contradictory: nothing would be left to see
            padding[:] = False
    seen = values[~padding].astype(np.float64)
    meant, limits, warnings = _modality(seen, display)
    share, more = _voi(meant, limits, display)
    grey = np.zeros(len(values), np.uint8)
    grey[~padding] = _levels(1 - share if display.inverted else share)
    return grey, [*display.warnings, *warnings, *more]


def _levels(share: Values) -> npt.NDArray[np.uint8]:
    levels: npt.NDArray[np.uint8] = (255 * share).round().clip(0, 255).astype(np.uint8)
    return levels


def _tells_apart(before: Values, after: Values, least: float = 0.0) -> bool:
    """Whether what differed before a step differs by more than `least` after it."""
    return bool(np.isfinite(after).all() and (np.ptp(after) > least or np.ptp(before) == 0))


def _modality(seen: Values, display: Display) -> tuple[Values, tuple[float, float], list[str]]:
    """Values after the modality step, the range they were declared to have, and warnings."""
    for table in display.modality_tables:
        if _tells_apart(seen, meant := table(seen)):
            return meant, (float(table.outputs.min()), float(table.outputs.max())), []
    first = -(2.0 ** (display.bits - 1)) if display.signed else 0.0
    ends = np.array([first, first + 2.0**display.bits - 1])
    with np.errstate(over="ignore", invalid="ignore"):
        meant, limits = (display.slope * x + display.intercept for x in (seen, ends))
    if np.isfinite(limits).all() and _tells_apart(seen, meant):
        return meant, (float(limits.min()), float(limits.max())), []
    why = f"DICOM {named('RescaleSlope')} and {named('RescaleIntercept')} leave no image: left out"
    return seen, (float(ends[0]), float(ends[1])), [why]


def _voi(meant: Values, limits: tuple[float, float], display: Display) -> tuple[Values, list[str]]:
    """Share of white of values after the modality step, and warnings."""
    for table in display.voi_tables:
        low, high = table.range
        share = (table(meant) - low) / max(high - low, 1.0)
        if _tells_apart(meant, 255 * share.clip(0, 1), BLANK):
            return share, []
    for window in display.windows:
        if _tells_apart(meant, 255 * (share := window(meant)), BLANK):
            return share, []
    warnings: list[str] = []
    if display.voi_tables or display.windows:
        warnings.append(
            f"DICOM {named('WindowCenter')} or {named('VOILUTSequence')} leaves the image blank: "
            "left out"
        )
    low, high = limits
    extent, declared = float(np.ptp(meant)), high - low
    if 0 < extent < SPARSE * declared:
        low, high = float(meant.min()), float(meant.max())
        warnings.append(f"{_NO_WINDOW}: shown from the lowest to the highest value")
    elif 0 < extent < FILLED * declared:
        warnings.append(
            f"{_NO_WINDOW}: shown over the whole range that the tags declare, of which the values "
            f"fill {extent / declared:.0%}"
        )
    return (meant - low) / (high - low if high > low else 1.0), warnings
