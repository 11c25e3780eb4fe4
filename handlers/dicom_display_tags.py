"""The tags that say how stored values are shown → `Display`; what can't be used is left out."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from handlers.dicom_display import LINEAR, LINEAR_EXACT, SIGMOID, Display, Table, Window
from handlers.dicom_elements import Elements, named


def display(elements: Elements, bits: int, signed: bool) -> Display:
    """The display tags of an image of Bits Stored and Pixel Representation."""
    warnings: list[str] = []
    slope, intercept = _rescale(elements, warnings)
    windows = list(_windows(elements))
    voi_tables = list(_tables(elements, "VOILUTSequence", signed))
    if (windows and not any(window.possible for window in windows)) and not voi_tables:
        warnings.append(f"DICOM {named('WindowWidth')} is no window: left out")
    dark_is_high = elements.text("PhotometricInterpretation") == "MONOCHROME1"
    shape = elements.text("PresentationLUTShape").upper()
    if shape in ("INVERSE", "IDENTITY") and (shape == "INVERSE") != dark_is_high:
        warnings.append(
            f"DICOM {named('PresentationLUTShape')} contradicts "
            f"{named('PhotometricInterpretation')}: shown with low values white"
        )
    return Display(
        bits,
        signed,
        list(_tables(elements, "ModalityLUTSequence", signed)),
        slope,
        intercept,
        voi_tables,
        [window for window in windows if window.possible],
        dark_is_high or shape == "INVERSE",
        _padding(elements, signed),
        warnings,
    )


def _rescale(elements: Elements, warnings: list[str]) -> tuple[float, float]:
    """Slope and intercept; what is missing, empty or no number is 1 and 0."""
    numbers = {"RescaleSlope": 1.0, "RescaleIntercept": 0.0}
    for keyword in numbers:
        given = elements.numbers(keyword)
        if not given:
            continue
        if not np.isfinite(given[0]) or (keyword == "RescaleSlope" and given[0] == 0):
            warnings.append(f"DICOM {named(keyword)} is no number that can be used: left out")
            continue
        numbers[keyword] = given[0]
    return numbers["RescaleSlope"], numbers["RescaleIntercept"]


def _windows(elements: Elements) -> Iterator[Window]:
    centers, widths = elements.numbers("WindowCenter"), elements.numbers("WindowWidth")
    function = elements.text("VOILUTFunction").upper().replace(" ", "_")
    if function not in (LINEAR_EXACT, SIGMOID):
        function = LINEAR
    for center, width in zip(centers, widths, strict=False):
        yield Window(center, width, function)


def _tables(elements: Elements, keyword: str, signed: bool) -> Iterator[Table]:
    """The tables of a sequence that can be used (PS3.3, C.11.1.1.1 and C.11.2.1.1)."""
    for item in elements.items(keyword):
        descriptor, data = item.get("LUTDescriptor"), item.get("LUTData")
        numbers = item.numbers("LUTDescriptor", "US")
        if descriptor is None or data is None or len(numbers) != 3:
            continue
        entries = int(numbers[0]) % 2**16 or 2**16
        bits = int(numbers[2])
        if not 8 <= bits <= 16:
            continue
        content = data.value
        if len(content) >= 2 * entries:
            outputs: npt.NDArray[np.unsignedinteger] = np.frombuffer(
                content, f"{data.encoding.order}u2", entries
            )
        elif len(content) >= entries and bits == 8:
            # Two entries a word, the first in its low byte.
            packed = np.frombuffer(content[: len(content) - len(content) % 2], np.uint8)
            if data.encoding.big and data.vr != "OB":
                packed = packed.reshape(-1, 2)[:, ::-1].reshape(-1)
            outputs = packed[:entries]
        else:
            continue
        if len(outputs) < entries or outputs.min() == outputs.max():
            continue
        for first in _firsts(int(numbers[1]), descriptor.vr == "SS" or signed):
            yield Table(first, outputs, bits)


def _firsts(number: int, signed: bool) -> Sequence[int]:
    """The first value mapped, with its sign and then the other way: writers confuse US and SS."""
    if 0 <= number < 2**15:
        return (number,)
    ways = (number % 2**16 - 2**16, number % 2**16)
    return ways if signed else ways[::-1]


def _padding(elements: Elements, signed: bool) -> tuple[int, int] | None:
    """The stored values of padding (PS3.3, C.7.5.1.1.2)."""
    ends: list[int] = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        for number in elements.numbers(keyword, "SS" if signed else "US")[:1]:
            if np.isfinite(number):
                ends.append(int(number) - (2**16 if signed and number >= 2**15 else 0))
        if not ends:
            return None
    return min(ends), max(ends)
