"""Milliseconds to an overlay's PNG, beside matplotlib's: `python -m benchmarks.overlay`.

Both draw the same: the image enlarged to the same side, the map's positive part over it in inferno,
opacity growing with it. They take turns, and each pair gives a ratio.
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


def with_matplotlib(pixels: Pixels, evidence: Map, scale: float) -> bytes:
    side = pixels.shape[0] * -(-heatmap.SIDE // pixels.shape[0])
    figure = plt.figure(figsize=(side / 100, side / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    extent = (0.0, 1.0, 1.0, 0.0)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="bicubic", extent=extent)
    size = (side, side)
    large = Image.fromarray(evidence).resize(size, Image.Resampling.BICUBIC)
    shown = np.clip(np.asarray(large) / scale, 0, 1)
    opacity = heatmap.OPACITY * shown
    axes.imshow(shown, cmap="inferno", vmin=0, vmax=1, alpha=opacity, extent=extent)
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
    parser.add_argument("--size", type=int, default=224, help="pixels a side of the image")
    parser.add_argument("--cells", type=int, default=7, help="cells a side of the map")
    parser.add_argument("--pairs", type=int, default=30)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    # As smooth as a radiograph is: of pure noise a PNG would be all that is measured.
    coarse = random.integers(0, 256, (options.size // 8, options.size // 8), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((options.size,) * 2, Image.Resampling.BICUBIC)
    pixels = np.asarray(smooth)
    cells = random.normal(0, 1, (options.cells, options.cells)).astype(np.float32)
    drawers = (heatmap.overlay, with_matplotlib)
    for draw in drawers:  # the first call imports and fills caches
        milliseconds(draw, pixels, cells)
    pairs = [[milliseconds(draw, pixels, cells) for draw in drawers] for _ in range(options.pairs)]
    ratios = [theirs / ours for ours, theirs in pairs]
    low, *_, high = statistics.quantiles(ratios, n=20)
    ours, theirs = np.median(np.array(pairs), axis=0)
    print(
        f"overlay of {options.size} px, {options.cells}x{options.cells} cells: "
        f"ours {ours:.1f} ms, matplotlib {theirs:.1f} ms; "
        f"ratio {statistics.median(ratios):.1f} (5% to 95%: {low:.1f} to {high:.1f})"
    )


if __name__ == "__main__":
    main()
