"""What the peers share: JPEG → grey pixels, map over image → PNG by Pillow, and the answer."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 384  # pixels: the smallest overlay, as ours

# Blue to red, the rainbow of most tutorials: 256 times red, green, blue.
_LEVELS = np.linspace(0, 1, 256)
_PALETTE = (
    (255 * np.clip(1.5 - np.abs(4 * _LEVELS[:, None] - [3, 2, 1]), 0, 1)).astype(np.uint8).tobytes()
)


def decode(image: bytes | bytearray, size: int) -> npt.NDArray[np.uint8]:
    """Grey pixels uint8 (size, size) of a JPEG."""
    grey = Image.open(io.BytesIO(image)).convert("L")
    return np.array(grey.resize((size, size), Image.Resampling.BILINEAR))


def side_of(size: int) -> int:
    """Pixels a side of the overlay of an image of `size`."""
    return size * -(-SIDE // size)


def blend(pixels: npt.NDArray[np.uint8], cells: npt.NDArray[np.floating[Any]]) -> Image.Image:
    """Map (h, w), scaled by its own maximum as usual, over pixels (S, S), half and half."""
    side = side_of(len(pixels))
    levels = np.clip(cells / max(float(cells.max()), 1e-6), 0, 1) * 255
    map_ = Image.fromarray(levels.astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    map_.putpalette(_PALETTE)
    image = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
    return Image.blend(image.convert("RGB"), map_.convert("RGB"), 0.5)


def png(picture: Image.Image) -> bytes:
    """The PNG of a picture, at Pillow's fastest level that compresses."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def answer(classes: Sequence[str], probability: list[float], overlay: bytes) -> dict[str, Any]:
    """What every peer answers: the likelier class, both probabilities, the PNG as base64."""
    return {
        "label": classes[int(np.argmax(probability))],
        "probability": dict(zip(classes, probability, strict=True)),
        "heatmap": {"overlay": base64.b64encode(overlay).decode()},
    }
