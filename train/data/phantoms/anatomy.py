"""The chest without disease: outline, lungs, heart, diaphragm, bones and vessels."""

import numpy as np

from train.data.phantoms.canvas import (
    Field,
    Frame,
    Random,
    draw_disc,
    layer_density,
    new_layer,
    smooth_noise,
    soft_edge,
)


def random_chest(rng: Random, frame: Frame) -> tuple[Field, Field, Field]:
    """Tissue density, lung fields (0 to 1) and the density that air subtracts, each (S, S)."""
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
    above = soft_edge(_dome(rng, x, side, width) - y, 0.03)
    inside = soft_edge(lung - side, 0.03) * soft_edge(y - top, 0.05)
    middle = soft_edge(rng.uniform(0.09, 0.14) - side + 0.04 * t, 0.05)
    shadow = np.maximum(heart, middle)
    lungs = inside * above * (1 - 0.9 * shadow)

    tissue = _outline(rng, frame, wall, t, arms)
    tissue += rng.uniform(0.04, 0.16) * (1 - above) * inside
    tissue += rng.uniform(0.02, 0.09) * shadow * above
    tissue += _ribs(rng, y, q, top, (base - top) / rng.uniform(8.5, 10.0))
    tissue += _spine(rng, side, y)
    tissue += _bones(rng, frame, arms)
    tissue += 0.012 * smooth_noise(rng, frame.size, 9, 45)
    # Less air where the lung is thin (rim and base), and on the side rotated towards the film.
    deep = (
        rng.uniform(0.37, 0.48) * (1 + rng.uniform(-0.1, 0.1) * np.sign(x))
        - rng.uniform(0.05, 0.14) * q * q
    )
    deep -= rng.uniform(-0.02, 0.10) * t
    # Vessels and texture are missing air: they vanish where an opacity fills the lung.
    vessels = _vessels(rng, frame) * rng.uniform(0.2, 0.5)
    texture = np.clip(1 - vessels + 0.05 * smooth_noise(rng, frame.size, 14, 60), 0, 1)
    return tissue, lungs, lungs * deep * texture


def _heart(rng: Random, x: Field, y: Field) -> Field:
    """The heart and the great vessels (S, S), 0 to 1: three blurred ellipses."""
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
        heart = np.maximum(heart, soft_edge(1 - u * u - v * v, 0.25))
    return heart


def _dome(rng: Random, x: Field, side: Field, width: float) -> Field:
    """Height y of the diaphragm at every pixel (S, S); the patient's right dome is higher."""
    high = rng.uniform(0.38, 0.54)
    step = rng.uniform(0.0, 0.08)
    fall: Field = np.clip((side - 0.36) / (width - 0.36), 0, 1.1)
    depth = rng.uniform(0.12, 0.3)
    near: Field = np.clip(1 - side / 0.36, 0, 1)
    return high + step * soft_edge(x, 0.05) + depth * fall * fall + 0.06 * near


def _outline(rng: Random, frame: Frame, wall: Field, t: Field, arms: float) -> Field:
    """Soft tissue density (S, S) of trunk, neck, arms and chin, about 0.6 in mid-chest."""
    x, y = frame.x, frame.y
    fat = rng.uniform(0.05, 0.2)
    neck = rng.uniform(0.22, 0.32)
    shoulder = rng.uniform(-0.84, -0.72)
    half = neck + (wall * (1 - t) + 0.74 * t + fat - neck) * soft_edge(y - shoulder, 0.14)
    half = np.maximum(half, 0.62 * soft_edge(y - shoulder - 0.04, 0.16))
    chord = np.clip(1 - np.square(x / half), 0, 1)
    trunk = np.sqrt(chord) * 0.30
    trunk += np.sqrt(np.sqrt(chord)) * 0.35
    layer, pen = new_layer(frame)
    thick = rng.uniform(0.2, 0.3) * frame.matrix[0, 0]
    flesh = int(rng.uniform(100, 135))
    for sign in (-1, 1):
        turn = arms + rng.normal(0, 0.1)
        joint = np.array([sign * 0.68, shoulder + 0.22])
        elbow = joint + 0.9 * np.array([sign * np.cos(turn), np.sin(turn)])
        line = frame.pixels(np.array([[sign * 0.3, shoulder + 0.12], joint, elbow]))
        draw_disc(pen, frame, joint, np.array([0.19, 0.17]), flesh)
        pen.line(line, fill=flesh, width=int(thick), joint="curve")
    chin = np.array([rng.normal(0, 0.05), rng.uniform(-1.32, -1.1)])
    radius = np.array([rng.uniform(0.26, 0.34), rng.uniform(0.22, 0.3)])
    draw_disc(pen, frame, chin, radius, 190)
    outline: Field = np.maximum(trunk, layer_density(layer, 4 * frame.size / 224))
    return outline


