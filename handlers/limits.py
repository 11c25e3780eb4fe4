"""How much an image may cost, seen before anything is decoded."""

from handlers.errors import ImageError

MAX_PIXELS = 50_000_000  # twice the largest detectors
FEW = 8_000_000  # pixels: so many are decoded whatever they were sent as
DENSITY = 50  # pixels a byte that a file may hold above them; radiographs in JPEG have 5 to 20

SCAN, MAX_SCANS = b"\xff\xda", 64  # of a JPEG; a progressive one has about ten


def check_pixels(width: int, height: int, sent: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse too many pixels, and more than a file of `sent` bytes can honestly hold.

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


def check_scans(jpeg: bytes | bytearray) -> None:
    """Refuse a JPEG of very many scans: of 20 bytes each, each is decoded over the whole image.

    The marker can't occur within coded data.

    Raises:
        ImageError: 413.
    """
    count = jpeg.count(SCAN)
    if count > MAX_SCANS:
        raise ImageError(
            413,
            "TooManyScans",
            f"The JPEG has {count:,} scans, the limit is {MAX_SCANS}: save it anew.",
        )
