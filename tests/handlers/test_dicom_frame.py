"""Compressed frames: what is decoded, and what is refused before a decoder sees it."""

import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from handlers import dicom_frame, dicom_parser, pixels
from handlers.dicom import PREFIX, read
from handlers.dicom_elements import Encoding
from handlers.errors import ImageError
from tests.handlers.dicom_files import (
    ANY,
    LIMIT,
    TWELVE,
    compressed,
    file,
    radiograph,
    refusal,
    shown,
)

EIGHT = (TWELVE // 16).astype(np.uint8)


def baseline(stored: npt.NDArray[np.uint8] = EIGHT, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(stored).save(stream, "JPEG", quality=95, **options)
    return stream.getvalue()


def jpeg2000(**options: Any) -> bytes:
    frame: bytes = imagecodecs.jpeg2k_encode(
        TWELVE, codecformat="j2k", bitspersample=12, reversible=True, **options
    )
    return frame


def tiles() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(EIGHT).save(
        stream, "JPEG2000", no_jp2=True, tile_size=(32, 16), num_resolutions=2, irreversible=False
    )
    return stream.getvalue()


def run_lengths(planes: list[bytes]) -> bytes:
    """An RLE frame (PS3.5, G) of segments, high byte first."""
    starts = [64 + sum(map(len, planes[:n])) for n in range(len(planes))]
    return struct.pack("<16L", len(planes), *starts, *[0] * (15 - len(planes))) + b"".join(planes)


RLE = run_lengths(
    [
        imagecodecs.packbits_encode((TWELVE >> 8).astype(np.uint8).tobytes()),
        imagecodecs.packbits_encode((TWELVE & 255).astype(np.uint8).tobytes()),
    ]
)
JLS = bytes(imagecodecs.jpegls_encode(TWELVE))
LOSSLESS = imagecodecs.jpeg8_encode(TWELVE, lossless=True, predictor=1, bitspersample=12)

FRAMES: dict[str, tuple[str, Callable[[], bytes], int]] = {
    "JPEG": (JPEGBaseline8Bit, baseline, 8),
    "JPEG progressive": (JPEGBaseline8Bit, lambda: baseline(progressive=True), 8),
    "JPEG 12 bits": (
        JPEGExtended12Bit,
        lambda: imagecodecs.jpeg8_encode(TWELVE, level=100, bitspersample=12),
        12,
    ),
    "JPEG lossless": (JPEGLosslessSV1, lambda: LOSSLESS, 12),
    "JPEG lossless, predictor 6": (
        JPEGLossless,
        lambda: imagecodecs.jpeg8_encode(TWELVE, lossless=True, predictor=6, bitspersample=16),
        12,
    ),
    "JPEG-LS": (JPEGLSLossless, lambda: JLS, 12),
    "JPEG-LS near lossless": (
        JPEGLSNearLossless,
        lambda: bytes(imagecodecs.jpegls_encode(TWELVE, level=2)),
        12,
    ),
    "JPEG 2000": (JPEG2000Lossless, jpeg2000, 12),
    "JPEG 2000 in tiles": (JPEG2000, tiles, 8),
    "JPEG 2000 in layers": (JPEG2000, lambda: jpeg2000(resolutions=3), 12),
    "RLE": (RLELossless, lambda: RLE, 12),
}


def content(name: str) -> bytes:
    syntax, frame, bits = FRAMES[name]
    return compressed(frame(), EIGHT if bits == 8 else TWELVE, bits, syntax)


@pytest.mark.parametrize("name", FRAMES)
def test_what_is_decoded(name: str) -> None:
    grey, _ = read(content(name), ANY, LIMIT)
    expected = shown(radiograph(TWELVE, 12))
    assert np.abs(grey.astype(int) - expected).max() <= (6 if "JPEG" in name else 0)


@pytest.mark.parametrize("name", ["JPEG-LS", "JPEG lossless", "JPEG 2000"])
def test_a_frame_of_another_kind_than_the_syntax_says_is_read_by_its_own(name: str) -> None:
    stream = compressed(FRAMES[name][1](), TWELVE, 12, JPEGLSNearLossless)
    np.testing.assert_array_equal(read(stream, ANY, LIMIT)[0], shown(radiograph(TWELVE, 12)))


@pytest.mark.parametrize(
    "name",
    [
        "693_J2KI.dcm",
        "J2K_pixelrep_mismatch.dcm",
        "JPEG2000.dcm",
        "JPEGLSNearLossless_08.dcm",
        "JPEGLSNearLossless_16.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_expb.dcm",
    ],
)
def test_stored_values_of_other_makers_files(name: str) -> None:
    """As pydicom with its plugins reads them, in the bits that are stored."""
    path = Path(str(get_testdata_file(name)))
    with pydicom.dcmread(path) as dataset:
        expected = dataset.pixel_array
        bits, allocated = dataset.BitsStored, dataset.BitsAllocated
        signed = dataset.PixelRepresentation
        syntax = dataset.file_meta.TransferSyntaxUID
    view = memoryview(path.read_bytes())
    _, start = dicom_parser.meta(view, PREFIX[0] + 4)
    encoding = dicom_frame.NATIVE.get(syntax, Encoding())
    body = dicom_parser.body(view, start, encoding)
    shape = dicom_frame.Shape(*expected.shape, allocated, bits, bool(signed))
    stored = dicom_frame.stored(view, body, syntax, shape, LIMIT)
    mask = 2**bits - 1
    np.testing.assert_array_equal(stored.astype(int) & mask, expected.astype(int) & mask)


@settings(max_examples=60, deadline=None)
@given(
    stored=st.integers(0, 2**32 - 1).map(np.random.default_rng),
    rows=st.integers(32, 70),
    columns=st.integers(32, 70),
    coarse=st.integers(0, 12),
)
def test_rle_as_pydicom_decodes_it(
    stored: np.random.Generator, rows: int, columns: int, coarse: int
) -> None:
    values = stored.integers(0, 65536, (rows, columns)).astype(np.uint16) >> coarse << coarse
    dataset = radiograph(values, 16)
    dataset.compress(RLELossless, generate_instance_uid=False, encoding_plugin="pydicom")
    expected = pixel_array(dataset, decoding_plugin="pydicom")
    np.testing.assert_array_equal(expected, values)
    shown_raw = read(file(dataset), ANY, LIMIT)[0]
    np.testing.assert_array_equal(shown_raw, read(file(radiograph(values, 16)), ANY, LIMIT)[0])


# --- what a frame says of itself


def header(frame: bytes, rows: int, columns: int) -> bytes:
    """A JPEG, JPEG-LS or JPEG 2000 frame that says it has another size."""
    changed = bytearray(frame)
    if frame.startswith(b"\xff\x4f"):
        struct.pack_into(">LL", changed, 8, columns, rows)
        struct.pack_into(">LL", changed, 24, columns, rows)
    else:
        place = next(n for n in range(2, 700) if frame[n] == 255 and frame[n + 1] in SOFS)
        struct.pack_into(">HH", changed, place + 5, rows, columns)
    return bytes(changed)


SOFS = (0xC0, 0xC1, 0xC2, 0xC3, 0xF7)


@pytest.mark.parametrize("name", [name for name in FRAMES if name != "RLE"])
@pytest.mark.parametrize(("rows", "columns"), [(32, 129), (31, 128), (16_000, 16_000), (0, 128)])
def test_a_frame_of_another_size(name: str, rows: int, columns: int) -> None:
    syntax, frame, bits = FRAMES[name]
    stored = EIGHT if bits == 8 else TWELVE
    result = refusal(compressed(header(frame(), rows, columns), stored, bits, syntax), ANY)
    assert (result.status, result.type) == (400, "BrokenImage")
    if rows:
        assert "Rows and Columns" in str(result)


@pytest.mark.parametrize("name", [name for name in FRAMES if name != "RLE"])
def test_a_frame_as_large_as_the_tags_say_without_the_bytes(name: str) -> None:
    syntax, frame, bits = FRAMES[name]
    stored = np.zeros((3000, 3000), np.uint8 if bits == 8 else np.uint16)
    result = refusal(compressed(header(frame(), 3000, 3000), stored, bits, syntax), ANY)
    assert (result.status, result.type) == (413, "TooManyPixels")


def test_what_follows_the_image_does_not_count_for_its_density() -> None:
    stored = np.zeros((3000, 3000), np.uint8)
    frame = header(baseline(), 3000, 3000)
    result = refusal(compressed(frame + bytes(1_000_000), stored, 8, JPEGBaseline8Bit), ANY)
    assert (result.status, result.type) == (413, "TooManyPixels")


START, GREY = b"\xff\xd8", struct.pack(">HBHHB", 11, 8, 32, 128, 1) + b"\1\x11\0"


@pytest.mark.parametrize(
    ("inserted", "status"),
    [
        (b"\xff\xde" + GREY, 415),  # DHP: hierarchical
        (b"\xff\xdf\0\3\0", 415),  # EXP
        (b"\xff\xc9" + GREY, 415),  # arithmetic coding
        (b"\xff\xc5" + GREY, 415),
        (b"\xff\xdc\0\4\0\x20", 415),  # DNL
        (b"\xff\xc0" + GREY, 400),  # two starts of frame
        (b"\xff" * 1_000_000, 400),  # fill bytes
        (b"\xff\xff\xfe\0\2", 400),
        (b"\0" * 10, 400),
        (b"\xff\xfe\0\1", 400),  # a segment shorter than its length
        (b"\xff\xfe\0\2" * 1_000_000, 400),  # empty segments
        (b"\xff\xfe\xff\xff", 400),  # a segment that ends after the frame
    ],
)
def test_markers_that_a_grey_frame_does_not_need(inserted: bytes, status: int) -> None:
    frame = baseline()
    result = refusal(compressed(START + inserted + frame[2:], EIGHT, 8, JPEGBaseline8Bit), ANY)
    assert result.status == status
    assert "PixelData" in str(result)


def test_segments_that_a_grey_frame_may_have() -> None:
    frame = baseline(comment=b"SECRET", exif=b"Exif\0\0" + bytes(100), dpi=(300, 300))
    grey, _ = read(compressed(frame, EIGHT, 8, JPEGBaseline8Bit), ANY, LIMIT)
    assert np.abs(grey.astype(int) - EIGHT).max() <= 3


@pytest.mark.parametrize("components", [2, 3, 4, 255])
def test_components(components: int) -> None:
    sof = struct.pack(">HBHHB", 8 + 3 * components, 8, 32, 128, components)
    sof += b"".join(bytes((n & 255, 0x11, 0)) for n in range(1, components + 1))
    frame = baseline()
    place = frame.index(b"\xff\xc0")
    colours = frame[: place + 2] + sof + frame[place + 13 :]
    assert refusal(compressed(colours, EIGHT, 8, JPEGBaseline8Bit), ANY).status == 400
    colour = np.dstack([EIGHT] * 3)
    result = refusal(
        compressed(
            imagecodecs.jpeg2k_encode(colour, codecformat="j2k"), EIGHT, 8, JPEG2000Lossless
        ),
        ANY,
    )
    assert (result.status, "components" in str(result)) == (415, True)


def test_scans_are_counted() -> None:
    frame = baseline(progressive=True)
    last = frame.rindex(b"\xff\xda")
    many = frame[:-2] + frame[last:-2] * 100 + frame[-2:]
    result = refusal(compressed(many, EIGHT, 8, JPEGBaseline8Bit), ANY)
    assert (result.status, result.type) == (413, "TooManyScans")


def test_a_box_is_no_bare_codestream() -> None:
    """PS3.5, A.4.4: no JP2 file; its decoder would look for the size elsewhere."""
    boxed = imagecodecs.jpeg2k_encode(TWELVE, codecformat="jp2", bitspersample=12)
    result = refusal(compressed(boxed, TWELVE, 12, JPEG2000Lossless), ANY)
    assert (result.status, "bare codestream" in str(result)) == (400, True)


@pytest.mark.parametrize("name", [name for name in FRAMES if name != "JPEG progressive"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_a_cut_frame(name: str, share: float) -> None:
    """CharLS would search for seconds where no marker ends the data."""
    syntax, frame, bits = FRAMES[name]
    whole = frame()
    cut = whole[: int(share * len(whole))]
    result = refusal(compressed(cut, EIGHT if bits == 8 else TWELVE, bits, syntax), ANY)
    assert (result.status, result.type) == (400, "BrokenImage")


def coded(frame: bytes, style: Callable[[bytearray], bytes]) -> bytes:
    """A JPEG 2000 frame with another coding style (COD, T.800, A.6.1)."""
    place = frame.index(b"\xff\x52")
    (length,) = struct.unpack_from(">H", frame, place + 2)
    changed = style(bytearray(frame[place + 4 : place + 2 + length]))
    head = frame[: place + 2] + struct.pack(">H", len(changed) + 2)
    return head + changed + frame[place + 2 + length :]


def layers(style: bytearray) -> bytes:
    style[2:4], style[5] = b"\xff\xff", 5
    return bytes(style)


def blocks(style: bytearray) -> bytes:
    style[6:8] = b"\0\0"
    return bytes(style)


def precincts(style: bytearray) -> bytes:
    style[0] |= 1
    return bytes(style[:10]) + b"\x11" * (style[5] + 1)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda frame: coded(frame, layers), "packets"),
        (lambda frame: coded(frame, blocks), "code-blocks"),
        (lambda frame: coded(frame, precincts), "code-blocks"),
        (lambda frame: frame[:24] + struct.pack(">LL", 1, 1) + frame[32:], "tiles"),
        (lambda frame: frame[:24] + struct.pack(">LL", 30, 30) + frame[32:], "tiles"),
    ],
)
def test_parts_of_jpeg_2000_are_counted(change: Callable[[bytes], bytes], part: str) -> None:
    stored = np.zeros((2800, 2800), np.uint16)
    frame = change(header(jpeg2000(), 2800, 2800))
    result = refusal(compressed(frame, stored, 12, JPEG2000Lossless), ANY)
    assert (result.status, part in str(result)) == (413, True)


@pytest.mark.parametrize(("coded_bytes", "status"), [(700_000, 413), (900_000, 400)])
def test_pixels_a_byte_of_jpeg_2000(coded_bytes: int, status: int) -> None:
    """More than 16 a coded byte are refused before OpenJPEG takes eight bytes for each."""
    frame = header(jpeg2000(), 3500, 3500)
    place, start = frame.index(b"\xff\x90"), frame.index(b"\xff\x93") + 2
    part = bytearray(frame[:start] + b"\x55" * coded_bytes)
    struct.pack_into(">L", part, place + 6, len(part) - place)
    stored = np.zeros((3500, 3500), np.uint16)
    dataset = compressed(bytes(part) + b"\xff\xd9", stored, 12, JPEG2000Lossless)
    try:
        read(dataset, ANY, 50 * LIMIT)
    except ImageError as error:
        assert error.status == status  # noqa: PT017 -- damaged packets may be read as well
    else:
        assert status == 400


@pytest.mark.parametrize("marker", [0x5F, 0x60, 0x7F])
def test_markers_of_jpeg_2000_that_are_not_decoded(marker: int) -> None:
    frame = jpeg2000()
    place = frame.index(b"\xff\x52")
    changed = frame[:place] + bytes((0xFF, marker)) + b"\0\4\0\0" + frame[place:]
    result = refusal(compressed(changed, TWELVE, 12, JPEG2000Lossless), ANY)
    assert (result.status, f"FF{marker:02X}" in str(result)) == (415, True)


# --- RLE


@pytest.mark.parametrize(
    "frame",
    [
        b"\0\0",
        bytes(64),
        RLE[:63],
        RLE[:-100],
        run_lengths([b"\xff"] * 2),
        run_lengths([b"\x80" * 100_000] * 2),
        run_lengths([RLE[64:]]),
        run_lengths([RLE[64:]] * 15),
        struct.pack("<16L", 2, 0, 0, *[0] * 13) + RLE[64:],
        struct.pack("<16L", 2, 64, 2**32 - 1, *[0] * 13) + RLE[64:],
        struct.pack("<16L", 2, 5000, 64, *[0] * 13) + RLE[64:],
        struct.pack("<16L", 2**32 - 1, *[64] * 15) + RLE[64:],
    ],
)
def test_damaged_rle_is_refused(frame: bytes) -> None:
    result = refusal(compressed(frame, TWELVE, 12, RLELossless), ANY)
    assert (result.status, result.type) == (400, "BrokenImage")


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(FRAMES)),
    places=st.lists(st.floats(0, 1), min_size=1, max_size=6),
    values=st.binary(min_size=6, max_size=6),
    end=st.floats(0.05, 1),
)
def test_damaged_frames_are_read_or_refused(
    name: str, places: list[float], values: bytes, end: float
) -> None:
    syntax, make, bits = FRAMES[name]
    frame = bytearray(make())
    for place, value in zip(places, values, strict=False):
        frame[int(place * (len(frame) - 1))] = value
    cut = bytes(frame[: max(1, int(end * len(frame)))])
    damaged = compressed(cut, EIGHT if bits == 8 else TWELVE, bits, syntax)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert pixels.read(damaged, 16, ANY).pixels.shape == (16, 16)
    except ImageError as error:
        assert error.status in (400, 413, 415)  # noqa: PT017 -- either is right
