"""What an image may cost: pixels a byte, channels, depth and scans."""

import struct
import zlib

import numpy as np
import pytest

from handlers.errors import ImageError
from handlers.pixels import decode
from tests.handlers.test_pixels import NOISE, SIZE, chunk, even, file, png

SIZES = {  # of content that compresses to nothing: pixels, channels, bits, and whether it is read
    "grey": (2800, 0, 1, 8, True),
    "grey of 16 bits": (2800, 0, 2, 16, True),
    "RGBA": (2800, 6, 4, 8, True),
    "RGBA of 16 bits": (2800, 6, 8, 16, True),
    "large grey": (7000, 0, 1, 8, False),
}


@pytest.mark.parametrize(("side", "colour", "width", "bits", "answered"), SIZES.values(), ids=SIZES)
def test_bytes_that_hold_no_pixels_do_not_count(
    side: int, colour: int, width: int, bits: int, answered: bool
) -> None:
    rows = (b"\0" + bytes(side * width)) * side
    for content in (
        png(side, side, bits, colour, rows) + bytes(2_000_000),
        png(side, side, bits, colour, rows, chunk(b"tEXt", b"k\0" + bytes(2_000_000))),
    ):
        if answered:
            assert even(content) == 0
        else:
            with pytest.raises(ImageError, match="more than 50 a byte") as refusal:
                decode(content, 8)
            assert (refusal.value.status, refusal.value.type) == (413, "TooManyPixels")


def claim(jpeg: bytes, marker: bytes, width: int, height: int) -> bytes:
    """A JPEG whose frame header claims other sides."""
    start = jpeg.index(marker) + 5
    return jpeg[:start] + struct.pack(">HH", height, width) + jpeg[start + 4 :]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (claim(file(NOISE, "JPEG"), b"\xff\xc0", 7000, 7000) + bytes(9_000_000), "50 a byte"),
        (claim(file(np.dstack([NOISE] * 3), "JPEG"), b"\xff\xc0", 60_000, 800), "50 a byte"),
    ],
)
def test_bytes_behind_a_jpeg_do_not_count(content: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words) as refusal:
        decode(content, SIZE)
    assert (refusal.value.status, refusal.value.type) == (413, "TooManyPixels")


@pytest.mark.parametrize(
    ("width", "height", "bits", "colour", "needed"),
    [
        (7000, 7000, 16, 0, "147 MB"),
        (5000, 5000, 8, 2, "125 MB"),
        (5000, 5000, 8, 6, "125 MB"),
        (4600, 4600, 16, 6, "106 MB"),
        (1_500_000, 33, 8, 6, "248 MB"),
    ],
)
def test_channels_and_depth_are_bounded(
    width: int, height: int, bits: int, colour: int, needed: str
) -> None:
    padding = zlib.compress(b"", 0) + np.random.default_rng(0).bytes(1_000_000)
    content = png(width, height, bits, colour, b"").replace(
        chunk(b"IDAT", zlib.compress(b"")), chunk(b"IDAT", padding)
    )
    with pytest.raises(ImageError, match=f"needs {needed}") as refusal:
        decode(content, SIZE)
    assert (refusal.value.status, refusal.value.type) == (413, "TooManyPixels")


@pytest.mark.parametrize(
    ("width", "height", "progressive", "words"),
    [(60_000, 800, False, "needs 240 MB"), (7000, 7000, True, "needs 298 MB")],
)
def test_what_a_jpeg_needs_is_bounded(
    width: int, height: int, progressive: bool, words: str
) -> None:
    jpeg = file(np.dstack([NOISE] * 3), "JPEG", progressive=progressive, subsampling="4:4:4")
    content = claim(jpeg, b"\xff\xc2" if progressive else b"\xff\xc0", width, height)
    padded = content[:-2] + bytes(1_000_000) + content[-2:]
    with pytest.raises(ImageError, match=words) as refusal:
        decode(padded, 224)
    assert (refusal.value.status, refusal.value.type) == (413, "TooManyPixels")


def test_a_lossless_jpeg_is_read_whole() -> None:
    """Its decoder can't make it smaller."""
    # Differences of 0 alone, by a table with one code of one bit: all is 128 (T.81, annex H).
    frame = struct.pack(">HBHHB", 11, 8, 400, 400, 1) + b"\1\x11\0"
    table = struct.pack(">H", 20) + b"\0" + bytes([1] + [0] * 15) + b"\0"
    scan = struct.pack(">HB", 8, 1) + b"\1\0\1\0\0" + bytes(400 * 400 // 8)
    parts = ((b"\xc3", frame), (b"\xc4", table), (b"\xda", scan))
    content = b"\xff\xd8" + b"".join(b"\xff" + name + part for name, part in parts) + b"\xff\xd9"
    assert even(content) == 128
