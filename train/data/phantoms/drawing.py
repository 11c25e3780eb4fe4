"""One phantom from a seed, an index and a label."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from handlers.arrays import Pixels
from train.data.phantoms.anatomy import random_chest
from train.data.phantoms.canvas import Box, random_frame
from train.data.phantoms.distractors import add_distractors
from train.data.phantoms.film import develop
from train.data.phantoms.opacities import random_opacities


@dataclass(frozen=True)
class Phantom:
    """One drawn X-ray, with its label, the boxes of its opacities, and its lung fields."""

    image: Pixels  # (S, S), uint8
    label: int  # 0 NORMAL, 1 PNEUMONIA
    boxes: tuple[Box, ...]  # in pixels, half-open, one per opacity; empty for NORMAL
    lungs: npt.NDArray[np.bool_]  # (S, S): the lung fields beside the heart, above the diaphragm


def draw(seed: int, index: int, label: int, size: int = 224) -> Phantom:
    """Phantom `index` of `seed`, its image uint8 (size, size); label 0 NORMAL, 1 PNEUMONIA.

    The same arguments give the same bytes. The two labels differ only in the opacities.

    Raises:
        ValueError: an unknown label, or a size below 32 pixels.
    """
    if label not in (0, 1) or size < 32:
        raise ValueError(f"label {label} must be 0 or 1, size {size} at least 32 pixels")
    # A generator per component, so that the label changes no random number of the rest.
    chest_rng, opacity_rng, distractor_rng, film_rng = (
        np.random.default_rng([seed, index, stream]) for stream in range(4)
    )
    frame = random_frame(chest_rng, size)
    tissue, lungs, air = random_chest(chest_rng, frame)
    boxes: list[Box] = []
    if label:
        filling, boxes = random_opacities(opacity_rng, frame, lungs)
        air = air * (1 - filling)
    density = add_distractors(distractor_rng, frame, tissue - air, lungs)
    return Phantom(develop(film_rng, density), label, tuple(boxes), lungs > 0.5)
