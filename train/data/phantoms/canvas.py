"""The geometry of a phantom, and drawing primitives: soft edges, noise, lines and discs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Field = npt.NDArray[np.floating[Any]]  # (S, S), in float32 throughout: half the time of float64
Points = npt.NDArray[np.float64]  # (N, 2), patient coordinates
Box = tuple[int, int, int, int]  # left, top, right, bottom
Random = np.random.Generator


@dataclass(frozen=True)
class Frame:
    """The patient's position in the picture: the map between patient coordinates and pixels.

    The grids `x` and `y` are warped a little, so that no two chests have the same curves; `pixels`
    is not warped.
    """

    size: int
    matrix: npt.NDArray[np.float64]  # (2, 2), patient to pixels
    origin: npt.NDArray[np.float64]  # (2,), pixels
    x: Field  # (S, S), patient coordinate of each pixel
    y: Field

    def pixels(self, points: Points) -> list[tuple[float, float]]:
        """Pixel positions of patient coordinates (N, 2), as Pillow's drawing takes them."""
        return [(float(x), float(y)) for x, y in points @ self.matrix.T + self.origin]


def random_frame(rng: Random, size: int) -> Frame:
    """A random position, tilt and scale of the patient in a picture of (size, size) pixels."""
    turn = rng.normal(0, 0.06)
    scale = rng.uniform(0.92, 1.18) * size / 2
    aspect = rng.uniform(0.92, 1.08)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = rotation @ np.diag([scale * aspect, scale / aspect])
    origin = size / 2 + rng.uniform(-0.06, 0.06, 2) * size
    back = np.linalg.inv(matrix).astype(np.float32)
    column = np.arange(size, dtype=np.float32)[None] + float(0.5 - origin[0])
    row = np.arange(size, dtype=np.float32)[:, None] + float(0.5 - origin[1])
    x = back[0, 0] * column + back[0, 1] * row + 0.018 * smooth_noise(rng, size, 5)
    y = back[1, 0] * column + back[1, 1] * row + 0.018 * smooth_noise(rng, size, 5)
    return Frame(size, matrix, origin, x + rng.normal(0, 0.035) * (y * y), y)


def soft_edge(distance: Field, width: float) -> Field:
    """A smooth step (S, S) from 0 to 1 as the distance goes from -width to width."""
    t = distance * (0.5 / width)
    t += 0.5
    np.clip(t, 0, 1, out=t)
    edge = t * -2
    edge += 3
    edge *= t
    edge *= t
    return edge


def smooth_noise(rng: Random, size: int, *cells: int) -> Field:
    """Smooth noise (size, size), standard deviation about 1, summed over grids of `cells`²."""
    total: Field = np.zeros((cells[0], cells[0]), np.float32)
    for cell in cells:
        grid = rng.standard_normal((cell, cell), dtype=np.float32)
        # Each grid is added to the coarser ones at its own size: one enlargement, not many.
        total = _enlarge(total, cell) + grid
    noise: Field = _enlarge(total, size) * (1.3 / len(cells) ** 0.5)
    return noise


def _enlarge(grid: Field, size: int) -> Field:
    if len(grid) == size:
        return grid
    # Bicubic where the cells are large enough to be visible.
    smooth = Image.Resampling.BICUBIC if len(grid) < 16 else Image.Resampling.BILINEAR
    enlarged: Field = np.asarray(Image.fromarray(grid).resize((size, size), smooth))
    return enlarged


def new_layer(frame: Frame) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty 8-bit picture of the frame's size, and the pen that draws on it."""
    layer = Image.new("L", (frame.size, frame.size))
    return layer, ImageDraw.Draw(layer)


def layer_density(layer: Image.Image, blur: float) -> Field:
    """The density (S, S), 0 to 1, of a drawn layer, blurred by a box of that radius in pixels."""
    blurred = layer.filter(ImageFilter.BoxBlur(blur))
    return np.asarray(blurred, np.float32) * (1 / 255)


def draw_disc(
    pen: ImageDraw.ImageDraw,
    frame: Frame,
    centre: npt.NDArray[np.float64],
    radius: npt.NDArray[np.float64],
    fill: int,
) -> None:
    """Draw a filled ellipse; `centre` and `radius` (2,) in patient coordinates."""
    turn = np.linspace(0, 2 * np.pi, 25)[:-1, None]
    rim = centre + radius * np.concatenate([np.cos(turn), np.sin(turn)], axis=1)
    pen.polygon(frame.pixels(rim), fill=fill)


def line_width(frame: Frame, width: float) -> int:
    """A width in patient coordinates, in whole pixels, at least 1."""
    return max(1, round(width * float(frame.matrix[0, 0])))
