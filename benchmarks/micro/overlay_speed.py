"""Milliseconds to draw an overlay as PNG, against matplotlib.

`python -m benchmarks.micro.overlay_speed`. Both draw the same: the image enlarged to the same side,
and over it the map's positive part in inferno, with opacity in proportion. They run in turns, and
each pair gives a ratio.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable

import matplotlib

matplotlib.use("Agg")

import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt
from PIL import Image

from handlers import heatmap
from handlers.arrays import Pixels

Map = npt.NDArray[np.float32]


def matplotlib_overlay(pixels: Pixels, cells: Map, scale: float) -> bytes:
    """The PNG that matplotlib draws for the arguments of `heatmap.overlay`."""
    side = pixels.shape[0] * -(-heatmap.SIDE // pixels.shape[0])
    figure = plt.figure(figsize=(side / 100, side / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    extent = (0.0, 1.0, 1.0, 0.0)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="bicubic", extent=extent)
    size = (side, side)
    large = Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)
    evidence = np.clip(np.asarray(large) / scale, 0, 1)
    opacity = heatmap.OPACITY * evidence
    axes.imshow(evidence, cmap="inferno", vmin=0, vmax=1, alpha=opacity, extent=extent)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    plt.close(figure)
    return file.getvalue()


def milliseconds(draw: Callable[[Pixels, Map, float], bytes], pixels: Pixels, cells: Map) -> float:
    started = time.perf_counter()
    draw(pixels, cells, 2.0)
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=224, help="side of the image in pixels")
    parser.add_argument("--cells", type=int, default=7, help="side of the map in cells")
    parser.add_argument("--pairs", type=int, default=30)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    # Smooth like a radiograph: with noise, packing the PNG would dominate the time.
    coarse = random.integers(0, 256, (options.size // 8, options.size // 8), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((options.size,) * 2, Image.Resampling.BICUBIC)
    pixels = np.asarray(smooth)
    cells = random.normal(0, 1, (options.cells, options.cells)).astype(np.float32)
    drawers = (heatmap.overlay, matplotlib_overlay)
    for draw in drawers:  # the first call imports and fills caches
        milliseconds(draw, pixels, cells)
    pairs = [[milliseconds(draw, pixels, cells) for draw in drawers] for _ in range(options.pairs)]
    ratios = [reference / overlay for overlay, reference in pairs]
    low, *_, high = statistics.quantiles(ratios, n=20)
    overlay, reference = np.median(np.array(pairs), axis=0)
    print(
        f"overlay of {options.size} px, {options.cells}x{options.cells} cells: "
        f"handlers.heatmap {overlay:.1f} ms, matplotlib {reference:.1f} ms; "
        f"ratio {statistics.median(ratios):.1f} (5% to 95%: {low:.1f} to {high:.1f})"
    )


if __name__ == "__main__":
    main()
