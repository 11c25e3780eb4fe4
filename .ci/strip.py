"""The README's figure, docs/strip.png: X-ray, map, overlay and JSON of two test images.

`python .ci/strip.py DATA` sends images of DATA/test to the running server (make serve) and takes
the first right answer and the first wrong one, by file name.
"""

import base64
import io
import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from PIL import Image

from client import predict

HEIGHT = 300  # pixels, at most
CELLS = 4  # X-ray, map, overlay, JSON
EXAMPLES = (("PNEUMONIA", True), ("NORMAL", False))  # actual class; whether the answer is right


def first(folder: Path, actual: str, right: bool) -> tuple[Path, dict]:
    """The first image of a class whose answer is right (or wrong), with the answer."""
    for path in sorted((folder / "test" / actual).iterdir()):
        answer = predict.ask(path.read_bytes(), predict.Question(save=Path("unused")))
        if (answer["label"] == actual) == right:
            return path, answer
    raise SystemExit(f"{folder} has no image of {actual} with such an answer")


def draw(
    axes: np.ndarray[tuple[int], np.dtype[np.object_]], actual: str, path: Path, answer: dict
) -> None:
    """Draw X-ray, map, overlay and JSON into four axes."""
    heatmap = answer["heatmap"]
    cells = np.array(heatmap["map"])
    limit = np.abs(cells).max()
    axes[0].imshow(Image.open(path).convert("L"), cmap="gray", vmin=0, vmax=255)
    axes[1].imshow(cells, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes[2].imshow(Image.open(io.BytesIO(base64.b64decode(heatmap["overlay"]))))
    right = answer["label"] == actual
    lines = [
        f'"label": "{answer["label"]}",',
        f'"probability": {answer["probability"]["PNEUMONIA"]:.4f},',
        f'"threshold": {answer["threshold"]:.4f},',
        f'"mean(map)": {cells.mean():.4f},',
        f'"bias": {heatmap["bias"]:.4f},',
        f'"logit": {answer["logit"][heatmap["class"]]:.4f}',
    ]
    axes[3].text(0, 0.5, "\n".join(lines), family="monospace", fontsize=8, va="center")
    axes[0].set_title(f"actual {actual}", fontsize=9)
    axes[1].set_title(f"map of {heatmap['class']}", fontsize=9)
    axes[2].set_title("overlay", fontsize=9)
    colour = "black" if right else "firebrick"
    axes[3].set_title("right answer" if right else "wrong answer", fontsize=9, color=colour)


def main(folder: Path, target: Path = Path("docs/strip.png")) -> None:
    """Draw the figure of two images of a data set and save it."""
    matplotlib.use("Agg")
    dpi = 150
    figure, grid = plt.subplots(
        1, CELLS * len(EXAMPLES), figsize=(13, HEIGHT / dpi), dpi=dpi, layout="constrained"
    )
    axis: Axes
    for axis in grid:
        axis.axis("off")
    for number, (actual, right) in enumerate(EXAMPLES):
        path, answer = first(folder, actual, right)
        draw(grid[CELLS * number :][:CELLS], actual, path, answer)
    figure.savefig(target, dpi=dpi)
    print(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
