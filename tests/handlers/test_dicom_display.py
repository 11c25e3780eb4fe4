"""Modality, VOI and presentation steps against PS3.3, C.11, by hand-computed greys."""

from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from handlers.dicom import read
from handlers.dicom_display import (
    LINEAR,
    LINEAR_EXACT,
    SIGMOID,
    Display,
    Table,
    Window,
)
from handlers.dicom_display import shown as grey_of
from handlers.dicom_display_tags import display
from handlers.dicom_elements import Element, Elements, Encoding, tag
from tests.handlers.dicom_files import (
    ANY,
    LIMIT,
    TWELVE,
    compressed,
    file,
    radiograph,
    raw,
    shown,
    table,
    warned,
)

FULL = np.round(TWELVE / 4095 * 255).astype(np.uint8)
IDENTITY = np.arange(4096, dtype="<u2")

# A picture of all greys, 8 bits, that no turn or inversion leaves as it is.
PICTURE = np.sort(np.random.default_rng(0).integers(0, 256, (48, 64)).astype(np.uint8), axis=1)
PICTURE[0, :2] = 0, 255
WIDE = PICTURE.astype(np.uint16) * 257 // 16  # the same in 12 bits


# --- windows


@pytest.mark.parametrize(
    ("window", "values", "expected"),
    [
        # C.11.2.1.2.1: x <= c - 0.5 - (w - 1) / 2 is black, x > c - 0.5 + (w - 1) / 2 white.
        (Window(2048, 4096), [0, 4095], [0, 1]),
        (Window(100, 1), [99, 100], [0, 1]),
        (Window(0, 100), [-50, -0.5, 49], [0, 0.5, 1]),
        # C.11.2.1.3.2: x <= c - w / 2 is black, x > c + w / 2 white.
        (Window(127.5, 255, LINEAR_EXACT), [0, 127.5, 255], [0, 0.5, 1]),
        (Window(0.5, 1, LINEAR_EXACT), [0, 0.25, 1], [0, 0.25, 1]),
        # C.11.2.1.3.1: 1 / (1 + exp(-4 (x - c) / w)).
        (Window(100, 40, SIGMOID), [100, 110, 90], [0.5, 1 / (1 + np.exp(-1)), 1 / (1 + np.e)]),
        (Window(0, 1e-300, SIGMOID), [-1e300, 1e300], [0, 1]),
    ],
)
def test_a_window(window: Window, values: list[float], expected: list[float]) -> None:
    assert window.possible
    np.testing.assert_allclose(window(np.array(values, float)), expected, atol=1e-9)


@pytest.mark.parametrize(
    "window",
    [
        Window(0, 0),
        Window(10, -5),
        Window(10, 0.5),  # LINEAR needs 1 or more
        Window(float("nan"), 10),
        Window(10, float("inf")),
        Window(10, 0, LINEAR_EXACT),
        Window(10, 0, SIGMOID),
    ],
)
def test_no_window(window: Window) -> None:
    assert not window.possible


@pytest.mark.parametrize(
    ("centers", "widths"),
    [
        (["0", "2048"], ["0", "4096"]),
        (["9000", "2048"], ["10", "4096"]),  # outside of the values: would be blank
        (["-5", "2048"], ["4", "4096"]),
        (["2048", "2048"], ["1e9", "4096"]),  # so wide that nothing is told apart
        (["2048", "1", "2"], ["4096"]),  # contradictory in number
    ],
)
def test_the_first_window_that_makes_sense(centers: list[str], widths: list[str]) -> None:
    dataset = radiograph(TWELVE, 12, WindowCenter=centers, WindowWidth=widths)
    np.testing.assert_array_equal(shown(dataset), FULL)


@pytest.mark.parametrize(
    ("center", "width"),
    [(b"", b""), (b"2048", b""), (b"nan ", b"inf "), (b"1,5 ", b"2,5 "), (b"1_0 ", b"1_0 ")],
)
@pytest.mark.parametrize("vr", ["DS", "LO", "UN"])
def test_what_is_no_window_counts_as_absent(center: bytes, width: bytes, vr: str) -> None:
    dataset = raw(radiograph(TWELVE, 12), "WindowCenter", vr, center)
    np.testing.assert_array_equal(shown(raw(dataset, "WindowWidth", vr, width)), FULL)


@pytest.mark.parametrize("function", ["", "LINEAR", "NONSENSE"])
def test_an_unknown_function_is_linear(function: str) -> None:
    dataset = radiograph(TWELVE, 12, WindowCenter="1000", WindowWidth="500")
    expected = shown(dataset)
    dataset.VOILUTFunction = function
    np.testing.assert_array_equal(shown(dataset), expected)


