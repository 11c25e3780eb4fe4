"""The built-in data: seeded chest-like X-ray phantoms with opacities at known places.

A phantom is a sum of densities in patient coordinates (x to the right of the picture, y down, the
chest about [-1, 1]), shown through a film curve. The lungs are air taken out of it and an opacity
is air filled again, so consolidation beside the heart hides the heart's border as in a patient.
Everything but the opacities is drawn from random numbers that never see the label:
`draw(seed, index, 0)` is `draw(seed, index, 1)` without its opacities.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy import ndimage
from tqdm import tqdm

from handlers.arrays import Pixels

VERSION = 1  # of the generator: raise it whenever a phantom's pixels change
CLASSES = ("NORMAL", "PNEUMONIA")
SPLITS = ("train", "val", "test")
COUNTS: dict[str, tuple[int, int]] = {"train": (560, 640), "val": (8, 8), "test": (150, 150)}

Field = npt.NDArray[np.floating[Any]]  # (S, S), in float32 throughout: half the time of float64
Points = npt.NDArray[np.float64]  # (N, 2), patient coordinates
Box = tuple[int, int, int, int]  # left, top, right, bottom
Random = np.random.Generator


@dataclass(frozen=True)
class Phantom:
    """One picture, uint8 (S, S), with what is known of it."""

    image: Pixels  # (S, S)
    label: int  # 0 NORMAL, 1 PNEUMONIA
    boxes: tuple[Box, ...]  # in pixels, half-open, one an opacity; empty for NORMAL
    lungs: npt.NDArray[np.bool_]  # (S, S), the lung fields beside the heart, above the diaphragm


@dataclass(frozen=True)
class Frame:
    """Where the patient lies in the picture: patient coordinates of its pixels, and the way back.

    The grids are warped a little, so that no two chests have the same curves; `pixels` is not.
    """

    size: int
    matrix: npt.NDArray[np.float64]  # (2, 2), patient to pixels
    origin: npt.NDArray[np.float64]  # (2,), pixels
    x: Field
    y: Field

    def pixels(self, points: Points) -> list[tuple[float, float]]:
        """Pixel positions of patient coordinates (N, 2), as Pillow draws them."""
        return [(float(x), float(y)) for x, y in points @ self.matrix.T + self.origin]


def draw(seed: int, index: int, label: int, size: int = 224) -> Phantom:
    """Phantom `index` of `seed`, its image uint8 (size, size); label 0 NORMAL, 1 PNEUMONIA.

    The same arguments give the same bytes; the two labels differ in nothing but the opacities.
    """
    if label not in (0, 1) or size < 32:
        raise ValueError(f"label {label} must be 0 or 1, size {size} at least 32 pixels")
    body, disease, things, film = (np.random.default_rng([seed, index, k]) for k in range(4))
    frame = _frame(body, size)
    tissue, lungs, air = _chest(body, frame)
    boxes: list[Box] = []
    if label:
        filling, boxes = _opacities(disease, frame, lungs)
        air = air * (1 - filling)
    density = _distractors(things, frame, tissue - air, lungs)
    return Phantom(_film(film, density), label, tuple(boxes), lungs > 0.5)


def write(
    folder: Path,
    counts: Mapping[str, tuple[int, int]] = COUNTS,
    seed: int = 0,
    size: int = 224,
) -> None:
    """Phantoms of (size, size) pixels as `folder/{split}/{class}/phantom-{split}-{index}.jpeg`.

    `counts` gives (normal, pneumonia) for each split. Beside them `boxes.csv` (file, left, top,
    right, bottom) and, last of all, `SOURCE.json`. Where that says the same, nothing is done;
    where it says otherwise or is missing after an interruption, the set is drawn anew.
    """
    unknown = sorted(set(counts) - set(SPLITS))
    if unknown:
        raise ValueError(f"no split is called {', '.join(unknown)}: use {', '.join(SPLITS)}")
    source = {
        "name": "phantoms",
        "seed": seed,
        "size": size,
        "counts": {split: list(counts[split]) for split in SPLITS if split in counts},
        "generator": VERSION,
    }
    plan = list(_plan(counts))
    present = {path.relative_to(folder).as_posix() for path in folder.glob("*/*/*")}
    foreign = [file for file in present if not Path(file).name.startswith("phantom-")]
    if foreign:
        raise FileExistsError(f"{folder / min(foreign)} is no phantom: name another folder")
    mark = folder / "SOURCE.json"
    wanted = {file for file, _, _ in plan}
    if present == wanted and mark.exists() and json.loads(mark.read_text()) == source:
        return
    mark.unlink(missing_ok=True)
    for file in present - wanted:
        (folder / file).unlink()
    rows = StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(["file", "left", "top", "right", "bottom"])
    for file, index, label in tqdm(plan, "phantoms", unit=" images", disable=None):
        phantom = draw(seed, index, label, size)
        table.writerows([file, *box] for box in phantom.boxes)
        _replace(folder / file, _jpeg(phantom.image))
    _replace(folder / "boxes.csv", rows.getvalue().encode())
    _replace(mark, json.dumps(source, indent=2).encode() + b"\n")


def _plan(counts: Mapping[str, tuple[int, int]]) -> Iterator[tuple[str, int, int]]:
    """File, index and label of every phantom: no two files, of any split, are of one patient."""
    for part, split in enumerate(SPLITS):
        for label, number in enumerate(counts.get(split, (0, 0))):
            for index in range(number):
                file = f"{split}/{CLASSES[label]}/phantom-{split}-{index:05d}.jpeg"
                yield file, (2 * part + label) * 100_000 + index, label


def _jpeg(image: Pixels) -> bytes:
    stream = BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside it first, then renamed: an interruption leaves no half file.
    partial = path.with_name(f"phantom-{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def _soft(distance: Field, width: float) -> Field:
    """From 0 to 1 as the distance goes from -width to width: an edge as a blurred beam shows it."""
    t = distance * (0.5 / width)
    t += 0.5
    np.clip(t, 0, 1, out=t)
    edge = t * -2
    edge += 3
    edge *= t
    edge *= t
    return edge


def _noise(rng: Random, size: int, *cells: int) -> Field:
    """Smooth noise (size, size), standard deviation about 1, from grids of so many cells a side."""
    total: Field = np.zeros((cells[0], cells[0]), np.float32)
    for cell in cells:
        grid = rng.standard_normal((cell, cell), dtype=np.float32)
        # Each grid is laid over the coarser ones at its own size: one enlargement, not many.
        total = _enlarge(total, cell) + grid
    noise: Field = _enlarge(total, size) * (1.3 / len(cells) ** 0.5)
    return noise


def _enlarge(grid: Field, size: int) -> Field:
    if len(grid) == size:
        return grid
    # Bicubic where the cells are large enough to be seen.
    smooth = Image.Resampling.BICUBIC if len(grid) < 16 else Image.Resampling.BILINEAR
    enlarged: Field = np.asarray(Image.fromarray(grid).resize((size, size), smooth))
    return enlarged


def _frame(rng: Random, size: int) -> Frame:
    turn = rng.normal(0, 0.06)
    scale = rng.uniform(0.92, 1.18) * size / 2
    aspect = rng.uniform(0.92, 1.08)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = rotation @ np.diag([scale * aspect, scale / aspect])
    origin = size / 2 + rng.uniform(-0.06, 0.06, 2) * size
    back = np.linalg.inv(matrix).astype(np.float32)
    column = np.arange(size, dtype=np.float32)[None] + float(0.5 - origin[0])
    row = np.arange(size, dtype=np.float32)[:, None] + float(0.5 - origin[1])
    x = back[0, 0] * column + back[0, 1] * row + 0.018 * _noise(rng, size, 5)
    y = back[1, 0] * column + back[1, 1] * row + 0.018 * _noise(rng, size, 5)
    return Frame(size, matrix, origin, x + rng.normal(0, 0.035) * (y * y), y)


def _chest(rng: Random, frame: Frame) -> tuple[Field, Field, Field]:
    """Density of the tissue, the lung fields (0 to 1), and the density that their air takes out."""
    x, y = frame.x, frame.y
    side = np.abs(x)
    top, base = rng.uniform(-0.80, -0.66), rng.uniform(0.66, 0.82)
    width = rng.uniform(0.66, 0.80)
    arms = rng.uniform(-0.9, 1.25)  # the angle of the upper arms: raised to hanging
    t = np.clip((y - top) / (base - top), 0, 1)
    lung = 0.10 + (width - 0.10) * np.sqrt(t * (2 - t))
    wall = lung + 0.05
    q = side / wall

    heart = _heart(rng, x, y)
    above = _soft(_dome(rng, x, side, width) - y, 0.03)
    inside = _soft(lung - side, 0.03) * _soft(y - top, 0.05)
    middle = _soft(rng.uniform(0.09, 0.14) - side + 0.04 * t, 0.05)
    shadow = np.maximum(heart, middle)
    lungs = inside * above * (1 - 0.9 * shadow)

    tissue = _outline(rng, frame, wall, t, arms)
    tissue += rng.uniform(0.04, 0.16) * (1 - above) * inside
    tissue += rng.uniform(0.02, 0.09) * shadow * above
    tissue += _ribs(rng, y, q, top, (base - top) / rng.uniform(8.5, 10.0))
    tissue += _spine(rng, side, y)
    tissue += _bones(rng, frame, arms)
    tissue += 0.012 * _noise(rng, frame.size, 9, 45)
    # Less air where the lung is thin, at its rim and base, and in the side turned to the film.
    deep = (
        rng.uniform(0.37, 0.48) * (1 + rng.uniform(-0.1, 0.1) * np.sign(x))
        - rng.uniform(0.05, 0.14) * q * q
    )
    deep -= rng.uniform(-0.02, 0.10) * t
    # Vessels and texture belong to the lung: they are air missing, and vanish where it is filled.
    vessels = _vessels(rng, frame) * rng.uniform(0.2, 0.5)
    texture = np.clip(1 - vessels + 0.05 * _noise(rng, frame.size, 14, 60), 0, 1)
    return tissue, lungs, lungs * deep * texture


def _heart(rng: Random, x: Field, y: Field) -> Field:
    large = rng.uniform(0.85, 1.2)
    heart = np.zeros_like(x)
    shapes = (
        (0.12, 0.20, 0.29 * large, 0.42, -0.5),  # the ventricles
        (-0.06, 0.20, 0.17 * large, 0.32, 0.0),  # the right atrium
        (0.06, -0.14, 0.15, 0.34, -0.1),  # the great vessels
    )
    for centre_x, centre_y, width, height, turn in shapes:
        centre_x, centre_y = centre_x + rng.normal(0, 0.02), centre_y + rng.normal(0, 0.03)
        dx, dy = x - centre_x, y - centre_y
        turn += rng.normal(0, 0.08)
        cos, sin = float(np.cos(turn)), float(np.sin(turn))
        u, v = (cos * dx + sin * dy) / width, (cos * dy - sin * dx) / height
        heart = np.maximum(heart, _soft(1 - u * u - v * v, 0.25))
    return heart


def _dome(rng: Random, x: Field, side: Field, width: float) -> Field:
    """Height y of the diaphragm over every pixel; the right dome, left in the picture, higher."""
    high = rng.uniform(0.38, 0.54)
    step = rng.uniform(0.0, 0.08)
    fall: Field = np.clip((side - 0.36) / (width - 0.36), 0, 1.1)
    depth = rng.uniform(0.12, 0.3)
    near: Field = np.clip(1 - side / 0.36, 0, 1)
    return high + step * _soft(x, 0.05) + depth * fall * fall + 0.06 * near


def _outline(rng: Random, frame: Frame, wall: Field, t: Field, arms: float) -> Field:
    """Soft tissue of trunk, neck, arms and chin, about 0.6 in the middle of the chest."""
    x, y = frame.x, frame.y
    fat = rng.uniform(0.05, 0.2)
    neck = rng.uniform(0.22, 0.32)
    shoulder = rng.uniform(-0.84, -0.72)
    half = neck + (wall * (1 - t) + 0.74 * t + fat - neck) * _soft(y - shoulder, 0.14)
    half = np.maximum(half, 0.62 * _soft(y - shoulder - 0.04, 0.16))
    chord = np.clip(1 - np.square(x / half), 0, 1)
    trunk = np.sqrt(chord) * 0.30
    trunk += np.sqrt(np.sqrt(chord)) * 0.35
    layer, pen = _layer(frame)
    thick = rng.uniform(0.2, 0.3) * frame.matrix[0, 0]
    flesh = int(rng.uniform(100, 135))
    for sign in (-1, 1):
        turn = arms + rng.normal(0, 0.1)
        joint = np.array([sign * 0.68, shoulder + 0.22])
        elbow = joint + 0.9 * np.array([sign * np.cos(turn), np.sin(turn)])
        line = frame.pixels(np.array([[sign * 0.3, shoulder + 0.12], joint, elbow]))
        _disc(pen, frame, joint, np.array([0.19, 0.17]), flesh)
        pen.line(line, fill=flesh, width=int(thick), joint="curve")
    chin = np.array([rng.normal(0, 0.05), rng.uniform(-1.32, -1.1)])
    radius = np.array([rng.uniform(0.26, 0.34), rng.uniform(0.22, 0.3)])
    _disc(pen, frame, chin, radius, 190)
    outline: Field = np.maximum(trunk, _density(layer, 4 * frame.size / 224))
    return outline


def _ribs(rng: Random, y: Field, q: Field, top: float, spacing: float) -> Field:
    """Ribs as curved bands: the back ones from the spine outwards, the front ones back and down."""
    thick = rng.uniform(0.13, 0.2)
    drop, slope = rng.uniform(0.10, 0.24), rng.uniform(0.35, 0.6)
    q2 = q * q
    back = y - top - 0.16 * (q2 - q) - drop * q2 * q2
    front = y - (top + drop) - slope * (1 - q)
    cage = _soft(1 - q, 0.05) * _soft(y - (top - 0.02), 0.06)
    cage *= _soft(0.72 - y, 0.2)
    # Between them along the wall: muscle, and the pleura seen edgewise.
    density = 0.05 * _soft(q - 0.93, 0.06)
    for level, reach, strength in ((back, q - 0.1, 0.13), (front, q - 0.5, 0.085)):
        phase = level * (1 / spacing)
        off = np.abs(phase - np.round(phase)) * (1 / thick)
        # Cortex is denser than marrow: a rib is brighter along its edges.
        band = _soft(1 - off, 0.25) * (0.6 + 0.5 * off * off)
        density += (strength * rng.uniform(0.5, 0.9)) * band * _soft(reach, 0.12)
    # Along the wall the beam runs lengthwise through the ribs.
    return density * cage * (1 + 0.5 * np.clip(q2 * q2 * q2, 0, 1))


def _spine(rng: Random, side: Field, y: Field) -> Field:
    height = 1 / rng.uniform(0.10, 0.135)
    disc = np.abs(y * height - np.round(y * height)) * 2
    column = _soft(rng.uniform(0.075, 0.1) - side, 0.02)
    bone = column * (0.55 + 0.45 * _soft(disc - 0.25, 0.3))
    windpipe = _soft(0.045 - side, 0.02) * _soft(-0.22 - y, 0.06)
    return bone * rng.uniform(0.07, 0.17) - windpipe * 0.07


def _bones(rng: Random, frame: Frame, arms: float) -> Field:
    """Collar bones, shoulder blades and upper arm bones."""
    layer, pen = _layer(frame)
    unit = frame.matrix[0, 0]
    lift = rng.normal(0, 0.05)
    out = rng.uniform(0.54, 0.64)
    for sign in (-1, 1):
        shift = rng.normal(0, 0.02)
        blade = np.array([[0.0, -0.64], [0.2, -0.6], [0.1, -0.02], [0.03, -0.2]])
        blade = (blade + np.array([out - 0.06, lift + shift])) * [sign, 1]
        pen.polygon(frame.pixels(blade), fill=38)
        pen.line(frame.pixels(blade[[0, 1, 2, 3, 0]]), fill=85, width=max(1, int(0.025 * unit)))
        bow = [[0.07, -0.58], [0.2, -0.64], [0.4, -0.7], [out, -0.76], [out + 0.12, -0.74]]
        collar = (np.array(bow) + np.array([0, lift + shift])) * [sign, 1]
        head = np.array([sign * (out + 0.2), -0.62 + lift])
        elbow = head + 0.8 * np.array([sign * np.cos(arms), np.sin(arms)])
        for points, width in ((collar, 0.055), (np.stack([head, elbow]), 0.11)):
            line = frame.pixels(points)
            pen.line(line, fill=115, width=max(2, int(width * unit)), joint="curve")
            pen.line(line, fill=80, width=max(1, int(0.55 * width * unit)), joint="curve")
        _disc(pen, frame, head, np.array([0.085, 0.085]), 95)
    return _density(layer, 0.9 * frame.size / 224) * rng.uniform(0.3, 0.6)


def _vessels(rng: Random, frame: Frame) -> Field:
    """Branches from the hila outwards, 0 to 1, thick near the hilum."""
    layer, pen = _layer(frame)
    for sign in (-1, 1):
        hilum = np.array([sign * 0.16, rng.uniform(-0.12, 0.02)])
        _disc(pen, frame, hilum, np.array([0.07, 0.13]), 130)
        for angle in np.linspace(-1.25, 1.4, 9) + rng.normal(0, 0.12, 9):
            place, turn = hilum, angle
            for thick in (0.034, 0.024, 0.015):
                turn += rng.normal(0, 0.25)
                step = rng.uniform(0.10, 0.2) * np.array([sign * np.cos(turn), np.sin(turn)])
                line = frame.pixels(np.stack([place, place + step]))
                broad = max(1, int(thick * frame.matrix[0, 0]))
                pen.line(line, fill=int(4500 * thick) + 60, width=broad)
                place = place + step
    return _density(layer, 0.9 * frame.size / 224)


def _opacities(rng: Random, frame: Frame, lungs: Field) -> tuple[Field, list[Box]]:
    """How much of the air is filled, 0 to 1, and the box of each opacity."""
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
        # Seen at a glance: of 64 x 64 pixels 10 x 10, or 7 x 7 where there are several.
        if part.sum() < (0.023 if number == 1 else 0.013) * part.size:
            continue
        box = _box(part > 0.15)
        boxes.append(box)
        near = _near(box, frame.size)
        free[near] = 0
        filling = 1 - (1 - filling) * (1 - part * near)
    return filling, boxes


def _focal(rng: Random, frame: Frame, free: Field, large: float) -> Field:
    """A soft, irregular consolidation somewhere in what is free of the lungs."""
    rows, columns = np.nonzero(free > 0.6)
    pick = rng.integers(len(rows))
    place = rows[pick], columns[pick]
    centre_x, centre_y = float(frame.x[place]), float(frame.y[place])
    radius = large * rng.uniform(0.22, 0.36)
    shape = 0.15 * _noise(rng, frame.size, 10, 24)
    for _ in range(3):
        dx, dy = rng.normal(0, 0.4 * radius), rng.normal(0, 0.4 * radius)
        wide, high = radius * rng.uniform(0.6, 1.1), radius * rng.uniform(0.6, 1.1)
        u = (frame.x - (centre_x + dx)) * (1 / wide)
        v = (frame.y - (centre_y + dy)) * (1 / high)
        shape += np.exp(-(u * u + v * v))
    texture = rng.uniform(0.85, 1.0) + 0.08 * _noise(rng, frame.size, 50)
    same_lung = (frame.x > 0) == (centre_x > 0)
    opacity: Field = np.clip(_soft(shape - 0.75, 0.5) * texture, 0, 1) * same_lung
    return opacity


def _diffuse(rng: Random, frame: Frame, kind: str) -> Field:
    """Fine net and haze (interstitial) or many small clouds (patchy), over a lung or a part."""
    centre, reach = rng.uniform(-0.2, 0.3), rng.uniform(0.5, 1.0)
    zone = _soft(reach - np.abs(frame.y - centre), 0.25)
    zone *= rng.uniform(0.85, 1.0)
    if kind == "patchy":
        return _soft(_noise(rng, frame.size, 8, 18) - 0.35, 0.6) * zone
    net = np.clip(1 - np.abs(_noise(rng, frame.size, 24, 44)) * 1.2, 0, 1)
    haze = 0.4 + 0.2 * _noise(rng, frame.size, 8)
    opacity: Field = np.clip(haze + 0.4 * net, 0, 1) * zone
    return opacity


def _box(seen: npt.NDArray[np.bool_]) -> Box:
    """The smallest box around what is seen, but for rows and columns of a speck or two."""
    speck = len(seen) // 50
    rows = np.nonzero(np.count_nonzero(seen, axis=1) > speck)[0]
    columns = np.nonzero(np.count_nonzero(seen, axis=0) > speck)[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _near(box: Box, size: int) -> npt.NDArray[np.bool_]:
    """The box and a margin of it: beyond, an opacity's faint skirt is cut."""
    left, top, right, bottom = box
    margin = size // 40
    near = np.zeros((size, size), bool)
    near[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin] = True
    return near


