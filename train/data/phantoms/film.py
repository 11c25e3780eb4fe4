"""From density to the grey values of a picture."""

import numpy as np
from scipy import ndimage

from handlers.arrays import Pixels
from train.data.phantoms.canvas import Field, Random


def develop(rng: Random, density: Field) -> Pixels:
    """Grey values (S, S), uint8, of a density: blur, exposure, contrast, collimation, grain."""
    size = len(density)
    blur = rng.uniform(0.0, 0.8) * size / 224
    if blur > 0.25 * size / 224:
        density = ndimage.gaussian_filter(density, blur, truncate=3.0)
    ramp = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    density = density + rng.normal(0, 0.06) * ramp + rng.normal(0, 0.06) * ramp[:, None]
    centre, steep = rng.uniform(0.36, 0.60), rng.uniform(4.0, 6.5)
    light = 1 / (1 + np.exp((centre - density) * steep))
    black = float(1 / (1 + np.exp(centre * steep)))
    light = (light - black) / (1 - black) * rng.uniform(0.85, 1.05)
    light += rng.uniform(0.0, 0.08)
    light *= _collimation(rng, size)
    grain = rng.standard_normal((size, size), dtype=np.float32)
    light += grain * rng.uniform(0.004, 0.02)
    image: Pixels = np.rint(np.clip(light, 0, 1) * 255).astype(np.uint8)
    return image


def _collimation(rng: Random, size: int) -> Field:
    """A mask (size, size): 1 in the open field, 0.03 under a shutter; each side is independent."""
    shutters = np.ones((size, size), np.float32)
    for turns in range(4):
        wide = int(rng.uniform(0.0, 0.06) * size)
        if rng.random() < 0.25:
            np.rot90(shutters, turns)[:wide] = 0.03
    return shutters
