"""The overlay: a class activation map drawn over its image, as PNG."""

import base64
import struct
import zlib

import numpy as np
import numpy.typing as npt
from PIL.Image import Image, Resampling, composite, fromarray

SIDE = 384  # pixels: the smallest overlay
OPACITY = 0.6  # at full scale and above

# "inferno" by Nathaniel Smith and Stéfan van der Walt, made for matplotlib (CC0): equal steps of
# the map look like equal steps, also to the colour-blind. 256 times red, green, blue.
INFERNO = base64.b64decode(
    "AAAEAQAFAQEGAQEIAgEKAgIMAgIOAwIQBAMSBAMUBQQXBgQZBwUbCAUdCQYfCgciCwckDAgmDQgpDgkrEAktEQowEgoy"
    "FAs0FQs3Fgs5GAw8GQw+GwxBHAxDHgxFHwxIIQxKIwxMJAxPJgxRKAtTKQtVKwtXLQtZLwpbMQpcMgpeNApfNglhOAli"
    "OQljOwlkPQllPglmQApnQgpoRApoRQppRwtqSQtqSgxrTAxrTQ1sTw1sUQ5sUg5tVA9tVQ9tVxBuWRBuWhFuXBJuXRJu"
    "XxNuYRNuYhRuZBVuZRVuZxZuaRZuahdubBhubRhubxlucRluchpudBpudRtudxxteBxteh1tfB1tfR5tfx5sgB9sgiBs"
    "hCBrhSFrhyFriCJqiiJqjCNpjSNpjyRpkCVokiVokyZnlSZnlydmmCdmmihlmylknSlknypjoCpjoitioyxhpSxgpi1g"
    "qC5fqS5eqy9erTBdrjBcsDFbsTJaszJatDNZtjRYtzVXuTVWujZVvDdUvThTvzlSwDpRwTpQwztPxDxOxj1Nxz5MyD9L"
    "ykBKy0FJzEJIzkNHz0RG0EVF0kZE00dD1EhC1UpB10s/2Ew+2U092k4821A73VE63lI431M34FU24VY14lc041kz5Fox"
    "5Vww5l0v514u6GAt6WEr6mMq62Qp62Yo7Gcm7Wkl7mok72wj724h8G8g8XEf8XMd8nQc83Yb83gZ9HkY9XsX9X0V9n4U"
    "9oAT94IS94QQ+IUP+IcO+IkM+YsL+YwK+Y4J+pAI+pIH+pQH+5YG+5cG+5kG+5sG+50H/J8H/KEI/KMJ/KUK/KYM/KgN"
    "/KoP/KwR/K4S/LAU/LIW/LQY+7Ya+7gd+7of+7wh+74j+sAm+sIo+sQq+sYt+ccv+cky+cs1+M03+M8699E999NA9tVD"
    "9tdG9dlJ9dtM9N1P9N9T9OFW8+Na8+Vd8uZh8uhl8upp8ext8e1x8e918fF58vJ98vSC8/WG8/aK9PiO9fmS9vqW+Pua"
    "+fyd+v2h/P+k"
)
# The first colour that is used: darker ones would blacken the image where there is little evidence.
FIRST = 90

_RED_GREEN_BLUE = np.frombuffer(INFERNO, np.uint8).reshape(256, 3)
_PALETTE = _RED_GREEN_BLUE[np.linspace(FIRST, 255, 256).round().astype(int)].tobytes()
_OPACITIES = [round(OPACITY * level) for level in range(256)]


def overlay(
    pixels: npt.NDArray[np.uint8], evidence: npt.NDArray[np.floating], scale: float
) -> bytes:
    """The PNG of `draw`: pixels (S, S), evidence (h, w) and scale in logits."""
    return _png(np.asarray(draw(pixels, evidence, scale)))


def draw(pixels: npt.NDArray[np.uint8], evidence: npt.NDArray[np.floating], scale: float) -> Image:
    """An RGB image of pixels (S, S) with the evidence (h, w), in logits, drawn over it in colour.

    Only evidence for the class is shown; colour and opacity grow with it up to `scale`. That is a
    property of the network, not of the image: little evidence gives a faint overlay. The image is
    enlarged by a whole factor to at least 384 pixels a side.
    """
    side = pixels.shape[0] * -(-SIDE // pixels.shape[0])
    image = fromarray(pixels).resize((side, side), Resampling.BICUBIC)
    # Evidence against the class is clipped first, since the bicubic filter would overshoot at it.
    levels = np.clip(np.asarray(evidence, dtype=np.float32) / scale, 0, 1) * 255
    level = fromarray(levels).resize((side, side), Resampling.BICUBIC).convert("L")
    colours = level.copy()
    colours.putpalette(_PALETTE)
    return composite(colours.convert("RGB"), image.convert("RGB"), level.point(_OPACITIES))


def _png(picture: npt.NDArray[np.uint8]) -> bytes:
    """An RGB image (H, W, 3) as PNG (ISO/IEC 15948), each row as its difference from the last one.

    Smaller than Pillow's at its fastest level, zlib-ng or not, and in a fifth of the time
    (docs/log.md): Pillow tries five filters on every row.
    """
    from isal import isal_zlib  # here, since training does not need it

    height, width, _ = picture.shape
    rows = picture.reshape(height, -1)
    lines = np.full((height, 1 + rows.shape[1]), 2, np.uint8)  # 2: the filter "up"
    lines[:, 1:] = rows
    lines[1:, 1:] -= rows[:-1]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    content = isal_zlib.compress(lines.data, 1)
    chunks = {b"IHDR": header, b"IDAT": content, b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks.items()
    )
