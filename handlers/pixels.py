"""Bytes → grey uint8 (S, S): the only place that decodes an image, in training and in serving."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ImageChops
from PIL.Image import Image, Resampling, Transpose, fromarray, new
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from handlers import dicom, jpeg_markers, limits, png_chunks, sixteen_bits
from handlers.errors import ImageError
from handlers.picture import Picture

MAX_BYTES = 32 * 2**20
# A JPEG of at least twice this many times the side is decoded at 1/2, 1/4 or 1/8 of its size, never
# below this many times: a third less time, pixels up to 17 levels of grey apart (docs/log.md).
SPARE = 2
MIN_SIDE = 32  # pixels; below it nothing of a chest is left to see

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
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


# Of a pixel in Pillow's memory; 4 in every other mode.
_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2}


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
    smaller, though at no less than twice the size. 16 bits become 8 by dividing by 257, or, where
    no value needs the topmost bit, by the range of the values present; what is transparent lies
    over black. Of several pictures in a file, the first. DICOM becomes grey as `dicom.read` says,
    and is answered as far as the policy lets it be.

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
    try:
        picture, plugin = _parse(data)
        limits.check_pixels(picture.width, picture.height, picture.coded, max_pixels)
        image = _open(picture, plugin)
        _check_sides(image)  # as the header has them: nothing is decoded so far
        if picture.scalable:
            image.draft(None, (SPARE * size, SPARE * size))  # at the least
        needed = image.width * image.height * (_BYTES.get(image.mode, 4) + 1) + picture.buffers
        limits.check_memory(picture.width, picture.height, needed, max_pixels)
        limits.check_passes(picture.scans, picture.buffers)
        image.load()
        if picture.depth == 16 and len(image.getbands()) > 1 and sixteen_bits.is_dark(image):
            needed += image.width * image.height * sixteen_bits.FINE_BYTES
            limits.check_memory(picture.width, picture.height, needed, max_pixels)
            grey = fromarray(sixteen_bits.fine(image, _open(picture, plugin)))
        else:
            grey = _grey(image)
        upright = _UPRIGHT.get(picture.orientation)
        return grey if upright is None else grey.transpose(upright)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # whatever a parser or a decoder makes of hostile bytes
        raise _broken(str(error)[:200] or type(error).__name__) from error


def _parse(data: bytes | bytearray) -> tuple[Picture, type[ImageFile]]:
    """The picture's own bytes and what decodes them: no other plugin of Pillow ever runs."""
    if data.startswith(jpeg_markers.MAGIC):
        return jpeg_markers.read(data), JpegImageFile
    if data.startswith(png_chunks.MAGIC):
        return png_chunks.read(data), PngImageFile
    raise ImageError(
        415,
        "NotAnImage",
        f"These bytes are no image that can be read{_likeness(data)}: send JPEG, PNG or DICOM.",
    )


def _open(picture: Picture, plugin: type[ImageFile]) -> ImageFile:
    # Not Image.open, whose own limit of pixels is global to the process and warns.
    return plugin(io.BytesIO(picture.content))


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


def _grey(image: Image) -> Image:
    """An image of any mode as mode L (ITU-R BT.601 luma); floats count as 0 to 255."""
    image.load()
    if image.mode.startswith("I"):  # I;16 and kin; older Pillows read 16 bits as I
        return fromarray(sixteen_bits.grey(image))
    if image.mode == "L" and not image.has_transparency_data:
        return image
    grey = new("L", image.size)
    for top, strip in sixteen_bits.strips(image):
        grey.paste(_luma(strip), (0, top))
    return grey


def _luma(image: Image) -> Image:
    if image.has_transparency_data:
        # Over black, which is how a radiograph shows that nothing lies there (air).
        clear = image if image.mode in ("RGBA", "LA") else image.convert("RGBA")
        return ImageChops.multiply(clear.convert("L"), clear.getchannel("A"))
    return image.convert("L")
