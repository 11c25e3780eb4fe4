"""Structures independent of the label: patches outside the lungs, leads, tubes, letters."""

from functools import lru_cache

import numpy as np
from PIL import ImageDraw, ImageFont

from train.data.phantoms.canvas import (
    Field,
    Frame,
    Random,
    draw_disc,
    layer_density,
    line_width,
    new_layer,
    smooth_noise,
    soft_edge,
)


def add_distractors(rng: Random, frame: Frame, density: Field, lungs: Field) -> Field:
    """Density (S, S) with structures added that do not depend on the label."""
    for _ in range(int(rng.integers(0, 4))):
        density = density + _patch(rng, frame) * (1 - lungs)
    layer, pen = new_layer(frame)
    if rng.random() < 0.35:
        _leads(rng, frame, pen)
    if rng.random() < 0.25:
        _tube(rng, frame, pen)
    if rng.random() < 0.8:
        _letters(rng, frame, pen)
    metal = rng.uniform(0.5, 1.0) * layer_density(layer, 0.5 * frame.size / 224)
    return density + metal


def _patch(rng: Random, frame: Frame) -> Field:
    """A bright or dark cloud (S, S) at any position: bowel gas, skin folds, a calcified node."""
    centre_x, centre_y = rng.uniform(-1, 1), rng.uniform(-1, 1)
    if rng.random() < 0.5:  # in the belly
        centre_x, centre_y = rng.uniform(-0.2, 0.7), rng.uniform(0.6, 1.0)
    wide, high = rng.uniform(0.08, 0.28), rng.uniform(0.08, 0.28)
    u = (frame.x - centre_x) * (1 / wide)
    v = (frame.y - centre_y) * (1 / high)
    shape = 1 - u * u - v * v + 0.3 * smooth_noise(rng, frame.size, 12, 24)
    return soft_edge(shape, 0.5) * (-0.2 if rng.random() < 0.5 else 0.2) * rng.uniform(0.5, 1.2)


def _leads(rng: Random, frame: Frame, pen: ImageDraw.ImageDraw) -> None:
    for _ in range(int(rng.integers(1, 4))):
        start = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.7, 0.6)])
        end = np.array([rng.uniform(-1.2, 1.2), rng.choice([-1.2, 1.2])])
        bend = (start + end) / 2 + rng.normal(0, 0.3, 2)
        t = np.linspace(0, 1, 16)[:, None]
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
        pen.line(
            frame.pixels(curve), fill=int(rng.uniform(50, 110)), width=line_width(frame, 0.012)
        )
        draw_disc(pen, frame, start, np.array([0.045, 0.045]), 90)
        draw_disc(pen, frame, start, np.array([0.02, 0.02]), 160)


def _tube(rng: Random, frame: Frame, pen: ImageDraw.ImageDraw) -> None:
    end = rng.choice([-0.3, 0.75])  # in the windpipe or the stomach
    t = np.linspace(0, 1, 12)
    x = rng.normal(0, 0.02) + 0.02 * np.sin(5 * t) + (0.12 * t**4 if end > 0 else 0 * t)
    line = frame.pixels(np.stack([x, -1.2 + t * (1.2 + end)], axis=1))
    pen.line(line, fill=70, width=line_width(frame, 0.035))
    pen.line(line, fill=35, width=line_width(frame, 0.018))


def _letters(rng: Random, frame: Frame, pen: ImageDraw.ImageDraw) -> None:
    """The side marker and sometimes the exposure, burnt in as a workstation does."""
    size = frame.size
    x = rng.choice([rng.uniform(0.0, 0.1), rng.uniform(0.84, 0.94)])
    place = (x * size, rng.uniform(0.0, 0.55) * size)
    pen.text(place, str(rng.choice(["R", "L"])), 255, _font(int(rng.uniform(0.05, 0.12) * size)))
    if rng.random() < 0.25:
        text = f"kV {rng.integers(55, 75)}  {rng.integers(10, 23)}:{rng.integers(10, 60)}"
        corner = (rng.choice([0.02, 0.75]) * size, rng.choice([0.01, 0.94]) * size)
        pen.text(corner, text, 220, _font(int(0.045 * size)))


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(size, 5))