def test_a_window_in_another_number_format() -> None:
    """WindowCenter as FD instead of DS is still a number."""
    dataset = raw(radiograph(TWELVE, 12), "WindowCenter", "FD", np.float64(1000).tobytes())
    raw(dataset, "WindowWidth", "FD", np.float64(500).tobytes())
    expected = shown(radiograph(TWELVE, 12, WindowCenter="1000", WindowWidth="500"))
    np.testing.assert_array_equal(shown(dataset), expected)


# --- rescale


@pytest.mark.parametrize("window", [{}, {"WindowCenter": "-20475.5", "WindowWidth": "40951"}])
def test_a_negative_slope_turns_the_picture(window: dict[str, str]) -> None:
    turned = radiograph(4095 - TWELVE, 12, RescaleSlope="-10", RescaleIntercept="0", **window)
    np.testing.assert_allclose(shown(turned).astype(int), FULL, atol=1)


@pytest.mark.parametrize("slope", [b"0 ", b"nan ", b"1e999 ", b"1e308 ", b"x ", b"-1e-320 "])
def test_what_is_no_slope_counts_as_absent(slope: bytes) -> None:
    dataset = raw(radiograph(TWELVE, 12, RescaleIntercept="5"), "RescaleSlope", "DS", slope)
    np.testing.assert_array_equal(shown(dataset), FULL)
    assert any("RescaleSlope (0028,1053)" in warning for warning in warned(dataset))


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept", "WindowWidth"])
def test_empty_tags_count_as_absent_without_a_word(keyword: str) -> None:
    dataset = raw(radiograph(TWELVE, 12), keyword, "DS", b"")
    np.testing.assert_array_equal(shown(dataset), FULL)
    assert not warned(dataset)


# --- tables