def _distractors(rng: Random, frame: Frame, density: Field, lungs: Field) -> Field:
    """What tells nothing of the label: patches outside the lungs, leads, tubes, letters."""
    for _ in range(int(rng.integers(0, 4))):
        density = density + _patch(rng, frame) * (1 - lungs)
    layer, pen = _layer(frame)
    if rng.random() < 0.35:
        _leads(rng, frame, pen)
    if rng.random() < 0.25:
        _tube(rng, frame, pen)
    if rng.random() < 0.8:
        _letters(rng, frame, pen)
    metal = rng.uniform(0.5, 1.0) * _density(layer, 0.5 * frame.size / 224)
    return density + metal


def _patch(rng: Random, frame: Frame) -> Field:
    """A cloud, bright or dark: gas in the bowel, folds, a calcified node; its place is anywhere."""
    centre_x, centre_y = rng.uniform(-1, 1), rng.uniform(-1, 1)
    if rng.random() < 0.5:  # in the belly
        centre_x, centre_y = rng.uniform(-0.2, 0.7), rng.uniform(0.6, 1.0)
    wide, high = rng.uniform(0.08, 0.28), rng.uniform(0.08, 0.28)
    u = (frame.x - centre_x) * (1 / wide)
    v = (frame.y - centre_y) * (1 / high)
    shape = 1 - u * u - v * v + 0.3 * _noise(rng, frame.size, 12, 24)
    return _soft(shape, 0.5) * (-0.2 if rng.random() < 0.5 else 0.2) * rng.uniform(0.5, 1.2)


