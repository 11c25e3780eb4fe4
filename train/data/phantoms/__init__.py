"""The built-in data: seeded chest-like X-ray phantoms with opacities at known places.

A phantom is a sum of densities in patient coordinates (x to the right of the picture, y down, the
chest about [-1, 1]), converted to grey values by a film curve. The lungs are air subtracted from
the tissue, and an opacity is air filled again, so consolidation beside the heart hides the heart's
border as in a patient. Everything but the opacities is drawn from random numbers that are
independent of the label: `draw(seed, index, 0)` is `draw(seed, index, 1)` without its opacities.
"""

from train.data.phantoms.canvas import Box
from train.data.phantoms.drawing import Phantom, draw
from train.data.phantoms.writing import COUNTS, SPLITS, VERSION, write

__all__ = ["COUNTS", "SPLITS", "VERSION", "Box", "Phantom", "draw", "write"]