@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize(
    ("descriptor", "entries"),
    [
        ([4096, 0, 12], IDENTITY.tobytes()),
        ([4096, 0, 16], IDENTITY.tobytes()),  # says 16 bits, holds 12
        ([4096, 0, 16], (IDENTITY // 4).tobytes()),  # holds 10
        ([4096, 0, 8], (IDENTITY // 16).astype("<u2").tobytes()),  # 8 bits in words
        ([4096, 0, 8], (IDENTITY // 16).astype(np.uint8).tobytes()),  # packed
        ([4096, 0, 16], (16 * IDENTITY + 15).tobytes()),
    ],
)
def test_a_table_has_the_range_that_it_holds(
    sequence: str, descriptor: list[int], entries: bytes
) -> None:
    dataset = radiograph(TWELVE, 12, **{sequence: [table(descriptor, entries)]})
    np.testing.assert_allclose(shown(dataset).astype(int), FULL, atol=1)


def test_a_packed_table_of_a_big_endian_file_has_its_bytes_swapped() -> None:
    """Two entries a word, the first in its low byte (PS3.5, 8.1.1); OB is not in words."""
    packed = bytes([0, 85, 170, 255])
    for vr, content in (("OW", bytes([85, 0, 255, 170])), ("OB", packed)):
        encoding = Encoding(big=True)
        item = Elements(
            {
                tag("LUTDescriptor"): Element(
                    "US", memoryview(np.array([4, 0, 8], ">u2").tobytes()), encoding
                ),
                tag("LUTData"): Element(vr, memoryview(content), encoding),
            }
        )
        sequence = Element("SQ", memoryview(b""), encoding, [item])
        shows = display(Elements({tag("VOILUTSequence"): sequence}), 8, False)
        grey, _ = grey_of(np.arange(4), shows)
        np.testing.assert_array_equal(grey, list(packed))


@pytest.mark.parametrize("descriptor", [[4096, -2048, 12], [4096, 63488, 12]])
def test_the_first_value_mapped_has_the_sign_of_the_values(descriptor: list[int]) -> None:
    """PS3.3, C.11.2.1.1; 63488 is -2048 as a writer may have it in an unsigned short."""
    signed = TWELVE.astype(np.int16) - 2048
    for sequence in ("VOILUTSequence", "ModalityLUTSequence"):
        dataset = radiograph(signed, 12, **{sequence: [table(descriptor, IDENTITY.tobytes())]})
        np.testing.assert_array_equal(shown(dataset), FULL)


def test_the_first_value_mapped_after_a_rescale_below_zero() -> None:
    dataset = radiograph(TWELVE, 12, RescaleSlope="1", RescaleIntercept="-1024")
    dataset.VOILUTSequence = [table([4096, 64512, 12], IDENTITY.tobytes())]
    np.testing.assert_array_equal(shown(dataset), FULL)


def test_zero_entries_are_65536() -> None:
    dataset = radiograph(TWELVE * 16 + 15, 16)
    dataset.VOILUTSequence = [table([0, 0, 16], np.arange(65536, dtype="<u2").tobytes())]
    np.testing.assert_allclose(shown(dataset).astype(int), FULL, atol=1)


@pytest.mark.parametrize(
    "item",
    [
        Dataset(),
        table([4096, 0, 12], b""),
        table([4096, 0, 12], IDENTITY[:100].tobytes()),  # too short
        table([4096, 0, 17], IDENTITY.tobytes()),
        table([4096, 0, 0], IDENTITY.tobytes()),
        table([4096, 0, 12], np.full(4096, 7, "<u2").tobytes()),  # blank
        table([4096, 9000, 12], IDENTITY.tobytes()),  # outside of the values
    ],
)
def test_the_first_table_that_makes_sense(item: Dataset) -> None:
    for sequence in ("VOILUTSequence", "ModalityLUTSequence"):
        good = table([4096, 0, 12], IDENTITY.tobytes())
        for items in ([item], [item, good], []):
            dataset = radiograph(TWELVE, 12, **{sequence: items})
            np.testing.assert_array_equal(shown(dataset), FULL)


# --- neither


def test_values_that_cover_little_of_their_bits_are_shown_from_least_to_greatest() -> None:
    for stored in (TWELVE + 100, TWELVE.astype(np.int16) - 2048):
        dataset = radiograph(stored, 16)
        np.testing.assert_array_equal(shown(dataset), FULL)
        assert any("lowest to the highest" in warning for warning in warned(dataset))


def test_padding_does_not_count_for_the_range() -> None:
    stored = TWELVE.copy()
    stored[0] = 65535
    dataset = radiograph(stored, 16, PixelPaddingValue=65535)
    expected = ((TWELVE[1:] - 128.0) / (4095 - 128) * 255).round()
    assert not shown(dataset)[0].any()
    np.testing.assert_array_equal(shown(dataset)[1:], expected)


def test_padding_that_covers_all_is_none() -> None:
    dataset = radiograph(TWELVE, 12, PixelPaddingValue=0, PixelPaddingRangeLimit=4095)
    np.testing.assert_array_equal(shown(dataset), FULL)


def test_an_image_of_one_value() -> None:
    flat = np.full((32, 32), 1000, np.uint16)
    assert np.ptp(shown(radiograph(flat, 12))) == 0
    assert np.ptp(shown(radiograph(flat, 12, WindowCenter="1000", WindowWidth="10"))) == 0


# --- presentation


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted", "contradiction"),
    [
        ("MONOCHROME2", "IDENTITY", False, False),
        ("MONOCHROME2", "INVERSE", True, True),
        ("MONOCHROME1", "INVERSE", True, False),
        ("MONOCHROME1", "IDENTITY", True, True),
        ("MONOCHROME1", "", True, False),
    ],
)
def test_presentation_lut_shape(
    photometric: str, shape: str, inverted: bool, contradiction: bool
) -> None:
    """PS3.3, C.8.11.3.1.2: INVERSE goes with MONOCHROME1 and no other; both invert once."""
    dataset = radiograph(TWELVE, 12, PhotometricInterpretation=photometric)
    dataset.PresentationLUTShape = shape
    np.testing.assert_array_equal(shown(dataset), 255 - FULL if inverted else FULL)
    named = any("PresentationLUTShape (2050,0020)" in warning for warning in warned(dataset))
    assert named == contradiction


# --- properties

NUMBERS = st.floats(-1e4, 1e4).filter(lambda number: abs(number) > 1e-3)


@settings(max_examples=200, deadline=None)
@given(
    slope=NUMBERS,
    intercept=st.floats(-1e5, 1e5),
    center=st.floats(-1e5, 1e5),
    width=st.floats(-10, 1e5),
    function=st.sampled_from([LINEAR, LINEAR_EXACT, SIGMOID]),
    signed=st.booleans(),
    bits=st.sampled_from([8, 10, 12, 16]),
    inverted=st.booleans(),
)
def test_a_greater_modality_value_is_never_darker(
    slope: float,
    intercept: float,
    center: float,
    width: float,
    function: str,
    signed: bool,
    bits: int,
    inverted: bool,
) -> None:
    window = Window(center, width, function)
    windows = [window] if window.possible else []
    values = np.arange(2**bits) - (2 ** (bits - 1) if signed else 0)
    shows = Display(
        bits, signed, slope=slope, intercept=intercept, windows=windows, inverted=inverted
    )
    grey, _ = grey_of(values, shows)
    rising = np.diff(grey.astype(int)) * np.sign(slope) * (-1 if inverted else 1)
    assert rising.min() >= 0
    assert np.ptp(grey) > 0


@settings(max_examples=100, deadline=None)
@given(
    outputs=st.lists(st.integers(0, 65535), min_size=2, max_size=300).map(sorted),
    first=st.integers(-500, 500),
    bits=st.integers(8, 16),
)
def test_a_rising_table_gives_a_rising_picture(outputs: list[int], first: int, bits: int) -> None:
    values = np.arange(-600, 900)
    shows = Display(16, True, voi_tables=[Table(first, np.array(outputs, np.uint16), bits)])
    grey, _ = grey_of(values, shows)
    assert np.diff(grey.astype(int)).min() >= 0
    assert np.ptp(grey) > 0


def _encodings() -> dict[str, bytes]:
    """The same picture, as twelve and more encodings have it."""
    ten, full = PICTURE.astype(np.uint16) * 257 // 64, PICTURE.astype(np.uint16) * 257
    window = {"WindowCenter": "2048", "WindowWidth": "4096"}
    voi = table([4096, 0, 16], IDENTITY.tobytes())
    eight = table([4096, 0, 8], (IDENTITY // 16).astype(np.uint8).tobytes())

    def as_rle(**tags: Any) -> bytes:
        dataset = radiograph(WIDE, 12, **tags)
        dataset.compress(RLELossless, generate_instance_uid=False)
        return file(dataset)

    lossless = imagecodecs.jpeg8_encode(WIDE, lossless=True, predictor=1, bitspersample=12)
    extended = imagecodecs.jpeg8_encode(WIDE, level=100, bitspersample=12)
    datasets = {
        "8 bits": radiograph(PICTURE),
        "10 bits": radiograph(ten, 10),
        "12 bits": radiograph(WIDE, 12),
        "16 bits": radiograph(full, 16),
        "12 bits in 16": radiograph(WIDE, 16),
        "signed 12 bits": radiograph(WIDE.astype(np.int16) - 2048, 12),
        "signed 16 bits": radiograph((full.astype(np.int32) - 32768).astype(np.int16), 16),
        "slope": radiograph(WIDE, 12, RescaleSlope="0.25", RescaleIntercept="-1000"),
        "negative slope": radiograph(4095 - WIDE, 12, RescaleSlope="-3", RescaleIntercept="7"),
        "window": radiograph(WIDE, 12, **window),
        "window in 16": radiograph(WIDE, 16, **window),
        "exact window": radiograph(
            WIDE, 16, WindowCenter="2047.5", WindowWidth="4095", VOILUTFunction="LINEAR_EXACT"
        ),
        "VOI table": radiograph(WIDE, 12, VOILUTSequence=[voi]),
        "VOI table packed": radiograph(WIDE, 12, VOILUTSequence=[eight]),
        "modality table": radiograph(WIDE, 12, ModalityLUTSequence=[voi]),
        "MONOCHROME1": radiograph(4095 - WIDE, 12, PhotometricInterpretation="MONOCHROME1"),
        "INVERSE": radiograph(4095 - WIDE, 12, PresentationLUTShape="INVERSE"),
    }
    return {name: file(dataset) for name, dataset in datasets.items()} | {
        "RLE": as_rle(),
        "RLE with a window": as_rle(**window),
        "JPEG lossless": compressed(lossless, WIDE, 12, JPEGLosslessSV1),
        "JPEG extended": compressed(extended, WIDE, 12, JPEGExtended12Bit),
        "JPEG-LS": compressed(bytes(imagecodecs.jpegls_encode(WIDE)), WIDE, 12, JPEGLSLossless),
        "JPEG 2000": compressed(
            imagecodecs.jpeg2k_encode(WIDE, codecformat="j2k", bitspersample=12, reversible=True),
            WIDE,
            12,
            JPEG2000Lossless,
        ),
    }


ENCODINGS = _encodings()


@pytest.mark.parametrize("name", ENCODINGS)
def test_the_same_picture_in_many_encodings(name: str) -> None:
    """Within one level of grey, the rounding; JPEG extended is lossy."""
    grey, _ = read(ENCODINGS[name], ANY, LIMIT)
    separate = np.abs(grey.astype(int) - PICTURE)
    assert separate.max() <= (3 if name == "JPEG extended" else 1)
