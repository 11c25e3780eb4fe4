"""Images of 16 bits a channel as grey of 8: by the values present, where they need fewer bits."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL.Image import Image

STRIP = 2**17  # pixels that are converted at once
FEWER = 2**15  # values below it leave the topmost bit unused
FINE_BYTES = 6  # a pixel, that `fine` needs beside the image and the grey

# Pillow reads the high bytes of 16-bit colours; these of its raw modes read the others. Grey with
# alpha has four bytes a pixel, which RGBA of 8 bits takes as they stand.
_FINE = {"LA;16B": "RGBA", "RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}
_LUMA = np.array([19595, 38470, 7471], np.uint32)  # of 65,536: ITU-R BT.601, as Pillow rounds it

Values = npt.NDArray[np.integer]


def strips(image: Image) -> Iterator[tuple[int, Image]]:
    """The image from top to bottom in pieces of about `STRIP` pixels, which bounds what is held."""
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def grey(image: Image) -> npt.NDArray[np.uint8]:
    """Values 0 to 65535 of one channel (H, W) as 0 to 255; the transparent one is black."""
    clear = image.info.get("transparency")
    present = [_range(np.asarray(strip), clear) for _, strip in strips(image)]
    table = _table(min(low for low, _ in present), max(high for _, high in present))
    if clear is not None:
        table[clear] = 0
    shown = np.empty((image.height, image.width), np.uint8)
    for top, strip in strips(image):
        shown[top : top + strip.height] = table[np.asarray(strip).clip(0, 65535)]
    return shown


def _range(values: Values, clear: int | None) -> tuple[int, int]:
    """The least and the greatest value, apart from the transparent one."""
    if clear is not None:
        values = values[values != clear]
    return int(values.min(initial=65535)), int(values.max(initial=0))


def _table(low: int, high: int) -> npt.NDArray[np.uint8]:
    """The grey of each value (65536,).

    Where no value needs the topmost bit, a detector of fewer bits wrote them: they are shown by
    the range of the values present, like DICOM without a window. Else the range is the file's.
    """
    values = np.arange(65536)
    if 0 <= low < high < FEWER:
        shown = np.rint((values.clip(low, high) - low) * (255 / (high - low)))
    else:
        shown = (values + 128) // 257
    return shown.astype(np.uint8)


def is_dark(image: Image) -> bool:
    """Whether the colours of an image, of which the high bytes are there, leave a bit unused."""
    extrema = image.getextrema()[: min(3, len(image.getbands()))]
    return all(isinstance(band, tuple) and band[1] < FEWER >> 8 for band in extrema)


def fine(high: Image, again: Image) -> npt.NDArray[np.uint8]:
    """Colours or grey with alpha (H, W), of 16 bits that need fewer, as 0 to 255 over black.

    `high` is the decoded image; `again` the same file, opened and not yet decoded.
    """
    (tile,) = again.tile  # type: ignore[attr-defined]
    again.tile = [tile._replace(args=_FINE[tile.args])]  # type: ignore[attr-defined]
    again.load()
    values = np.empty((high.height, high.width), np.uint16)
    alpha = np.full((high.height, high.width), 255, np.uint8)
    least, most = 65535, 0
    for (top, upper), (_, lower) in zip(strips(high), strips(again), strict=True):
        rows = slice(top, top + upper.height)
        if tile.args == "LA;16B":
            pair = np.asarray(lower)
            values[rows] = pair[..., 0].astype(np.uint16) << 8 | pair[..., 1]
            alpha[rows] = pair[..., 2]
        else:
            colours = _colours(upper, lower)
            values[rows] = (colours @ _LUMA + 2**15) >> 16
            if upper.mode == "RGBA":
                alpha[rows] = np.asarray(upper)[..., 3]
            elif "transparency" in high.info:
                alpha[rows][(colours == high.info["transparency"]).all(axis=-1)] = 0
        low, upmost = _range(values[rows][alpha[rows] > 0], None)
        least, most = min(least, low), max(most, upmost)
    table = _table(least, most).astype(np.uint16)
    rows_at_once = max(1, STRIP // high.width)
    for top in range(0, high.height, rows_at_once):
        rows = slice(top, top + rows_at_once)
        alpha[rows] = (table[values[rows]] * alpha[rows] + 127) // 255
    return alpha


def _colours(upper: Image, lower: Image) -> npt.NDArray[np.uint32]:
    """Red, green and blue (H, W, 3), 0 to 65535, of images of the high and of the low bytes."""
    high, low = (np.asarray(image)[..., :3].astype(np.uint32) for image in (upper, lower))
    return high * np.uint32(256) + low