def _leads(rng: Random, frame: Frame, pen: ImageDraw.ImageDraw) -> None:
    for _ in range(int(rng.integers(1, 4))):
        start = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.7, 0.6)])
        end = np.array([rng.uniform(-1.2, 1.2), rng.choice([-1.2, 1.2])])
        bend = (start + end) / 2 + rng.normal(0, 0.3, 2)
        t = np.linspace(0, 1, 16)[:, None]
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
        pen.line(frame.pixels(curve), fill=int(rng.uniform(50, 110)), width=_broad(frame, 0.012))
        _disc(pen, frame, start, np.array([0.045, 0.045]), 90)
        _disc(pen, frame, start, np.array([0.02, 0.02]), 160)


def _tube(rng: Random, frame: Frame, pen: ImageDraw.ImageDraw) -> None:
    end = rng.choice([-0.3, 0.75])  # in the windpipe or in the stomach
    t = np.linspace(0, 1, 12)
    x = rng.normal(0, 0.02) + 0.02 * np.sin(5 * t) + (0.12 * t**4 if end > 0 else 0 * t)
    line = frame.pixels(np.stack([x, -1.2 + t * (1.2 + end)], axis=1))
    pen.line(line, fill=70, width=_broad(frame, 0.035))
    pen.line(line, fill=35, width=_broad(frame, 0.018))


