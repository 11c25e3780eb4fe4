"""Opacities of pneumonia: where the lungs' air is filled, and the box of each opacity."""

import numpy as np
import numpy.typing as npt

from train.data.phantoms.canvas import Box, Field, Frame, Random, smooth_noise, soft_edge


def random_opacities(rng: Random, frame: Frame, lungs: Field) -> tuple[Field, list[Box]]:
    """The filled share of the lungs' air (S, S), 0 to 1, and the box of each opacity in pixels."""
    kind = str(rng.choice(["focal", "interstitial", "patchy"], p=[0.6, 0.2, 0.2]))
    halves = [frame.x < 0, frame.x > 0]
    number = int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))
    if kind != "focal":
        number = int(rng.choice([1, 2], p=[0.4, 0.6]))
        halves = [halves[half] for half in rng.permutation(2)]
    filling, boxes = np.zeros_like(lungs), list[Box]()
    free = lungs.copy()
    for _ in range(40):
        if len(boxes) == number or (boxes and free.max() <= 0.6):
            break
        if kind == "focal":
            part = _focal(rng, frame, free, 1.0 if number == 1 else 0.75) * lungs
        else:
            part = _diffuse(rng, frame, kind) * halves[len(boxes)] * lungs
        # Large enough to see: 10 x 10 of 64 x 64 pixels, or 7 x 7 where there are several.
        if part.sum() < (0.023 if number == 1 else 0.013) * part.size:
            continue
        box = _bounding_box(part > 0.15)
        boxes.append(box)
        near = _box_with_margin(box, frame.size)
        free[near] = 0
        filling = 1 - (1 - filling) * (1 - part * near)
    return filling, boxes


def _focal(rng: Random, frame: Frame, free: Field, large: float) -> Field:
    """A soft, irregular consolidation (S, S), 0 to 1, inside the free part of the lungs."""
    rows, columns = np.nonzero(free > 0.6)
    pick = rng.integers(len(rows))
    place = rows[pick], columns[pick]
    centre_x, centre_y = float(frame.x[place]), float(frame.y[place])
    radius = large * rng.uniform(0.22, 0.36)
    shape = 0.15 * smooth_noise(rng, frame.size, 10, 24)
    for _ in range(3):
        dx, dy = rng.normal(0, 0.4 * radius), rng.normal(0, 0.4 * radius)
        wide, high = radius * rng.uniform(0.6, 1.1), radius * rng.uniform(0.6, 1.1)
        u = (frame.x - (centre_x + dx)) * (1 / wide)
        v = (frame.y - (centre_y + dy)) * (1 / high)
        shape += np.exp(-(u * u + v * v))
    texture = rng.uniform(0.85, 1.0) + 0.08 * smooth_noise(rng, frame.size, 50)
    same_lung = (frame.x > 0) == (centre_x > 0)
    opacity: Field = np.clip(soft_edge(shape - 0.75, 0.5) * texture, 0, 1) * same_lung
    return opacity


def _diffuse(rng: Random, frame: Frame, kind: str) -> Field:
    """Fine net and haze (interstitial) or small clouds (patchy), (S, S), 0 to 1."""
    centre, reach = rng.uniform(-0.2, 0.3), rng.uniform(0.5, 1.0)
    zone = soft_edge(reach - np.abs(frame.y - centre), 0.25)
    zone *= rng.uniform(0.85, 1.0)
    if kind == "patchy":
        return soft_edge(smooth_noise(rng, frame.size, 8, 18) - 0.35, 0.6) * zone
    net = np.clip(1 - np.abs(smooth_noise(rng, frame.size, 24, 44)) * 1.2, 0, 1)
    haze = 0.4 + 0.2 * smooth_noise(rng, frame.size, 8)
    opacity: Field = np.clip(haze + 0.4 * net, 0, 1) * zone
    return opacity


def _bounding_box(visible: npt.NDArray[np.bool_]) -> Box:
    """The smallest box around the visible pixels, without rows and columns of a few specks."""
    speck = len(visible) // 50
    rows = np.nonzero(np.count_nonzero(visible, axis=1) > speck)[0]
    columns = np.nonzero(np.count_nonzero(visible, axis=0) > speck)[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _box_with_margin(box: Box, size: int) -> npt.NDArray[np.bool_]:
    """A mask (size, size) of the box and a margin: the faint skirt outside it is cut off."""
    left, top, right, bottom = box
    margin = size // 40
    near = np.zeros((size, size), bool)
    near[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin] = True
    return near
