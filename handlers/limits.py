"""How much an image may cost, seen before anything is decoded."""

from handlers import jpeg_markers
from handlers.errors import ImageError

MAX_PIXELS = 50_000_000  # twice the largest detectors
FEW = 8_000_000  # pixels: so many are decoded whatever they were sent as
DENSITY = 50  # pixels a byte that a file may hold above them; radiographs in JPEG have 5 to 20
# Of the decoder's image and its buffers: grey of 8 bits at MAX_PIXELS, of 16 bits up to 33
# megapixels, colours up to 20.
MAX_MEMORY = 100_000_000
# Bytes of coefficients that all scans of a JPEG together pass over, 4 GB a second: ten scans of a
# grey radiograph of 25 megapixels are 0.5 GB.
MAX_PASSES = 2_000_000_000


def check_pixels(width: int, height: int, sent: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse too many pixels, and more than `sent` bytes of coded pixels can honestly hold.

    The latter is a decompression bomb: 100 kB of PNG may say 50 million pixels.

    Raises:
        ImageError: 413.
    """
    count = width * height
    size = f"The image is {width} x {height}, {count:,} pixels"
    if count > max_pixels:
        raise ImageError(
            413, "TooManyPixels", f"{size}, the limit is {max_pixels:,}: send it smaller."
        )
    if count > max(FEW, DENSITY * sent):
        raise ImageError(
            413,
            "TooManyPixels",
            f"{size} in {sent:,} bytes, more than {DENSITY} a byte: send it smaller.",
        )


def check_memory(width: int, height: int, needed: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse an image whose channels, depth or scans need too many bytes to be decoded.

    A site that allows more pixels allows two bytes for each.

    Raises:
        ImageError: 413.
    """
    limit = max(MAX_MEMORY, 2 * max_pixels)
    if needed > limit:
        raise ImageError(
            413,
            "TooManyPixels",
            f"The image is {width} x {height} and needs {needed / 1e6:,.0f} MB to be decoded, the "
            f"limit is {limit / 1e6:,.0f} MB: send it smaller, or as grey and not progressive.",
        )


def check_passes(scans: int, buffers: int) -> None:
    """Refuse a JPEG whose scans together pass over very many coefficients.

    Raises:
        ImageError: 413.
    """
    if scans * buffers > MAX_PASSES:
        raise jpeg_markers.too_many_scans(f"{scans} scans over {buffers / 1e6:,.0f} MB")


def check_scans(frame: bytes | bytearray) -> None:
    """Refuse a JPEG of very many scans, as `jpeg_markers.check_scans` does; other codes pass.

    Raises:
        ImageError: 413.
        ValueError: the JPEG is no sequence of segments.
    """
    if frame.startswith(jpeg_markers.SOI_BYTES):
        jpeg_markers.check_scans(frame)
