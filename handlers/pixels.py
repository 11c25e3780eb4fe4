"""Bytes → grey uint8 (S, S): the only place that decodes an image, in training and in serving."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ImageChops
from PIL.Image import Image, Resampling, Transpose, fromarray
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from handlers import dicom, limits
from handlers.errors import ImageError

MAX_BYTES = 32 * 2**20
ROWS = 256  # of a 16-bit image that are made 8-bit at once
# A JPEG of at least twice this many times the side is decoded at 1/2, 1/4 or 1/8 of its size, never
# below this many times: a third less time, pixels up to 17 levels of grey apart (docs/log.md).
SPARE = 2
MIN_SIDE = 32  # pixels; below it nothing of a chest is left to see

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"

# Only to say what was sent instead: (where, what stands there, its name).
_OTHERS = (
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (8, b"WEBP", "WebP"),
    (4, b"ftyp", "HEIC or AVIF"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"%PDF", "PDF"),
    (0, b"<", "HTML or XML"),
    (0, b"\0\0\0\0", "zeros"),
)

# EXIF 2.32, tag 274: how the picture lies in the file.
_ORIENTATION = 274
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Decoded:
    """Grey pixels (S, S), and what a reader of the answer should know of the image."""

    pixels: npt.NDArray[np.uint8]
    warnings: Sequence[str] = ()


def decode(data: bytes | bytearray, size: int) -> npt.NDArray[np.uint8]:
    """The image in a JPEG, PNG or DICOM file, upright, grey, squashed to uint8 (size, size).

    Raises:
        ImageError: as `read` does.
    """
    return read(data, size).pixels


def read(
    data: bytes | bytearray,
    size: int,
    policy: dicom.Policy = dicom.Policy(),  # noqa: B008 -- frozen
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = limits.MAX_PIXELS,
) -> Decoded:
    """The image in a JPEG, PNG or DICOM file, upright, grey, squashed to uint8 (size, size).

    Grey first, then Pillow's bilinear filter, aspect ratio not kept. A large JPEG is decoded
    smaller, though at no less than twice the size. 16 bits become 8 by dividing by 257; what is
    transparent lies over black. Of several pictures in a file, the first. DICOM becomes grey as
    `dicom.read` says, and is answered as far as the policy lets it be.

    Raises:
        ImageError: `data` is no such image, is broken, is too small or too large, or is not to be
            answered.
    """
    if not data:
        raise ImageError(400, "EmptyImage", "There are no bytes: send a JPEG, PNG or DICOM file.")
    if len(data) > max_bytes:
        raise ImageError(
            413,
            "TooManyBytes",
            f"The image has {len(data):,} bytes, the limit is {max_bytes:,}: send it smaller.",
        )
    if dicom.is_dicom(data):
        grey, warnings = _radiograph(data, policy, max_pixels)
    else:
        grey, warnings = _picture(data, size, max_pixels), []
    return Decoded(np.array(grey.resize((size, size), Resampling.BILINEAR)), warnings)


def _radiograph(
    data: bytes | bytearray, policy: dicom.Policy, max_pixels: int
) -> tuple[Image, list[str]]:
    try:
        grey, warnings = dicom.read(data, policy, max_pixels)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # whatever a parser or a decoder makes of hostile bytes
        # Without its words, which may repeat a tag's.
        raise _broken(type(error).__name__) from error
    image = fromarray(grey)
    _check_sides(image)
    return image, warnings


def _picture(data: bytes | bytearray, size: int, max_pixels: int) -> Image:
    image = _open(data)
    try:
        limits.check_pixels(*image.size, len(data), max_pixels)
        _check_sides(image)  # as the header has them: nothing is decoded so far
        if isinstance(image, JpegImageFile):
            image.draft(None, (SPARE * size, SPARE * size))  # at the least
        grey = _grey(image)
        upright = _UPRIGHT.get(_orientation(image))
        return grey if upright is None else grey.transpose(upright)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # as above
        raise _broken(str(error)[:200] or type(error).__name__) from error


def _open(data: bytes | bytearray) -> ImageFile:
    # Not Image.open, whose own limit of pixels is global to the process and warns.
    if data.startswith(_JPEG):
        limits.check_scans(data)
        plugin: type[ImageFile] = JpegImageFile
    elif data.startswith(_PNG):
        plugin = PngImageFile
    else:
        raise ImageError(
            415,
            "NotAnImage",
            f"These bytes are no image that can be read{_likeness(data)}: send JPEG, PNG or DICOM.",
        )
    try:
        return plugin(io.BytesIO(data))
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise _broken(str(error)[:200] or type(error).__name__) from error


def _likeness(data: bytes | bytearray) -> str:
    for start, magic, name in _OTHERS:
        if data[start : start + len(magic)] == magic:
            return f" (they look like {name})"
    return ""


def _broken(why: str) -> ImageError:
    return ImageError(
        400, "BrokenImage", f"The image is broken or cut short ({why}): send the whole file again."
    )


def _check_sides(image: Image) -> None:
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            400,
            "ImageTooSmall",
            f"The image is {width} x {height}, too small for a radiograph: "
            f"send at least {MIN_SIDE} pixels a side.",
        )


def _orientation(image: Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken EXIF block, as above, says nothing of how the picture lies
        return 1


def _grey(image: Image) -> Image:
    """An image of any mode as mode L (ITU-R BT.601 luma); floats count as 0 to 255."""
    image.load()
    if image.mode.startswith("I"):  # I;16 and kin; older Pillows read 16 bits as I
        return fromarray(_eight_bits(image))
    if image.has_transparency_data:
        # Over black, which is how a radiograph shows that nothing lies there (air).
        clear = image if image.mode in ("RGBA", "LA") else image.convert("RGBA")
        return ImageChops.multiply(clear.convert("L"), clear.getchannel("A"))
    return image.convert("L")


def _eight_bits(image: Image) -> npt.NDArray[np.uint8]:
    """Values 0 to 65535 as 0 to 255. That a detector filled 12 bits alone can't be known."""
    table = ((np.arange(65536) + 128) // 257).astype(np.uint8)
    if "transparency" in image.info:
        table[image.info["transparency"]] = 0  # over black, as in `_grey`
    found = np.empty((image.height, image.width), np.uint8)
    for top in range(0, image.height, ROWS):  # else the indices take eight bytes a pixel
        rows = np.asarray(image.crop((0, top, image.width, min(top + ROWS, image.height))))
        found[top : top + ROWS] = table[rows.clip(0, 65535)]
    return found