def _ribs(rng: Random, y: Field, q: Field, top: float, spacing: float) -> Field:
    """Rib density (S, S): curved bands, from the spine outwards and then down to the front."""
    thick = rng.uniform(0.13, 0.2)
    drop, slope = rng.uniform(0.10, 0.24), rng.uniform(0.35, 0.6)
    q2 = q * q
    back = y - top - 0.16 * (q2 - q) - drop * q2 * q2
    front = y - (top + drop) - slope * (1 - q)
    cage = soft_edge(1 - q, 0.05) * soft_edge(y - (top - 0.02), 0.06)
    cage *= soft_edge(0.72 - y, 0.2)
    # Between the ribs along the wall: muscle, and the pleura seen edge-on.
    density = 0.05 * soft_edge(q - 0.93, 0.06)
    for level, reach, strength in ((back, q - 0.1, 0.13), (front, q - 0.5, 0.085)):
        phase = level * (1 / spacing)
        off = np.abs(phase - np.round(phase)) * (1 / thick)
        # Cortex is denser than marrow: a rib is brighter along its edges.
        band = soft_edge(1 - off, 0.25) * (0.6 + 0.5 * off * off)
        density += (strength * rng.uniform(0.5, 0.9)) * band * soft_edge(reach, 0.12)
    # Along the wall the beam runs lengthwise through the ribs.
    return density * cage * (1 + 0.5 * np.clip(q2 * q2 * q2, 0, 1))


def _spine(rng: Random, side: Field, y: Field) -> Field:
    """Density (S, S) of the vertebrae, less the air of the windpipe."""
    height = 1 / rng.uniform(0.10, 0.135)
    disc = np.abs(y * height - np.round(y * height)) * 2
    column = soft_edge(rng.uniform(0.075, 0.1) - side, 0.02)
    bone = column * (0.55 + 0.45 * soft_edge(disc - 0.25, 0.3))
    windpipe = soft_edge(0.045 - side, 0.02) * soft_edge(-0.22 - y, 0.06)
    return bone * rng.uniform(0.07, 0.17) - windpipe * 0.07


def _bones(rng: Random, frame: Frame, arms: float) -> Field:
    """Density (S, S) of collar bones, shoulder blades and upper arm bones."""
    layer, pen = new_layer(frame)
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
        draw_disc(pen, frame, head, np.array([0.085, 0.085]), 95)
    return layer_density(layer, 0.9 * frame.size / 224) * rng.uniform(0.3, 0.6)


def _vessels(rng: Random, frame: Frame) -> Field:
    """Vessels (S, S), 0 to 1: branches from the hila outwards, thick near the hilum."""
    layer, pen = new_layer(frame)
    for sign in (-1, 1):
        hilum = np.array([sign * 0.16, rng.uniform(-0.12, 0.02)])
        draw_disc(pen, frame, hilum, np.array([0.07, 0.13]), 130)
        for angle in np.linspace(-1.25, 1.4, 9) + rng.normal(0, 0.12, 9):
            place, turn = hilum, angle
            for thick in (0.034, 0.024, 0.015):
                turn += rng.normal(0, 0.25)
                step = rng.uniform(0.10, 0.2) * np.array([sign * np.cos(turn), np.sin(turn)])
                line = frame.pixels(np.stack([place, place + step]))
                broad = max(1, int(thick * frame.matrix[0, 0]))
                pen.line(line, fill=int(4500 * thick) + 60, width=broad)
                place = place + step
    return layer_density(layer, 0.9 * frame.size / 224)