def _letters(rng: Random, frame: Frame, pen: ImageDraw.ImageDraw) -> None:
    """The side's letter and sometimes the exposure, burnt in as a workstation does."""
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


def _film(rng: Random, density: Field) -> Pixels:
    """Density to grey values 0 to 255: exposure, contrast, blur, collimation and grain."""
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
    """1 in the open field, near 0 under the shutters, each side shut or not by itself."""
    shutters = np.ones((size, size), np.float32)
    for turns in range(4):
        wide = int(rng.uniform(0.0, 0.06) * size)
        if rng.random() < 0.25:
            np.rot90(shutters, turns)[:wide] = 0.03
    return shutters


def _layer(frame: Frame) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    layer = Image.new("L", (frame.size, frame.size))
    return layer, ImageDraw.Draw(layer)


def _density(layer: Image.Image, blur: float) -> Field:
    blurred = layer.filter(ImageFilter.BoxBlur(blur))
    return np.asarray(blurred, np.float32) * (1 / 255)


def _disc(
    pen: ImageDraw.ImageDraw,
    frame: Frame,
    centre: npt.NDArray[np.float64],
    radius: npt.NDArray[np.float64],
    fill: int,
) -> None:
    turn = np.linspace(0, 2 * np.pi, 25)[:-1, None]
    rim = centre + radius * np.concatenate([np.cos(turn), np.sin(turn)], axis=1)
    pen.polygon(frame.pixels(rim), fill=fill)


def _broad(frame: Frame, width: float) -> int:
    return max(1, round(width * float(frame.matrix[0, 0])))
